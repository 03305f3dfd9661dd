"""Poisson bootstrap over users, with draws from a hash of user and resample.

A Poisson bootstrap (Hanley and MacGibbon, "Creating non-parametric bootstrap samples using Poisson frequencies", 2006;
Chamandy et al., "Estimating uncertainty for massive data streams", 2012): each user is drawn Poisson(1) times,
independently of all others. What a user's draws are depends on the user alone, so the rows may lie in one array or on a
thousand workers, in any order, and the resamples are the same.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from usr_tf.metrics.checks import check_share
from usr_tf.metrics.keys import codes_of, hash_keys, mix

_UNDEFINED_SHARE = 0.1
_CAST_ROWS = 16


@dataclass(frozen=True, eq=False)
class Resample:
    """Users of `N` rows, and how often each is drawn in each resample."""

    users: np.ndarray
    """int `[N]`: number of the row's user."""
    weights: np.ndarray
    """uint8 `[1 + R, U]`: times that each user is drawn; the first row is all ones, the data as they are."""

    @classmethod
    def of(cls, users: np.ndarray, replicates: int, seed: int = 0) -> "Resample":
        """Resamples of the rows' users `[N]`.

        Raises:
          ValueError: replicates that are no whole number from 0.
        """
        if not (replicates >= 0 and replicates == int(replicates)):
            raise ValueError(f"`replicates` must be a whole number from 0. Received: {replicates}")
        codes, distinct = codes_of(users)
        weights = np.ones((1 + replicates, len(distinct)), np.uint8)
        if replicates:
            keys = hash_keys(distinct)
            for replicate in range(replicates):
                weights[1 + replicate] = _draw(keys, replicate, seed)
        return cls(codes, weights)

    def only(self, rows: np.ndarray) -> "Resample":
        """Resamples of rows selected by a bool mask `[N]` or an array of indices."""
        return Resample(self.users[rows], self.weights)

    def undrawn(self) -> "Resample":
        """The data without resampling."""
        return Resample(self.users, self.weights[:1])

    def totals(self, *columns: np.ndarray) -> np.ndarray:
        """Sums `[columns, 1 + R]` of columns `[N]` over the rows of each resample."""
        users = self.weights.shape[1]
        return self.totals_of_users(*(np.bincount(self.users, column, users) for column in columns))

    def totals_of_users(self, *columns: np.ndarray) -> np.ndarray:
        """Sums `[columns, 1 + R]` of columns `[U]` over the users of each resample."""
        by_user = np.stack(columns, axis=1)
        parts = range(0, len(self.weights), _CAST_ROWS)
        return np.concatenate([self.weights[i : i + _CAST_ROWS].astype(np.float64) @ by_user for i in parts]).T


def interval(sample: np.ndarray, users: float, level: float = 0.95) -> list[float] | None:
    """Percentile interval `[low, high]` of a metric from its value and replicates `[1 + R]`.

    None where the figure itself is undefined, where more than a tenth of the replicates are (the positives hang on one
    or two users), or with fewer than two users.

    Raises:
      ValueError: no replicates, or a level outside (0, 1).
    """
    check_interval(len(sample) - 1, level)
    defined = sample[1:][np.isfinite(sample[1:])]
    if users < 2 or not np.isfinite(sample[0]) or len(defined) < (1 - _UNDEFINED_SHARE) * (len(sample) - 1):
        return None
    return [float(end) for end in np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])]


def check_interval(replicates: int, level: float) -> None:
    """Checks the parameters of an interval.

    Raises:
      ValueError: no replicates, or a level outside (0, 1).
    """
    check_share("level", level)
    if replicates < 1:
        raise ValueError(f"`replicates` must be at least 1. Received: {replicates}")


def _draw(keys: np.ndarray, replicate: int, seed: int) -> np.ndarray:
    """Poisson(1) draws, uint8, from hashed keys."""
    salt = mix(np.array([(seed * 1_000_003 + replicate + 1) % 2**64], np.uint64))
    return np.searchsorted(_poisson_cdf(), mix(keys ^ salt) >> np.uint64(32), side="right").astype(np.uint8)


@functools.cache
def _poisson_cdf() -> np.ndarray:
    """P(draws ≤ k) of Poisson(1) for k from 0, in units of 2⁻³²."""
    return np.floor(np.cumsum([math.exp(-1) / math.factorial(k) for k in range(12)]) * 2**32).astype(np.uint64)
