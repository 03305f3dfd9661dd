"""Bootstrap intervals over users, of a metric and of the difference of two models."""

import numpy as np

from usr_tf.metrics.curves import bin_sums, bins_of
from usr_tf.metrics.figures import FIGURES, figure_of
from usr_tf.metrics.predictions import Predictions
from usr_tf.metrics.resample import Resample, check_interval, interval
from usr_tf.metrics.sums import Sums, order_sums, request_sums, row_sums, user_sums


def bootstrap_interval(
    predictions: Predictions,
    task: str,
    figure: str = "auc",
    replicates: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of a metric; users are resampled, because their rows are dependent.

    Replicates in which the figure is undefined are left out. None where more than a tenth of them are (the
    positives hang on one or two users), where the figure itself is undefined, or with fewer than two users.

    Args:
      figure: one of `FIGURES`.
      level: share of the replicates that the interval holds.

    Raises:
      ValueError: an unknown task or figure, no replicates, or a level outside (0, 1).
    """
    check_interval(replicates, level)
    resample = Resample.of(predictions.user, replicates, seed)
    return _interval(_sample(predictions, task, figure, resample), resample, level)


def paired_bootstrap(
    predictions_a: Predictions,
    predictions_b: Predictions,
    task: str,
    figure: str = "auc",
    replicates: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float] | None:
    """Paired bootstrap interval of metric(a) − metric(b), on the same rows and resampled users.

    Much narrower than the difference of two intervals, since what makes a resample hard is hard for both.
    None as in `bootstrap_interval`.

    Raises:
      ValueError: the rows of the two are not the same, or as in `bootstrap_interval`.
    """
    check_interval(replicates, level)
    resample = Resample.of(predictions_a.user, replicates, seed)
    return _interval(_difference(predictions_a, predictions_b, task, figure, resample), resample, level)


def paired_bootstrap_sample(
    predictions_a: Predictions,
    predictions_b: Predictions,
    task: str,
    figure: str = "auc",
    replicates: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """Replicates `[replicates]` of `paired_bootstrap`, NaN where undefined.

    Raises:
      ValueError: as in `paired_bootstrap`.
    """
    resample = Resample.of(predictions_a.user, replicates, seed)
    return _difference(predictions_a, predictions_b, task, figure, resample)[1:]


def check_same_rows(a: Predictions, b: Predictions) -> None:
    """Raises if two models were evaluated on different rows.

    Raises:
      ValueError: another number of rows, or in some row another user, request, item or label.
    """
    columns = [(getattr(a, name), getattr(b, name)) for name in ("scenario", "user", "request", "item")]
    columns += [(a.labels[task], b.labels.get(task)) for task in a.labels]
    if len(a) != len(b) or not all(np.array_equal(left, right) for left, right in columns):
        raise ValueError(
            f"A paired bootstrap needs the same rows twice. Received: {len(a)} and {len(b)} rows that differ"
        )


def _difference(a: Predictions, b: Predictions, task: str, figure: str, resample: Resample) -> np.ndarray:
    check_same_rows(a, b)
    return _sample(a, task, figure, resample) - _sample(b, task, figure, resample)


def _interval(sample: np.ndarray, resample: Resample, level: float) -> tuple[float, float] | None:
    ends = interval(sample, resample.weights.shape[1], level)
    return None if ends is None else (ends[0], ends[1])


def _sample(predictions: Predictions, task: str, figure: str, resample: Resample) -> np.ndarray:
    """Metric and its replicates, `[1 + R]`."""
    if figure not in FIGURES:
        raise ValueError(f"`figure` must be one of {', '.join(FIGURES)}. Received: {figure!r}")
    if task not in predictions.labels or task not in predictions.probabilities:
        raise ValueError(f"`task` must be one of {', '.join(predictions.labels)}. Received: {task!r}")
    labels, probabilities = predictions.labels[task], predictions.probabilities[task]
    sums: Sums = row_sums(labels, probabilities, resample)
    match figure:
        case "auc" | "pr_auc":
            sums |= order_sums(labels, probabilities, resample)
        case "gauc" | "gauc_clicks":
            sums |= user_sums(labels, probabilities, resample)
        case "ndcg@10" | "mrr":
            sums |= request_sums(labels, probabilities, predictions.request, resample)
        case "ece":
            sums |= bin_sums(labels, probabilities, bins_of(probabilities), resample)
    return figure_of(sums, figure)
