"""Lift, power and sample ratio against values by hand or by other methods."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from usr_tf.experiments.abtest import inference
from usr_tf.experiments.abtest.inference import Lift, Ratio, split_lift, twin_lift


def test_a_ratio_deviates_by_the_delta_method():
    """Clicks 1, 3, 2 of 10, 10, 20 impressions: R = 6/40, x̄ = 40/3."""
    ratio = Ratio.of(np.array([1.0, 3, 2]), np.array([10.0, 10, 20]))
    assert ratio.value == pytest.approx(0.15)
    np.testing.assert_allclose(ratio.deviation, np.array([1 - 1.5, 3 - 1.5, 2 - 3]) / (40 / 3))
    # Deviations −0.0375, 0.1125, −0.075: their squares sum to 0.0196875; n − 1 = 2; error √(0.00984375 / 3).
    assert ratio.error == pytest.approx(math.sqrt(0.0196875 / 2 / 3))


def test_where_every_user_counts_alike_it_is_the_textbook_t_test_of_means():
    rng = np.random.default_rng(0)
    a, b = rng.normal(3, 1, 50), rng.normal(3, 1, 60)
    ratios = [Ratio.of(y, np.ones(y.size)) for y in (a, b)]
    for y, ratio in zip((a, b), ratios, strict=True):
        assert ratio.error == pytest.approx(stats.sem(y))
    lift = split_lift(*ratios)
    assert lift.value == pytest.approx(b.mean() / a.mean() - 1)
    assert lift.error == pytest.approx(math.hypot(stats.sem(a) / a.mean(), stats.sem(b) / b.mean()))
    paired = twin_lift(Ratio.of(a, np.ones(50)), Ratio.of(b[:50], np.ones(50)))
    assert paired.error == pytest.approx(stats.sem(b[:50] / b[:50].mean() - a / a.mean()))


def test_twins_that_are_alike_have_no_lift_and_no_error_and_prove_nothing():
    ratio = Ratio.of(np.array([1.0, 0, 2]), np.ones(3))
    lift = twin_lift(ratio, ratio)
    assert (lift.value, lift.error, lift.p_value, lift.interval()) == (0, 0, 1, (0, 0))


def test_what_did_not_happen_has_no_lift():
    something, nothing = Ratio.of(np.array([1.0, 0]), np.ones(2)), Ratio.of(np.zeros(2), np.ones(2))
    for pair in ((something, nothing), (nothing, something)):
        assert math.isnan(twin_lift(*pair).log)
        assert math.isnan(split_lift(*pair).p_value)
    assert math.isnan(Ratio.of(np.zeros(2), np.zeros(2)).value)


@given(st.floats(-1, 1), st.floats(1e-3, 1))
def test_the_interval_leaves_out_0_just_where_p_is_below_alpha(log, error):
    low, high = Lift(log, error).interval()
    assert (low > 0 or high < 0) == (Lift(log, error).p_value < inference.ALPHA)
    assert low > -1


def test_power_by_the_tables():
    """z₀.₀₂₅ = 1.95996, z₀.₂ = 0.84162: an effect of their sum in errors is found with 80 %."""
    error = 0.02
    effect = inference.minimal_effect(error)
    assert effect == pytest.approx(math.expm1(2.80158 * error), rel=1e-5)
    assert inference.power(effect, error) == pytest.approx(0.8, abs=1e-4)
    assert inference.power(0.0, error) == pytest.approx(inference.ALPHA)


def test_users_needed_by_the_rule_of_sixteen():
    """Variance 1 around a mean of 1, a lift of 10 %, equal arms: 2 · 7.849 · 2 / log(1.1)² users, "16 σ²/δ²" an arm."""
    y = np.tile([0.0, 2.0], 500)
    ratio = Ratio.of(y, np.ones(y.size))
    spread = y.var(ddof=1)
    expected = math.ceil(4 * spread * 7.84888 / math.log(1.1) ** 2)
    assert inference.users_needed(0.1, ratio, ratio, 0.5) == pytest.approx(expected, abs=1)
    error = math.sqrt(4 * spread / expected)
    assert inference.power(0.1, error) == pytest.approx(0.8, abs=1e-3)
    assert inference.users_needed(0.1, ratio, ratio, 0.1) > inference.users_needed(0.1, ratio, ratio, 0.5)
    assert inference.users_needed(0.0, ratio, ratio, 0.5) == math.inf


def test_the_sample_ratio_by_hand():
    """60 of 100 where 50 were due: χ² = 2 · 10² / 50 = 4, p = 0.0455."""
    assert inference.sample_ratio_p(40, 60, 0.5) == pytest.approx(0.0455, abs=1e-4)
    assert inference.sample_ratio_p(90, 10, 0.1) == 1
    assert inference.sample_ratio_p(5200, 4800, 0.5) < inference.MISMATCH


def test_users_keep_their_arm_and_another_salt_shuffles_them():
    users = [f"u{number:07}" for number in range(20_000)]
    in_b = inference.assigned_to_b(users, "one", 0.3)
    assert abs(in_b.mean() - 0.3) < 4.5 * math.sqrt(0.21 / in_b.size)
    np.testing.assert_array_equal(in_b[:100], inference.assigned_to_b(users[:100], "one", 0.3))
    other = inference.assigned_to_b(users, "two", 0.3)
    assert abs(other[in_b].mean() - 0.3) < 4.5 * math.sqrt(0.21 / in_b.sum())
