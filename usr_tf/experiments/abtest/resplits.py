"""Resplits: results under other random assignments of the same users to two arms.

Since everybody has been in both arms, a split costs nothing. `U` users, `n` splits.
"""

import numpy as np
from numpy.typing import NDArray

from usr_tf.metrics.checks import check_share


def draw_splits(rng: np.random.Generator, users: int, share: float, count: int = 1000) -> NDArray:
    """`[n, U]` bool assignments to B.

    Raises:
      ValueError: no user, no split, or a `share` outside (0, 1).
    """
    check_share("share", share)
    if min(users, count) < 1:
        raise ValueError(f"`users` and `count` must be at least 1. Received: {users}, {count}")
    return rng.random((count, users), np.float32) < share


def split_lifts(in_b: NDArray, a: tuple[NDArray, NDArray], b: tuple[NDArray, NDArray]) -> tuple[NDArray, NDArray]:
    """Log lift of B over A in each split, and its standard error, as `inference.split_lift`.

    Args:
      a, b: `y` and `x` of everybody in the arm, `[U]` each.

    Returns:
      `[n]` each, NaN where an arm's figure is 0.

    Raises:
      ValueError: other shapes.
    """
    shapes = [np.shape(in_b)[1:], *(np.shape(values) for values in (*a, *b))]
    if np.ndim(in_b) != 2 or len(set(shapes)) > 1:
        found = [list(np.shape(values)) for values in (in_b, *a, *b)]
        raise ValueError(f"`in_b` must be [n, U], `a` and `b` two [U] each. Received: shapes {found}")
    in_b = in_b.astype(np.float64)
    (log_a, variance_a), (log_b, variance_b) = _arm(1 - in_b, *a), _arm(in_b, *b)
    return log_b - log_a, np.sqrt(variance_a + variance_b)


def _arm(members: NDArray, y: NDArray, x: NDArray) -> tuple[NDArray, NDArray]:
    """Logarithm of `Σ y / Σ x` over the members, and its variance, from moments."""
    count = members.sum(axis=1)
    totals = members @ np.stack([y, x, y * y, x * y, x * x], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_y, mean_x, yy, xy, xx = (totals / count[:, None]).T
        spread = yy / mean_y**2 - 2 * xy / (mean_y * mean_x) + xx / mean_x**2
        log = np.where(mean_y > 0, np.log(mean_y / mean_x), np.nan)
        return log, spread / (count - 1)
