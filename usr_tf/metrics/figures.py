"""Metric formulas on additive sums. An undefined metric is NaN here and None in documents."""

from collections.abc import Mapping
from typing import TypeGuard

import numpy as np

from usr_tf.metrics.checks import check_labels, check_lengths, check_numbers, check_probabilities
from usr_tf.metrics.curves import bin_sums, bins_of
from usr_tf.metrics.resample import Resample
from usr_tf.metrics.sums import Sums, order_sums, request_sums, row_sums, user_sums

RANK_FIGURES = ("auc", "gauc", "gauc_clicks", "pr_auc", "ndcg@10", "mrr")
"""Figures of the order alone."""
FIGURES = (*RANK_FIGURES, "logloss", "ne", "calibration", "ece")
"""The figures that every task has."""
GIVEN_PREVIOUS = "auc_given_previous"
"""A later task has it too: AUC of its probability given the task before, over the rows where that one happened."""

Figures = dict[str, int | float | None]


def task_metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    users: np.ndarray,
    requests: np.ndarray,
    oracle: np.ndarray | None = None,
) -> Figures:
    """Metrics of one task over `N` rows. An undefined metric is None, never 0, 0.5 or NaN.

    - `auc`: chance that a positive row scores above a negative one, ties counting half. Needs both classes.
    - `gauc`: mean of the users' own AUCs over the users with both classes, weighted by impressions; `gauc_clicks`:
      weighted by positives.
    - `pr_auc`: average precision: over the positives, the mean share of positives among the rows that score as high or
      higher. Chance gives the base rate. Needs a positive.
    - `ndcg@10`: of each request with a positive, gain 1 for a positive, tied rows sharing their places
      evenly; mean over those requests.
    - `mrr`: 1 / the place of the first positive, mean over the same requests, tied rows in every order alike.
    - `logloss`: mean of −ln of the probability given to what happened; probabilities are clipped to
      [ε, 1 − ε], ε the machine epsilon of their type. Needs a row.
    - `ne`: normalised entropy, logloss over the entropy of the base rate. Below 1 the model tells more than
      the base rate does. Needs both classes.
    - `calibration`: mean probability over mean label; 1 is right, above 1 the model promises too much. Needs
      a positive.
    - `ece`: expected calibration error: |mean probability − mean label| in each decile of the probability, mean over
      the deciles weighted by rows. Needs a row.
    - `n`, `positives`: rows, and rows with label 1.
    - `oracle_auc`: AUC of the true probabilities, the most that a model can hope for. Only there when every
      row has one.

    Args:
      labels: 0 or 1 `[N]`.
      probabilities: within [0, 1], `[N]`.
      users, requests: whose row it is and which slate it stood in, `[N]`.
      oracle: true probabilities `[N]`, if known; NaN for a row that has none.

    Raises:
      ValueError: another shape or length, labels other than 0 and 1, or what is no probability.
    """
    labels, probabilities = check_labels("labels", labels), check_probabilities("probabilities", probabilities)
    oracle = None if oracle is None else check_probabilities("oracle", oracle, optional=True)
    users, requests = np.asarray(users), np.asarray(requests)
    check_lengths(labels=labels, probabilities=probabilities, users=users, requests=requests, oracle=oracle)
    resample = Resample.of(users, replicates=0)
    sums = row_sums(labels, probabilities, resample)
    sums |= bin_sums(labels, probabilities, bins_of(probabilities), resample)
    sums |= _rank_sums(labels, probabilities, requests, resample)
    figures: Figures = {name: value_of(sums, name) for name in FIGURES}
    figures |= {"n": len(labels), "positives": int(np.count_nonzero(labels))}
    if is_known(oracle):
        figures["oracle_auc"] = value_of(sums | order_sums(labels, oracle, resample), "auc")
    return figures


def rank_metrics(
    labels: np.ndarray, scores: np.ndarray, users: np.ndarray, requests: np.ndarray
) -> dict[str, float | None]:
    """Rank metrics (`RANK_FIGURES`) for scores `[N]` that need not be probabilities.

    Raises:
      ValueError: another shape or length, labels other than 0 and 1, or a score that is NaN or infinite.
    """
    labels, scores = check_labels("labels", labels), check_numbers("scores", scores)
    users, requests = np.asarray(users), np.asarray(requests)
    check_lengths(labels=labels, scores=scores, users=users, requests=requests)
    resample = Resample.of(users, replicates=0)
    rows, positives = resample.totals(np.ones(len(labels)), labels)
    sums = _rank_sums(labels, scores, requests, resample) | {"rows": rows, "positives": positives}
    return {name: value_of(sums, name) for name in RANK_FIGURES}


def figure_of(sums: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """One of `FIGURES` or `GIVEN_PREVIOUS` from its sums, `[1 + R]`, NaN where undefined."""
    match name:
        case "auc":
            return _ratio(sums["won"], sums["positives"] * (sums["rows"] - sums["positives"]))
        case "gauc" | "gauc_clicks":
            return _ratio(sums[name], sums[f"{name}_weight"])
        case "pr_auc":
            return _ratio(sums["precision"], sums["positives"])
        case "ndcg@10" | "mrr":
            return _ratio(sums[name], sums["ranked"])
        case "logloss":
            return _ratio(sums["loss"], sums["rows"])
        case "ne":
            return _ratio(figure_of(sums, "logloss"), _entropy(_ratio(sums["positives"], sums["rows"])))
        case "calibration":
            return _ratio(sums["predicted"], sums["positives"])
        case "ece":
            return _ratio(np.abs(sums["bin_excess"]).sum(axis=0), sums["rows"])
        case "auc_given_previous":
            none = np.zeros_like(sums["rows"])  # shards have no sums where that task happened in no row
            given = {part: sums.get(f"given_previous.{part}", none) for part in ("won", "rows", "positives")}
            return figure_of(given, "auc")
    raise ValueError(f"The figure must be one of {', '.join(FIGURES)}. Received: {name!r}")


def value_of(sums: Mapping[str, np.ndarray], name: str) -> float | None:
    """Metric of the data without resampling; None if undefined."""
    value = figure_of(sums, name)[0]
    return float(value) if np.isfinite(value) else None


def is_known(oracle: np.ndarray | None) -> TypeGuard[np.ndarray]:
    return oracle is not None and bool(np.isfinite(oracle).all())


def _rank_sums(labels: np.ndarray, scores: np.ndarray, requests: np.ndarray, resample: Resample) -> Sums:
    sums = order_sums(labels, scores, resample) | user_sums(labels, scores, resample)
    return sums | request_sums(labels, scores, requests, resample)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient; NaN where the denominator is 0 or NaN."""
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)


def _entropy(rate: np.ndarray) -> np.ndarray:
    """Binary entropy; 0 for certainty."""
    mixed = np.where((rate > 0) & (rate < 1), rate, 0.5)
    return np.where((rate > 0) & (rate < 1), -mixed * np.log(mixed) - (1 - mixed) * np.log1p(-mixed), 0)
