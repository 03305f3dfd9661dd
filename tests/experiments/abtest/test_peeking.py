"""Always-valid intervals: formula, and A/A tests with daily looks."""

import numpy as np
import pytest
from scipy import stats

from usr_tf.experiments.abtest.inference import ALPHA, Lift
from usr_tf.experiments.abtest.peeking import half_width, mixture_variance, valid_interval

TESTS, USERS, DAYS = 1500, 200, 14


def test_the_half_width_by_hand():
    """V = τ² = 1: √(1 · 2 · 2 log(√2 / 0.05))."""
    assert half_width(np.array(1.0), np.array(1.0)) == pytest.approx(np.sqrt(4 * np.log(np.sqrt(2) / 0.05)))


def test_it_is_where_the_mixture_of_likelihood_ratios_reaches_one_over_alpha():
    """The likelihood of the estimate under effects N(0, τ²), over that under none."""
    variance, mixture = 0.3, 1.7
    at = half_width(np.array(variance), np.array(mixture))
    ratio = stats.norm.pdf(at, 0, np.sqrt(variance + mixture)) / stats.norm.pdf(at, 0, np.sqrt(variance))
    assert ratio == pytest.approx(1 / ALPHA)


def test_it_is_about_as_narrow_as_can_be_at_the_planned_end():
    best = half_width(np.array(1.0), mixture_variance(np.array(1.0)))
    widths = [half_width(np.array(1.0), np.array(mixture)) for mixture in np.geomspace(0.1, 1000, 200)]
    assert min(widths) <= best < 1.001 * min(widths)
    assert 1.96 < best < 3.1


def test_it_is_wider_than_the_fixed_one():
    lift = Lift(0.1, 0.02)
    low, high = valid_interval(lift, mixture_variance(np.array(0.02**2)))
    assert low < lift.interval()[0] < lift.interval()[1] < high


@pytest.mark.parametrize("lasting", [0.0, 1.0])
def test_peeking_every_day_errs_in_five_percent_at_most_where_the_fixed_interval_errs_far_more_often(lasting):
    """Half of the users in each arm, all alike but for chance and, with `lasting`, ways of their own."""
    rng = np.random.default_rng(1)
    sums = np.cumsum(rng.standard_normal((TESTS, USERS, DAYS), np.float32), axis=2)
    sums += lasting * rng.standard_normal((TESTS, USERS, 1), np.float32) * np.arange(1, DAYS + 1, dtype=np.float32)
    means = sums / np.arange(1, DAYS + 1)
    a, b = means[:, : USERS // 2], means[:, USERS // 2 :]
    estimate = b.mean(axis=1) - a.mean(axis=1)  # [tests, days]
    variance = (a.var(axis=1, ddof=1) + b.var(axis=1, ddof=1)) / (USERS // 2)
    fixed = np.abs(estimate) > stats.norm.isf(ALPHA / 2) * np.sqrt(variance)
    valid = np.abs(estimate) > half_width(variance, mixture_variance(variance[:, -1:]))
    error = np.sqrt(ALPHA * (1 - ALPHA) / TESTS)
    assert abs(fixed[:, -1].mean() - ALPHA) < 4.5 * error
    assert valid.any(axis=1).mean() < ALPHA
    assert fixed.any(axis=1).mean() > (0.15 if lasting == 0 else ALPHA + 4.5 * error)
