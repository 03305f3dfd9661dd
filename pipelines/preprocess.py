"""The job: raw logs → joined, labelled and split rows → TensorFlow Transform → TFRecords.

Runs as `usr-tf preprocess` and as `python -m pipelines.preprocess --logs=… --out=… --runner=…`.
"""

import argparse
import contextlib
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pipelines import logs, stats
from pipelines.beam_options import is_local, make_pipeline
from pipelines.blocks import BlockStore
from pipelines.join_logs import JoinLogs
from pipelines.output import TEMP, finish, prepare, read_json, write_json
from pipelines.read import ReadTable
from pipelines.rejected import COUNTS, REJECTED, WriteRejected
from pipelines.requests import SampleRequests
from pipelines.split import SPLITS
from pipelines.transform_splits import TransformSplits
from usr_tf.errors import InputError
from usr_tf.schema import TABLES, Schema, load_schema, parse_schema

_BYTES_PER_PARTITION = {".gz": 6 << 20, ".parquet": 12 << 20, ".jsonl": 48 << 20}


def preprocess(
    logs_dir: str,
    out: str,
    schema_path: str | None = None,
    beam_args: Sequence[str] = (),
    partitions: int | None = None,
    progress: bool = False,
) -> dict:
    """Turns a log directory into training data.

    Args:
      logs_dir: a directory by DESIGN §2, on any file system that Beam reads.
      out: the directory to write. `_SUCCESS` comes last; an unfinished earlier try is cleared away.
      schema_path: default `LOGS/schema.yaml`.
      beam_args: Beam options, such as `--runner=DataflowRunner`. The default runner works in this process.
      partitions: parts that the items and the users are split into, each joined in memory; also the number
        of training shards. Default: by the size of the logs.
      progress: show a progress display on standard error.

    Returns:
      What `stats.json` holds.

    Raises:
      InputError: anything wrong with the logs, the schema or the output directory.
    """
    out = out.rstrip("/") or out
    if partitions is not None and partitions < 1:
        raise InputError("--partitions", str(partitions), "a whole number from 1")
    schema = _load_schema(schema_path or FileSystems.join(logs_dir, "schema.yaml"))
    files = {table: logs.find_files(logs_dir, table) for table in TABLES}
    for table, paths in files.items():
        logs.check_columns(schema, table, paths)
    pipeline = make_pipeline(beam_args)
    prepare(out, schema)
    partitions = partitions or _default_partitions(files)
    with _display(progress, f"preprocess {logs_dir}"), _scratch(pipeline, out) as store:
        build(pipeline, schema, files, out, partitions, store)
        try:
            pipeline.run().wait_until_finish()
        except Exception as error:
            found = InputError.inside(error)
            if found is None:
                raise
            raise found from error
    document = read_json(FileSystems.join(out, "stats.json"))
    stats.check(document, logs_dir)
    finish(out)
    return document


def build(
    pipeline: beam.Pipeline, schema: Schema, files: dict[str, list[str]], out: str, partitions: int, store: BlockStore
) -> None:
    """Adds the whole job to `pipeline`."""
    read = {
        table: pipeline | f"Read[{table}]" >> ReadTable(schema, table, paths, store)
        for table, paths in files.items()
        if paths
    }
    joined = {table: each.rows for table, each in read.items()} | "Join" >> JoinLogs(schema, partitions, store)
    rejected, counts = (
        [each[tag] for each in (*read.values(), joined)] | f"All[{tag}]" >> beam.Flatten() for tag in (REJECTED, COUNTS)
    )
    splits = {split: joined[split] for split in SPLITS}
    _ = splits | "Transform" >> TransformSplits(schema, out, FileSystems.join(out, TEMP), partitions, store)
    _ = splits["test"] | "SampleRequests" >> SampleRequests(schema, FileSystems.join(out, "requests"))
    _ = rejected | "WriteRejected" >> WriteRejected(files, FileSystems.join(out, "rejected"))
    _ = (
        counts
        | "AddCounts" >> beam.CombineGlobally(stats.add_counts)
        | "Stats" >> beam.Map(stats.document, schema)
        | "WriteStats" >> beam.Map(write_json, FileSystems.join(out, "stats.json"))
    )


def _default_partitions(files: dict[str, list[str]]) -> int:
    size = 0.0
    for paths in files.values():
        for path in paths:
            per_partition = next(n for suffix, n in _BYTES_PER_PARTITION.items() if path.endswith(suffix))
            size += FileSystems.get_filesystem(path).size(path) / per_partition
    return min(4096, max(4, math.ceil(size)))


@contextlib.contextmanager
def _scratch(pipeline: beam.Pipeline, out: str) -> Iterator[BlockStore]:
    """The store for blocks between stages: a local runner's on disk, beside the output if that is local too."""
    if not is_local(pipeline):
        yield BlockStore()
    else:
        near = None if "://" in out else FileSystems.join(out, TEMP)
        with tempfile.TemporaryDirectory(dir=near) as directory:
            yield BlockStore(directory)


def _load_schema(path: str) -> Schema:
    if "://" not in path:
        return load_schema(path)
    with FileSystems.open(path) as stream:
        return parse_schema(stream.read().decode("utf-8"), path)


@contextlib.contextmanager
def _display(progress: bool, text: str) -> Iterator[None]:
    if not progress:
        yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        bar.add_task(text, total=None)
        yield


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Raw logs to training data; every other option goes to Beam.", allow_abbrev=False
    )
    parser.add_argument("--logs", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--schema")
    parser.add_argument("--partitions", type=int)
    known, beam_args = parser.parse_known_args(argv)
    try:
        document = preprocess(known.logs, known.out, known.schema, beam_args, known.partitions, progress=True)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(stats.describe(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
