"""Offline evaluation: a model's probabilities of a split, with what its figures are held against."""

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

from usr_tf.data import Data, Split
from usr_tf.data.raw_values import RawValues
from usr_tf.evaluation.feature_slices import check_features, feature_slices, slice_columns
from usr_tf.evaluation.report import RunSummary, write_report
from usr_tf.evaluation.row_texts import row_texts
from usr_tf.evaluation.view_diagnostics import views_document
from usr_tf.files import make_folder
from usr_tf.metrics import Predictions, details_document, metrics_document, slices_of
from usr_tf.metrics.feature_slices import FEATURE
from usr_tf.metrics.keys import query_keys
from usr_tf.metrics.predictions import refuse_improbable
from usr_tf.model import USRModel
from usr_tf.run import Run, open_run_data
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
    run: Run,
    data: Data,
    out: str | Path,
    split: Split = "test",
    replicates: int = 200,
    progress: bool = False,
    beside: Run | None = None,
    slices: Sequence[str] = (),
) -> tuple[dict, dict]:
    """Evaluates the run's best model and writes `metrics.json`, `details.json` and `report.html` to `out`.

    Args:
      replicates: bootstrap samples of the users behind every interval.
      progress: show a progress bar on standard error.
      beside: another run on the same data, whose views are shown beside this one's.
      slices: features that the rows are sliced by, beside the built-in slices.

    Returns:
      What `metrics.json` and `details.json` hold.

    Raises:
      InputError: a file of the data is broken, the other run is of other data, the schema lacks a feature of `slices`,
        the model answers no probabilities, or `out` cannot be a folder.
    """
    check_features(slices, data.schema)
    make_folder(out)  # or be told before the work that it cannot be
    if beside:
        open_run_data(beside, data.directory)
    model = run.load_model()
    predictions = predict(model, data, split, progress=progress, place=run.directory, features=slices)
    training, raw = data.shown(skip_corrupt=run.config.train.skip_corrupt), RawValues(data.schema, run.transform)
    by_feature = feature_slices(predictions.features, data, split, raw)
    predictions = dataclasses.replace(predictions, slices=slices_of(predictions, training) | by_feature)
    document = metrics_document(predictions, data.schema)
    details = details_document(predictions, data.schema, training.items, replicates=replicates)
    write_report(
        out,
        document=document,
        details=details,
        predictions=predictions,
        schema=data.schema,
        title=f"{run.config.backbone} on the {split} split",
        texts_of=lambda rows: row_texts(data, split, rows, _BATCH, raw),
        run_summary=RunSummary(
            config=run.config,
            trained=f"{datetime.fromtimestamp((run.directory / SUCCESS).stat().st_mtime, UTC):%Y-%m-%d %H:%M} UTC",
            split=split,
            command=_command(run, data, out, split, beside, slices),
            history=read_history(run.history),
            stats=data.stats,
            vocabulary_sizes=data.vocabulary_sizes,
            views=views_document(run, model, data, split),
            beside=views_document(beside, beside.load_model(), data, split) if beside else None,
        ),
    )
    return document, details


def _command(
    run: Run, data: Data, out: str | Path, split: Split, beside: Run | None, slices: Sequence[str]
) -> list[str]:
    """What makes the same report again."""
    values = {"run": run.directory, "data": data.directory, "split": split, "out": out}
    if beside:
        values["beside"] = beside.directory
    if slices:
        values["slice"] = ",".join(slices)
    return ["usr-tf", "evaluate", *(str(part) for name, value in values.items() for part in (f"--{name}", value))]


def predict(
    model: USRModel,
    data: Data,
    split: Split,
    batch_size: int = _BATCH,
    progress: bool = False,
    place: Any = "the model",
    features: Sequence[str] = (),
) -> Predictions:
    """The model's probabilities of every row of a split, with the row's keys and labels.

    Args:
      progress: show a progress bar on standard error.
      place: where the model is from, for an error to name.
      features: to keep of each row, for slices.

    Raises:
      InputError: a file of the split is broken or gone, or the model answers no probabilities.
    """
    schema, tasks = data.schema, data.schema.task_names

    @tf.function(reduce_retracing=True)
    def run(row: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        probabilities = model(row)
        return {task: probabilities[task] for task in tasks}

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
                add(f"p_{task}", values.numpy())
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
