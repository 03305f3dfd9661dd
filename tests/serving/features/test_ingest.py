"""Ingest of events: files, pipes and Kafka; killed and started again; and the bulk load of the same events."""

import collections
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks.replay_parity import compare, replay
from serving.features import FeatureStore, open_store
from serving.features.ingest import ingest
from serving.features.sources import FileSource, KafkaSource, StreamSource
from serving.formats.logged_requests import read_requests
from tests.pipelines.conftest import _shop, made  # noqa: F401  (fixtures)
from tests.pipelines.random_logs import shown
from tests.pipelines.test_counters import SCHEMA, many_logs
from tests.serving.features.memory import memory_store
from usr_tf.cli import main
from usr_tf.errors import InputError
from usr_tf.schema import load_schema, parse_schema

ROOT = Path(__file__).parents[3]
BAD = ['{"user_id": "u"', "[1]", '{"place": 1}', json.dumps({**shown("r", 1), "scenario": "shop"}), ""]


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """Events of a shop, some late, some twice, and lines that are none."""
    tables = many_logs(seed=3)
    rows = [*tables["items"], *tables["users"]]
    events = [*tables["impressions"], *tables["actions"]]
    draw = random.Random(0)
    events += draw.sample(events, 50)
    events.sort(key=lambda row: row["timestamp"] + draw.randrange(20))
    found = [json.dumps(row, ensure_ascii=False) for row in [*rows, *events]]
    for line in BAD:
        found.insert(draw.randrange(len(found)), line)
    return found


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def values_of(store: FeatureStore) -> dict:
    """All values of a SQLite store or one in memory."""
    if hasattr(store.backend, "values"):
        return dict(store.backend.values)
    return dict(store.backend._connect().execute("SELECT key, value FROM features"))


def without_offsets(values: dict) -> dict:
    return {key: value for key, value in values.items() if not key.startswith("offset:")}


@pytest.fixture(scope="module")
def expected(lines) -> dict:
    store = memory_store(parse_schema(SCHEMA))
    read, write_end = os.pipe()
    with os.fdopen(write_end, "w") as pipe:
        thread = threading.Thread(target=lambda: pipe.write("".join(f"{line}\n" for line in lines)) and pipe.close())
        thread.start()
        ingested = ingest(store, StreamSource(read), batch=7)
        thread.join()
    os.close(read)
    reasons = {"broken_json": 1, "not_an_object": 1, "no_table": 1, "unknown_scenario": 1}
    assert {name: ingested.outcomes[name] for name in reasons} == reasons
    assert set(ingested.outcomes) == {*reasons, "written", "duplicate"}
    assert ingested.outcomes.total() == len(lines) - 1  # but for the blank one
    assert ingested.examples["no_table"] == f"stdin:{lines.index(BAD[2]) + 1}"
    return values_of(store)


def test_a_file_is_read_once_and_from_where_the_last_ingest_stopped(tmp_path, lines, expected):
    path = write(tmp_path / "events.jsonl", lines[:100])
    store = memory_store(parse_schema(SCHEMA))
    ingest(store, FileSource(path), batch=30)
    with path.open("a", encoding="utf-8") as stream:
        stream.write("\n".join(lines[100:]))  # the last line is not ended
    ingest(store, FileSource(path))
    assert without_offsets(values_of(store)) == expected
    assert ingest(store, FileSource(path)).outcomes.total() == 0
    path.write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="0 bytes, expected at least the"):
        ingest(store, FileSource(path))


def test_an_unfinished_line_waits_for_its_end(tmp_path, lines):
    path, line = tmp_path / "events.jsonl", lines[0]
    path.write_text(line[:20], encoding="utf-8")
    store = memory_store(parse_schema(SCHEMA))
    assert ingest(store, FileSource(path)).outcomes.total() == 0
    path.write_text(line, encoding="utf-8")
    assert ingest(store, FileSource(path)).outcomes == {"written": 1}


def test_a_growing_file_is_followed(tmp_path, lines, expected):
    path = write(tmp_path / "events.jsonl", lines[:50])
    store = memory_store(parse_schema(SCHEMA))
    source = FileSource(path, follow=True)
    threading.Thread(target=ingest, args=(store, source), daemon=True).start()
    deadline = time.monotonic() + 60
    for more in ([], lines[50:]):
        with path.open("a", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in more)
        while store.offsets(source.sources) != [path.stat().st_size]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert without_offsets(values_of(store)) == expected


_SLOW_INGEST = """
import sys, time
from serving.features import open_store, store
from serving.features.ingest import ingest
from serving.features.sources import FileSource
apply = store.FeatureStore.apply
def slow(*arguments):
    found = apply(*arguments)
    time.sleep(0.02)
    return found
store.FeatureStore.apply = slow
ingest(open_store(sys.argv[1]), FileSource(sys.argv[2]), batch=10)
"""


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_a_killed_ingest_goes_on_and_ends_like_an_unbroken_one(tmp_path, lines, expected, kind, request):
    path = write(tmp_path / "events.jsonl", lines)
    url = str(tmp_path / "store") if kind == "sqlite" else request.getfixturevalue("redis_url").replace("/0", "/1")
    source = FileSource(path).sources
    with open_store(url, parse_schema(SCHEMA)) as store:
        draw, kills = random.Random(1), 0
        for moment in sorted(draw.sample(range(path.stat().st_size * 9 // 10), 3)):
            process = subprocess.Popen([sys.executable, "-c", _SLOW_INGEST, url, path], cwd=ROOT)
            while store.offsets(source)[0] < moment and process.poll() is None:
                time.sleep(draw.uniform(0, 0.01))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        assert kills == 3
        assert 0 < store.offsets(source)[0] < path.stat().st_size
        ingest(store, FileSource(path))
        if kind == "sqlite":
            found = values_of(store)
        else:
            client = store.backend._client
            found = {name.decode().removeprefix("usr:"): client.get(name) for name in client.keys("usr:*")}
    assert without_offsets(found) == expected


Partition = collections.namedtuple("Partition", ["topic", "partition"])
Record = collections.namedtuple("Record", ["offset", "value"])


class FakeConsumer:
    """The interface of `kafka.KafkaConsumer` on lists of records; ends by an error where a test wants the end."""

    def __init__(self, records: dict[Partition, list[Record]]):
        self.records, self.at, self.polls = records, {}, 0

    def assign(self, partitions):
        self.at = dict.fromkeys(partitions)

    def seek(self, partition, offset):
        self.at[partition] = offset

    def seek_to_beginning(self, partition):
        self.at[partition] = 0

    def poll(self, timeout_ms):
        found = {}
        for partition, offset in self.at.items():
            some = [record for record in self.records[partition] if record.offset >= offset][:9]
            if some:
                found[partition] = some
                self.at[partition] = some[-1].offset + 1
        self.polls += not found
        if self.polls > 1:
            raise KeyboardInterrupt
        return found


def test_kafka_is_read_from_the_stored_offsets(lines, expected):
    """One partition has all events and another repeats rows; offsets start late and have gaps."""
    rows = [line for line in lines if '"category"' in line]
    partitions = [Partition("events", 0), Partition("events", 1)]
    records = {
        partition: [Record(100 + 3 * number, line.encode()) for number, line in enumerate(its)]
        for partition, its in zip(partitions, (rows, lines), strict=True)
    }
    store = memory_store(parse_schema(SCHEMA))
    for count in (40, 200, len(lines), len(lines)):
        some = {partition: found[:count] for partition, found in records.items()}
        with pytest.raises(KeyboardInterrupt):
            ingest(store, KafkaSource("b:9092", "events", lambda *_, some=some: (FakeConsumer(some), partitions)), 4)
        following = [found[-1].offset + 1 for found in some.values()]
        assert store.offsets(["kafka:events:0", "kafka:events:1"]) == following
    assert without_offsets(values_of(store)) == expected


def test_the_load_of_logs_makes_the_states_of_the_ingest_of_their_events(made, tmp_path, capsys):  # noqa: F811
    """By the commands, of a shop with rows of every fault; a second ingest of all of it changes nothing."""
    rows = made.shop.tables
    dirty = {table: [line for line in lines if "half" not in line] for table, lines in made.shop.dirty.items()}
    first = [json.dumps(row) for table in ("items", "users") for row in rows[table]]
    events = sorted([*rows["impressions"], *rows["actions"]], key=lambda row: row["timestamp"])
    late = [line for table in ("impressions", "actions") for line in dirty[table]]
    path = write(tmp_path / "events.jsonl", [*first, *map(json.dumps, events), *late])
    loaded, followed = str(tmp_path / "loaded"), str(tmp_path / "followed")
    schema = f"--schema={made.logs / 'schema.yaml'}"
    assert main(["features", "load", f"--store={loaded}", f"--logs={made.logs}", f"--data={made.data}"]) == 0
    assert "12 history, 15 item, 12 recent, 10 user" in capsys.readouterr().out
    assert main(["features", "ingest", f"--store={followed}", schema, f"--input={path}"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "action_not_in_schema": 1,
        "broken_json": 2,
        "duplicate": 2,
        "missing_user_id": 1,
        "unknown_item": 2,
        "unknown_scenario": 1,
        "written": len(first) + len(events),
    }
    assert "action_not_in_schema, and 0 more" in err
    with open_store(loaded) as one, open_store(followed) as other:
        assert values_of(one) == without_offsets(values_of(other))
        before = values_of(one)
        assert main(["features", "ingest", f"--store={loaded}", f"--input={path}"]) == 0
        assert "written" not in json.loads(capsys.readouterr().out)
        assert without_offsets(values_of(one)) == before


def test_a_load_until_a_moment_and_the_ingest_of_the_rest_end_like_one_load(made, tmp_path):  # noqa: F811
    schema, rows = load_schema(made.logs / "schema.yaml").with_normal_forms(None), made.shop.tables
    events = sorted([*rows["impressions"], *rows["actions"]], key=lambda row: row["timestamp"])
    moment = events[len(events) // 2]["timestamp"]
    until = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment // 1000)) + f".{moment % 1000:03}"
    store, whole = tmp_path / "store", tmp_path / "whole"
    assert main(["features", "load", f"--store={store}", f"--logs={made.logs}", f"--until={until}"]) == 0
    path = write(tmp_path / "rest.jsonl", [json.dumps(row) for row in events if row["timestamp"] >= moment])
    whole_path = write(tmp_path / "all.jsonl", [json.dumps(row) for row in [*rows["items"], *rows["users"], *events]])
    with open_store(store) as one, open_store(whole, schema) as other:
        assert set(ingest(one, FileSource(path)).outcomes) == {"written"}
        ingest(other, FileSource(whole_path))
        assert without_offsets(values_of(one)) == without_offsets(values_of(other))


def test_requests_rebuilt_from_events_are_those_that_preprocess_logged(made, tmp_path, capsys):  # noqa: F811
    logged = {
        request.request_id: request.document
        for name in made.shop.schema.scenarios
        for request in read_requests(made.data / "requests" / f"{name}.jsonl")
    }
    with open_store(tmp_path / "store", made.shop.schema) as store:
        rebuilt = [*replay(store, str(made.logs), logged)]
    assert len(rebuilt) == len(logged) > 10
    figures = [compare(name, rebuilt, logged) for name in made.shop.schema.scenarios]
    assert [each["different"] for each in figures] == [0, 0]
    assert min(each["values"] for each in figures) > 100
    wrong = [{**each, "inputs": {**each["inputs"], "city": "Nowhere"}} for each in rebuilt]
    assert compare(made.shop.schema.scenarios[0], wrong, logged)["different"] > 0
