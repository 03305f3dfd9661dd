"""Evaluation of scored rows as a Beam job, for sets larger than memory; same metrics as `usr_tf.metrics`.

The figures are the same as those of rows in memory, intervals included: both add the same sums, of whole users, of
whole requests and of stretches of each order of the scores (`usr_tf.metrics.cells`,
`pipelines.evaluation.rank_statistics`).

Runs as `usr-tf evaluate_scores` and as `python -m pipelines.evaluate --scores=… --out=… --runner=…`.
"""

import functools
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import AsSingleton

from pipelines.beam.blocks import BlockStore, Gather, Handle, divide, load
from pipelines.beam.file_system import match_in
from pipelines.beam.job import milliseconds, run, scratch
from pipelines.beam.options import make_pipeline
from pipelines.beam.output import TEMP, read_json, read_schema, write_json
from pipelines.beam.program import run_verb
from pipelines.beam.progress import READ_SCORES, TALLY, Progress, display
from pipelines.evaluation.rank_statistics import OrderSums
from pipelines.evaluation.row_blocks import count_training_rows, pack, predictions_of, unpack
from pipelines.evaluation.score_files import SCHEMA_KEY, conform, layout_of
from pipelines.evaluation.training_counts import TrainingCounts
from pipelines.join.split import EVER
from pipelines.score import SCORES
from usr_tf.errors import InputError
from usr_tf.evaluation.report import write_report
from usr_tf.metrics.cells import Cell, Cells, merge, tally_requests, tally_users
from usr_tf.metrics.documents import details_of, metrics_of
from usr_tf.metrics.metric import Sums
from usr_tf.metrics.predictions import Predictions
from usr_tf.metrics.resample import Resample
from usr_tf.schema import SUCCESS, TIMESTAMP, Schema, parse_schema

_BYTES_PER_PARTITION = 8 << 20
_BLOCK_ROWS = 100_000
_LEVEL = 0.95
_NEVER = np.iinfo(np.int64).max


def evaluate_scores(
    scores: str,
    out: str,
    schema_path: str | None = None,
    beam_args: Sequence[str] = (),
    progress: bool = False,
    *,
    trained_until: str | None = None,
    since: str | None = None,
    replicates: int = 200,
    seed: int = 0,
) -> tuple[dict, dict]:
    """Evaluates scored rows and writes `metrics.json`, `details.json` and `report.html` to `out`.

    Args:
      scores: output directory of `score_logs`, or a directory of Parquet files with the columns of
        `pipelines.evaluation.score_files`.
      out: output directory, on any file system of Beam.
      schema_path: schema file. Default: that of the score files.
      beam_args: Beam options, such as `--runner=DataflowRunner`. The default runner is in-process.
      progress: whether to show stages and rows on standard error.
      trained_until: ISO 8601 date or time of the end of the training rows. Earlier rows are not evaluated; they are the
        training counts of the slices of new users and items and of query frequency, and of the popularity baseline,
        which are left out without this argument.
      since: start of the evaluated rows. Default: `trained_until`, or all rows.
      replicates: number of user resamples behind every interval.

    Returns:
      Contents of `metrics.json` and `details.json`.

    Raises:
      InputError: no scores, or invalid scores, schema or output directory.
    """
    if replicates < 1:
        raise InputError("--replicates", str(replicates), "a whole number from 1")
    pipeline = make_pipeline(beam_args)  # first, for file systems take their options from it
    files = _find(scores.rstrip("/"))
    found = _read_layout(files[0])
    schema = read_schema(schema_path) if schema_path else _own_schema(found, files[0])
    layout = layout_of(found, schema, files[0])
    until = milliseconds(trained_until, "--trained_until") if trained_until else EVER
    start = max(until, milliseconds(since) if since else EVER)
    temp, documents = FileSystems.join(out, TEMP), FileSystems.join(out, TEMP, "documents.json")
    _make_folder(temp)
    try:
        with scratch(pipeline, out) as store, display(progress, f"evaluate {scores}", store.progress):
            sums = add_figures(pipeline, schema, files, layout, store, (until, start), replicates, seed)
            bootstrap = {"level": _LEVEL, "replicates": replicates, "seed": seed}
            _ = sums | "Documents" >> beam.Map(_documents, schema, bootstrap) | beam.Map(write_json, documents)
            run(pipeline)
        document, details = read_json(documents)
    finally:
        FileSystems.delete([temp])
    if not any(tasks[schema.task_names[0]]["n"] for tasks in document["scenarios"].values()):
        raise InputError(scores, "no row to evaluate", "rows from --since and --trained_until on")
    _write(out, document, details, schema, f"Scores in {scores}")
    return document, details


def add_figures(
    pipeline: beam.Pipeline,
    schema: Schema,
    files: Sequence[str],
    layout: pa.Schema,
    store: BlockStore,
    times: tuple[int, int],
    replicates: int,
    seed: int,
) -> beam.PCollection:
    """Adds the evaluation to `pipeline`. Its output is one element: the list of all `(cell, sums)`.

    Args:
      layout: of `scored.layout_of`.
      times: ms; training saw the rows before the first, and those from the second on are evaluated.
    """
    partitions = max(1, math.ceil(sum(map(_size, files)) / _BYTES_PER_PARTITION))
    place, _ = FileSystems.split(files[0])
    scored = (
        pipeline
        | "Files" >> beam.Create(files)
        | "OneWorkerAFile" >> beam.Reshuffle()
        | "Check" >> beam.Map(_checked, layout)
        | "Read" >> beam.io.ReadAllFromParquetBatched(columns=layout.names)
        | "Batches" >> beam.FlatMap(_batches, layout, place).with_output_types(pa.RecordBatch)
        | "Gather" >> Gather(_BLOCK_ROWS)
    )
    counts = (
        scored
        | "CountTrainingRows" >> beam.Map(lambda batch: count_training_rows(_between(batch, EVER, times[0]), schema))
        | "SumTrainingCounts" >> beam.CombineGlobally(TrainingCounts.sum)
    )
    rows = scored | "Rows" >> beam.ParDo(_ToRows(schema, times[1], place, store), AsSingleton(counts))
    parts = [rows | "Orders" >> OrderSums(schema, store, replicates, seed)]
    for key, tally in (("user", tally_users), ("request", tally_requests)):
        parts.append(
            rows
            | f"Divide[{key}]" >> beam.ParDo(_Divide(key, partitions, store))
            | f"By[{key}]" >> beam.GroupByKey()
            | f"Tally[{key}]" >> beam.FlatMap(_tally, key, tally, schema, replicates, seed, store.progress)
        )
    return (
        parts | "AllSums" >> beam.Flatten() | "AddSums" >> beam.CombinePerKey(_add) | "Cells" >> beam.combiners.ToList()
    )


def _checked(path: str, layout: pa.Schema) -> str:
    """Score file, checked to be readable and to hold every column of `layout`."""
    missing = set(layout.names) - set(_read_layout(path).names)
    if missing:
        raise InputError(path, f"a file without column {min(missing)}", "it in every file")
    return path


def _batches(table: pa.Table, layout: pa.Schema, place: str) -> Iterator[pa.RecordBatch]:
    for batch in table.to_batches():
        yield conform(batch, layout, place)


class _ToRows(beam.DoFn):
    """Converts batches of scored rows to handles of blocks of `evaluated.pack`."""

    def __init__(self, schema: Schema, since: int, place: str, store: BlockStore):
        self._schema, self._since, self._place, self._store = schema, since, place, store

    def process(self, batch: pa.RecordBatch, counts: TrainingCounts) -> Iterator[Handle]:
        batch = _between(batch, self._since, _NEVER)
        self._store.progress.add(READ_SCORES, batch.num_rows)
        if batch.num_rows:
            yield self._store.put(pack(predictions_of(batch, self._schema, counts, self._place)))


class _Divide(beam.DoFn):
    """Splits blocks by the hash partition of a key."""

    def __init__(self, key: str, partitions: int, store: BlockStore):
        self._key, self._partitions, self._store = key, np.uint64(partitions), store

    def process(self, handle: Handle) -> Iterator[tuple[int, Handle]]:
        block = load(handle)
        part_of_row = (block.column(self._key).to_numpy() % self._partitions).astype(np.int64)
        for number, part in divide(block, part_of_row):
            yield number, self._store.put(part)


def _tally(
    element: tuple[int, Iterable[Handle]],
    key: str,
    tally: Callable[[Predictions, Schema, Resample], Cells],
    schema: Schema,
    replicates: int,
    seed: int,
    progress: Progress,
) -> Iterator[tuple[tuple[str, ...], Sums]]:
    rows = unpack(map(load, element[1]))
    for cell, sums in tally(rows, schema, Resample.of(rows.user, replicates, seed)).items():
        yield tuple(cell), sums
    progress.add(TALLY.format(key), len(rows.user))


def _add(sums: Iterable[Sums]) -> Sums:
    nothing: Sums = {}
    return functools.reduce(merge, sums, nothing)


def _documents(sums: Sequence[tuple[tuple[str, ...], Sums]], schema: Schema, bootstrap: dict) -> list[dict]:
    cells = {Cell(*key): each for key, each in sums}
    return [metrics_of(cells, schema), details_of(cells, schema, **bootstrap)]


def _between(batch: pa.RecordBatch, start: int, stop: int) -> pa.RecordBatch:
    times = batch.column(TIMESTAMP).to_numpy()
    return batch.filter(pa.array((times >= start) & (times < stop)))


def _find(scores: str) -> list[str]:
    """Parquet files of a directory, or of `scores` in the output of `score_logs`."""
    try:
        names = {path: path.removeprefix(FileSystems.join(scores, "")) for path in match_in(scores, ["**"])}
    except (OSError, ValueError, BeamIOError) as error:
        raise InputError(scores, f"no readable directory ({error})", "scored rows") from error
    inside = sorted(path for path, name in names.items() if name.startswith(f"{SCORES}/") and name.endswith(".parquet"))
    if inside and SUCCESS not in names.values():
        raise InputError(scores, f"no {SUCCESS}", "a directory that `usr-tf score_logs` finished")
    files = inside or sorted(path for path, name in names.items() if "/" not in name and name.endswith(".parquet"))
    if not files:
        raise InputError(scores, "no *.parquet", "scored rows, as `usr-tf score_logs` writes them")
    return files


def _read_layout(path: str) -> pa.Schema:
    try:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
            return pq.read_schema(stream)
    except (OSError, BeamIOError, pa.ArrowInvalid) as error:
        raise InputError(path, f"no Parquet ({error})", "scored rows") from error


def _own_schema(layout: pa.Schema, path: str) -> Schema:
    text = (layout.metadata or {}).get(SCHEMA_KEY)
    if text is None:
        raise InputError("--schema", "nothing", f"the schema.yaml of {path}, which does not hold it")
    return parse_schema(text.decode("utf-8"), f"{path}: {SCHEMA_KEY.decode()}")


def _size(path: str) -> int:
    return FileSystems.get_filesystem(path).size(path)


def _make_folder(path: str) -> None:
    try:
        if not FileSystems.exists(path):
            FileSystems.mkdirs(path)
    except (OSError, ValueError, BeamIOError) as error:
        raise InputError(path, f"no writable directory ({error})", "one that can be written") from error


def _write(out: str, document: dict, details: dict, schema: Schema, title: str) -> None:
    """Writes the report to any file system, `metrics.json` last."""
    if "://" not in out:
        write_report(out, document=document, details=details, schema=schema, title=title)
        return
    with tempfile.TemporaryDirectory() as near:
        write_report(near, document=document, details=details, schema=schema, title=title)
        for name in ("report.html", "details.json", "metrics.json"):
            with FileSystems.create(FileSystems.join(out, name)) as stream:
                stream.write(Path(near, name).read_bytes())


if __name__ == "__main__":
    run_verb("evaluate_scores")
