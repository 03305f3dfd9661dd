import numpy as np
import pytest
from scipy import stats

from usr_tf.experiments.abtest.inference import ALPHA, Ratio, split_lift
from usr_tf.experiments.abtest.resplits import draw_splits, split_lifts


@pytest.fixture
def shop():
    """Impressions and clicks of 300 users, some of whom come far more often."""
    rng = np.random.default_rng(0)
    impressions = 1.0 + rng.poisson(rng.gamma(1, 30, size=300))
    return rng.binomial(impressions.astype(int), rng.beta(2, 20, size=300)).astype(float), impressions


def test_all_splits_at_once_are_what_each_is_alone(shop):
    y, x = shop
    other = y + np.arange(y.size) % 2
    in_b = draw_splits(np.random.default_rng(1), y.size, 0.3, count=5)
    logs, errors = split_lifts(in_b, (y, x), (other, x))
    for row, log, error in zip(in_b, logs, errors, strict=True):
        lift = split_lift(Ratio.of(y[~row], x[~row]), Ratio.of(other[row], x[row]))
        assert (log, error) == (pytest.approx(lift.log), pytest.approx(lift.error))


def test_a_against_a_is_significant_in_five_percent_of_the_splits(shop):
    in_b = draw_splits(np.random.default_rng(2), shop[0].size, 0.5, count=4000)
    log, error = split_lifts(in_b, shop, shop)
    false = np.abs(log) > stats.norm.isf(ALPHA / 2) * error
    assert abs(false.mean() - ALPHA) < 4.5 * np.sqrt(ALPHA * (1 - ALPHA) / false.size)


def test_intervals_of_other_users_hold_the_truth_in_95_percent():
    """Clustered: a user's clicks hang together, so an interval over impressions would be far too narrow."""
    rng = np.random.default_rng(3)
    held, naive, tests, users = 0, 0, 600, 150
    for _ in range(tests):
        arms = []
        for rate in (0.1, 0.12):
            x = 1.0 + rng.poisson(20, size=users)
            arms.append(
                (rng.binomial(x.astype(int), rng.beta(10 * rate, 10 * (1 - rate), size=users)).astype(float), x)
            )
        lift = split_lift(*(Ratio.of(*arm) for arm in arms))
        held += lift.interval()[0] <= 0.2 <= lift.interval()[1]
        spread = sum((1 - y.sum() / x.sum()) / y.sum() for y, x in arms)
        naive += abs(lift.log - np.log(1.2)) <= 1.96 * np.sqrt(spread)
    error = np.sqrt(0.95 * 0.05 / tests)
    assert abs(held / tests - 0.95) < 4.5 * error
    assert naive / tests < 0.95 - 4.5 * error
