"""Benchmark of preprocess by log size and workers, beside plain TensorFlow Transform and a pandas join.

Run from the repository: `python -m benchmarks.preprocess [--impressions 300000 1000000] [--json FILE]`. Every figure
is of a process of its own: seconds without the imports, and the most memory of the process and its workers together.

- *whole*: `usr-tf preprocess` of simulated logs, on one and on two workers.
- *join*, *transform*: its two halves; the join ends with blocks on disk, the transform with TFRecords.
- *plain TFT*: the transform's work on the same joined rows as TFT's guide shows it: a dictionary a row.
- *pandas join*: the join's work by pandas on whole tables in memory. Neither writes anything.
"""

import argparse
import bisect
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from pipelines.simulator.simulate import simulate
from usr_tf.schema import Schema, load_schema

SIZES = (300_000, 1_000_000, 5_000_000)
HALVES, TWO_WORKERS = 300_000, 1_000_000
"""For the sake of time: the two halves and the other ways up to this size, two workers from this one on."""
_WORKERS = ("--direct_num_workers={}", "--direct_running_mode=multi_processing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--impressions", type=int, nargs="+", default=SIZES)
    parser.add_argument("--json", help="write all figures to this file")
    parser.add_argument("--work", help="directory for logs and data; a temporary one when absent")
    parser.add_argument("--part", nargs=3, metavar=("NAME", "FOLDER", "WORKERS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        name, folder, workers = arguments.part
        print(json.dumps({"seconds": _time(PARTS[name], Path(folder), int(workers))}), flush=True)
        os._exit(0)  # TFT's coder of dictionaries crashes when the interpreter takes its leave
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        figures = [figure for size in arguments.impressions for figure in _measure(size, Path(work, str(size)))]
    _report(figures)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _measure(size: int, folder: Path) -> list[dict]:
    folder.mkdir()
    simulate(folder / "logs", size)
    runs = [("whole", 1)]
    if size >= TWO_WORKERS:
        runs += [("whole", 2)]
    if size <= HALVES:
        runs += [("join", 1), ("transform", 1), ("plain TFT", 1), ("pandas join", 1)]
    figures = []
    for name, workers in runs:
        command = [sys.executable, "-m", "benchmarks.preprocess", "--part", name, str(folder), str(workers)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        peak: list[int] = [0]
        watch = threading.Thread(target=_watch, args=(process, peak))
        watch.start()
        out, errors = process.communicate()
        watch.join()
        if process.returncode:
            sys.exit(f"{name} of {size:,} impressions failed:\n{errors}")
        seconds = json.loads(out.splitlines()[-1])["seconds"]
        figure = {"impressions": size, "part": name, "workers": workers, "seconds": seconds, "peak_mb": peak[0] >> 20}
        figures.append(figure)
        print(figure, file=sys.stderr, flush=True)
    return figures


def _watch(process: subprocess.Popen, peak: list[int]) -> None:
    """Records the peak memory of the process and its descendants, in bytes."""
    while process.poll() is None:
        peak[0] = max(peak[0], _memory(process.pid))
        time.sleep(0.2)


def _memory(pid: int) -> int:
    """Resident bytes of a process and its descendants."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task").glob("*/children")
        return pages * 4096 + sum(_memory(int(child)) for path in children for child in path.read_text().split())
    except (OSError, ProcessLookupError):
        return 0


def _time(part: Callable[[Path, Sequence[str]], Callable[[], object]], folder: Path, workers: int) -> float:
    run = part(folder, [option.format(workers) for option in _WORKERS] if workers > 1 else [])
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _whole(folder: Path, beam_args: Sequence[str]) -> Callable[[], object]:
    from pipelines.preprocess import preprocess

    out = str(folder / f"data{len(beam_args)}")
    return lambda: preprocess(str(folder / "logs"), out, beam_args=beam_args)


def _join(folder: Path, beam_args: Sequence[str]) -> Callable[[], object]:
    import apache_beam as beam

    from pipelines.beam.blocks import BlockStore
    from pipelines.beam.options import make_pipeline
    from pipelines.join.split import SPLITS
    from pipelines.join.stage import JoinLogs
    from pipelines.logs.inputs import find_tables, partitions_for
    from pipelines.logs.stage import reader

    schema, inputs = load_schema(folder / "logs" / "schema.yaml"), find_tables(str(folder / "logs"))
    blocks = folder / "blocks"
    blocks.mkdir()
    store, pipeline = BlockStore(str(blocks)), make_pipeline(beam_args)
    read = {table: pipeline | table >> reader(schema, table, names, store) for table, names in inputs.items() if names}
    joined = {table: each.rows for table, each in read.items()} | JoinLogs(schema, partitions_for(inputs), store)
    for split in SPLITS:
        _ = (
            joined[split]
            | f"Text[{split}]" >> beam.Map(json.dumps)
            | f"Write[{split}]" >> beam.io.WriteToText(str(folder / split), num_shards=1, shard_name_template="")
        )
    return lambda: pipeline.run().wait_until_finish()


def _transform(folder: Path, beam_args: Sequence[str]) -> Callable[[], object]:
    import apache_beam as beam

    from pipelines.beam.blocks import BlockStore
    from pipelines.beam.options import make_pipeline
    from pipelines.beam.output import prepare
    from pipelines.join.split import SPLITS
    from pipelines.logs.inputs import find_tables, partitions_for
    from pipelines.transform.stage import TransformSplits

    schema, out = load_schema(folder / "logs" / "schema.yaml"), str(folder / "transformed")
    prepare(out, schema)
    pipeline = make_pipeline(beam_args)
    splits = {
        split: pipeline | split >> beam.Create(_handles(folder, split)) | f"Spread[{split}]" >> beam.Reshuffle()
        for split in SPLITS
    }
    shards = partitions_for(find_tables(str(folder / "logs")))
    _ = splits | TransformSplits(schema, out, shards, BlockStore(str(folder / "blocks")))
    return lambda: pipeline.run().wait_until_finish()


def _plain_tft(folder: Path, _: Sequence[str]) -> Callable[[], object]:
    import apache_beam as beam
    import tensorflow_transform.beam as tft_beam
    from tensorflow_transform.coders.example_proto_coder import ExampleProtoCoder
    from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata

    from pipelines.beam.blocks import load
    from pipelines.beam.options import make_pipeline
    from pipelines.join.split import SPLITS
    from pipelines.transform.preprocessing_fn import preprocessing_fn, raw_feature_spec

    schema = load_schema(folder / "logs" / "schema.yaml")
    spec = raw_feature_spec(schema)
    single = [name for name, kind in spec.items() if hasattr(kind, "shape")]
    metadata = DatasetMetadata.from_feature_spec(spec)

    def rows_of(handle: tuple) -> list[dict]:
        rows = load(handle).select(list(spec)).to_pylist()
        return [{**row, **{name: row[name][0] for name in single}} for row in rows]

    pipeline = make_pipeline([])
    temp = str(folder / "plain_temp")
    with tft_beam.Context(temp_dir=temp):
        rows = {
            split: pipeline | split >> beam.Create(_handles(folder, split)) | f"Rows[{split}]" >> beam.FlatMap(rows_of)
            for split in SPLITS
        }
        transform_fn = (rows["train"], metadata) | tft_beam.AnalyzeDataset(preprocessing_fn(schema))
        for split in SPLITS:
            transformed, made = (
                (rows[split], metadata),
                transform_fn,
            ) | f"Transform[{split}]" >> tft_beam.TransformDataset()
            coder = ExampleProtoCoder(made.schema)
            _ = transformed | f"Encode[{split}]" >> beam.Map(coder.encode)
    return lambda: pipeline.run().wait_until_finish()


def _pandas_join(folder: Path, _: Sequence[str]) -> Callable[[], object]:
    schema = load_schema(folder / "logs" / "schema.yaml")

    def run() -> pd.DataFrame:
        tables = {
            table: pd.concat(
                pd.read_json(path, lines=True, dtype=False, convert_dates=False)
                for path in sorted((folder / "logs").glob(f"{table}-*"))
            )
            for table in ("impressions", "actions", "items", "users")
        }
        return _join_with_pandas(tables, schema)

    return run


def _join_with_pandas(tables: dict[str, pd.DataFrame], schema: Schema) -> pd.DataFrame:
    rows = tables["impressions"].merge(tables["items"], on="item_id").merge(tables["users"], on="user_id", how="left")
    rows = rows.sort_values("timestamp", ignore_index=True)
    actions = tables["actions"].merge(tables["items"], on="item_id").sort_values("timestamp")
    earlier = pd.Series(True, rows.index)
    for task in schema.tasks:
        done = actions.loc[actions["action"] == task.action, ["user_id", "item_id", "request_id", "timestamp"]]
        credited = done.dropna(subset="request_id").groupby(["user_id", "item_id", "request_id"])["timestamp"].min()
        moment = rows.join(credited.rename("done"), on=["user_id", "item_id", "request_id"])["done"]
        earlier &= (moment - rows["timestamp"]).between(0, schema.labels.attribution)
        nearest = pd.merge_asof(
            rows[["user_id", "item_id", "timestamp"]],
            done.assign(found=True)[["user_id", "item_id", "timestamp", "found"]],
            on="timestamp",
            by=["user_id", "item_id"],
            direction="nearest",
            tolerance=schema.labels.global_window,
        )
        rows[task.name] = earlier.astype(int)
        rows[f"global_{task.name}"] = (earlier | nearest["found"].notna()).astype(int)
    names = [*schema.history_features, "action", "scenario", "timestamp"]
    actions = actions[actions["action"].isin(schema.history.actions)]
    past = {user: group[names].to_dict("list") for user, group in actions.groupby("user_id")}
    histories = []
    for user, moment in zip(rows["user_id"], rows["timestamp"], strict=True):
        done = past.get(user)
        end = bisect.bisect_left(done["timestamp"], moment) if done else 0
        begin = max(0, end - schema.history.max_length)
        histories.append([done[name][begin:end] if done else [] for name in names])
    return rows.join(pd.DataFrame(histories, columns=[f"history_{name}" for name in names]))


def _handles(folder: Path, split: str) -> list[tuple]:
    """What the join of an earlier part left."""
    return [tuple(json.loads(line)) for line in (folder / split).read_text(encoding="utf-8").splitlines()]


PARTS = {
    "whole": _whole,
    "join": _join,
    "transform": _transform,
    "plain TFT": _plain_tft,
    "pandas join": _pandas_join,
}


def _report(figures: list[dict]) -> None:
    table = Table(title="preprocess")
    for column in ("impressions", "part", "workers", "seconds", "rows/s", "peak MB"):
        table.add_column(column, justify="right")
    for figure in figures:
        rate = figure["impressions"] / figure["seconds"]
        shown = (figure["impressions"], figure["part"], figure["workers"], figure["seconds"], rate, figure["peak_mb"])
        table.add_row(*(value if isinstance(value, str) else f"{value:,.0f}" for value in shown))
    console = Console()
    console.print(table)
    seconds = {(each["impressions"], each["part"], each["workers"]): each["seconds"] for each in figures}
    for size in sorted({each["impressions"] for each in figures}):
        if (size, "whole", 2) in seconds:
            ratio = seconds[size, "whole", 1] / seconds[size, "whole", 2]
            console.print(f"{size:,}: two workers are {ratio:.2f} times as fast as one")
        for ours, other in (("transform", "plain TFT"), ("join", "pandas join")):
            if (size, other, 1) in seconds:
                ratio = seconds[size, other, 1] / seconds[size, ours, 1]
                console.print(f"{size:,}: {ours} is {ratio:.2f} times as fast as {other}")


if __name__ == "__main__":
    main()
