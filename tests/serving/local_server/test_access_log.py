"""Access log: one JSON line per request, without delaying a request."""

import json
import logging
import threading

import pytest

from serving.local_server.access_log import AccessLog, format_line
from serving.local_server.call import Call
from usr_tf.errors import InputError


def ended(**known):
    return Call("Predict", "GRPC", "ipv4:127.0.0.1:7", arrived=10.0, started=10.25, ended=11.0, **known)


def test_a_line_tells_what_is_known():
    call = ended(model="usr", version=3, signature="search", candidates=500)
    line = json.loads(format_line(call))
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "peer": "ipv4:127.0.0.1:7",
        "entrypoint": "GRPC",
        "method": "Predict",
        "model": "usr",
        "version": 3,
        "signature": "search",
        "candidates": 500,
        "status": "OK",
        "queued_ms": 250.0,
        "run_ms": 750.0,
    }


def test_a_request_that_was_refused_waited_and_did_not_run():
    line = json.loads(format_line(Call("Predict", "REST", arrived=10.0, ended=10.5, status="RESOURCE_EXHAUSTED")))
    assert (line["queued_ms"], line["run_ms"]) == (500.0, 0.0)
    assert (line["model"], line["version"], line["candidates"]) == (None, None, None)


def test_whatever_a_client_sends_is_one_line_of_bounded_length():
    call = Call("Predict", "GRPC", arrived=0.0, ended=0.0)
    call.ask("a\nb" * 10_000, '"\u2028')
    line = format_line(call)
    assert "\n" not in line
    assert len(line) < 1000
    assert json.loads(line)["signature"] == '"\u2028'


def test_lines_are_appended_and_a_rotated_file_is_opened_again(tmp_path):
    path = tmp_path / "access.log"
    path.write_text("before\n")
    log = AccessLog(str(path))
    log.write(ended())
    log.close()
    assert len(path.read_text().splitlines()) == 2

    log = AccessLog(str(path))
    path.rename(tmp_path / "access.log.1")
    log.write(ended())
    log.close()
    assert len(path.read_text().splitlines()) == 1


def test_a_file_that_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(InputError, match="no writable file"):
        AccessLog(str(tmp_path / "absent" / "access.log"))


def test_a_disk_that_fails_costs_lines_and_nothing_else(tmp_path, caplog):
    log = AccessLog("/dev/full")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            log.write(ended())
        log.close()
    assert log.dropped == 3
    assert len(caplog.records) == 1


def test_a_disk_that_hangs_costs_lines_and_nothing_else(tmp_path, monkeypatch):
    hang, hung = threading.Event(), threading.Event()
    log = AccessLog(str(tmp_path / "access.log"), max_waiting=2)
    monkeypatch.setattr(log._handler, "emit", lambda _: (hung.set(), hang.wait(20)))
    log.write(ended())
    assert hung.wait(20)
    for _ in range(5):
        log.write(ended())
    assert log.dropped == 3
    hang.set()
    log.close()


def test_a_line_tells_of_the_end_though_it_is_written_later(tmp_path, monkeypatch):
    path = tmp_path / "access.log"
    log = AccessLog(str(path))
    hang, emit = threading.Event(), log._handler.emit
    monkeypatch.setattr(log._handler, "emit", lambda record: (hang.wait(20), emit(record)))
    log.write(ended())
    call = ended(status="CANCELLED")
    log.write(call)
    call.status, call.version = "OK", 3  # its client has hung up, but the worker is at it still
    hang.set()
    log.close()
    last = json.loads(path.read_text().splitlines()[-1])
    assert (last["status"], last["version"]) == ("CANCELLED", None)
