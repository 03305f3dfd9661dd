"""Whole jobs in their own processes: killed, on two workers, and with a hot user and a hot item."""

import json
import signal
import subprocess
import sys
import time

import pytest

from tests.pipelines.memory import peak_memory
from tests.pipelines.tiny import parse_rows, read_rows
from usr_tf.data import open_data
from usr_tf.errors import InputError

pytestmark = pytest.mark.slow

SCHEMA = """
scenarios: [search, feed]
tasks: [{name: ctr, action: click}]
history: {actions: [click], max_length: 20}
features:
  user_id: {group: user, type: categorical}
  item_id: {group: item, type: categorical, in_history: true}
  brand: {group: item, type: categorical, in_history: true}
  query: {group: query, type: text}
"""
EVENTS = 1_000_000
MEMORY_LIMIT = 4 << 30
"""Of a worker, in bytes: what a small machine of Dataflow has."""


def command(logs, out, *options):
    return [sys.executable, "-m", "pipelines.preprocess", f"--logs={logs}", f"--out={out}", *options]


def start(logs, out, *options):
    return subprocess.Popen(command(logs, out, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_run_leaves_nothing_that_is_taken_for_whole_and_its_rerun_succeeds(made, tmp_path):
    out = tmp_path / "data"
    for stage in (".temp/*/*", "train/*"):  # in the join, and when the first shards are there
        with start(made.logs, out, "--partitions=3") as running:
            while not list(out.glob(stage)):
                assert running.poll() is None, running.communicate()
                time.sleep(0.02)
            running.send_signal(signal.SIGKILL)
        with pytest.raises(InputError, match="found no _SUCCESS"):
            open_data(out)
    with start(made.logs, out, "--partitions=3") as again:
        _, errors = again.communicate()
    assert again.returncode == 0, errors
    assert {split: read_rows(out, split) for split in ("train", "valid", "test")} == {
        split: read_rows(made.data, split) for split in ("train", "valid", "test")
    }
    assert not (out / ".temp").exists()


def test_a_hot_user_and_a_hot_item_fit_a_small_worker(tmp_path):
    """Half of all events are one user's, on few items; the other half is one item, shown to everybody."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
    with (logs / "impressions.jsonl").open("w") as shown, (logs / "actions.jsonl").open("w") as done:
        for event in range(EVENTS):
            hot = event % 2
            keys = {
                "request_id": f"r{event}",
                "scenario": "search" if event % 3 else "feed",
                "user_id": "hot" if hot else f"u{event % 9973}",
                "item_id": f"i{event % 499}" if hot else "hot",
                "timestamp": 1_700_000_000_000 + event * 1000,
            }
            print(json.dumps({**keys, "query": f"word{event % 97} tea"}), file=shown)
            if hot:
                print(json.dumps({**keys, "action": "click"}), file=done)
    items = [{"item_id": f"i{number}", "brand": f"b{number % 20}"} for number in range(499)]
    text = "".join(json.dumps(item) + "\n" for item in [*items, {"item_id": "hot", "brand": "b"}])
    (logs / "items.jsonl").write_text(text, encoding="utf-8")

    assert peak_memory(command(logs, tmp_path / "data", "--partitions=4")) < MEMORY_LIMIT
    stats = json.loads((tmp_path / "data" / "stats.json").read_text())
    assert stats["rows"]["impressions"]["written"] == EVENTS
    hot = next(row for row in parse_rows(tmp_path / "data", "test") if row["raw_user_id"] == ["hot"])
    assert len(hot["history_age"]) == 20
