"""Closed loop on three simulated days: serve → log → import → preprocess → train → publish, and the next day again.

    python tools/closed_loop.py --out loop_out [--impressions 120000]

1. Day one's logs train the first model. It is published, and a feature store is loaded with the day's events.
2. Day two's requests are built from the feature store (user id, query, item ids) and ranked by the served model, and
   the client logs them; day two's events go into the store as they happen. The request log is imported with the
   actions, and the second model starts from the first one's weights and is published.
3. Day three judges both: they score the same impressions, which neither has seen.

People act as the simulated shop's logs say, whichever order a model gives: the loop shows that what is served comes
back into training unharmed, not that the ranking changes what people do.
"""

import argparse
import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console
from rich.progress import track

from pipelines.preprocess import preprocess
from pipelines.simulator.simulate import simulate
from pipelines.sources import import_logs
from serving.client import Ranker
from serving.features import RequestBuilder, open_store
from serving.features.event import EventReader
from serving.local_server import serve_in_background
from serving.publishing.publish import publish
from serving.request_log import RequestLog
from usr_tf.cli import main as usr_tf
from usr_tf.config import load_config
from usr_tf.data import open_data
from usr_tf.evaluate import evaluate
from usr_tf.run import open_run
from usr_tf.schema import Schema, load_schema
from usr_tf.train import train

_SHARES = (0.25, 0.35)
"""Of the impressions, of day one and day two; the rest is day three."""
_ANY_DRIFT = ("new_tokens=1", "label_rate=1000", "numeric_shift=1000", "coverage=1")
"""Limits that days of so small a shop never reach."""
_ALL_ROWS = {"valid": 0.01, "test": 0.98}
"""A split that evaluates a day."""

Row = dict
Tables = dict[str, list[Row]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=Path("loop_out"))
    parser.add_argument("--impressions", type=int, default=120_000)
    arguments = parser.parse_args()
    closed_loop(arguments.out, arguments.impressions, Console())


def closed_loop(out: Path, impressions: int, console: Console) -> dict[str, dict[str, dict[str, float]]]:
    """Runs the loop in a new directory.

    Returns:
      AUC on day three by model (`day one`, `day two`), scenario and task.
    """
    simulate(out / "shop", impressions)
    schema, tables = load_schema(out / "shop" / "schema.yaml"), read_tables(out / "shop")
    moments = np.sort([row["timestamp"] for row in tables["impressions"]])
    starts = [int(moments[int(share * len(moments))]) for share in np.cumsum(_SHARES)]
    one, two, _ = split_days(tables, starts)

    console.rule("day one: train, publish, load the feature store")
    write_tables(out / "day1", {"items": tables["items"], "users": tables["users"], **one}, schema)
    first = learn(out, "1", out / "day1", console)
    store_path, requests = out / "features.sqlite", out / "requests"
    if usr_tf(["features", "load", f"--store={store_path}", f"--logs={out / 'day1'}"]) != 0:
        raise SystemExit(1)

    console.rule("day two: serve, and log what is served")
    with open_store(store_path) as store, serve_in_background(out / "serving") as server:
        builder = RequestBuilder(store, counters=False)  # the exported model holds a snapshot of counters
        served = serve_day(two, schema, builder, EventReader(schema), server.address, requests, console)
    console.print(f"{served:,} requests ranked by version {first} and logged in {requests}")
    actions = out / "day2-actions.jsonl"
    actions.write_text("".join(json.dumps(row) + "\n" for row in two["actions"]), encoding="utf-8")

    console.rule("day two: import, preprocess, train, publish")
    options = {"schema": str(out / "shop" / "schema.yaml"), "action_files": [str(actions)]}
    import_logs("request_log", [str(requests)], out / "day2", progress=False, options=options)
    both = out / "days1-2"
    for table in ("impressions", "actions", "items", "users"):
        for day in ("day1", "day2"):
            folder = both / table / day
            folder.mkdir(parents=True)
            for path in sorted((out / day).glob(f"{table}*")):
                (folder / path.name).symlink_to(path.resolve())
    (both / "schema.yaml").write_text(schema.to_yaml(), encoding="utf-8")
    learn(out, "2", both, console, grow_from="1")

    console.rule("day three: both models on impressions that neither has seen")
    results = {name: judge(out, number, starts[1]) for name, number in (("day one", "1"), ("day two", "2"))}
    for scenario, tasks in results["day one"].items():
        for task, auc in tasks.items():
            later = results["day two"][scenario][task]
            console.print(f"{scenario} {task}: AUC {auc:.4f} of day one's model, {later:.4f} of day two's")
    return results


def learn(out: Path, number: str, logs: Path, console: Console, grow_from: str | None = None) -> int:
    """Preprocesses, trains and publishes; later days start from an earlier one's transform and weights.

    Returns:
      The published version.
    """
    earlier = str(out / f"data{grow_from}") if grow_from else None
    preprocess(str(logs), str(out / f"data{number}"), grow_from=earlier, drift_limits=_ANY_DRIFT if earlier else ())
    settings = ["train.epochs=2", *([f"train.warm_start={out / f'run{grow_from}'}"] if grow_from else [])]
    data = open_data(out / f"data{number}")
    train(data, out / f"run{number}", load_config(overrides=settings))
    published = publish(open_run(out / f"run{number}"), data, out / "serving", margin=1.0)  # on another test split
    console.print(f"published {published.version}")
    return int(published.version.name)


def serve_day(
    day: Tables,
    schema: Schema,
    builder: RequestBuilder,
    reader: EventReader,
    address: str,
    folder: Path,
    console: Console,
) -> int:
    """Ranks each request of a day at its moment, after the events before it; returns how many."""
    slates: dict[str, list[Row]] = {}
    for row in day["impressions"]:
        slates.setdefault(row["request_id"], []).append(row)
    requests = sorted(slates.values(), key=lambda rows: rows[0]["timestamp"])
    actions = sorted(day["actions"], key=lambda row: row["timestamp"])
    context = [name for name in schema.features_of("context", "query") if name != "query"]
    done, moment = 0, 0
    with RequestLog(folder, clock=lambda: moment) as log, Ranker(address, request_log=log) as ranker:
        for rows in track(requests, "rank", console=console):
            first, moment = rows[0], rows[0]["timestamp"]
            until = next((i for i in range(done, len(actions)) if actions[i]["timestamp"] >= moment), len(actions))
            builder.store.apply(reader.check("actions", row) for row in actions[done:until])
            done = until
            request = builder.build(
                first["scenario"],
                first["user_id"],
                first["query"],
                [row["item_id"] for row in rows],
                {name: first[name] for name in context},
                moment=moment,
                request_id=first["request_id"],
            )
            ranker.score(first["scenario"], request)
            builder.store.apply(reader.check("impressions", row) for row in rows)
    return len(requests)


def judge(out: Path, number: str, since: int) -> dict[str, dict[str, float]]:
    """AUC by scenario and task of a run on the shop's impressions from `since` on."""
    document = yaml.safe_load((out / f"data{number}" / "schema.yaml").read_text(encoding="utf-8"))
    schema = out / f"judge{number}.yaml"
    schema.write_text(yaml.safe_dump({**document, "split": _ALL_ROWS}, sort_keys=False), encoding="utf-8")
    data = out / f"check{number}"
    preprocess(
        str(out / "shop"),
        str(data),
        str(schema),
        transform=str(out / f"data{number}"),
        since=np.datetime_as_string(np.datetime64(since, "ms"), timezone="UTC"),
        drift_limits=_ANY_DRIFT,
    )
    metrics, _ = evaluate(open_run(out / f"run{number}"), open_data(data), out / f"report{number}")
    return {
        scenario: {task: figures["auc"] for task, figures in tasks.items()}
        for scenario, tasks in metrics["scenarios"].items()
    }


def read_tables(logs: Path) -> Tables:
    """All rows of a log directory."""
    return {
        table: [
            json.loads(line)
            for path in sorted(logs.glob(f"{table}-*.jsonl.gz"))
            for line in gzip.decompress(path.read_bytes()).splitlines()
        ]
        for table in ("impressions", "actions", "items", "users")
    }


def split_days(tables: Tables, starts: list[int]) -> Iterator[Tables]:
    """Impressions and actions of each day."""
    bounds = [0, *starts, 2**62]
    for first, last in itertools.pairwise(bounds):
        yield {
            table: [row for row in tables[table] if first <= row["timestamp"] < last]
            for table in ("impressions", "actions")
        }


def write_tables(logs: Path, tables: Tables, schema: Schema) -> None:
    """A log directory of these rows."""
    logs.mkdir(parents=True)
    (logs / "schema.yaml").write_text(schema.to_yaml(), encoding="utf-8")
    for table, rows in tables.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (logs / f"{table}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))


if __name__ == "__main__":
    main()
