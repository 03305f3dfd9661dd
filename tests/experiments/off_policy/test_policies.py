"""Target policies and reward model on bandits with known probabilities."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from usr_tf.errors import InputError
from usr_tf.experiments.abtest.arms import Ranking
from usr_tf.experiments.off_policy.logged_policies import LoggedScenario, PolicyLog
from usr_tf.experiments.off_policy.reward_model import fit_reward_model
from usr_tf.experiments.off_policy.target_policies import logged_policy, model_policy
from usr_tf.schema import parse_schema

HOUR_MS = 3_600_000
ITEMS = 5
SCHEMA = """\
scenarios: [feed]
tasks: [{name: ctr, action: click}]
features:
  item_id: {group: item, type: categorical}
  price:   {group: item, type: numeric}
  device:  {group: context, type: categorical}
  tags:    {group: context, type: categorical_list, weights: tag_weights}
"""


def make_log(rng, policy, n=8_000, rate=None, hours=48):
    """Log of a policy `[states, items]` whose states follow each other in equal parts of the time."""
    time = np.sort(rng.integers(0, hours * HOUR_MS, n))
    state = time * len(policy) // (hours * HOUR_MS)
    item = (policy[state].cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, ITEMS - 1)
    click = rng.random(n) < (np.full(ITEMS, 0.1) if rate is None else rate)[item]
    position = rng.integers(0, 2, n)
    return PolicyLog(time, rng.integers(0, 2, n), item, position, policy[state, item], click)


def make_scenario(logs):
    items = pd.DataFrame({"item_id": list("abcde"), "price": [1.0, 2.0, None, 4.0, 5.0]})
    contexts = pd.DataFrame({"device": ["phone", None], "tags": [("x", "y"), ()], "tag_weights": [(1.0, 2.0), ()]})
    return LoggedScenario("feed", items, contexts, 2, logs)


def test_a_uniform_policy_is_exact():
    rng = np.random.default_rng(0)
    log = make_log(rng, np.full((1, ITEMS), 1 / ITEMS), 100)
    found = logged_policy(log, log, ITEMS, 2, rng)
    assert found.origin == "uniform over 5 items, exact"
    np.testing.assert_array_equal(found.chances(log), np.full((100, ITEMS), 1 / ITEMS))


def test_a_bandit_that_changes_is_followed_in_windows_of_time():
    rng = np.random.default_rng(0)
    policy = rng.dirichlet(np.full(ITEMS, 0.5), 4) * 0.9 + 0.02  # changes every 12 hours
    own, log = make_log(rng, policy), make_log(rng, np.full((1, ITEMS), 1 / ITEMS))
    found = logged_policy(own, log, ITEMS, 2, rng)
    assert found.origin == "shares of its own log in windows of 12 hours"
    true = policy[log.timestamp * 4 // (48 * HOUR_MS)]
    assert np.abs(found.chances(log) - true).mean() < 0.01
    np.testing.assert_allclose(found.chances(log).sum(axis=1), 1)
    np.testing.assert_array_equal(found.displayed(log), found.chances(log)[np.arange(log.item.size), log.item])
    # What was displayed had a high probability just then: the mean of the logged propensities is no estimate.
    mean = np.bincount(own.item, own.propensity) / np.bincount(own.item)
    assert mean.sum() > 1.2


def test_a_bandit_that_stays_is_the_share_of_the_whole_log():
    rng = np.random.default_rng(1)
    own = make_log(rng, np.array([[0.5, 0.2, 0.1, 0.1, 0.1]]), 2_000)
    found = logged_policy(own, own, ITEMS, 2, rng)
    assert found.origin == "shares of its own log"
    count = np.stack([np.bincount(own.item[own.position == place], minlength=ITEMS) for place in (0, 1)])
    np.testing.assert_allclose(found.table[0], count / count.sum(axis=1, keepdims=True), atol=0.002)


def test_the_reward_model_learns_items_from_other_rows():
    rng = np.random.default_rng(2)
    rate = np.array([0.05, 0.1, 0.2, 0.3, 0.5])
    log = make_log(rng, np.full((1, ITEMS), 1 / ITEMS), 4_000, rate)
    model = fit_reward_model(parse_schema(SCHEMA, "s"), make_scenario({"p": log}), log, rng)
    found = model.clicks()
    assert found.shape == (4_000, ITEMS)
    np.testing.assert_allclose(found.mean(axis=0), rate, atol=0.04)
    np.testing.assert_array_equal(model.clicks(slice(10, 20)), found[10:20])
    # A click of a row changes what the others get, and not what the row itself gets.
    flipped = log.click.copy()
    flipped[0] ^= True
    other = PolicyLog(**(vars(log) | {"click": flipped}))
    again = fit_reward_model(parse_schema(SCHEMA, "s"), make_scenario({"p": log}), other, np.random.default_rng(7))
    before = fit_reward_model(parse_schema(SCHEMA, "s"), make_scenario({"p": log}), log, np.random.default_rng(7))
    same = before.fold == before.fold[0]
    np.testing.assert_array_equal(again.clicks()[same], before.clicks()[same])
    assert (again.clicks()[~same] != before.clicks()[~same]).any()


def test_without_clicks_the_reward_model_is_flat():
    rng = np.random.default_rng(3)
    log = make_log(rng, np.full((1, ITEMS), 1 / ITEMS), 99, np.zeros(ITEMS))
    model = fit_reward_model(parse_schema(SCHEMA, "s"), make_scenario({"p": log}), log, rng)
    assert set(np.round(1 / model.clicks()[:, 0])) <= {80, 81}  # 79 or 80 rows of the other parts


class Scorer:
    """A model whose scores fall with the item's number, and rise with it where the first tag is `x`."""

    path, scenarios = Path("models/mine/1"), ("feed",)

    def __init__(self, schema=SCHEMA):
        self.schema = parse_schema(schema, "s")

    def score(self, scenario, inputs):
        assert inputs["item_id"].tolist() == [b"a", b"b", b"c", b"d", b"e"]
        assert np.isnan(inputs["price"][2])
        assert inputs["price"].dtype == np.float32
        assert inputs["tags"].shape == inputs["tag_weights"].shape
        sign = 1 if inputs["tags"].tolist() == [[b"x", b"y"]] else -1
        assert inputs["device"].tolist() == [b"phone" if sign == 1 else b""]
        return {"ctr": sign * np.arange(ITEMS) / 10}


def test_a_model_fills_the_positions_by_its_ranking_in_each_context():
    rng = np.random.default_rng(4)
    log = make_log(rng, np.full((1, ITEMS), 1 / ITEMS), 50)
    found = model_policy(Scorer(), Ranking("ctr", 0.1, 0.2), make_scenario({"p": log}), log, rng)
    assert found.origin == "slates of mine by ctr"
    # Temperature 0.2: the next rank weighs exp(−5). Position 1 has the best item but for exploration.
    first = 0.9 / (1 + np.exp(-5) + np.exp(-10)) + 0.02
    np.testing.assert_allclose(found.table[0, 0, 4], first, atol=1e-3)
    np.testing.assert_allclose(found.table[1, 0, 0], first, atol=1e-3)
    assert found.table[0, 1].argmax() == 3
    assert found.table[1, 1].argmax() == 1
    np.testing.assert_allclose(found.table.sum(axis=2), 1, atol=1e-5)
    np.testing.assert_array_equal(found.state, log.context)


@pytest.mark.parametrize(
    ("schema", "refusal"),
    [
        (SCHEMA.replace("[feed]", "[feed, search]"), None),
        (SCHEMA + "  score: {group: candidate, type: numeric}\n", "mine/1: score: found a feature of group candidate"),
        (SCHEMA + "  colour: {group: item, type: categorical}\n", "mine/1: colour: found a feature of group item"),
        (
            SCHEMA.replace("features:", "history: {actions: [click], max_length: 5}\nfeatures:").replace(
                "group: item, type: categorical}", "group: item, type: categorical, in_history: true}"
            ),
            "mine/1: history: found a model of histories",
        ),
    ],
)
def test_a_model_that_reads_what_the_log_lacks_is_refused(schema, refusal):
    rng = np.random.default_rng(5)
    log = make_log(rng, np.full((1, ITEMS), 1 / ITEMS), 10)
    scenario = make_scenario({"p": log})
    if refusal is None:
        scorer = Scorer(schema)
        scorer.scenarios = ("search",)
        refusal = "mine/1: scenarios: found search, expected one called feed"
    else:
        scorer = Scorer(schema)
    with pytest.raises(InputError, match=refusal):
        model_policy(scorer, Ranking("ctr", 0.1, 2.0), scenario, log, rng)
