"""Argument checks of the experiment statistics; each message ends with the received value."""

import dataclasses

import numpy as np
import pytest

from pipelines.simulator.ranker import SLATE
from usr_tf.experiments.abtest.inference import (
    Ratio,
    assigned_to_b,
    minimal_effect,
    power,
    sample_ratio_p,
    twin_lift,
    users_needed,
)
from usr_tf.experiments.abtest.off_policy import estimates
from usr_tf.experiments.abtest.peeking import half_width, mixture_variance
from usr_tf.experiments.abtest.replay import ArmLog, Target
from usr_tf.experiments.abtest.resplits import draw_splits, split_lifts
from usr_tf.experiments.grid.comparisons import mean_over_seeds, pool

RNG = np.random.default_rng(0)
ONES = np.ones(SLATE)
LOG = ArmLog(
    scenario=np.zeros(SLATE, int),
    user=np.zeros(SLATE, int),
    day=np.zeros(SLATE, int),
    position=np.arange(1, SLATE + 1),
    click=ONES > 0,
    buy=ONES > 0,
    return_buy=ONES > 0,
    price=ONES,
    propensity=ONES / 2,
    place_chance=ONES / 2,
    targets={"b": Target(ONES, ONES, np.stack([ONES] * 2), np.stack([ONES] * 2), np.stack([ONES] * 2))},
)
ALL = np.ones(SLATE, bool)
RATIO = Ratio.of(np.array([1, 0, 1]), np.ones(3))
CALLS = {
    "a figure of NaN": (lambda: Ratio.of(np.array([1, np.nan]), np.ones(2)), "`y` must be finite. Received: nan in"),
    "negative exposure": (
        lambda: Ratio.of(np.ones(2), np.array([1, -1])),
        "`x` must be from 0 to inf. Received: -1",
    ),
    "users of one column alone": (lambda: Ratio.of(np.ones(2), np.ones(3)), "one length. Received: {'y': 2, 'x': 3}"),
    "a table of days": (lambda: Ratio.of(np.ones([2, 2]), np.ones([2, 2])), "[N]. Received: shape [2, 2]"),
    "twins that are not twins": (
        lambda: twin_lift(RATIO, Ratio.of(np.ones(2), np.ones(2))),
        "`a`, `b` must be of one length. Received: {'a': 3, 'b': 2}",
    ),
    "the power of a loss of all": (lambda: power(-1, 0.1), "`lift` must be above -1. Received: -1"),
    "the power without an error": (lambda: power(0.1, 0), "`error` must be above 0. Received: 0"),
    "an alpha in percent": (lambda: power(0.1, 0.1, alpha=5), "`alpha` must be above 0 and below 1. Received: 5"),
    "an effect of NaN": (lambda: minimal_effect(np.nan), "`error` must be above 0. Received: nan"),
    "an effect with certainty": (lambda: minimal_effect(0.1, at=1), "`at` must be above 0 and below 1. Received: 1"),
    "users of an arm without users": (lambda: users_needed(0.1, RATIO, RATIO, 1), "below 1. Received: 1"),
    "a split of nobody": (lambda: sample_ratio_p(0, 0, 0.5), "not both 0. Received: 0, 0"),
    "a split of a share of NaN": (lambda: sample_ratio_p(1, 1, np.nan), "and below 1. Received: nan"),
    "an assignment in percent": (lambda: assigned_to_b(["u"], "salt", 50), "`share` must be from 0 to 1. Received: 50"),
    "looks without an alpha": (lambda: mixture_variance(1.0, 0), "`alpha` must be above 0 and below 1. Received: 0"),
    "a width without an alpha": (lambda: half_width(1.0, 1.0, 1), "`alpha` must be above 0 and below 1. Received: 1"),
    "no splits": (lambda: draw_splits(RNG, 3, 0.5, 0), "must be at least 1. Received: 3, 0"),
    "splits of other users": (
        lambda: split_lifts(np.ones([2, 3]), (ONES, ONES), (ONES, ONES)),
        f"Received: shapes [[2, 3], [{SLATE}], [{SLATE}], [{SLATE}], [{SLATE}]]",
    ),
    "an unknown target": (lambda: estimates(LOG, "c", "ctr", ALL), "`target` must be one of b. Received: 'c'"),
    "an unknown task": (lambda: estimates(LOG, "b", "cvr", ALL), "`task` must be one of ctr, ctcvr. Received: 'cvr'"),
    "no impression": (lambda: estimates(LOG, "b", "ctr", ~ALL), "Received: 0 impressions"),
    "part of a request": (lambda: estimates(LOG, "b", "ctr", np.arange(SLATE) < 3), "Received: 3 impressions"),
    "numbers of impressions": (lambda: estimates(LOG, "b", "ctr", np.arange(SLATE)), "Received: int64 ["),
    "a policy that could not have shown it": (
        lambda: estimates(dataclasses.replace(LOG, place_chance=0 * ONES), "b", "ctr", ALL),
        "`place_chance` must be above 0 wherever an item was shown. Received: 0.0",
    ),
    "a propensity of NaN": (
        lambda: estimates(dataclasses.replace(LOG, propensity=np.full(SLATE, np.nan)), "b", "ctr", ALL),
        "`propensity` must be above 0 wherever an item was shown. Received: nan",
    ),
    "samples of no seed": (lambda: mean_over_seeds(np.zeros([0, 5]), True), "Received: shape [0, 5]"),
    "a sample without an axis for seeds": (lambda: mean_over_seeds(np.zeros(5), True), "Received: shape [5]"),
    "nothing to pool": (lambda: pool([]), "`comparisons` must be of one variant and task. Received: none"),
}


@pytest.mark.parametrize("case", CALLS)
def test_arguments_that_make_no_sense(case):
    call, message = CALLS[case]
    with pytest.raises(ValueError, match=r"Received: ") as error:
        call()
    assert message in str(error.value)
