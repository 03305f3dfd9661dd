"""The job: raw logs → joined, labelled and split rows → TensorFlow Transform → TFRecords.

Rows travel in Arrow blocks of thousands, keyed by a partition of the items and then of the users, so that
Beam moves blocks and the work on rows is columnar. Each partition is joined as whole columns.

Runs as `usr-tf preprocess` and as `python -m pipelines.preprocess --logs=… --out=… --runner=…`.
"""

import argparse
import contextlib
import json
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow_transform.beam as tft_beam
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions, StandardOptions
from apache_beam.pvalue import AsSingleton, TaggedOutput
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata

from pipelines import logs
from pipelines.blocks import Block, partition, tables_of, unpack
from pipelines.join import attach, first_of_each, histories, label
from pipelines.logs import PLACE
from pipelines.requests import SampleRequests
from pipelines.rows import make_batches, passthrough_columns, tensor_adapter_config
from pipelines.shards import WriteShards
from pipelines.split import SPLITS, CountMinutes, boundaries, count_minutes
from pipelines.transform import preprocessing_fn, raw_feature_spec
from usr_tf.errors import InputError
from usr_tf.schema import (
    ACTION,
    ITEM,
    REQUEST,
    SCENARIO,
    SUCCESS,
    TABLES,
    TIMESTAMP,
    USER,
    Schema,
    load_schema,
    parse_schema,
)

_COUNTS, _REJECTED = "counts", "rejected"
_ATTACH_ROWS = 100_000
_BYTES_PER_PARTITION = {".gz": 6 << 20, ".parquet": 12 << 20, ".jsonl": 48 << 20}
_WRITTEN = (*SPLITS, "transform", "requests", "rejected", "stats.json", ".temp", "schema.yaml")  # the schema goes last
_LOCAL_RUNNER = "FnApiRunner"
_ASK_THEIR_SERVER = ("portable", "flink", "spark")
"""Runners whose job server knows options of its own."""


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
    schema_path = schema_path or FileSystems.join(logs_dir, "schema.yaml")
    schema = _load_schema(schema_path)
    files = {table: logs.find_files(logs_dir, table) for table in TABLES}
    for table, paths in files.items():
        logs.check_columns(schema, table, paths)
    pipeline = _pipeline(beam_args)
    _prepare(out, schema)
    partitions = partitions or _default_partitions(files)
    with _display(progress, f"preprocess {logs_dir}"), tempfile.TemporaryDirectory() as local_temp:
        temp = FileSystems.join(out, ".temp") if "://" in out else local_temp
        build(pipeline, schema, files, out, temp, partitions)
        try:
            pipeline.run().wait_until_finish()
        except Exception as error:
            found = InputError.inside(error)
            if found is None:
                raise
            raise found from error
    stats = _read_json(FileSystems.join(out, "stats.json"))
    _check(stats, logs_dir)
    with FileSystems.create(FileSystems.join(out, SUCCESS)) as marker:
        marker.write(b"")
    return stats


def describe(stats: dict) -> str:
    """`stats.json` in a few lines."""
    lines = []
    for table, rows in stats["rows"].items():
        rejected = ", ".join(f"{count:,} {reason}" for reason, count in rows["rejected"].items()) or "none"
        lines.append(f"{table}: {rows['read']:,} read, {rows['written']:,} written, rejected: {rejected}")
    for split, scenarios in stats["splits"].items():
        for scenario, counts in scenarios.items():
            shown, *labels = (f"{count:,} {name}" for name, count in counts.items())
            lines.append(f"{split} {scenario}: {shown}; {', '.join(labels)}")
    return "\n".join(lines)


def build(
    pipeline: beam.Pipeline, schema: Schema, files: dict[str, list[str]], out: str, temp: str, partitions: int
) -> None:
    """Adds the whole job to `pipeline`."""
    read = {table: _read(pipeline, schema, table, paths) for table, paths in files.items() if paths}
    bounds = (
        read["impressions"].rows
        | "Minutes" >> beam.Map(lambda batch: count_minutes(batch.column(TIMESTAMP).to_numpy()))
        | "CountMinutes" >> beam.CombineGlobally(CountMinutes())
        | "Boundaries" >> beam.Map(boundaries, schema.split)
    )
    with_items = (
        [_by_key(read[table].rows, table, ITEM, partitions) for table in ("impressions", "actions", "items")]
        | "BothSidesOfItems" >> beam.Flatten()
        | "ByItem" >> beam.GroupByKey()
        | "AttachItems" >> beam.ParDo(_AttachItems(schema, partitions)).with_outputs(_COUNTS, _REJECTED, main="rows")
    )
    users = [_by_key(read["users"].rows, "users", USER, partitions)] if "users" in read else []
    joined = (
        [with_items.rows, *users]
        | "BothSidesOfUsers" >> beam.Flatten()
        | "ByUser" >> beam.GroupByKey()
        | "JoinUsers" >> beam.ParDo(_JoinUsers(schema), AsSingleton(bounds)).with_outputs(_COUNTS, _REJECTED, *SPLITS)
    )
    _transform(schema, joined, out, temp, partitions)
    _ = joined.test | "SampleRequests" >> SampleRequests(schema, FileSystems.join(out, "requests"))

    stages = [*read.values(), with_items, joined]
    rejected = [stage[_REJECTED] for stage in stages] | "AllRejected" >> beam.Flatten()
    _ = (
        rejected
        | "DescribeRejected" >> beam.Map(_describe_rejected, files)
        | "WriteRejected" >> beam.io.WriteToText(FileSystems.join(out, "rejected", "rows"), ".jsonl")
    )
    rejections = rejected | "CountRejected" >> beam.Map(
        lambda row: {("rows", row["table"], "rejected", row["reason"]): 1}
    )
    _ = (
        [rejections, *(stage[_COUNTS] for stage in stages)]
        | "AllCounts" >> beam.Flatten()
        | "AddCounts" >> beam.CombineGlobally(_add_counts)
        | "Stats" >> beam.Map(_stats, schema)
        | "WriteStats" >> beam.Map(_write_json, FileSystems.join(out, "stats.json"))
    )


def _read(pipeline: beam.Pipeline, schema: Schema, table: str, paths: list[str]) -> beam.pvalue.DoOutputsTuple:
    return (
        pipeline
        | f"Files[{table}]" >> beam.Create(list(enumerate(paths)))
        | f"OneWorkerAFile[{table}]" >> beam.Reshuffle()
        | f"Read[{table}]" >> beam.ParDo(_ReadFile(schema, table)).with_outputs(_COUNTS, _REJECTED, main="rows")
    )


def _by_key(batches: beam.PCollection, table: str, key: str, partitions: int) -> beam.PCollection:
    return batches | f"Partition[{table}]" >> beam.FlatMap(lambda batch: partition(table, batch, key, partitions))


def _transform(schema: Schema, joined: beam.pvalue.DoOutputsTuple, out: str, temp: str, partitions: int) -> None:
    """Analyses the training split alone, transforms every split, and writes rows and transform."""
    config = tensor_adapter_config(schema)
    with tft_beam.Context(temp_dir=temp, passthrough_keys=set(passthrough_columns(schema))):
        transform_fn = (joined.train, config) | "Analyze" >> tft_beam.AnalyzeDataset(preprocessing_fn(schema))
        for split in SPLITS:
            rows, _ = ((joined[split], config), transform_fn) | f"Transform[{split}]" >> tft_beam.TransformDataset(
                output_record_batches=True
            )
            shards = partitions if split == "train" else max(1, partitions // 8)
            _ = rows | f"Write[{split}]" >> WriteShards(FileSystems.join(out, split), shards)
        directory = FileSystems.join(out, "transform")
        written = transform_fn | "WriteTransform" >> tft_beam.WriteTransformFn(directory)
        raw = DatasetMetadata.from_feature_spec(raw_feature_spec(schema))
        _ = raw | "WriteRawMetadata" >> tft_beam.WriteMetadata(
            FileSystems.join(directory, "metadata"), pipeline=written.pipeline
        )


class _ReadFile(beam.DoFn):
    """`(number, path)` → the sound rows of a file, in blocks."""

    def __init__(self, schema: Schema, table: str):
        self._schema, self._table = schema, table

    def process(self, element: tuple[int, str]) -> Iterator:
        number, path = element
        read = 0
        for batch, rejected in logs.read_file(path, number, self._schema, self._table):
            read += batch.num_rows + len(rejected)
            yield from map(_as_rejected, rejected)
            if batch.num_rows:
                yield batch
        yield TaggedOutput(_COUNTS, {("rows", self._table, "read"): read})


class _AttachItems(beam.DoFn):
    """One partition of the items: gives its impressions and actions the features of their items.

    The catalogue of the partition is held in memory; impressions and actions stream past it.
    """

    def __init__(self, schema: Schema, partitions: int):
        self._schema, self._partitions = schema, partitions

    def process(self, element: tuple[int, Iterable[Block]]) -> Iterator:
        _, blocks = element
        layout = {"items": logs.table_schema(self._schema, "items")}
        items = tables_of(((name, packed) for name, packed in blocks if name == "items"), layout)["items"]
        first = first_of_each(items, [ITEM], [PLACE])
        yield from _set_aside(items, "items", {"duplicate": ~first})
        items = items.filter(pa.array(first))
        yield TaggedOutput(_COUNTS, {("rows", "items", "written"): items.num_rows})
        wanted = {"impressions": list(self._schema.features_of("item")), "actions": list(self._schema.history_features)}
        for table, names in wanted.items():
            columns = items.select(dict.fromkeys([ITEM, *names]))
            for rows in _gather((packed for name, packed in blocks if name == table), _ATTACH_ROWS):
                wider, known = attach(rows, columns, ITEM)
                yield from _set_aside(pa.table(rows), table, {"unknown_item": ~known})
                yield from partition(table, wider.filter(pa.array(known)), USER, self._partitions)


class _JoinUsers(beam.DoFn):
    """One partition of the users: labels their impressions, adds history and user features, splits by time."""

    def __init__(self, schema: Schema):
        self._schema = schema

    def process(self, element: tuple[int, Iterable[Block]], bounds: tuple[int, int]) -> Iterator:
        schema = self._schema
        tables = tables_of(element[1], _joined_schemas(schema))
        keys = {
            "impressions": ([USER, REQUEST, ITEM], [TIMESTAMP, PLACE]),
            "actions": ([USER, ITEM, TIMESTAMP, ACTION, REQUEST, SCENARIO], [PLACE]),
            "users": ([USER], [PLACE]),
        }
        for table, (key, order) in keys.items():
            first = first_of_each(tables[table], key, order)
            yield from _set_aside(tables[table], table, {"duplicate": ~first})
            tables[table] = tables[table].filter(pa.array(first))
            yield TaggedOutput(_COUNTS, {("rows", table, "written"): tables[table].num_rows})
        impressions = tables["impressions"].sort_by([(name, "ascending") for name in (TIMESTAMP, USER, REQUEST, PLACE)])
        if not impressions.num_rows:
            return
        labels, credited = label(impressions, tables["actions"], schema)
        past = histories(impressions, tables["actions"], credited, schema) if schema.history_columns else None
        impressions, _ = attach(impressions, tables["users"], USER)
        stops = [*np.searchsorted(impressions.column(TIMESTAMP).to_numpy(), bounds), impressions.num_rows]
        start = 0
        for split, stop in zip(SPLITS, stops, strict=True):
            part = slice(start, stop)
            yield TaggedOutput(_COUNTS, _label_counts(split, impressions.column(SCENARIO), labels, part))
            for rows in make_batches(impressions, labels, past, schema, part):
                yield TaggedOutput(split, rows)
            start = stop


def _joined_schemas(schema: Schema) -> dict[str, pa.Schema]:
    """Arrow schemas of what `_JoinUsers` gets: impressions and actions have their items' features."""
    layouts = {table: logs.table_schema(schema, table) for table in ("impressions", "actions", "users")}
    items = logs.table_schema(schema, "items")
    for table, names in (("impressions", schema.features_of("item")), ("actions", schema.history_features)):
        for name in names:
            if name != ITEM:
                layouts[table] = layouts[table].append(items.field(name))
    return layouts


def _gather(packed: Iterable[bytes], size: int) -> Iterator[pa.RecordBatch]:
    """Blocks put together to about `size` rows."""
    batches: list[pa.RecordBatch] = []
    rows = 0
    for item in packed:
        batches.append(unpack(item))
        rows += batches[-1].num_rows
        if rows >= size:
            yield pa.concat_batches(batches)
            batches, rows = [], 0
    if batches:
        yield pa.concat_batches(batches)


def _set_aside(table: pa.Table, name: str, reasons: dict[str, np.ndarray]) -> Iterator[TaggedOutput]:
    """The rows of `table` that a reason's mask marks, as rejected."""
    for reason, mask in reasons.items():
        for row in table.filter(pa.array(mask)).to_pylist():
            place = row.pop(PLACE)
            yield _as_rejected({"table": name, "place": place, "reason": reason, "row": row})


def _as_rejected(rejected: dict) -> TaggedOutput:
    """A rejected row on its way out, itself as JSON: it may hold what Beam cannot encode, such as half a surrogate."""
    text = json.dumps(rejected["row"], ensure_ascii=False, default=str)
    return TaggedOutput(_REJECTED, {**rejected, "row": text.encode("utf-8", "backslashreplace").decode("utf-8")})


def _label_counts(
    split: str, scenarios: pa.ChunkedArray, labels: dict[str, np.ndarray], part: slice
) -> dict[tuple[str, ...], int]:
    counts: dict[tuple[str, ...], int] = {}
    names = scenarios.slice(part.start, part.stop - part.start)
    for scenario in pc.unique(names).to_pylist():
        mask = pc.equal(names, scenario).to_numpy()
        counts["splits", split, scenario, "impressions"] = int(mask.sum())
        for name, values in labels.items():
            counts["splits", split, scenario, name] = int(values[part][mask].sum())
    return counts


def _add_counts(counts: Iterable[dict]) -> dict:
    total: Counter = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


def _stats(counts: dict, schema: Schema) -> dict:
    """`stats.json`, its keys in a fixed order and every scenario there."""
    counts = Counter(counts)
    tables = [table for table in TABLES if table != "users" or counts["rows", "users", "read"]]
    rows = {}
    for table in tables:
        rejected = {key[3]: n for key, n in sorted(counts.items()) if key[:3] == ("rows", table, "rejected")}
        rows[table] = {
            "read": counts["rows", table, "read"],
            "written": counts["rows", table, "written"],
            "rejected": rejected,
        }
    splits = {
        split: {
            scenario: {name: counts["splits", split, scenario, name] for name in ("impressions", *schema.label_names)}
            for scenario in schema.scenarios
        }
        for split in SPLITS
    }
    return {"rows": rows, "splits": splits}


def _describe_rejected(rejected: dict, files: dict[str, list[str]]) -> str:
    """The line of `rejected/*.jsonl`."""
    place = logs.describe_place(rejected["place"], files[rejected["table"]])
    told = {"table": rejected["table"], "place": place, "reason": rejected["reason"]}
    return f'{json.dumps(told, ensure_ascii=False)[:-1]}, "row": {rejected["row"]}}}'


def _check(stats: dict, logs_dir: str) -> None:
    """Refuses data without a training row; checks that every row read is accounted for."""
    for table, counts in stats["rows"].items():
        if counts["read"] != counts["written"] + sum(counts["rejected"].values()):
            raise AssertionError(f"{table}: rows were lost: {counts}")
    impressions = stats["rows"]["impressions"]
    if not impressions["written"]:
        raise InputError(
            logs_dir, f"no sound impression (rejected: {impressions['rejected']})", "at least one; see rejected/"
        )
    if not any(counts["impressions"] for counts in stats["splits"]["train"].values()):
        raise InputError(
            logs_dir, f"no sound impression to train on (rejected: {impressions['rejected']})", "one; see rejected/"
        )


def _load_schema(path: str) -> Schema:
    if "://" not in path:
        return load_schema(path)
    with FileSystems.open(path) as stream:
        return parse_schema(stream.read().decode("utf-8"), path)


def _prepare(out: str, schema: Schema) -> None:
    """Makes `out` a directory with the schema in it alone, clearing away an unfinished try of ours.

    Such a try is told by its schema and by holding nothing else than we write: no other file is ever deleted.
    """
    if FileSystems.exists(FileSystems.join(out, SUCCESS)):
        raise InputError(out, "finished data", "a new or an unfinished directory")
    try:
        paths = logs.match_in(out, ["**"])
        found = sorted({path.removeprefix(FileSystems.join(out, "")).split("/")[0] for path in paths})
        foreign = [name for name in found if name not in _WRITTEN or "schema.yaml" not in found]
        if foreign:
            raise InputError(out, f"other files ({foreign[0]})", "a new directory, or one that an earlier try left")
        if FileSystems.exists(out):
            ours = [FileSystems.join(out, name) for name in _WRITTEN]
            FileSystems.delete([path for path in ours if FileSystems.exists(path)])
        else:
            FileSystems.mkdirs(out)
        with FileSystems.create(FileSystems.join(out, "schema.yaml"), "text/plain") as stream:
            stream.write(schema.to_yaml().encode("utf-8"))
        for split in SPLITS:
            FileSystems.mkdirs(FileSystems.join(out, split))
    except (OSError, BeamIOError) as error:
        raise InputError(out, f"no writable directory ({error})", "one that can be written") from error


def _default_partitions(files: dict[str, list[str]]) -> int:
    size = 0.0
    for paths in files.values():
        for path in paths:
            per_partition = next(n for suffix, n in _BYTES_PER_PARTITION.items() if path.endswith(suffix))
            size += FileSystems.get_filesystem(path).size(path) / per_partition
    return min(4096, max(4, math.ceil(size)))


def _pipeline(beam_args: Sequence[str]) -> beam.Pipeline:
    """An empty pipeline. Beam itself drops options that it does not know; a misspelt one is refused here."""
    options = PipelineOptions(list(beam_args))
    options.get_all_options(add_extra_args_fn=lambda parser: _refuse_unknown(parser, beam_args))
    standard = options.view_as(StandardOptions)
    if (standard.runner or "direct").lower().removesuffix("runner") == "direct":  # tries a runner that it downloads
        standard.runner = _LOCAL_RUNNER
    options.view_as(SetupOptions).save_main_session = False
    try:
        return beam.Pipeline(options=options)
    except (ValueError, ImportError, AttributeError) as error:  # no such runner, or an option that it lacks
        raise InputError("Beam options", " ".join(str(error).split()), "options that suit the runner") from error


def _refuse_unknown(parser: argparse.ArgumentParser, beam_args: Sequence[str]) -> None:
    def refuse(message: str) -> NoReturn:
        raise InputError("Beam options", message, "options that Beam's documentation lists")

    parser.error = refuse
    known, unknown = parser.parse_known_args(beam_args)
    runner = (known.runner or "").lower().removesuffix("runner")
    if unknown and runner not in _ASK_THEIR_SERVER:
        refuse(f"the unknown {unknown[0]!r}")


@contextlib.contextmanager
def _display(progress: bool, text: str) -> Iterator[None]:
    if not progress:
        yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        bar.add_task(text, total=None)
        yield


def _read_json(path: str) -> dict:
    with FileSystems.open(path) as stream:
        return json.loads(stream.read())


def _write_json(document: dict, path: str) -> None:
    with FileSystems.create(path, "application/json") as stream:
        stream.write(json.dumps(document, indent=2).encode("utf-8") + b"\n")


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
        stats = preprocess(known.logs, known.out, known.schema, beam_args, known.partitions, progress=True)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(describe(stats))
    return 0


if __name__ == "__main__":
    sys.exit(main())
