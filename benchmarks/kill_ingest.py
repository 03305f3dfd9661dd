"""Kills of `usr-tf features ingest` at random moments: the store beside that of an unbroken run.

The command is killed by SIGKILL and started again, as often as asked, until all events are in.

    python -m benchmarks.kill_ingest --logs demo_out/logs --kills 10

Exits with 1 where a value of the two stores differs.
"""

import argparse
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

from benchmarks.replay_parity import events_in_order
from usr_tf.schema import load_schema


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", required=True, help="log directory, whose rows are the events")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--batch", type=int, default=100, help="events of a transaction")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    schema = f"{arguments.logs}/schema.yaml"
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder, "events.jsonl")
        lines = [orjson.dumps(event.row) + b"\n" for event in events_in_order(arguments.logs, load_schema(schema))]
        events.write_bytes(b"".join(lines))
        unbroken, broken = (str(Path(folder, name)) for name in ("unbroken.sqlite", "broken.sqlite"))

        def start(store: str) -> subprocess.Popen:
            flags = [f"--store={store}", f"--schema={schema}", f"--input={events}", f"--batch={arguments.batch}"]
            command = [sys.executable, "-m", "usr_tf.cli", "features", "ingest", *flags]
            return subprocess.Popen(command, stdout=subprocess.DEVNULL)

        assert start(unbroken).wait() == 0
        size, kills = events.stat().st_size, 0
        for moment in sorted(draw.sample(range(size), arguments.kills)):
            process = start(broken)
            while _offset(broken) < moment and process.poll() is None:
                time.sleep(draw.uniform(0, 0.005))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
            print(f"killed after {_offset(broken):,} of {size:,} bytes", flush=True)
        assert start(broken).wait() == 0
        values, expected = _values(broken), _values(unbroken)
        different = sum(values.get(key) != expected.get(key) for key in values.keys() | expected.keys())
        print(f"{len(lines):,} events, {kills} kills: {len(expected):,} values, {different} different")
    return 1 if different or kills < arguments.kills else 0


def _values(path: str) -> dict[str, bytes]:
    connection = sqlite3.connect(path, timeout=60)
    try:
        return dict(connection.execute("SELECT key, value FROM features"))
    finally:
        connection.close()


def _offset(path: str) -> int:
    if not Path(path).exists():
        return 0
    connection = sqlite3.connect(path, timeout=60)
    try:
        [found] = connection.execute("SELECT max(CAST(value AS TEXT)) FROM features WHERE key LIKE 'offset:%'")
        return int(found[0] or 0)
    except sqlite3.OperationalError:  # the table is not made yet
        return 0
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
