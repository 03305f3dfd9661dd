"""Comparison of two models on the same rows: paired intervals of every metric, DeLong's test for AUC."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

from usr_tf.metrics.cells import OVERALL, Cell, tally
from usr_tf.metrics.checks import check_labels, check_lengths, check_numbers
from usr_tf.metrics.keys import hash_keys
from usr_tf.metrics.predictions import Predictions
from usr_tf.metrics.registry import metrics_for
from usr_tf.metrics.resample import check_interval, interval
from usr_tf.schema import Schema


@dataclass(frozen=True)
class DeLong:
    """Result of DeLong's test of AUC(a) − AUC(b)."""

    difference: float
    standard_error: float
    z: float
    p_value: float
    """Chance of a difference as far from 0, either way, if there were none."""


def delong_test(labels: np.ndarray, scores_a: np.ndarray, scores_b: np.ndarray) -> DeLong | None:
    """DeLong's test of two AUCs on the same rows, which it assumes to be independent.

    Of rows in which users come back it makes too much: there the bootstrap by user is to be believed. None with fewer
    than two rows of either class, or where the two rank alike and there is nothing to test.

    DeLong et al., "Comparing the areas under two or more correlated receiver operating characteristic curves" (1988),
    by the midranks of Sun and Xu, "Fast implementation of DeLong's algorithm" (2014): O(N log N).

    Args:
      labels: 0 or 1 `[N]`.
      scores_a, scores_b: of the two models, `[N]`.

    Raises:
      ValueError: another shape or length, labels other than 0 and 1, or a score that is NaN or infinite.
    """
    labels = check_labels("labels", labels)
    scores_a, scores_b = check_numbers("scores_a", scores_a), check_numbers("scores_b", scores_b)
    check_lengths(labels=labels, scores_a=scores_a, scores_b=scores_b)
    positive = labels == 1
    hits, falls = np.count_nonzero(positive), np.count_nonzero(~positive)
    if min(hits, falls) < 2:
        return None
    shares = zip(_shares(positive, scores_a), _shares(positive, scores_b), strict=True)
    of_hits, of_falls = (of_a - of_b for of_a, of_b in shares)
    error = float(np.sqrt(of_hits.var(ddof=1) / hits + of_falls.var(ddof=1) / falls))
    if error <= 4 * np.finfo(np.float64).eps:  # rounding of equal differences
        return None
    difference = float(of_hits.mean())
    return DeLong(difference, error, difference / error, float(2 * norm.sf(abs(difference) / error)))


def compare(
    a: Predictions, b: Predictions, schema: Schema, *, replicates: int = 200, seed: int = 0, level: float = 0.95
) -> dict[str, Any]:
    """Comparison of two models on the same rows, in any order, with the layout of `metrics.json`.

    A figure holds `a`, `b`, `difference` (a − b) and its `interval` from resampled users, the same ones for both;
    `auc` holds `delong` too, its test or null. What is undefined is null.

    Raises:
      ValueError: the rows of the two are not the same, they lack a task of the schema, no replicates, or a level
        outside (0, 1).
    """
    check_interval(replicates, level)
    a, b = in_order(a), in_order(b)
    _check_same_rows(a, b)
    cells_a, cells_b = (
        tally(dataclasses.replace(rows, oracle={}, baselines={}, slices={}), schema, replicates, seed)
        for rows in (a, b)
    )

    def of_task(scenario: str, task: str) -> dict[str, Any]:
        cell = Cell(scenario, task)
        if cell not in cells_a:
            undefined = dict.fromkeys(("a", "b", "difference", "interval"))
            empty: dict[str, Any] = {metric.name: dict(undefined) for metric in metrics_for(schema, task)}
            empty["auc"]["delong"] = None
            return empty | {"n": 0, "positives": 0}
        mine, other = cells_a[cell], cells_b[cell]
        figures: dict[str, Any] = {}
        for metric in metrics_for(schema, task):
            sample = metric.sample(mine) - metric.sample(other)
            figures[metric.name] = {
                "a": metric.value(mine),
                "b": metric.value(other),
                "difference": float(sample[0]) if np.isfinite(sample[0]) else None,
                "interval": interval(sample, mine["users"][0], level) if metric.interval else None,
            }
        rows = slice(None) if scenario == OVERALL else a.scenario == schema.scenarios.index(scenario)
        test = delong_test(a.labels[task][rows], a.probabilities[task][rows], b.probabilities[task][rows])
        figures["auc"]["delong"] = test and dataclasses.asdict(test)
        return figures | {"n": int(mine["rows"][0]), "positives": int(mine["positives"][0])}

    return {
        "level": level,
        "replicates": replicates,
        "seed": seed,
        "scenarios": {name: {task: of_task(name, task) for task in schema.task_names} for name in schema.scenarios},
        OVERALL: {task: of_task(OVERALL, task) for task in schema.task_names},
    }


def in_order(rows: Predictions) -> Predictions:
    """Rows sorted by request, user and item, independent of the file order."""
    return rows.only(np.lexsort([hash_keys(keys) for keys in (rows.item, rows.user, rows.request)]))


def _check_same_rows(a: Predictions, b: Predictions) -> None:
    columns = [(getattr(a, name), getattr(b, name)) for name in ("scenario", "user", "request", "item")]
    columns += [(a.labels[task], b.labels.get(task)) for task in a.labels]
    if len(a) != len(b) or not all(np.array_equal(left, right) for left, right in columns):
        raise ValueError(f"A comparison needs the same rows twice. Received: {len(a)} and {len(b)} rows that differ")


def _shares(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of negatives below each positive, and of positives above each negative, ties as halves."""
    ranks = rankdata(scores)
    hits, falls = np.count_nonzero(positive), np.count_nonzero(~positive)
    return (
        (ranks[positive] - rankdata(scores[positive])) / falls,
        1 - (ranks[~positive] - rankdata(scores[~positive])) / hits,
    )
