"""Baselines without a model: position and popularity."""

from collections.abc import Mapping

import numpy as np

from usr_tf.metrics.keys import codes_of
from usr_tf.metrics.predictions import Predictions


def position_baseline(predictions: Predictions) -> np.ndarray:
    """Position baseline: scores `[N]` 1 / position; NaN for an unknown position.

    Only their order means something.
    """
    return np.where(predictions.position > 0, 1.0 / np.maximum(predictions.position, 1), np.nan)


def popularity_baseline(
    predictions: Predictions, train_clicks: Mapping[str, tuple[int, int]], strength: float = 20.0
) -> np.ndarray | None:
    """Popularity baseline: scores `[N]`, the item's smoothed click rate in the training split.

    `(clicks + strength · prior) / (impressions + strength)`, where the prior is the click rate of all
    training rows. An item that training has not seen scores the prior. None where training has no rows.
    Only their order means something.

    Args:
      train_clicks: item → (clicks, impressions).
      strength: impressions that the prior counts for.

    Raises:
      ValueError: more clicks than impressions, a negative count, or a strength that is not above 0.
    """
    if not 0 < strength < np.inf:
        raise ValueError(f"`strength` must be above 0. Received: {strength}")
    counts = np.array(list(train_clicks.values()), np.float64).reshape(-1, 2)
    bad = np.flatnonzero(~((counts[:, 0] >= 0) & (counts[:, 0] <= counts[:, 1]) & np.isfinite(counts[:, 1])))
    if len(bad):
        item = list(train_clicks)[bad[0]]
        raise ValueError(f"`train_clicks` must hold clicks up to impressions. Received: {item!r}: {train_clicks[item]}")
    clicks, impressions = counts.sum(axis=0)
    if not impressions:
        return None
    codes, items = codes_of(predictions.item)
    seen = np.array([train_clicks.get(item, (0, 0)) for item in items], np.float64).reshape(-1, 2)
    return smoothed_rate(seen[:, 0], seen[:, 1], clicks / impressions, strength)[codes]


def smoothed_rate(clicks: np.ndarray, impressions: np.ndarray, prior: float, strength: float = 20.0) -> np.ndarray:
    """Click rates smoothed with `strength` impressions of the prior rate."""
    return (clicks + strength * prior) / (impressions + strength)
