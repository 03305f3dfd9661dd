"""Atomicity of log directories."""

import gzip
import json

import numpy as np
import pytest

from pipelines.logs.writer import LogWriter, open_shard
from usr_tf.errors import InputError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def rows(path):
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_rows_go_to_numbered_shards_in_order(tmp_path):
    with LogWriter(tmp_path / "logs", "scenarios: [a]\n", rows_per_shard=2) as logs:
        for index in range(5):
            logs.write("actions", {"index": index})
        logs.write_lines("users", [b'{"user_id":"u"}'])
    assert names(tmp_path / "logs") == [
        "actions-00000-of-00003.jsonl.gz",
        "actions-00001-of-00003.jsonl.gz",
        "actions-00002-of-00003.jsonl.gz",
        "impressions-00000-of-00001.jsonl.gz",
        "items-00000-of-00001.jsonl.gz",
        "schema.yaml",
        "users-00000-of-00001.jsonl.gz",
    ]
    shards = [rows(tmp_path / "logs" / f"actions-0000{shard}-of-00003.jsonl.gz") for shard in range(3)]
    assert shards == [[{"index": 0}, {"index": 1}], [{"index": 2}, {"index": 3}], [{"index": 4}]]
    assert (tmp_path / "logs" / "schema.yaml").read_text() == "scenarios: [a]\n"
    assert logs.counts == {"impressions": 0, "actions": 5, "items": 0, "users": 1}
    assert names(tmp_path) == ["logs"]


def test_a_full_last_shard_is_followed_by_no_empty_one(tmp_path):
    with LogWriter(tmp_path / "logs", "", rows_per_shard=2) as logs:
        logs.write_lines("items", [b"{}"] * 4)
    assert [name for name in names(tmp_path / "logs") if name.startswith("items")] == [
        "items-00000-of-00002.jsonl.gz",
        "items-00001-of-00002.jsonl.gz",
    ]


def test_finished_files_become_shards_in_the_order_they_are_added(tmp_path):
    with LogWriter(tmp_path / "logs", "") as logs:
        logs.write("items", {"index": 0})
        for index in (1, 2):
            path = logs.folder / f"made-elsewhere-{index}"
            with open_shard(path) as file:
                file.write(b'{"index":%d}\n' % index)
            logs.add_shard("items", path, rows=1)
        logs.write("items", {"index": 3})
    shards = [path for path in sorted((tmp_path / "logs").iterdir()) if path.name.startswith("items")]
    assert [path.name for path in shards] == [f"items-0000{index}-of-00004.jsonl.gz" for index in range(4)]
    assert [rows(path) for path in shards] == [[{"index": index}] for index in range(4)]
    assert logs.counts["items"] == 4
    assert not any(name.startswith("made") for name in names(tmp_path / "logs"))


def test_the_same_rows_give_the_same_bytes(tmp_path, monkeypatch):
    contents = []
    for name, now in (("first", 1.0), ("second", 2e9)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        with LogWriter(tmp_path / name, "", rows_per_shard=10) as logs:
            for index in range(25):
                logs.write("impressions", {"index": index})
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]


def test_numpy_values_are_written_as_numbers(tmp_path):
    with LogWriter(tmp_path / "logs", "") as logs:
        logs.write("items", {"price": np.float32(0.5), "count": np.int64(3), "list": np.array([1, 2])})
    assert rows(tmp_path / "logs" / "items-00000-of-00001.jsonl.gz") == [{"price": 0.5, "count": 3, "list": [1, 2]}]


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_an_exception_leaves_nothing(tmp_path, error):
    logs = LogWriter(tmp_path / "logs", "").__enter__()
    logs.write("items", {"item_id": "i"})
    assert names(tmp_path) == [logs.folder.name]
    assert not logs.__exit__(type(error), error, None)  # the exception goes on
    assert names(tmp_path) == []


def test_nothing_has_the_name_before_the_end_and_other_files_come_along(tmp_path):
    with LogWriter(tmp_path / "a" / "logs", "") as logs:
        (logs.folder / "import.json").write_text("{}")
        assert not (tmp_path / "a" / "logs").exists()
    assert (tmp_path / "a" / "logs" / "import.json").read_text() == "{}"


def test_an_empty_directory_is_taken_over(tmp_path):
    (tmp_path / "logs").mkdir()
    with LogWriter(tmp_path / "logs", ""):
        pass
    assert "schema.yaml" in names(tmp_path / "logs")


def test_what_is_there_is_refused_and_kept(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    (tmp_path / "file").write_text("kept")
    for out in ("full", "file"):
        with pytest.raises(InputError, match=r"found something there already, expected a new or empty"):
            LogWriter(tmp_path / out, "").__enter__()
    with pytest.raises(InputError, match="file/logs: found no way to write there"):
        LogWriter(tmp_path / "file" / "logs", "").__enter__()
    assert names(tmp_path) == ["file", "full"]
    assert (tmp_path / "full" / "mine").read_text() == (tmp_path / "file").read_text() == "kept"


def test_a_directory_that_fills_up_meanwhile_is_kept(tmp_path):
    logs = LogWriter(tmp_path / "logs", "").__enter__()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "theirs").write_text("kept")
    with pytest.raises(InputError, match="no way to write there"):
        logs.__exit__(None, None, None)
    assert names(tmp_path) == ["logs"]
    assert names(tmp_path / "logs") == ["theirs"]


def test_unknown_tables_and_empty_shards_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Received: table='clicks'"), LogWriter(tmp_path / "logs", "") as logs:
        logs.write("clicks", {})
    with pytest.raises(ValueError, match="Received: rows_per_shard=0"):
        LogWriter(tmp_path / "logs", "", rows_per_shard=0)
