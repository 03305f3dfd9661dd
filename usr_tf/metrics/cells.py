"""Additive sums of every metric cell: scenario × task × slice.

`tally` takes them of rows in memory. The job for sets that do not fit takes the same parts of shards: `tally_users` of
whole users, `tally_requests` of whole requests, `tally_order` of a stretch of an order; `merge` adds them.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from usr_tf.metrics.curves import bin_sums, bins_of, histogram_sums, roc_points
from usr_tf.metrics.keys import hash_keys
from usr_tf.metrics.metric import Sums
from usr_tf.metrics.predictions import Predictions
from usr_tf.metrics.probability import losses
from usr_tf.metrics.resample import Resample
from usr_tf.metrics.sums import Outside, order_sums, request_sums, row_sums, user_sums
from usr_tf.schema import Schema

OVERALL = "overall"
MODEL, ORACLE, GIVEN = "model", "oracle", "given_previous"


class Cell(NamedTuple):
    """Cell of metrics: a task's rows in a scenario or `overall`, all of them or those of a slice value."""

    scenario: str
    task: str
    slice: str = ""
    value: str = ""


class Order(NamedTuple):
    """Order of rows by a score: of the model, oracle or baseline, or of the model given the previous task."""

    score: str
    task: str


Cells = dict[Cell, Sums]


def tally(rows: Predictions, schema: Schema, replicates: int = 0, seed: int = 0) -> Cells:
    """Sums of every non-empty cell of a whole split.

    Raises:
      ValueError: a scenario that the schema lacks.
    """
    rows = coded(rows, schema)
    resample = Resample.of(rows.user, replicates, seed)
    cells = tally_users(rows, schema, resample)
    parts = [tally_requests(rows, schema, resample)]
    for order in orders_of(rows, schema):
        parts.append(tally_order(rows, scores_of(rows, schema, order), schema, resample, order))
    for part in parts:
        for cell, sums in part.items():
            cells[cell] |= sums
    return cells


def coded(rows: Predictions, schema: Schema) -> Predictions:
    """Rows with hashed users and requests, so that texts are read once and not in every cell.

    Raises:
      ValueError: a scenario that the schema lacks, or no labels or probabilities of one of its tasks.
    """
    scenario = rows.scenario
    if len(scenario) and not (scenario.min() >= 0 and scenario.max() < len(schema.scenarios)):
        raise ValueError(
            f"Scenarios must be indices below {len(schema.scenarios)}. Received: {scenario.min()} to {scenario.max()}"
        )
    for name, known in (("labels", rows.labels), ("probabilities", rows.probabilities)):
        if not known.keys() >= {*schema.task_names}:
            raise ValueError(
                f"`{name}` must hold {', '.join(schema.task_names)}. Received: {', '.join(known) or 'none'}"
            )
    return dataclasses.replace(rows, user=hash_keys(rows.user), request=hash_keys(rows.request))


def tally_users(rows: Predictions, schema: Schema, resample: Resample) -> Cells:
    """Sums that need all rows of a user together, and sums over rows."""
    cells: Cells = {}
    for cell, chosen in cells_of(rows, schema):
        labels, probabilities = rows.labels[cell.task][chosen], rows.probabilities[cell.task][chosen]
        draws = resample.only(chosen)
        sums = row_sums(labels, probabilities, draws) | user_sums(labels, probabilities, draws)
        if cell.task in rows.oracle:
            sums |= _prefixed(ORACLE, _known_losses(labels, rows.oracle[cell.task][chosen]))
        if not cell.slice:
            sums |= histogram_sums(labels, probabilities)
            for name, scores in rows.baselines.items():
                sums |= _prefixed(name, _baseline_sums(labels, scores[chosen], draws))
        cells[cell] = sums
    return cells


def tally_requests(rows: Predictions, schema: Schema, resample: Resample) -> Cells:
    """Sums that need all rows of a request together."""
    cells: Cells = {}
    for cell, chosen in cells_of(rows, schema, sliced=False):
        labels, requests, draws = rows.labels[cell.task][chosen], rows.request[chosen], resample.only(chosen)
        sums = request_sums(labels, rows.probabilities[cell.task][chosen], requests, draws)
        for name, scores in rows.baselines.items():
            sums |= _prefixed(name, request_sums(labels, np.nan_to_num(scores[chosen]), requests, draws.undrawn()))
        cells[cell] = sums
    return cells


def orders_of(rows: Predictions, schema: Schema) -> list[Order]:
    """Orders for `tally_order`."""
    orders = []
    for place, task in enumerate(schema.task_names):
        names = [MODEL, *rows.baselines]
        names += [ORACLE] if task in rows.oracle else []
        names += [GIVEN] if place else []
        orders += [Order(name, task) for name in names]
    return orders


def scores_of(rows: Predictions, schema: Schema, order: Order) -> np.ndarray:
    """Scores `[N]` of an order; NaN for a row outside it."""
    if order.score == MODEL:
        return rows.probabilities[order.task]
    if order.score == ORACLE:
        return rows.oracle[order.task]
    if order.score == GIVEN:
        before = schema.task_names[schema.task_names.index(order.task) - 1]
        probability, given = (rows.probabilities[task].astype(np.float64) for task in (order.task, before))
        ratio = np.divide(probability, given, out=np.zeros(len(rows)), where=given > 0)
        return np.where(rows.labels[before] == 1, ratio, np.nan)
    return rows.baselines[order.score]


def tally_order(
    rows: Predictions,
    scores: np.ndarray,
    schema: Schema,
    resample: Resample,
    order: Order,
    outside: Callable[[Cell], Outside | None] = lambda _: None,
) -> Cells:
    """Rank sums of a stretch of an order that holds all rows of each of its scores.

    Args:
      rows: of which scenario, user, slices and the label of the order's task are read.
      scores: of `scores_of`, `[N]`.
      outside: what lies below and above the stretch, of each cell; None is nothing.
    """
    model, oracle = order.score == MODEL, order.score == ORACLE
    cells: Cells = {}
    for cell, chosen in cells_of(rows, schema, (order.task,), sliced=model or oracle):
        chosen = chosen[~np.isnan(scores[chosen])]
        labels, own, draws = rows.labels[order.task][chosen], scores[chosen], resample.only(chosen)
        draws = draws.undrawn() if oracle else draws
        around = outside(cell) or Outside.nothing(draws)
        sums = order_sums(labels, own, draws, around)
        if order.score == GIVEN:
            sums |= dict(zip(("rows", "positives"), draws.totals(np.ones(len(labels)), labels), strict=True))
        if (model or oracle) and not cell.slice:
            below, above = around.below[:, 0], around.above[:, 0]
            positives = np.count_nonzero(labels)
            totals = below + above + [len(labels) - positives, positives]
            sums["roc"] = roc_points(labels, own, totals, above)
            if model:
                sums |= bin_sums(labels, own, bins_of(own, below.sum(), totals.sum()), draws)
        cells[cell] = sums if model else _prefixed(order.score, sums)
    return cells


def merge(left: Sums, right: Sums) -> Sums:
    """Sum of both."""
    merged = left | right
    for name in left.keys() & right.keys():
        kind = name.rpartition(".")[2]
        merged[name] = _ADD.get(kind, np.add)(left[name], right[name])
    return merged


def of_score(sums: Sums, score: str) -> Sums:
    """Entries of `sums` for a score other than the model's."""
    return {name.removeprefix(f"{score}."): each for name, each in sums.items() if name.startswith(f"{score}.")}


def cells_of(
    rows: Predictions, schema: Schema, tasks: tuple[str, ...] | None = None, sliced: bool = True
) -> Iterator[tuple[Cell, np.ndarray]]:
    """Non-empty cells and their row indices."""
    everywhere = np.arange(len(rows))
    scenarios = [(name, np.flatnonzero(rows.scenario == index)) for index, name in enumerate(schema.scenarios)]
    for scenario, inside in (*scenarios, (OVERALL, everywhere)):
        parts = [("", "", inside)] if len(inside) else []
        for name, column in rows.slices.items() if sliced else ():
            codes = column.codes[inside]
            present = np.unique(codes[codes >= 0])
            parts += [(name, column.categories[code], inside[codes == code]) for code in present]
        for name, value, chosen in parts:
            for task in schema.task_names if tasks is None else tasks:
                yield Cell(scenario, task, name, value), chosen


def _known_losses(labels: np.ndarray, oracle: np.ndarray) -> Sums:
    known = np.isfinite(oracle)
    loss = losses(labels[known], oracle[known]).sum()
    return {"known": np.array([float(np.count_nonzero(known))]), "loss": np.array([loss])}


def _baseline_sums(labels: np.ndarray, scores: np.ndarray, resample: Resample) -> Sums:
    known = np.array([float(np.count_nonzero(np.isfinite(scores)))])
    return {"known": known} | user_sums(labels, np.nan_to_num(scores), resample.undrawn())


def _prefixed(score: str, sums: Sums) -> Sums:
    return {f"{score}.{name}": each for name, each in sums.items()}


def _both(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.concatenate([left, right])


_ADD: dict[str, Callable[..., np.ndarray]] = {"bin_lowest": np.minimum, "bin_highest": np.maximum, "roc": _both}
"""Kind of a sum → how two are added, where it is not by `+`."""
