"""Baselines that are models: their figures beside the evaluated model's, and the interval of the AUC difference."""

from collections.abc import Mapping
from typing import Any

from usr_tf.metrics.cells import OVERALL
from usr_tf.metrics.comparison import compare
from usr_tf.metrics.documents import metrics_document
from usr_tf.metrics.predictions import Predictions
from usr_tf.schema import Schema

_OF_ROWS = ("n", "positives", "oracle_auc")
"""Figures of the rows, which are the same for every model."""


def with_model_baselines(
    document: Mapping[str, Any],
    details: Mapping[str, Any],
    model: Predictions,
    baselines: Mapping[str, Predictions],
    schema: Schema,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`metrics.json` and `details.json` with other models' figures of the same rows.

    `metrics.json` gets `baselines`: name → that model's own `metrics.json`. In `details.json`, the `baselines` of each
    task get the name → its figures and `auc_gain`, the interval of the model's AUC less the baseline's, as those of
    `position` have it. The intervals come from the resampled users of `details`, the same ones for both.

    Raises:
      ValueError: the rows are not the same.
    """
    document, details = dict(document), dict(details)
    if not baselines:
        return document, details
    document["baselines"] = {name: metrics_document(rows, schema) for name, rows in baselines.items()}
    for name, rows in baselines.items():
        settings = {key: details[key] for key in ("replicates", "seed", "level")}
        compared = compare(model, rows, schema, **settings)
        own = document["baselines"][name]
        details["scenarios"] = {
            scenario: _with_baseline(tasks, name, own["scenarios"][scenario], compared["scenarios"][scenario])
            for scenario, tasks in details["scenarios"].items()
        }
        details[OVERALL] = _with_baseline(details[OVERALL], name, own[OVERALL], compared[OVERALL])
    return document, details


def _with_baseline(
    tasks: Mapping[str, Any], name: str, own: Mapping[str, Any], compared: Mapping[str, Any]
) -> dict[str, Any]:
    """Tasks of `details.json` with a baseline more."""
    extended = {}
    for task, detail in tasks.items():
        figures = {figure: value for figure, value in own[task].items() if figure not in _OF_ROWS}
        baseline = figures | {"auc_gain": compared[task]["auc"]["interval"]}
        extended[task] = {**detail, "baselines": {**detail["baselines"], name: baseline}}
    return extended
