"""Off-policy estimators by hand, their intervals against exact ones and on bandits of known value, and refusals."""

import re

import numpy as np
import pytest
from scipy import stats

from tests.experiments.off_policy.open_bandit_pipeline import obp_estimates
from usr_tf.experiments.off_policy.estimators import (
    ESTIMATORS,
    LEAST,
    differ,
    estimates,
    measured_rate,
    weighted_rate_interval,
)

WEIGHT = np.array([2.0, 0.5, 1.0, 0.5])
CLICK = np.array([True, False, False, True])
EXPECTED = np.array([0.2, 0.4, 0.1, 0.3])
DIRECT = np.array([0.3, 0.2, 0.1, 0.2])


def test_the_estimates_of_four_impressions_by_hand():
    found = estimates(WEIGHT, CLICK, EXPECTED, DIRECT)
    assert tuple(found) == ESTIMATORS
    assert found["ips"].value == pytest.approx((2 + 0.5) / 4)
    assert found["snips"].value == pytest.approx((2 + 0.5) / 4)  # the weights add up to 4
    assert found["dm"].value == pytest.approx(0.2)
    assert found["dm"].interval is None
    # d + w (c − q): 0.3 + 1.6, 0.2 − 0.2, 0.1 − 0.1, 0.2 + 0.35.
    assert found["dr"].value == pytest.approx((1.9 + 0.0 + 0.0 + 0.55) / 4)
    assert found["ips"].effective == pytest.approx(16 / (4 + 0.25 + 1 + 0.25))
    assert found["ips"].clicks == pytest.approx(found["ips"].effective / 2)
    assert found["ips"].largest == 2
    assert found["ips"].kept == 1
    assert found["ips"].clip is None


def test_snips_divides_by_the_weights():
    found = estimates(2 * WEIGHT, CLICK, EXPECTED, DIRECT)
    assert found["ips"].value == pytest.approx(1.25)
    assert found["snips"].value == pytest.approx(0.625)


def test_the_clip_takes_the_heaviest_weights_and_tells_what_it_removes():
    """Weight 64 on one of 1,000 impressions that nobody clicked, 1 elsewhere, and a click in every tenth of those."""
    weight, click = np.ones(1000), np.arange(1000) % 10 == 1
    weight[0] = 64.0
    flat = np.full(1000, 0.1)
    found = estimates(weight, click, flat, flat)["snips_clipped"]
    assert found.clip == 1
    assert found.value == pytest.approx(0.1)
    weight[1:] *= 936 / 999  # so that the weights average to 1, as they do in expectation
    found = estimates(weight, click, flat, flat)["snips_clipped"]
    clipped = np.minimum(weight, found.clip)
    assert found.kept == pytest.approx(clipped.mean())
    (low, high), _ = weighted_rate_interval(clipped, click, float(clipped.sum()))
    removed = (1 - found.kept) * found.value
    assert found.interval == pytest.approx((low - removed, high + removed))


def test_equal_weights_give_the_exact_poisson_interval():
    """Garwood 1936: chi-square quantiles with 2 y and 2 (y + 1) degrees of freedom."""
    click = np.arange(200) < 7
    (low, high), _ = weighted_rate_interval(np.ones(200), click, 200.0)
    assert low * 200 == pytest.approx(stats.chi2.ppf(0.025, 14) / 2)
    assert high * 200 == pytest.approx(stats.chi2.ppf(0.975, 16) / 2)
    (low, high), _ = weighted_rate_interval(np.ones(200), click & False, 200.0)
    assert low == 0
    assert high * 200 == pytest.approx(-np.log(0.025))


def test_a_policys_own_log_gives_its_own_rate():
    click = np.arange(100) < 30
    found = estimates(np.ones(100), click, np.full(100, 0.3), np.full(100, 0.3))
    for name in ESTIMATORS:
        assert found[name].value == pytest.approx(0.3)
        assert not found[name].refusal
    assert measured_rate(30, 100) == (0.3, pytest.approx((0.2189, 0.3958), abs=1e-4))  # Wilson


@pytest.mark.parametrize(
    ("weight", "click", "refusal"),
    [
        (np.ones(100), np.zeros(100, bool), "the log has no click"),
        (np.ones(100), np.arange(100) < 3, "leave 100 of 100 impressions, 3.0 clicks at the log's rate; below 3.8 an"),
        (np.r_[60.0, np.full(99, 0.4)], np.arange(100) > 10, "leave 3 of 100 impressions"),
        (
            np.r_[300.0, np.ones(9_999)],
            np.arange(10_000) % 200 == 1,
            "one click more, on the impression with the largest weight (300), would add 3.00%, more than the whole",
        ),
        (np.full(100, 0.4), np.arange(100) < 50, "the weights stand for 40% of the policy's probability"),
    ],
)
def test_what_the_data_cannot_carry_is_refused_in_words(weight, click, refusal):
    if "leave 3 of" in refusal:
        click = np.arange(100) > 80
    flat = np.full(weight.size, 0.01)
    assert refusal in estimates(weight, click, flat, flat)["ips"].refusal


def test_the_least_number_of_clicks_is_that_whose_interval_reaches_zero():
    assert 1.96 / np.sqrt(LEAST) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("other", "interval", "expected"),
    [(0.30, (0.2, 0.4), False), (0.40, (0.30, 0.50), False), (0.60, (0.50, 0.70), True), (0.01, (0.0, 0.02), True)],
)
def test_figures_differ_by_the_interval_of_their_difference(other, interval, expected):
    """0.3 ± 0.1 and another ± 0.1: the difference is known to ± 0.141."""
    assert differ(0.3, (0.2, 0.4), other, interval) is expected
    assert differ(other, interval, 0.3, (0.2, 0.4)) is expected


@pytest.mark.parametrize("towards", ["uniform", "bandit"])
def test_intervals_hold_the_value_of_bandits(towards):
    """A bandit over 20 items that changes ten times, with rare clicks: nominally 95 % of the intervals, and more, as
    they are conservative. 57 of 60 would be 95 %; fewer than 53 has a probability of 1 % then."""
    rng = np.random.default_rng(3)
    rate = 0.01 * np.exp(rng.normal(0, 0.6, 20))
    held: dict[str, list[bool]] = {name: [] for name in ESTIMATORS if name != "dm"}
    for _ in range(60):
        policy = rng.dirichlet(np.full(20, 0.8), 10) * 0.9 + 0.1 / 20
        state = rng.integers(0, 10, 5_000)
        uniform = np.full_like(policy, 1 / 20)
        logging, target = (policy, uniform) if towards == "uniform" else (uniform, policy)
        item = (logging[state].cumsum(axis=1) < rng.random((5_000, 1))).sum(axis=1).clip(0, 19)
        click = rng.random(5_000) < rate[item]
        model = 0.5 * rate + 0.003
        found = estimates(
            target[state, item] / logging[state, item], click, model[item], (target * model).sum(axis=1)[state]
        )
        truth = (target * rate).sum(axis=1).mean()
        for name, held_so_far in held.items():
            if not found[name].refusal:
                held_so_far.append(found[name].interval[0] <= truth <= found[name].interval[1])
    for name, each in held.items():
        assert len(each) > 30, name
        assert np.mean(each) > 53 / 60, name


@pytest.mark.parametrize(
    ("weight", "click", "received"),
    [
        (np.ones(0), np.ones(0, bool), "Received: [[0]"),
        (np.ones(2), np.ones(3, bool), "Received: [[2], [3]"),
        (np.array([1.0, np.nan]), np.ones(2, bool), "Received: nan to nan"),
        (np.zeros(2), np.ones(2, bool), "not all 0. Received: 0.0 to 0.0"),
    ],
)
def test_bad_arguments(weight, click, received):
    with pytest.raises(ValueError, match=re.escape(received)):
        estimates(weight, click, np.ones(weight.size), np.ones(weight.size))


def test_parity_with_the_open_bandit_pipeline():
    rng = np.random.default_rng(0)
    policy, expected = rng.dirichlet(np.ones(7), 500), rng.random((500, 7))
    item, propensity = rng.integers(0, 7, 500), rng.uniform(0.05, 0.5, 500)
    click, rows = rng.random(500) < 0.3, np.arange(500)
    found = estimates(policy[rows, item] / propensity, click, expected[rows, item], (policy * expected).sum(axis=1))
    clips = {name: found[name].clip or np.inf for name in ("snips_clipped", "dr_clipped")}
    for name, value in obp_estimates(policy, expected, item, propensity, click, clips).items():
        assert found[name].value == pytest.approx(value, rel=1e-12), name
