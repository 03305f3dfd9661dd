"""Comparison of two models on the same rows."""

import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.usr_tf.drawn import SCHEMA, drawn_predictions, scored
from usr_tf import metrics
from usr_tf.metrics import delong_test
from usr_tf.metrics.registry import metrics_for


def brute_force(labels, a, b):
    """AUC(a) − AUC(b) and its variance by DeLong's own definition: every pair of a positive and a negative."""
    positive = labels == 1

    def pairs(scores):
        difference = scores[positive][:, None] - scores[~positive][None, :]
        return (difference > 0) + (difference == 0) / 2

    wins = pairs(a) - pairs(b)
    hits, falls = wins.shape
    variance = wins.mean(axis=1).var(ddof=1) / hits + wins.mean(axis=0).var(ddof=1) / falls
    return wins.mean(), variance


class TestDeLong:
    def test_hand_computed(self):
        labels = np.array([1, 1, 0, 0])
        # a ranks both positives above both negatives. b puts one of them at the bottom: half of the pairs.
        found = delong_test(labels, np.array([4, 3, 2, 1]), np.array([4, 1, 3, 2]))
        # Its positives' shares of pairs won are 1 and 0, a's both 1, so their differences are 0 and 1, of variance ½
        # and a mean's ½ / 2. Each negative lost half of its pairs to b's positives: no variance.
        assert (found.difference, found.standard_error) == (0.5, pytest.approx(0.5))
        assert found.z == pytest.approx(1)
        assert found.p_value == pytest.approx(0.31731, abs=1e-5)  # of a standard normal beyond ±1

    @given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 4)), min_size=4, max_size=40))
    def test_is_the_u_statistic_of_all_pairs(self, rows):
        labels, a, b = (np.array(column) for column in zip(*rows, strict=True))
        assume(2 <= labels.sum() <= len(labels) - 2)
        difference, variance = brute_force(labels, a, b)
        found = delong_test(labels, a, b)
        if variance < 1e-12:
            assert found is None
        else:
            assert found.difference == pytest.approx(difference, abs=1e-12)
            assert found.standard_error == pytest.approx(np.sqrt(variance))

    def test_is_undefined_without_two_of_a_class_and_for_one_order(self):
        scores = np.arange(4)
        assert delong_test(np.array([0, 0, 0, 1]), scores, -scores) is None
        assert delong_test(np.array([0, 1, 0, 1]), scores, 2 * scores + 1) is None

    def test_one_pair_of_very_many_makes_a_difference(self):
        labels = np.repeat([0, 1], 40_000)
        scores = np.arange(80_000)
        other = scores.copy()
        other[[39_999, 40_000]] = 40_000, 39_999  # the best negative above the worst positive
        found = delong_test(labels, scores, other)
        # One positive and one negative lose 1 / 40,000 of their pairs each, and the difference is the square of that.
        assert found.difference == pytest.approx(1 / 40_000**2, rel=1e-6)
        assert found.standard_error == pytest.approx(np.sqrt(2) / 40_000**2, rel=1e-4)

    def test_finds_no_more_differences_than_there_are(self):
        generator = np.random.default_rng(0)
        rejected = 0
        for _ in range(300):
            labels = generator.uniform(size=200) < 0.3
            signal = labels + generator.normal(0, 1, 200)
            a, b = signal + generator.normal(0, 1, (2, 200))
            rejected += delong_test(labels, a, b).p_value < 0.05
        assert 4 <= rejected <= 30  # 15 are expected; four standard deviations are 15


class TestCompare:
    def test_every_figure_with_its_interval(self):
        a = drawn_predictions()
        noise = np.random.default_rng(1).normal(0, 0.3, len(a))
        b = scored(a, {task: np.clip(p * np.exp(noise), 0, 1) for task, p in a.probabilities.items()})
        document = metrics.compare(a, b, SCHEMA, replicates=50, seed=1)
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        expected = [metrics.metrics_document(rows, SCHEMA)["scenarios"]["search"]["ctr"] for rows in (a, b)]
        for name in (metric.name for metric in metrics_for(SCHEMA, "ctr")):
            figure = document["scenarios"]["search"]["ctr"][name]
            assert [figure["a"], figure["b"]] == [pytest.approx(each[name]) for each in expected]
            assert figure["difference"] == pytest.approx(expected[0][name] - expected[1][name])
            assert figure["interval"][0] <= figure["interval"][1]
        test = document["overall"]["ctr"]["auc"]["delong"]
        assert test["difference"] == pytest.approx(document["overall"]["ctr"]["auc"]["difference"])
        assert 0 < test["p_value"] < 1
        assert "auc_given_previous" in document["overall"]["ctcvr"]

    def test_rows_may_come_in_another_order(self):
        a = drawn_predictions(n=200)
        # A row of this test is told by its request, user and item.
        keys = np.char.add(a.request.astype(str), a.item.astype(str))
        a = a.only(np.unique(keys, return_index=True)[1])
        shuffled = a.only(np.random.default_rng(0).permutation(len(a)))
        figure = metrics.compare(a, shuffled, SCHEMA, replicates=5)["overall"]["ctr"]["auc"]
        assert (figure["difference"], figure["interval"], figure["delong"]) == (0, [0, 0], None)

    def test_other_rows_are_refused(self):
        a = drawn_predictions(n=100)
        with pytest.raises(ValueError, match="100 and 99 rows that differ"):
            metrics.compare(a, a.only(np.arange(99)), SCHEMA)

    def test_a_scenario_without_rows_has_no_figures(self):
        a = drawn_predictions(n=100)
        a = a.only(a.scenario == 0)
        found = metrics.compare(a, a, SCHEMA, replicates=2)["scenarios"]["recommendation"]["ctr"]
        undefined = dict.fromkeys(("a", "b", "difference", "interval"))
        expected = {metric.name: undefined for metric in metrics_for(SCHEMA, "ctr")} | {
            "auc": {**undefined, "delong": None}
        }
        assert found == expected | {"n": 0, "positives": 0}
