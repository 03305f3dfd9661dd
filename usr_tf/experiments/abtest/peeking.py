"""Always-valid confidence intervals for daily looks and early stopping.

A fixed interval errs in 5 % of the looks, so a test that stops at the first significant look errs far more often. The
asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2021), which is the mixture
sequential probability ratio test turned into an interval, errs at any look in 5 % of the tests. With
the variance `V` of the estimate so far, and `τ²` of the mixture,

    half-width = √( V (1 + V/τ²) · 2 log( √(1 + τ²/V) / α ) ).

It needs no independence between days. Its proof uses, in the normal limit, that the estimate from more days covaries
with the one from fewer by its own variance. That is so where users come at a steady pace, each in ways that last
(`tests/experiments/abtest/test_peeking.py` simulates it). Where they arrive over time the interval errs on the safe
side, but for figures per user in the first days, where it is a little too bold. The normal limit wants some hundred
users an arm.
"""

import numpy as np
from numpy.typing import NDArray

from usr_tf.experiments.abtest.inference import ALPHA, Lift
from usr_tf.metrics.checks import check_share


def mixture_variance(last: NDArray, alpha: float = ALPHA) -> NDArray:
    """Mixture variance `τ²` that makes the interval about as narrow as possible at the variance `last`.

    `last` is the variance of the estimate at the planned end of the test; a replay takes that of its last day. `τ²`
    affects the width of the interval, not its coverage.

    Raises:
      ValueError: an `alpha` outside (0, 1).
    """
    check_share("alpha", alpha)
    wide = -2 * np.log(alpha)
    return last * (wide + np.log(1 + wide))


def half_width(variance: NDArray, mixture: NDArray, alpha: float = ALPHA) -> NDArray:
    """Half width of the interval at each look.

    Args:
      variance: of the estimate so far, at each look; positive.
      mixture: `τ²`, fixed beforehand.

    Raises:
      ValueError: an `alpha` outside (0, 1).
    """
    check_share("alpha", alpha)
    ratio = mixture / variance
    return np.sqrt(variance * (1 + 1 / ratio) * (np.log1p(ratio) - 2 * np.log(alpha)))


def valid_interval(lift: Lift, mixture: NDArray, alpha: float = ALPHA) -> tuple[float, float]:
    """Always-valid interval of a relative lift at one look."""
    if not lift.error > 0:
        return lift.interval()
    return lift.interval(float(half_width(lift.error**2, mixture, alpha)) / lift.error)
