"""Data of plots: deciles, ROC points and score histograms, as sums and documents."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from usr_tf.metrics.metric import Sums
from usr_tf.metrics.resample import Resample
from usr_tf.metrics.sums import BINS

ROC_POINTS = 200
_PER_CLASS = ROC_POINTS // 2 - 1
_HISTOGRAM_EDGES = np.linspace(-8, 0, 161)
"""Of log10 of the probability; what is below is in the first bin."""


def bins_of(scores: np.ndarray, below: float = 0, rows: float | None = None) -> np.ndarray:
    """Bin index `[N]` of each row, in about `BINS` bins of equal share, ties together.

    Bin i begins with the row of rank ⌊i · rows / BINS⌋, and so do all rows tied with it.

    Args:
      below, rows: rows of lower score elsewhere, and rows in all, when these are a stretch of the order alone.
    """
    rows = len(scores) if rows is None else rows
    ends = below + np.searchsorted(np.sort(scores), scores, "right")
    first_ranks = np.floor(np.arange(BINS) * rows / BINS)
    return np.searchsorted(first_ranks, ends, "left") - 1


def bin_sums(labels: np.ndarray, probabilities: np.ndarray, bins: np.ndarray, resample: Resample) -> Sums:
    """Sums per bin `[BINS]` (rows, positives, probabilities, lowest, highest) and `bin_excess` of ECE.

    `bin_excess` `[BINS, 1 + R]` is predicted minus observed.
    """
    lowest, highest = np.full(BINS, np.inf), np.full(BINS, -np.inf)
    np.minimum.at(lowest, bins, probabilities)
    np.maximum.at(highest, bins, probabilities)
    excess = probabilities - labels.astype(np.float64)
    return {
        "bin_rows": np.bincount(bins, minlength=BINS).astype(np.float64),
        "bin_positives": np.bincount(bins, labels, BINS),
        "bin_predicted": np.bincount(bins, probabilities, BINS),
        "bin_lowest": lowest,
        "bin_highest": highest,
        "bin_excess": resample.totals(*(np.where(bins == number, excess, 0) for number in range(BINS))),
    }


def deciles_of(sums: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Non-empty bins by rising probability: rows, positives, and mean, lowest and highest probability."""
    return [
        {
            "rows": int(rows),
            "positives": int(positives),
            "predicted": predicted / rows,
            "observed": positives / rows,
            "lowest": lowest,
            "highest": highest,
        }
        for rows, positives, predicted, lowest, highest in zip(
            *(sums[f"bin_{name}"].tolist() for name in ("rows", "positives", "predicted", "lowest", "highest")),
            strict=True,
        )
        if rows
    ]


def roc_points(
    labels: np.ndarray, scores: np.ndarray, totals: np.ndarray | None = None, above: np.ndarray | None = None
) -> np.ndarray:
    """Counts `[points, 2]` of negatives and positives at or above some thresholds.

    They are those at which another 1/99 of either class is reached, so at most 198 of them: near each other where the
    curve is steep and where it is flat.

    Args:
      totals, above: negatives and positives `[2]` in all, and of higher score elsewhere, when these rows are a stretch
        of the order alone.
    """
    order = np.argsort(-scores)
    scores, labels = scores[order], labels[order] == 1
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.zeros(0, np.int64)
    own = np.stack([np.cumsum(~labels), np.cumsum(labels)], axis=1)
    totals = own[-1:].sum(axis=0) if totals is None else totals
    above = np.zeros(2) if above is None else above
    reached = above + np.concatenate([np.zeros((1, 2)), own[ends]])
    steps = np.floor(reached * _PER_CLASS / np.maximum(totals, 1))
    return reached[1:][(steps[1:] > steps[:-1]).any(axis=1)]


def roc_of(points: np.ndarray) -> dict[str, list[float]] | None:
    """False and true positive rates from (0, 0) to (1, 1); None without both classes."""
    points = points[np.argsort(points.sum(axis=1))]
    totals = points[-1] if len(points) else np.zeros(2)
    if not totals.all():
        return None
    false_positive, true_positive = (np.concatenate([[0.0], rate]).tolist() for rate in (points / totals).T)
    return {"false_positive": false_positive, "true_positive": true_positive}


def histogram_sums(labels: np.ndarray, probabilities: np.ndarray) -> Sums:
    """`histogram` `[2, bins]` of log10 of the probability: negatives, then positives."""
    lowest = 10.0 ** _HISTOGRAM_EDGES[0]
    logs = np.log10(np.clip(probabilities.astype(np.float64), lowest, 1.0))
    counts = [np.histogram(logs[labels == label], _HISTOGRAM_EDGES)[0] for label in (0, 1)]
    return {"histogram": np.array(counts, np.float64)}


def histogram_of(counts: np.ndarray) -> dict[str, list]:
    """`edges`, `negatives` and `positives` of the bins from the first to the last that holds a row."""
    held = np.flatnonzero(counts.sum(axis=0))
    start, stop = (held[0], held[-1] + 1) if len(held) else (0, 0)
    negatives, positives = counts[:, start:stop].astype(int).tolist()
    edges = _HISTOGRAM_EDGES[start : stop + 1].round(6).tolist() if len(held) else []
    return {"edges": edges, "negatives": negatives, "positives": positives}
