"""Request log: records of clients and of the server, rotation, a killed writer, a full disk."""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from serving.client import Ranker, RestRanker
from serving.local_server import serve_in_background
from serving.request_log import RequestLog, _File, make_record
from usr_tf.errors import InputError

DOCUMENT = {
    "request_id": "r1",
    "scenario": "search",
    "inputs": {
        "user_id": "ann",
        "query": "tea",
        "item_id": ["b", "ü"],
        "price": [0.5, 1.5],
        "attributes": [["x"], []],
        "history_item_id": ["a"],
    },
}


def read(directory):
    files = sorted(directory.glob("requests-*.jsonl.gz"))
    return [json.loads(line) for path in files for line in gzip.decompress(path.read_bytes()).splitlines()]


def record(number):
    outputs = {"ctr": [0.5]}
    return make_record(
        "search", {"n": number}, outputs, model="usr", version=1, latency_seconds=0.001, timestamp=number
    )


@pytest.mark.parametrize("kind", [Ranker, RestRanker])
def test_a_client_logs_what_it_sent_and_got(export, tmp_path, kind):
    base = export(7).parent
    with serve_in_background(base, rest_port=0) as server, RequestLog(tmp_path / "log") as log:
        address = server.address if kind is Ranker else server.rest_address
        with kind(address, request_log=log) as ranker:
            ranking = ranker.score("search", DOCUMENT, "1 - ctr")
            ranker.score("search", {**DOCUMENT, "request_id": "r2"})
    first, second = read(tmp_path / "log")
    assert (first["request_id"], first["scenario"], first["model"], second["request_id"]) == (
        "r1",
        "search",
        "usr",
        "r2",
    )
    assert first["inputs"] == DOCUMENT["inputs"]
    assert [DOCUMENT["inputs"]["item_id"][row] for row in first["order"]] == [row["item_id"] for row in ranking]
    scores = {row["item_id"]: row["ctcvr"] for row in ranking}
    assert [scores["b"], scores["ü"]] == pytest.approx(first["outputs"]["ctcvr"])
    assert first["latency_ms"] > 0
    assert first["version"] == (7 if kind is Ranker else None)  # which REST does not tell


def test_the_server_logs_documents_that_can_be_asked_again(export, tmp_path):
    base = export(7).parent
    with serve_in_background(base, request_log=str(tmp_path / "log")) as server, Ranker(server.address) as ranker:
        ranking = ranker.score("search", DOCUMENT)
        ranker.predict("search_examples", {"examples": np.array([], dtype=object)})  # no request of documents
    [logged] = read(tmp_path / "log")
    assert logged["inputs"] == {**DOCUMENT["inputs"], "attributes": [["x"], [""]]}
    assert (logged["version"], logged["order"], len(logged["request_id"])) == (7, None, 32)
    assert sorted(logged["outputs"]["ctr"]) == pytest.approx(sorted(row["ctr"] for row in ranking))


def test_files_are_hidden_until_complete_and_rotate_by_size(tmp_path):
    with RequestLog(tmp_path, max_bytes=400) as log:
        assert [path.name[0] for path in tmp_path.iterdir()] == ["."]
        for number in range(9):
            log.write(lambda number=number: record(number))
    assert len([*tmp_path.iterdir()]) > 2
    assert [each["inputs"]["n"] for each in read(tmp_path)] == [*range(9)]
    with RequestLog(tmp_path / "none", sample=0) as log:
        assert not log.wants()
    assert [*(tmp_path / "none").iterdir()] == []  # an empty file is no file


def test_lines_of_a_killed_process_are_kept(tmp_path):
    program = f"""
import os, time
from serving.request_log import RequestLog
from tests.serving.test_request_log import record
log = RequestLog({str(tmp_path)!r})
for number in range(50):
    log.write(lambda number=number: record(number))
while log._file.bytes == 0 or log._file._unflushed:
    time.sleep(0.05)
log._file._raw.write(b"half a block")
log._file._raw.flush()
print("flushed", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"flushed\n"
        os.kill(process.pid, signal.SIGKILL)
    assert read(tmp_path) == []
    with RequestLog(tmp_path):
        pass
    assert [each["inputs"]["n"] for each in read(tmp_path)] == [*range(50)]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_log_fails_no_request(tmp_path, caplog):
    log = RequestLog(tmp_path, max_waiting=1)
    held, taken = threading.Event(), threading.Event()

    def slow():
        taken.set()
        held.wait(10)
        raise OSError("no space left")

    log.write(slow)
    assert taken.wait(10)
    log.write(lambda: record(1))
    log.write(lambda: record(2))  # the queue is full
    held.set()
    log.close()
    assert log.dropped == 2
    assert [each["inputs"]["n"] for each in read(tmp_path)] == [1]
    assert "The request log cannot be written" in caplog.text


def test_a_write_that_fails_half_way_breaks_no_file(tmp_path, monkeypatch):
    whole = _File.write

    def write(self, record):
        if record["inputs"]["n"] == 5:
            self.flush()
            self._raw.write(b"half a block")
            raise OSError("no space left")
        whole(self, record)

    monkeypatch.setattr(_File, "write", write)
    with RequestLog(tmp_path) as log:
        for number in range(9):
            log.write(lambda number=number: record(number))
    assert log.dropped == 1
    assert [each["inputs"]["n"] for each in read(tmp_path)] == [0, 1, 2, 3, 4, 6, 7, 8]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_directory_that_cannot_be_written_and_a_wrong_share_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="no writable directory"):
        RequestLog(tmp_path / "file")
    with pytest.raises(InputError, match=r"sample: found 1.5, expected a share from 0 to 1"):
        RequestLog(tmp_path, sample=1.5)
