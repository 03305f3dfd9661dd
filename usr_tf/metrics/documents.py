"""`metrics.json` and `details.json`, from rows in memory or from the sums of every cell."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from usr_tf.metrics.baselines import popularity_baseline, position_baseline
from usr_tf.metrics.cells import ORACLE, OVERALL, Cell, Cells, of_score, tally
from usr_tf.metrics.curves import deciles_of, histogram_of, roc_of
from usr_tf.metrics.feature_slices import FEATURE
from usr_tf.metrics.figures import FIGURES, GIVEN_PREVIOUS, RANK_FIGURES, figure_of, value_of
from usr_tf.metrics.predictions import Predictions
from usr_tf.metrics.resample import check_interval, interval
from usr_tf.metrics.slices import by_value
from usr_tf.metrics.sums import Sums
from usr_tf.schema import Schema

BASELINES = ("position", "popularity")

_SLICE_FIGURES = ("gauc", "logloss", "ne", "calibration")


def metrics_document(predictions: Predictions, schema: Schema) -> dict[str, Any]:
    """`metrics.json`: `task_metrics` for each scenario of the schema and for all rows together.

    A task that follows another has `auc_given_previous` too. A scenario without rows is there, with `n` 0. Values are
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
    figures: Sequence[str] = (*FIGURES, GIVEN_PREVIOUS),
    replicates: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """`details.json`: what the figures of `metrics_document` are to be held against, and what plots are drawn from.

    Laid out as `metrics.json`. Each task holds

    - `intervals`: figure → [low, high] or null;
    - `baselines`: `position` and `popularity` → `rank_metrics` of that score and `auc_gain`, the interval of the
      model's AUC less its, or null where it is not known. Both rank by click, whatever the task;
    - `oracle`: `logloss` and `ne` of the true probabilities, the least that a model can hope for, or null where a row
      has none;
    - `deciles`, `roc`, `oracle_roc` where known, and `scores`, the histogram of log10 of the probability by class;
    - `slices`: name of each of `predictions.slices` → its values, each with figures of its rows.

    Args:
      train_clicks: item → (clicks, impressions) in the training split, for the popularity baseline.

    Raises:
      ValueError: an unknown figure, no replicates, a level outside (0, 1), rows that lack a task of the schema or have
        a scenario that it lacks, or more clicks than impressions.
    """
    check_interval(replicates, level)
    for name in figures:
        if name not in (*FIGURES, GIVEN_PREVIOUS):
            raise ValueError(f"`figures` must be of {', '.join((*FIGURES, GIVEN_PREVIOUS))}. Received: {name!r}")
    baselines = {
        "position": position_baseline(predictions),
        "popularity": None if train_clicks is None else popularity_baseline(predictions, train_clicks),
    }
    known = {name: scores for name, scores in baselines.items() if scores is not None}
    cells = tally(dataclasses.replace(predictions, baselines=known), schema, replicates, seed)
    return details_of(cells, schema, figures=figures, replicates=replicates, seed=seed, level=level)


def metrics_of(cells: Cells, schema: Schema) -> dict[str, Any]:
    """`metrics_document` of the sums of every cell."""

    def metrics(scenario: str, task: str) -> dict[str, int | float | None]:
        sums = cells.get(Cell(scenario, task))
        if sums is None:
            return dict.fromkeys(figure_names(schema, task)) | {"n": 0, "positives": 0}
        figures = {name: value_of(sums, name) for name in figure_names(schema, task)}
        figures |= {"n": int(sums["rows"][0]), "positives": int(sums["positives"][0])}
        oracle = of_score(sums, ORACLE)
        return figures | ({"oracle_auc": _oracle_auc(sums, oracle)} if _is_known(sums, oracle) else {})

    return _by_scenario(schema, metrics)


def details_of(
    cells: Cells,
    schema: Schema,
    *,
    replicates: int,
    seed: int,
    level: float,
    figures: Sequence[str] = (*FIGURES, GIVEN_PREVIOUS),
) -> dict[str, Any]:
    """`details_document` of the sums of every cell, which `replicates` and `seed` are behind."""

    def details(scenario: str, task: str) -> dict[str, Any]:
        sums = cells.get(Cell(scenario, task))
        names = [name for name in figures if name in figure_names(schema, task)]
        if sums is None:
            return _NO_ROWS | {"intervals": dict.fromkeys(names), "baselines": dict.fromkeys(BASELINES)}
        oracle = of_score(sums, ORACLE)
        document = {
            "intervals": {name: interval(figure_of(sums, name), sums["users"][0], level) for name in names},
            "baselines": {name: _baseline(sums, of_score(sums, name), level) for name in BASELINES},
            "oracle": _oracle_loss(sums, oracle),
            "deciles": deciles_of(sums),
            "roc": roc_of(sums["roc"]),
            "scores": histogram_of(sums["histogram"]),
            "slices": _slices(cells, scenario, task, level),
        }
        return document | ({"oracle_roc": roc_of(oracle["roc"])} if _is_known(sums, oracle) else {})

    return {"level": level, "replicates": replicates, "seed": seed} | _by_scenario(schema, details)


def figure_names(schema: Schema, task: str) -> tuple[str, ...]:
    """The figures that a task has."""
    return FIGURES if task == schema.task_names[0] else (*FIGURES, GIVEN_PREVIOUS)


_NO_ROWS: dict[str, Any] = {
    "oracle": None,
    "deciles": [],
    "roc": None,
    "scores": {"edges": [], "negatives": [], "positives": []},
    "slices": {},
}


def _by_scenario(schema: Schema, of: Callable[[str, str], dict[str, Any]]) -> dict[str, Any]:
    """`of(scenario, task)` for each scenario and task, and for all rows."""
    scenarios = {name: {task: of(name, task) for task in schema.task_names} for name in schema.scenarios}
    return {"scenarios": scenarios, OVERALL: {task: of(OVERALL, task) for task in schema.task_names}}


def _is_known(sums: Sums, other: Sums) -> bool:
    """Whether every row has the score that `other` is of."""
    return "known" in other and other["known"][0] == sums["rows"][0]


def _oracle_auc(sums: Sums, oracle: Sums) -> float | None:
    classes = {name: sums[name][:1] for name in ("rows", "positives")}
    return value_of(oracle | classes, "auc") if _is_known(sums, oracle) else None


def _oracle_loss(sums: Sums, oracle: Sums) -> dict[str, float | None] | None:
    if not _is_known(sums, oracle):
        return None
    known = {"rows": sums["rows"][:1], "positives": sums["positives"][:1], "loss": oracle["loss"]}
    return {name: value_of(known, name) for name in ("logloss", "ne")}


def _baseline(sums: Sums, baseline: Sums, level: float) -> dict[str, Any] | None:
    """Its rank figures, and the interval of the model's AUC less its."""
    if not _is_known(sums, baseline):
        return None
    whole = baseline | {name: sums[name] for name in ("rows", "positives")}
    gain = figure_of(sums, "auc") - figure_of(whole, "auc")
    figures = {name: value_of(whole, name) for name in RANK_FIGURES}
    return figures | {"auc_gain": interval(gain, sums["users"][0], level)}


def _slices(cells: Cells, scenario: str, task: str, level: float) -> dict[str, list[dict[str, Any]]]:
    slices: dict[str, list[dict[str, Any]]] = {}
    for cell, sums in cells.items():
        if cell.slice and cell[:2] == (scenario, task):
            row = {
                "value": cell.value,
                "n": int(sums["rows"][0]),
                "positives": int(sums["positives"][0]),
                "auc": value_of(sums, "auc"),
                "auc_interval": interval(figure_of(sums, "auc"), sums["users"][0], level),
                **{name: value_of(sums, name) for name in _SLICE_FIGURES},
                "oracle_auc": _oracle_auc(sums, of_score(sums, ORACLE)),
            }
            slices.setdefault(cell.slice, []).append(row)
    return {
        name: rows if name.startswith(FEATURE) else sorted(rows, key=lambda row: by_value(row["value"]))
        for name, rows in slices.items()  # parts of a feature come in the order of its slice
    }
