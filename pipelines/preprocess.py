"""Preprocessing job: raw logs → joined, labelled and split rows → TensorFlow Transform → TFRecords.

Runs as `usr-tf preprocess` and as `python -m pipelines.preprocess --logs=… --out=… --runner=…`.
"""

import sys
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import AsDict, AsSingleton

from pipelines.beam.blocks import BlockStore
from pipelines.beam.job import describe_moment, milliseconds, read_and_join, run, scratch
from pipelines.beam.options import make_pipeline
from pipelines.beam.output import COUNTERS, SCHEMA, TRANSFORM, finish, prepare, read_json, read_schema, write_json
from pipelines.beam.program import run_verb
from pipelines.beam.progress import display
from pipelines.join.counter_stage import MOMENT, SNAPSHOT, WriteSnapshot
from pipelines.join.counter_state import CounterState, open_state
from pipelines.join.logged_requests import REQUESTS_PER_SCENARIO, SampleRequests
from pipelines.join.split import EVER, SPLITS
from pipelines.logs.inputs import TableInputs, check_tables, find_tables, partitions_for
from pipelines.logs.rejected import FindExamples, WriteRejected
from pipelines.quality import drift, tfdv
from pipelines.quality import row_counts as stats
from pipelines.quality.statistics import MeasureQuality
from pipelines.transform.previous import Earlier, copy_transform, open_earlier, read_stats
from pipelines.transform.stage import TransformSplits
from usr_tf.errors import InputError
from usr_tf.schema import Schema


def preprocess(
    logs_dir: str | None,
    out: str,
    schema_path: str | None = None,
    beam_args: Sequence[str] = (),
    partitions: int | None = None,
    progress: bool = False,
    *,
    tables: Sequence[str] = (),
    transform: str | None = None,
    grow_from: str | None = None,
    since: str | None = None,
    drift_limits: Sequence[str] = (),
    allow_no_positives: bool = False,
    logged_requests: int = REQUESTS_PER_SCENARIO,
    quote_rejected: bool = True,
) -> dict:
    """Preprocesses a log directory to a data directory.

    Args:
      logs_dir: a log directory (docs/logs.md) on any file system of Beam; None if `tables` names every table.
      out: output directory. `_SUCCESS` is written last; remains of an unfinished job are removed.
      schema_path: schema file. Default: `LOGS/schema.yaml`.
      beam_args: Beam options, such as `--runner=DataflowRunner`. The default runner is in-process.
      partitions: number of partitions of items and users, each joined in memory, and of training shards. Default: by
        the size of the logs.
      progress: whether to show stages and rows on standard error.
      tables: `TABLE=WHERE` for tables elsewhere: a file, a pattern, or `bigquery:PROJECT.DATASET.TABLE`.
      transform: earlier data, or its `transform` directory, whose transform is applied unchanged.
      grow_from: the same, but new values are appended to its vocabularies; existing ids do not change.
      since: ISO 8601 date or time, UTC unless it names a zone. Earlier impressions become no rows.
      drift_limits: `KIND=NUMBER` limits of the drift from the earlier data (`pipelines.quality.drift`).
      allow_no_positives: whether a task may have no positive in the training rows. Beside earlier data it may anyway:
        a day's rows are not all that a model learns from.
      logged_requests: number of logged requests to sample per scenario of the test split, into `OUT/requests/`.
      quote_rejected: whether `OUT/rejected/` and `stats.json` hold rejected rows, or their places and reasons alone.

    Returns:
      Contents of `stats.json`.

    Raises:
      InputError: invalid logs, schema or output directory, a task without a positive, or a drift beyond its limit.
    """
    out = out.rstrip("/") or out
    if partitions is not None and partitions < 1:
        raise InputError("--partitions", str(partitions), "a whole number from 1")
    pipeline = make_pipeline(beam_args)  # first, for file systems take their options from it
    if schema_path is None:
        if logs_dir is None:
            raise InputError("--schema", "nothing", "a schema.yaml, where there is no --logs")
        schema_path = FileSystems.join(logs_dir, SCHEMA)
    logged = read_schema(schema_path)
    earlier = open_earlier(transform, grow_from, logged, schema_path)
    schema = logged.with_normal_forms(earlier.schema if earlier else None)
    start = milliseconds(since) if since else EVER
    state = open_state(earlier.directory, schema) if earlier and since else None
    if earlier and state and start < state.moment:
        expected = f"{describe_moment(state.moment)} or later, up to which {earlier.directory} has counted"
        raise InputError("--since", repr(since), expected)
    limits = drift.parse_limits(drift_limits, drift.DriftLimits)
    old = read_stats(earlier) if earlier else None
    if drift_limits and not old:
        raise InputError(drift.FLAG, "no earlier data", "--transform or --grow_from beside it, with stats.json")
    inputs = find_tables(logs_dir, tables)
    check_tables(schema, inputs)
    prepare(out, schema)
    if earlier:
        copy_transform(earlier, FileSystems.join(out, TRANSFORM))
    partitions = partitions or partitions_for(inputs)
    with scratch(pipeline, out) as store, display(progress, f"preprocess {logs_dir or out}", store.progress):
        build(pipeline, schema, inputs, out, partitions, store, earlier, start, logged_requests, state, quote_rejected)
        run(pipeline)
    document = read_json(FileSystems.join(out, "stats.json"))
    stats.check(document, logs_dir or out)
    tasks = stats.tasks_without_positive(document, schema)
    if not (earlier or allow_no_positives):
        stats.refuse_without_positive(tasks, logs_dir or out)
    if progress:
        for line in (*tasks, *stats.scenarios_without_positive(document, schema)):
            print(f"warning: {line}", file=sys.stderr)
    if earlier and old:
        drifts = drift.compare(old, document, schema, limits)
        write_json(drift.document(drifts), FileSystems.join(out, "drift.json"))
        if progress:
            print(drift.describe(drifts), file=sys.stderr)
        drift.refuse(drifts, earlier.directory, out)
    finish(out)
    return document


def build(
    pipeline: beam.Pipeline,
    schema: Schema,
    inputs: TableInputs,
    out: str,
    partitions: int,
    store: BlockStore,
    earlier: Earlier | None = None,
    since: int = EVER,
    logged_requests: int = REQUESTS_PER_SCENARIO,
    state: CounterState | None = None,
    quote_rejected: bool = True,
) -> None:
    """Adds all stages of the job to `pipeline`."""
    joined, rejected, counts = read_and_join(pipeline, schema, inputs, partitions, store, since, state)
    splits = {split: joined[split] for split in SPLITS}
    transformed = splits | "Transform" >> TransformSplits(schema, out, partitions, store, earlier)
    raw = {f"raw {split}": splits[split] for split in SPLITS}
    after = {f"transformed {split}": transformed[split] for split in SPLITS}
    quality = raw | after | "Quality" >> MeasureQuality(schema)
    sample = SampleRequests(schema, FileSystems.join(out, "requests"), logged_requests)
    _ = splits["test"] | "SampleRequests" >> sample
    if schema.counters:
        found = {tag: joined[tag] for tag in (SNAPSHOT, MOMENT)}
        _ = found | "WriteSnapshot" >> WriteSnapshot(schema, FileSystems.join(out, COUNTERS))
    _ = rejected | "WriteRejected" >> WriteRejected(inputs, FileSystems.join(out, "rejected"), quote_rejected)
    examples = rejected | "Examples" >> beam.CombineGlobally(FindExamples(inputs, quote_rejected))
    total = (
        (counts, transformed["counts"])
        | "AllCounts" >> beam.Flatten()
        | "AddCounts" >> beam.CombineGlobally(stats.add_counts)
    )
    _ = (
        total
        | "Stats" >> beam.Map(stats.document, schema, AsSingleton(examples), AsDict(quality))
        | "WriteStats" >> beam.Map(write_json, FileSystems.join(out, "stats.json"))
    )
    statistics = FileSystems.join(out, "statistics")
    _ = total | "WriteStatistics" >> beam.Map(tfdv.write, schema, AsDict(quality), statistics)


if __name__ == "__main__":
    run_verb("preprocess")
