"""Statistics of A/B tests: relative lifts with intervals, power, sample sizes, sample-ratio test.

Every figure is a ratio of sums over users, `Σ y / Σ x`: clicks over impressions, say. A user's rows hang together, so
the user is the unit. The delta method makes a ratio `R` a mean over users: each one deviates from it by
`(y_u − R x_u) / x̄`, so that `Var R ≈ Var(deviation) / n` (Deng, Knoblich and Lu 2018), and `log R` by `1 / R` of that.
A lift is a ratio of ratios, hence a difference of logarithms; its interval is made there, and ends above −100 %.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from usr_tf.metrics.checks import check_lengths, check_numbers, check_share

ALPHA = 0.05
POWER = 0.8
MISMATCH = 0.001
"""A split of users as uneven as this or more by chance alone is taken for a fault of the assignment."""


@dataclass(frozen=True)
class Ratio:
    """Ratio metric of an arm, `Σ y / Σ x`; NaN without exposed users.

    Attributes:
      value: the figure.
      deviation: `(y_u − value x_u) / x̄` of each user, `[U]`, mean 0: their standard error is the figure's.
    """

    value: float
    deviation: NDArray

    @classmethod
    def of(cls, y: NDArray, x: NDArray) -> "Ratio":
        """Ratio of each user's `y` and `x`, `[U]`.

        Raises:
          ValueError: another shape or length, a number that is not finite, or a negative `x`.
        """
        y, x = check_numbers("y", y), check_numbers("x", x, 0)
        check_lengths(y=y, x=x)
        if not np.sum(x) > 0:
            return cls(np.nan, np.full(np.shape(x), np.nan))
        value = float(np.sum(y) / np.sum(x))
        return cls(value, (y - value * x) / np.mean(x))

    @property
    def influence(self) -> NDArray:
        """Influence of each user on the logarithm of the ratio; NaN where that is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.deviation / self.value

    @property
    def error(self) -> float:
        """Standard error."""
        return mean_error(self.deviation)


@dataclass(frozen=True)
class Lift:
    """Lift of B over A: `log` of the ratio of their metrics, and its standard `error`."""

    log: float
    error: float

    @property
    def value(self) -> float:
        """Relative lift: 0.05 is 5 % more."""
        return float(np.expm1(self.log))

    @property
    def p_value(self) -> float:
        """Two-sided p-value; 1 without error, as for a model against itself."""
        if self.error == 0:
            return 1.0 if self.log == 0 else 0.0
        return float(2 * stats.norm.sf(abs(self.log) / self.error))

    def interval(self, width: float = stats.norm.isf(ALPHA / 2)) -> tuple[float, float]:
        """Interval of a number of standard errors to each side."""
        return float(np.expm1(self.log - width * self.error)), float(np.expm1(self.log + width * self.error))


def twin_lift(a: Ratio, b: Ratio) -> Lift:
    """Lift when every user is in both arms.

    Raises:
      ValueError: not the same number of users.
    """
    check_lengths(a=a.deviation, b=b.deviation)
    return Lift(_log_ratio(a, b), mean_error(b.influence - a.influence))


def split_lift(a: Ratio, b: Ratio) -> Lift:
    """Lift when each user is in one arm."""
    return Lift(_log_ratio(a, b), float(np.hypot(mean_error(a.influence), mean_error(b.influence))))


def power(lift: float, error: float, alpha: float = ALPHA) -> float:
    """Power: probability that a relative lift is significant, given the standard error of its logarithm.

    Raises:
      ValueError: a lift of −100 % or less, an error that is not above 0, or an `alpha` outside (0, 1).
    """
    check_share("alpha", alpha)
    _check_above("lift", lift, -1)
    _check_above("error", error, 0)
    shift, width = np.log1p(lift) / error, stats.norm.isf(alpha / 2)
    return float(stats.norm.sf(width - shift) + stats.norm.cdf(-width - shift))


def minimal_effect(error: float, at: float = POWER, alpha: float = ALPHA) -> float:
    """Minimal detectable effect: smallest positive relative lift with power `at`.

    Raises:
      ValueError: an error that is not above 0, or an `at` or `alpha` outside (0, 1).
    """
    _check_above("error", error, 0)
    return float(np.expm1(_needed(at, alpha) * error))


def users_needed(lift: float, a: Ratio, b: Ratio, share: float, at: float = POWER, alpha: float = ALPHA) -> float:
    """Sample size of both arms together for a relative lift with power `at`; infinite for none.

    Args:
      a, b: figures of the arms, for the spread of their users.
      share: of the users who see B.

    Raises:
      ValueError: a lift of −100 % or less, or a `share`, `at` or `alpha` outside (0, 1).
    """
    check_share("share", share)
    _check_above("lift", lift, -1)
    spread = a.influence.var(ddof=1) / (1 - share) + b.influence.var(ddof=1) / share
    with np.errstate(divide="ignore"):
        return float(np.ceil(spread * (_needed(at, alpha) / np.log1p(lift)) ** 2))


def sample_ratio_p(in_a: int, in_b: int, share: float) -> float:
    """p-value of the sample-ratio chi-square test with one degree of freedom.

    Raises:
      ValueError: a negative number of users, none at all, or a `share` outside (0, 1).
    """
    check_share("share", share)
    if not (min(in_a, in_b) >= 0 and in_a + in_b > 0):
        raise ValueError(f"`in_a` and `in_b` must be numbers of users, not both 0. Received: {in_a}, {in_b}")
    users = in_a + in_b
    return float(stats.chisquare([in_a, in_b], [users * (1 - share), users * share]).pvalue)


def assigned_to_b(users: Sequence[str], salt: str, share: float) -> NDArray:
    """Assignment `[U]` bool by a hash of salt and user: stable per user, independent between tests.

    Raises:
      ValueError: a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"`share` must be from 0 to 1. Received: {share}")
    heads = [hashlib.sha256(f"{salt}:{user}".encode()).digest()[:8] for user in users]
    return np.array([int.from_bytes(head) / 2**64 < share for head in heads], bool)


def mean_error(values: NDArray) -> float:
    """Standard error of a mean."""
    return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else np.nan


def _log_ratio(a: Ratio, b: Ratio) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.log(b.value / a.value)) if a.value and b.value else np.nan


def _check_above(name: str, value: float, limit: float) -> None:
    if not value > limit:
        raise ValueError(f"`{name}` must be above {limit}. Received: {value}")


def _needed(at: float, alpha: float) -> float:
    """Effect in standard errors that reaches this power, neglecting the other tail."""
    check_share("at", at)
    check_share("alpha", alpha)
    return float(stats.norm.isf(alpha / 2) + stats.norm.ppf(at))
