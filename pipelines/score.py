"""Batch scoring job: raw logs → joined rows → a model's probabilities of every impression.

The join is `preprocess`'s: each impression gets its item, its user and the history before it. The transform is
the model's own. So a score here is the one that evaluation computes and that the server answers.

Runs as `usr-tf score_logs` and as `python -m pipelines.score --model=… --logs=… --out=… --runner=…`.
"""

from collections.abc import Callable, Sequence

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from apache_beam.ml.inference.base import RunInference

from pipelines.beam.blocks import BlockStore
from pipelines.beam.file_system import match_in
from pipelines.beam.job import milliseconds, read_and_join, run, scratch
from pipelines.beam.options import make_pipeline
from pipelines.beam.output import TEMP, finish, read_json, read_schema, write_json
from pipelines.beam.program import run_verb
from pipelines.beam.progress import SCORE, Progress, display
from pipelines.evaluation.row_scorer import Probabilities, RowScorer
from pipelines.evaluation.saved_model import check_model, load_saved_model, read_signatures
from pipelines.evaluation.score_files import scored_schema
from pipelines.join.split import EVER
from pipelines.logs.inputs import TableInputs, check_tables, find_tables, partitions_for
from pipelines.logs.rejected import WriteRejected
from pipelines.quality import row_counts as stats
from usr_tf.errors import InputError
from usr_tf.schema import KEYS_OF_LOGS, SCENARIO, SUCCESS, Schema, Split

SCORES, STATS = "scores", "stats.json"
_WRITTEN = {SCORES, "rejected", STATS, TEMP}
_MARK = "score_logs"
_SCHEMA_OF_MODEL = "assets.extra/schema.yaml"


def score_logs(
    model: str,
    logs_dir: str | None,
    out: str,
    schema_path: str | None = None,
    beam_args: Sequence[str] = (),
    partitions: int | None = None,
    progress: bool = False,
    *,
    tables: Sequence[str] = (),
    since: str | None = None,
    load_trees: Callable[[str], Probabilities] | None = None,
    quote_rejected: bool = True,
) -> dict:
    """Scores the impressions of a log directory into `OUT/scores/*.parquet`.

    A row has `request_id`, `user_id`, `item_id`, `scenario`, `timestamp`, a probability per task, and the other columns
    of `evaluate_scores`: labels, position, history length and so on (`pipelines.evaluation.score_files`). A label is 0
    until its action is logged, so the labels of the newest rows are not final. Rejected rows are in `OUT/rejected/`,
    each with its place and reason. `OUT/_SUCCESS` is written last.

    Args:
      model: exported version, `SERVING/<version>`, or a local run of `usr-tf baseline`.
      logs_dir: a log directory (docs/logs.md) on any file system of Beam; None if `tables` names every table.
      out: output directory; remains of an unfinished job are removed.
      schema_path: schema file. Default: that of the model.
      beam_args: Beam options, such as `--runner=DataflowRunner`. The default runner is in-process.
      partitions: number of join partitions of items and users. Default: by the size of the logs.
      progress: whether to show stages and rows on standard error.
      tables: `TABLE=WHERE` for tables elsewhere, as in `preprocess`.
      since: ISO 8601 date or time, UTC unless it names a zone. Earlier impressions are not scored; earlier actions are
        in the histories of later ones.
      load_trees: loads `model`, a run of `usr-tf baseline`. None: it is an exported version.
      quote_rejected: whether `OUT/rejected/` holds rejected rows, or their places and reasons alone.

    Returns:
      What `stats.json` holds.

    Raises:
      InputError: anything wrong with the model, the logs, the schema or the output directory.
    """
    model, out = model.rstrip("/"), out.rstrip("/") or out
    if partitions is not None and partitions < 1:
        raise InputError("--partitions", str(partitions), "a whole number from 1")
    pipeline = make_pipeline(beam_args)  # first, for file systems take their options from it
    schema = _schema_of(model, schema_path, load_trees is not None)
    scorer = RowScorer(model, schema, load_trees or load_saved_model)
    start = milliseconds(since) if since else EVER
    inputs = find_tables(logs_dir, tables)
    check_tables(schema, inputs)
    _prepare(out)
    with scratch(pipeline, out) as store, display(progress, f"score {logs_dir or out}", store.progress):
        build(pipeline, schema, inputs, scorer, out, partitions or partitions_for(inputs), store, start, quote_rejected)
        run(pipeline)
    document = read_json(FileSystems.join(out, STATS))
    _check(document, logs_dir or out)
    finish(out)
    return document


def _schema_of(model: str, schema_path: str | None, trees: bool) -> Schema:
    """The schema to score by, without a split.

    Raises:
      InputError: there is no such model, or the schema is not its.
    """
    own = FileSystems.join(model, "schema.yaml" if trees else _SCHEMA_OF_MODEL)
    signatures = None if trees else read_signatures(model)
    path = schema_path or own
    schema = read_schema(path).model_copy(update={"split": Split(valid=0, test=0)})
    if schema_path and FileSystems.exists(own):
        schema = schema.with_normal_forms(read_schema(own))
    if signatures is not None:
        check_model(model, signatures, schema, path)
    elif schema_path:
        of_model = read_schema(own)
        for name in sorted(Schema.model_fields.keys() - {"split", *KEYS_OF_LOGS}):
            if getattr(schema, name) != getattr(of_model, name):
                raise InputError(f"{path}: {name}", "another value", f"that of {own}")
    return schema


def build(
    pipeline: beam.Pipeline,
    schema: Schema,
    inputs: TableInputs,
    scorer: RowScorer,
    out: str,
    partitions: int,
    store: BlockStore,
    since: int = EVER,
    quote_rejected: bool = True,
) -> None:
    """Adds all stages of the job to `pipeline`. The schema has no split: all rows are in `train`."""
    joined, rejected, counts = read_and_join(pipeline, schema, inputs, partitions, store, since)
    scored = joined["train"] | "Score" >> RunInference(scorer).with_output_types(pa.RecordBatch)
    _ = (
        scored
        | "AsTable" >> beam.Map(lambda batch: pa.Table.from_batches([batch]))
        | "WriteScores"
        >> beam.io.WriteToParquetBatched(
            FileSystems.join(out, SCORES, "part"), scored_schema(schema), codec="zstd", file_name_suffix=".parquet"
        )
    )
    _ = rejected | "WriteRejected" >> WriteRejected(inputs, FileSystems.join(out, "rejected"), quote_rejected)
    _ = (
        (counts, scored | "CountScores" >> beam.Map(_count, schema.task_names, store.progress))
        | "AllCounts" >> beam.Flatten()
        | "AddCounts" >> beam.CombineGlobally(stats.add_counts)
        | "Stats" >> beam.Map(_document, schema)
        | "WriteStats" >> beam.Map(write_json, FileSystems.join(out, STATS))
    )


def _count(scores: pa.RecordBatch, tasks: Sequence[str], progress: Progress) -> dict[tuple[str, ...], float]:
    """Row count and probability sums of a batch of one scenario."""
    progress.add(SCORE, scores.num_rows)
    scenario = scores.column(SCENARIO)[0].as_py()
    counts: dict[tuple[str, ...], float] = {(SCORES, scenario, "impressions"): scores.num_rows}
    return counts | {(SCORES, scenario, task): pc.sum(scores.column(task)).as_py() for task in tasks}


def _document(counts: dict[tuple[str, ...], float], schema: Schema) -> dict:
    """`stats.json`: rows by table as in `preprocess`, and mean probabilities by scenario."""
    document: dict = {"rows": {}, SCORES: {}}
    for (part, name, *rest), count in sorted(counts.items()):
        if part == "rows":
            of_table = document["rows"].setdefault(name, {"read": 0, "written": 0, "rejected": {}})
            place = of_table["rejected"] if len(rest) == 2 else of_table
            place[rest[-1]] = count
    for scenario in schema.scenarios:
        rows = counts.get((SCORES, scenario, "impressions"), 0)
        means = {task: counts[SCORES, scenario, task] / rows if rows else None for task in schema.task_names}
        document[SCORES][scenario] = {"impressions": rows, "mean": means}
    return document


def _check(document: dict, logs_dir: str) -> None:
    """Checks that there are rows to score and that every joined row was scored."""
    impressions = document["rows"]["impressions"]
    scored = sum(scenario["impressions"] for scenario in document[SCORES].values())
    if scored != impressions["written"]:
        raise AssertionError(f"rows were lost: {scored} scored of {impressions}")
    if not scored:
        found = f"no sound impression (rejected: {impressions['rejected']})"
        raise InputError(logs_dir, found, "at least one; see rejected/")


def _prepare(out: str) -> None:
    """Creates `out` with scratch space only, and removes what an unfinished job left there.

    Such a job is recognised by its mark in the scratch space and by holding only our files: no other file is
    ever deleted.

    Raises:
      InputError: `out` holds finished scores or files of others, or cannot be written.
    """
    try:
        paths = match_in(out, ["**"])
        names = {path.removeprefix(FileSystems.join(out, "")).split("/")[0] for path in paths}
        if SUCCESS in names:
            raise InputError(out, "finished scores", "a new or an unfinished directory")
        mark = FileSystems.join(out, TEMP, _MARK)
        foreign = sorted(names - _WRITTEN if mark in paths else names)
        if foreign:
            raise InputError(out, f"other files ({foreign[0]})", "a new directory, or one that an earlier try left")
        FileSystems.delete([path for path in paths if path != mark])
        if mark not in paths:
            if not FileSystems.exists(FileSystems.join(out, TEMP)):
                FileSystems.mkdirs(FileSystems.join(out, TEMP))
            FileSystems.create(mark).close()
    except (OSError, BeamIOError) as error:
        raise InputError(out, f"no writable directory ({error})", "one that can be written") from error


if __name__ == "__main__":
    run_verb("score_logs")
