"""Slate propensities against observed frequencies."""

import numpy as np
import pytest

from pipelines.simulator.ranker import SLATE, draw_slates
from usr_tf.experiments.abtest.policies import candidate_chances, place_chances, ranking_logits, slate_chances

CANDIDATES, DRAWS, EXPLORE = 14, 60_000, 0.1


@pytest.fixture(scope="module")
def policy():
    """Logits and what is free of one request, and many slates that were drawn for it with their chances."""
    rng = np.random.default_rng(0)
    free = np.ones((1, CANDIDATES), bool)
    free[0, 3] = False
    logits = ranking_logits(rng.normal(size=free.shape), free, 2.0)
    drawn = draw_slates(rng, np.repeat(logits, DRAWS, axis=0), np.repeat(free, DRAWS, axis=0), EXPLORE)
    return logits, free, *drawn


def test_only_the_order_of_scores_counts_and_what_cannot_be_shown_takes_no_place():
    free = np.array([[True, False, True, True, True]])
    logits = ranking_logits(np.array([[0.1, 9.0, 0.3, np.nan, 0.3]]), free, 2.0)
    np.testing.assert_array_equal(logits[free[0][None]], [-1.0, 0.0, -1.5, -0.5])
    same = ranking_logits(np.log([[0.1, 9.0, 0.3, np.nan, 0.3]]), free, 2.0)
    np.testing.assert_array_equal(logits, same)


def test_a_policys_own_slates_have_the_chances_that_they_were_drawn_with(policy):
    logits, free, place, chance = policy
    few = 50
    found = slate_chances(np.repeat(logits, few, axis=0), np.repeat(free, few, axis=0), EXPLORE, place[:few])
    np.testing.assert_allclose(found, chance[:few])


def test_candidates_stand_in_a_place_as_often_as_is_said(policy):
    logits, free, place, _ = policy
    frequency = np.stack([np.bincount(of, minlength=CANDIDATES) / DRAWS for of in place.T])
    error = np.sqrt(np.maximum(frequency, 1e-4) / DRAWS)
    rng = np.random.default_rng(1)
    chances = candidate_chances(rng, logits, free, EXPLORE, samples=20_000)[0]
    assert (np.abs(chances - frequency) < 5 * error + 0.004).all()
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-4)
    shown = place[:8]
    repeated = np.repeat(logits, 8, axis=0), np.repeat(free, 8, axis=0)
    of_shown = place_chances(rng, *repeated, EXPLORE, shown, samples=2_000)
    expected = frequency[np.arange(SLATE), shown]
    assert (np.abs(of_shown - expected) < 5 * np.sqrt(expected / DRAWS) + 0.03 * expected).all()


@pytest.mark.parametrize("temperature", [0.5, 0.2])  # the second is the least that settings allow
def test_no_entry_that_was_shown_has_a_chance_of_0_however_sharp_the_policy(temperature):
    """The best item in the last place: ten draws in a row passed it over."""
    logits = ranking_logits(-np.arange(64.0)[None], np.ones((1, 64), bool), temperature)
    place = np.arange(SLATE)[None, ::-1].copy()
    chances = place_chances(np.random.default_rng(0), logits, np.ones((1, 64), bool), 0.01, place)
    assert (chances > 0).all()
    every = candidate_chances(np.random.default_rng(0), logits, np.ones((1, 64), bool), 0.01)
    np.testing.assert_allclose(every.sum(axis=2), 1, atol=1e-5)
