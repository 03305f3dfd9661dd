"""Offline evaluation: probabilities, metrics, baselines and report of a run on a split."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

from usr_tf.baseline.model import TreeModel
from usr_tf.baseline.run import TreeRun
from usr_tf.data import Data, Features, Split
from usr_tf.data.raw_values import RawValues
from usr_tf.errors import InputError
from usr_tf.evaluation.feature_slices import check_features, feature_slices, slice_columns
from usr_tf.evaluation.report import RunSummary, write_report
from usr_tf.evaluation.row_texts import row_texts
from usr_tf.evaluation.view_diagnostics import views_document
from usr_tf.files import make_folder
from usr_tf.metrics import Predictions, details_document, metrics_document, slices_of
from usr_tf.metrics.feature_slices import FEATURE
from usr_tf.metrics.keys import query_keys
from usr_tf.metrics.model_baselines import with_model_baselines
from usr_tf.metrics.predictions import refuse_improbable
from usr_tf.model import USRModel
from usr_tf.run import AnyRun, Run, open_run_data
from usr_tf.schema import (
    ACTION,
    HISTORY,
    POSITION,
    RAW_ITEM,
    RAW_USER,
    REQUEST,
    SCENARIO,
    SUCCESS,
    TIMESTAMP,
    history_column,
    oracle_column,
)
from usr_tf.training.history import read_history

_BATCH = 4096
_QUERY = "raw_query"


def evaluate(
    run: AnyRun,
    data: Data,
    out: str | Path,
    split: Split = "test",
    replicates: int = 200,
    progress: bool = False,
    beside: Run | None = None,
    slices: Sequence[str] = (),
    baselines: Sequence[AnyRun] = (),
) -> tuple[dict, dict]:
    """Evaluates the run's best model and writes `metrics.json`, `details.json` and `report.html` to `out`.

    Args:
      replicates: bootstrap samples of the users behind every interval.
      progress: show a progress bar on standard error.
      beside: another run on the same data, whose views are shown beside this one's.
      slices: features that the rows are sliced by, beside the built-in slices.
      baselines: runs on the same data that this one is compared with, such as those of `usr-tf baseline`.

    Returns:
      Contents of `metrics.json` and `details.json`.

    Raises:
      InputError: a file of the data is broken, another run is of other data, the schema lacks a feature of `slices`,
        a model answers no probabilities, the run is a tree run and `beside` is given, or `out` cannot be a folder.
    """
    check_features(slices, data.schema)
    if beside and not isinstance(run, Run):
        raise InputError(run.directory, "a tree run, which has no views", "a run of `usr-tf train` with --beside")
    make_folder(out)  # or be told before the work that it cannot be
    for other in (*baselines, *([beside] if beside else [])):
        open_run_data(other, data.directory)
    model = run.load_model()
    predictions = predict(model, data, split, progress=progress, place=run.directory, features=slices)
    training = data.shown(skip_corrupt=isinstance(run, Run) and run.config.train.skip_corrupt)
    raw = RawValues(data.schema, run.transform)
    by_feature = feature_slices(predictions.features, data, split, raw)
    predictions = dataclasses.replace(predictions, slices=slices_of(predictions, training) | by_feature)
    document = metrics_document(predictions, data.schema)
    details = details_document(predictions, data.schema, training.items, replicates=replicates)
    others = {
        name: predict(each.load_model(), data, split, progress=progress, place=each.directory)
        for name, each in _names(baselines).items()
    }
    document, details = with_model_baselines(document, details, predictions, others, data.schema)
    write_report(
        out,
        document=document,
        details=details,
        predictions=predictions,
        schema=data.schema,
        title=f"{run.name} on the {split} split",
        texts_of=lambda rows: row_texts(data, split, rows, _BATCH, raw),
        run_summary=RunSummary(
            config=run.config,
            trained=f"{datetime.fromtimestamp((run.directory / SUCCESS).stat().st_mtime, UTC):%Y-%m-%d %H:%M} UTC",
            split=split,
            command=_command(run, data, out, split, beside, baselines, slices),
            history=read_history(run.history) if isinstance(run, Run) else (),
            stats=data.stats,
            vocabulary_sizes=data.vocabulary_sizes,
            views=_views(run, model, data, split),
            importances=run.importances if isinstance(run, TreeRun) else None,
            beside=_views(beside, beside.load_model(), data, split) if beside else None,
        ),
    )
    return document, details


def _views(run: AnyRun, model: USRModel | TreeModel, data: Data, split: Split) -> dict[str, Any] | None:
    """View diagnostics; None for trees, which have no views."""
    return views_document(run, model, data, split) if isinstance(run, Run) and isinstance(model, USRModel) else None


def _names(runs: Sequence[AnyRun]) -> dict[str, AnyRun]:
    """Runs by their models' names, with the directory where two have the same name."""
    names = [run.name for run in runs]
    return {run.name if names.count(run.name) == 1 else f"{run.name} ({run.directory})": run for run in runs}


def _command(
    run: AnyRun,
    data: Data,
    out: str | Path,
    split: Split,
    beside: Run | None,
    baselines: Sequence[AnyRun],
    slices: Sequence[str],
) -> list[str]:
    """Command that reproduces the report."""
    values = [("run", run.directory), ("data", data.directory), ("split", split), ("out", out)]
    values += [("beside", beside.directory)] if beside else []
    values += [("baseline", baseline.directory) for baseline in baselines]
    values += [("slice", ",".join(slices))] if slices else []
    return ["usr-tf", "evaluate", *(str(part) for name, value in values for part in (f"--{name}", value))]


def predict(
    model: Callable[[Features], Mapping[str, Any]],
    data: Data,
    split: Split,
    batch_size: int = _BATCH,
    progress: bool = False,
    place: Any = "the model",
    features: Sequence[str] = (),
) -> Predictions:
    """Probabilities of every row of a split, with keys and labels.

    Args:
      model: a `USRModel`, a `TreeModel`, or another function from a batch's features to task → probabilities `[B]`.
      progress: show a progress bar on standard error.
      place: where the model is from, for an error to name.
      features: to keep of each row, for slices.

    Raises:
      InputError: a file of the split is broken or gone, or the model answers no probabilities.
    """
    schema, tasks = data.schema, data.schema.task_names

    def score(row: Features) -> dict[str, Any]:
        probabilities = model(row)
        return {task: probabilities[task] for task in tasks}

    run = tf.function(score, reduce_retracing=True) if isinstance(model, tf.Module) else score
    columns: dict[str, list[np.ndarray]] = {}

    def add(name: str, values: np.ndarray) -> None:
        columns.setdefault(name, []).append(values)

    batches = data.evaluation(batch_size, split)
    if progress:
        description = f"score the {split} split"
        batches = track(batches, description, -(-data.rows(split) // batch_size), console=Console(stderr=True))
    with data.naming_broken(split):
        for row, labels, keys in batches:
            add(SCENARIO, row[SCENARIO].numpy())
            for name, values in keys.items():
                add(name, values.numpy())
            for task, values in run(row).items():
                add(f"p_{task}", np.asarray(values))
                add(task, labels[task].numpy())
            if schema.history_columns:
                add(HISTORY, np.count_nonzero(row[history_column(ACTION)], axis=1))
            if schema.features_of("query"):
                add(_QUERY, query_keys({name: row[name].numpy() for name in schema.features_of("query")}, schema))
            for name, values in slice_columns(row, features, schema).items():
                add(FEATURE + name, values)
    whole = {name: np.concatenate(parts) for name, parts in columns.items()}
    if len(whole.get(SCENARIO, ())) != data.rows(split):  # a file is gone, or empty
        data.refuse_broken(split)

    def column(name: str, kind: type = float) -> np.ndarray:
        return whole.get(name, np.zeros(0, kind))

    def keys_of(number: int) -> tuple[str, str, str]:
        item, request = (whole[name][number].decode("utf-8", "replace") for name in (RAW_ITEM, REQUEST))
        return item, request, schema.scenarios[whole[SCENARIO][number]]

    probabilities = {task: column(f"p_{task}") for task in tasks}
    refuse_improbable(probabilities, keys_of, f"{place} on the {split} split")
    oracle = {task: column(oracle_column(task)) for task in tasks}
    return Predictions(
        scenario=column(SCENARIO, int),
        user=column(RAW_USER, object),
        request=column(REQUEST, object),
        item=column(RAW_ITEM, object),
        position=column(POSITION, int),
        labels={task: column(task) for task in tasks},
        probabilities=probabilities,
        oracle={task: values for task, values in oracle.items() if not np.isnan(values).all()},
        timestamp=column(TIMESTAMP, int),
        history=column(HISTORY, int) if schema.history_columns else None,
        query=column(_QUERY, np.uint64) if schema.features_of("query") else None,
        features={name: column(FEATURE + name) for name in features},
    )
