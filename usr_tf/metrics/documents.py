"""Documents `metrics.json` and `details.json`, from rows in memory or from additive sums."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from usr_tf.metrics.baselines import popularity_baseline, position_baseline
from usr_tf.metrics.cells import ORACLE, OVERALL, Cell, Cells, of_score, tally
from usr_tf.metrics.curves import deciles_of, histogram_of, roc_of
from usr_tf.metrics.feature_slices import FEATURE
from usr_tf.metrics.metric import Sums
from usr_tf.metrics.predictions import Predictions
from usr_tf.metrics.probability import LOGLOSS, NE
from usr_tf.metrics.ranking import AUC
from usr_tf.metrics.registry import METRICS, metrics_for
from usr_tf.metrics.resample import check_interval, interval
from usr_tf.metrics.slices import by_value
from usr_tf.schema import Schema

BASELINES = ("position", "popularity")


def metrics_document(predictions: Predictions, schema: Schema) -> dict[str, Any]:
    """`metrics.json`: the metrics of each scenario of the schema, and of all rows together.

    A task holds `registry.METRICS`, `n` rows, `positives`, and `oracle_auc`, the AUC of the true probabilities, where
    every row has one. An undefined metric is None, never 0, 0.5 or NaN. A scenario without rows has `n` 0. Values are
    Python's own int, float and None.

    Raises:
      ValueError: rows that lack a task of the schema, or have a scenario that it lacks.
    """
    alone = dataclasses.replace(predictions, slices={}, baselines={})
    return metrics_of(tally(alone, schema), schema)


def details_document(
    predictions: Predictions,
    schema: Schema,
    train_clicks: Mapping[Any, tuple[int, int]] | None = None,
    *,
    replicates: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """`details.json`: intervals, baselines, slices and plot data for `metrics_document`.

    Laid out as `metrics.json`. Each task holds

    - `intervals`: metric → [low, high] or null;
    - `baselines`: `position` and `popularity` → the ranking metrics of that score and `auc_gain`, the interval of the
      model's AUC less its, or null where it is not known. Both rank by click, whatever the task;
    - `oracle`: `logloss` and `ne` of the true probabilities, the least that a model can hope for, or null where a row
      has none;
    - `deciles`, `roc`, `oracle_roc` where known, and `scores`, the histogram of log10 of the probability by class;
    - `slices`: name of each of `predictions.slices` → its values, each with figures of its rows.

    Args:
      train_clicks: item → (clicks, impressions) in the training split, for the popularity baseline.

    Raises:
      ValueError: no replicates, a level outside (0, 1), rows that lack a task of the schema or have
        a scenario that it lacks, or more clicks than impressions.
    """
    check_interval(replicates, level)
    baselines = {
        "position": position_baseline(predictions),
        "popularity": None if train_clicks is None else popularity_baseline(predictions, train_clicks),
    }
    known = {name: scores for name, scores in baselines.items() if scores is not None}
    cells = tally(dataclasses.replace(predictions, baselines=known), schema, replicates, seed)
    return details_of(cells, schema, replicates=replicates, seed=seed, level=level)


def metrics_of(cells: Cells, schema: Schema) -> dict[str, Any]:
    """`metrics_document` from the sums of every cell."""

    def metrics(scenario: str, task: str) -> dict[str, int | float | None]:
        sums = cells.get(Cell(scenario, task))
        if sums is None:
            return {metric.name: None for metric in metrics_for(schema, task)} | {"n": 0, "positives": 0}
        figures = {metric.name: metric.value(sums) for metric in metrics_for(schema, task)}
        figures |= {"n": int(sums["rows"][0]), "positives": int(sums["positives"][0])}
        oracle = of_score(sums, ORACLE)
        return figures | ({"oracle_auc": _oracle_auc(sums, oracle)} if _is_known(sums, oracle) else {})

    return _by_scenario(schema, metrics)


def details_of(cells: Cells, schema: Schema, *, replicates: int, seed: int, level: float) -> dict[str, Any]:
    """`details_document` from the sums of every cell, with `replicates` and `seed`."""

    def details(scenario: str, task: str) -> dict[str, Any]:
        sums = cells.get(Cell(scenario, task))
        shown = [metric for metric in metrics_for(schema, task) if metric.interval]
        if sums is None:
            none = {metric.name: None for metric in shown}
            return _NO_ROWS | {"intervals": none, "baselines": dict.fromkeys(BASELINES)}
        oracle = of_score(sums, ORACLE)
        document = {
            "intervals": {each.name: interval(each.sample(sums), sums["users"][0], level) for each in shown},
            "baselines": {name: _baseline(sums, of_score(sums, name), level) for name in BASELINES},
            "oracle": _oracle_loss(sums, oracle),
            "deciles": deciles_of(sums),
            "roc": roc_of(sums["roc"]),
            "scores": histogram_of(sums["histogram"]),
            "slices": _slices(cells, scenario, task, level),
        }
        return document | ({"oracle_roc": roc_of(oracle["roc"])} if _is_known(sums, oracle) else {})

    return {"level": level, "replicates": replicates, "seed": seed} | _by_scenario(schema, details)


_NO_ROWS: dict[str, Any] = {
    "oracle": None,
    "deciles": [],
    "roc": None,
    "scores": {"edges": [], "negatives": [], "positives": []},
    "slices": {},
}


def _by_scenario(schema: Schema, of: Callable[[str, str], dict[str, Any]]) -> dict[str, Any]:
    """`of(scenario, task)` for each scenario and task, and overall."""
    scenarios = {name: {task: of(name, task) for task in schema.task_names} for name in schema.scenarios}
    return {"scenarios": scenarios, OVERALL: {task: of(OVERALL, task) for task in schema.task_names}}


def _is_known(sums: Sums, other: Sums) -> bool:
    """Whether every row has the score that `other` names."""
    return "known" in other and other["known"][0] == sums["rows"][0]


def _oracle_auc(sums: Sums, oracle: Sums) -> float | None:
    classes = {name: sums[name][:1] for name in ("rows", "positives")}
    return AUC.value(oracle | classes) if _is_known(sums, oracle) else None


def _oracle_loss(sums: Sums, oracle: Sums) -> dict[str, float | None] | None:
    if not _is_known(sums, oracle):
        return None
    known = {"rows": sums["rows"][:1], "positives": sums["positives"][:1], "loss": oracle["loss"]}
    return {metric.name: metric.value(known) for metric in (LOGLOSS, NE)}


def _baseline(sums: Sums, baseline: Sums, level: float) -> dict[str, Any] | None:
    """Rank metrics of a baseline, and the interval of the model's AUC minus its."""
    if not _is_known(sums, baseline):
        return None
    whole = baseline | {name: sums[name] for name in ("rows", "positives")}
    gain = AUC.sample(sums) - AUC.sample(whole)
    figures = {metric.name: metric.value(whole) for metric in METRICS.values() if metric.ranking}
    return figures | {"auc_gain": interval(gain, sums["users"][0], level)}


def _slices(cells: Cells, scenario: str, task: str, level: float) -> dict[str, list[dict[str, Any]]]:
    slices: dict[str, list[dict[str, Any]]] = {}
    for cell, sums in cells.items():
        if cell.slice and cell[:2] == (scenario, task):
            row = {
                "value": cell.value,
                "n": int(sums["rows"][0]),
                "positives": int(sums["positives"][0]),
                "auc": AUC.value(sums),
                "auc_interval": interval(AUC.sample(sums), sums["users"][0], level),
                **{metric.name: metric.value(sums) for metric in METRICS.values() if metric.in_slices},
                "oracle_auc": _oracle_auc(sums, of_score(sums, ORACLE)),
            }
            slices.setdefault(cell.slice, []).append(row)
    return {
        name: rows if name.startswith(FEATURE) else sorted(rows, key=lambda row: by_value(row["value"]))
        for name, rows in slices.items()  # parts of a feature come in the order of its slice
    }
