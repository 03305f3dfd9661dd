"""Offline evaluation: a model's probabilities of a split, with what its figures are held against."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

from usr_tf.data import Data, Split
from usr_tf.metrics import Predictions, details_document, metrics_document
from usr_tf.model import USRModel
from usr_tf.report import write_report
from usr_tf.run import Run
from usr_tf.schema import POSITION, RAW_ITEM, RAW_USER, REQUEST, SCENARIO, oracle_column

_BATCH = 4096


def evaluate(
    run: Run, data: Data, out: str | Path, split: Split = "test", replicates: int = 200, progress: bool = False
) -> tuple[dict, dict]:
    """Evaluates the run's best model and writes `metrics.json`, `details.json` and `report.html` to `out`.

    Args:
      replicates: bootstrap samples of the users behind every interval.
      progress: show a progress bar on standard error.

    Returns:
      What `metrics.json` and `details.json` hold.

    Raises:
      InputError: a file of the split is broken.
    """
    try:
        predictions = predict(run.load_model(), data, split, progress=progress)
    except tf.errors.DataLossError:
        data.refuse_broken(split)
        raise
    document = metrics_document(predictions, data.schema)
    details = details_document(predictions, data.schema, data.item_clicks(), replicates=replicates)
    write_report(
        out,
        document=document,
        details=details,
        predictions=predictions,
        schema=data.schema,
        title=f"{run.config.backbone} on the {split} split",
    )
    return document, details


def predict(model: USRModel, data: Data, split: Split, batch_size: int = _BATCH, progress: bool = False) -> Predictions:
    """The model's probabilities of every row of a split, with the row's keys and labels.

    Args:
      progress: show a progress bar on standard error.
    """
    tasks = data.schema.task_names

    @tf.function(reduce_retracing=True)
    def run(features: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        probabilities = model(features)
        return {task: probabilities[task] for task in tasks}

    columns: dict[str, list[np.ndarray]] = {}

    def add(name: str, values: tf.Tensor) -> None:
        columns.setdefault(name, []).append(values.numpy())

    batches = data.evaluation(batch_size, split)
    if progress:
        description = f"score the {split} split"
        batches = track(batches, description, -(-data.rows(split) // batch_size), console=Console(stderr=True))
    for features, labels, keys in batches:
        add(SCENARIO, features[SCENARIO])
        for name, values in keys.items():
            add(name, values)
        for task, values in run(features).items():
            add(f"p_{task}", values)
            add(task, labels[task])
    whole = {name: np.concatenate(parts) for name, parts in columns.items()}
    if len(whole.get(SCENARIO, ())) != data.rows(split):  # a file is gone, or empty
        data.refuse_broken(split)

    def column(name: str, kind: type = float) -> np.ndarray:
        return whole.get(name, np.zeros(0, kind))

    oracle = {task: column(oracle_column(task)) for task in tasks}
    return Predictions(
        scenario=column(SCENARIO, int),
        user=column(RAW_USER, object),
        request=column(REQUEST, object),
        item=column(RAW_ITEM, object),
        position=column(POSITION, int),
        labels={task: column(task) for task in tasks},
        probabilities={task: column(f"p_{task}") for task in tasks},
        oracle={task: values for task, values in oracle.items() if not np.isnan(values).all()},
    )
