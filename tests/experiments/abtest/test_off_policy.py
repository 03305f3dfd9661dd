"""Off-policy estimators on a toy bandit with known value."""

import numpy as np
import pytest

from pipelines.simulator.ranker import SLATE, draw_slates
from usr_tf.experiments.abtest.off_policy import CLIP, estimates
from usr_tf.experiments.abtest.policies import candidate_chances, place_chances, ranking_logits, slate_chances
from usr_tf.experiments.abtest.replay import ArmLog, Target

CANDIDATES, USERS, REQUESTS, EXPLORE = 16, 250, 4, 0.3


@pytest.fixture(scope="module")
def bandit():
    """Requests logged under one ranking, all of one kind, and what another would have shown. Clicks depend on the item
    and its place alone; the other's model is wrong by half.

    Gives the log, and the true clicks per impression of the target.
    """
    rng = np.random.default_rng(0)
    n = USERS * REQUESTS
    free = np.ones((n, CANDIDATES), bool)
    rate = np.linspace(0.05, 0.6, CANDIDATES)
    examined = np.arange(1, SLATE + 1) ** -0.3
    logging, target = (
        np.repeat(ranking_logits(score[None], free[:1], 4.0), n, axis=0)
        for score in (rng.normal(size=CANDIDATES), rate)
    )
    place, propensity = draw_slates(rng, logging, free, EXPLORE)
    click = rng.random(place.shape) < rate[place] * examined
    would = candidate_chances(rng, target[:1], free[:1], EXPLORE, samples=2_000)[0]  # [S, C]
    model = np.tile(np.where(np.arange(CANDIDATES) % 2, 0.5, 1.5) * rate, (2, 1))

    def rows(values):
        return np.broadcast_to(values, (n, SLATE)).ravel()

    aim = Target(
        slate_chance=slate_chances(target, free, EXPLORE, place).ravel(),
        place_chance=place_chances(rng, target, free, EXPLORE, place).ravel(),
        reward=model[:, place].reshape(2, -1),
        direct=np.stack([rows(would @ of) for of in model]),
        truth=np.stack([rows(would @ rate * examined)] * 2),
    )
    log = ArmLog(
        scenario=np.zeros(n * SLATE, int),
        user=np.repeat(np.arange(USERS), REQUESTS * SLATE),
        day=np.zeros(n * SLATE, int),
        position=np.tile(np.arange(1, SLATE + 1), n),
        click=click.ravel(),
        buy=np.zeros(n * SLATE, bool),
        return_buy=np.zeros(n * SLATE, bool),
        price=np.ones(n * SLATE),
        propensity=propensity.ravel(),
        place_chance=place_chances(rng, logging, free, EXPLORE, place).ravel(),
        targets={"b": aim},
    )
    return log, aim.truth[0].mean()


def test_every_estimate_but_the_clipped_one_is_near_the_truth(bandit):
    log, truth = bandit
    found = estimates(log, "b", "ctr", np.ones(log.user.size, bool))
    assert abs(log.click.mean() - truth) > 0.01  # the logged rate is not
    for name in ("ips", "snips", "dr"):
        error = (found[name].interval[1] - found[name].interval[0]) / 2 / 1.96
        assert abs(found[name].value - truth) < 4 * error + 0.01 * truth, name
        assert error < 0.05 * truth, name
    assert found["ips_clipped"].value <= found["ips"].value
    assert found["slate_snips"].effective < 0.5 * found["snips"].effective  # why nobody uses it


def test_weights_average_to_one_and_tell_how_much_is_left(bandit):
    log, _ = bandit
    weight = log.targets["b"].place_chance / log.place_chance
    assert weight.mean() == pytest.approx(1, abs=0.05)
    found = estimates(log, "b", "ctr", np.ones(log.user.size, bool))
    assert found["ips"].effective == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    assert found["ips_clipped"].largest <= CLIP / np.minimum(weight, CLIP).mean() + 1e-9


def test_a_policys_own_log_gives_its_own_rate(bandit):
    log, _ = bandit
    aim = log.targets["b"]
    same = Target(log.propensity, log.place_chance, aim.reward, aim.direct, aim.truth)
    found = estimates(ArmLog(**(vars(log) | {"targets": {"b": same}})), "b", "ctr", np.ones(log.user.size, bool))
    for name in ("ips", "ips_clipped", "snips", "slate_snips"):
        assert found[name].value == pytest.approx(log.click.mean())
        assert found[name].effective == pytest.approx(log.user.size)


def test_the_estimates_of_two_requests_by_hand():
    """Two users, a request each, one click in the first place of the second; weights 1, but 3 there and 0.5 below."""
    one, weight = np.ones(2 * SLATE), np.ones(2 * SLATE)
    weight[[SLATE, SLATE + 1]] = 3.0, 0.5
    click = np.arange(2 * SLATE) == SLATE
    user = np.repeat([0, 1], SLATE)
    aim = Target(weight, weight, np.stack([one, one]) * 0.1, np.stack([one, one]) * 0.2, np.zeros((2, 2 * SLATE)))
    log = ArmLog(
        0 * user,
        user,
        0 * user,
        np.tile(np.arange(1, SLATE + 1), 2),
        click,
        0 * click,
        0 * click,
        one,
        one,
        one,
        {"b": aim},
    )
    found = estimates(log, "b", "ctr", one > 0)
    assert found["ips"].value == pytest.approx(3 / 20)
    assert found["snips"].value == pytest.approx(3 / 21.5)
    # In place 1 one click of 0.2 expected: expected rewards rise fivefold there, and fall to 0 in all other places.
    # Direct: 2 · 0.2 · 5 = 2. Correction: 1 · (0 − 0.5) + 3 · (1 − 0.5) = 1.
    assert found["dr"].value == pytest.approx((2 + 1) / 20)
    # Products of the second request: 3, then 1.5 in all nine places below; of the first, 1.
    assert found["slate_snips"].value == pytest.approx(3 / (10 + 3 + 9 * 1.5))
