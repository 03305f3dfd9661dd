"""Poisson bootstrap over users: resamples, intervals and paired intervals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tests.usr_tf.drawn import CTR, drawn_predictions, metrics_of_rows, predictions_of, scored
from usr_tf import metrics
from usr_tf.metrics.registry import metrics_for
from usr_tf.metrics.resample import Resample


class TestResample:
    def test_draws_are_poisson_of_mean_one(self):
        draws = Resample.of(np.arange(20_000), replicates=20).weights[1:].ravel()
        shares = np.bincount(draws, minlength=6)[:6] / len(draws)
        expected = [np.exp(-1) / math.factorial(times) for times in range(6)]
        np.testing.assert_allclose(shares, expected, atol=4 * 0.5 / np.sqrt(len(draws)))  # four standard errors
        assert draws.var() == pytest.approx(1, abs=4 * np.sqrt(3 / len(draws)))  # the fourth moment about 1 is 4

    @pytest.mark.parametrize("users", [np.arange(2_000), np.char.add("u", np.arange(2_000).astype(str)).astype(object)])
    def test_draws_of_users_resamples_and_seeds_are_unlike(self, users):
        draws = np.concatenate([Resample.of(users, 40, seed).weights[1:] for seed in (0, 1)]) - 1.0
        for rows in (draws, draws[:, :80].T):  # resamples over users, users over resamples
            pairs = (rows @ rows.T)[np.triu_indices(len(rows), 1)] / np.sqrt(rows.shape[1])
            assert pairs.std() == pytest.approx(1, abs=4 * np.sqrt(2 / len(pairs)))
            assert abs(pairs).max() < 6

    @given(st.lists(st.text(max_size=3), min_size=1, max_size=20), st.integers(0, 3))
    def test_a_users_draws_depend_on_the_user_and_the_seed_alone(self, users, seed):
        whole = Resample.of(np.array(users, object), 4, seed)
        for user in set(users):
            alone = Resample.of(np.array([user.encode()], object), 4, seed)  # a text and its bytes are one user
            np.testing.assert_array_equal(alone.weights[:, 0], whole.weights[:, whole.users[users.index(user)]])

    def test_the_first_draw_is_the_data(self):
        resample = Resample.of(np.array(list("aab"), object), 3)
        np.testing.assert_array_equal(resample.totals(np.array([1.0, 2, 4]))[:, 0], [7])
        drawn_a, drawn_b = resample.weights[:, [0, 1]].astype(float).T
        np.testing.assert_array_equal(resample.totals(np.array([1.0, 2, 4]))[0], 3 * drawn_a + 4 * drawn_b)


def intervals(predictions, **arguments):
    return metrics.details_document(predictions, CTR, **arguments)["overall"]["ctr"]["intervals"]


class TestBootstrap:
    def test_is_the_metrics_of_copied_users(self):
        predictions = drawn_predictions(n=400, users=12)
        found = intervals(predictions, replicates=1, seed=5)  # one replicate has its one value at both ends
        resample = Resample.of(predictions.user, replicates=1, seed=5)
        assert resample.weights[1].max() > 1
        copies = [
            (np.flatnonzero(resample.users == user), copy)
            for user, drawn in enumerate(resample.weights[1])
            for copy in range(drawn)
        ]
        chosen = np.concatenate([index for index, _ in copies])
        copy = np.concatenate([np.full(len(index), number) for index, number in copies])
        expected = metrics_of_rows(
            predictions.labels["ctr"][chosen],
            predictions.probabilities["ctr"][chosen],
            resample.users[chosen] * 100 + copy,
            np.char.add(predictions.request[chosen].astype(str), copy.astype(str)),
        )
        del found["ece"]  # whose deciles are those of all rows
        assert set(found) == {metric.name for metric in metrics_for(CTR, "ctr")} - {"ece"}
        for name, ends in found.items():
            assert ends == pytest.approx([expected[name]] * 2, rel=1e-9)

    def test_holds_the_metric_and_repeats(self):
        predictions = drawn_predictions()
        value = metrics.metrics_document(predictions, CTR)["overall"]["ctr"]
        found = intervals(predictions)
        assert intervals(predictions) == found
        seeded, narrow = intervals(predictions, seed=1), intervals(predictions, level=0.5)
        for name, (low, high) in found.items():
            assert low < (high if name == "ece" else value[name]) <= high  # noise adds to ECE
            assert seeded[name] != [low, high]
            assert low < narrow[name][0] < narrow[name][1] < high

    def test_rows_of_a_user_are_not_independent(self):
        predictions = drawn_predictions(n=600)
        tripled = predictions.only(np.repeat(np.arange(600), 3))
        assert intervals(tripled)["auc"] == pytest.approx(intervals(predictions)["auc"])

    def test_undefined(self):
        labels, probabilities = [0, 1, 0, 1, 0, 0], [0.1, 0.4, 0.2, 0.3, 0.2, 0.3]
        one_user = intervals(predictions_of(labels, probabilities))
        one_class = intervals(predictions_of([0] * 6, probabilities, list("aabbcc")))
        # A third of the resamples lack the only user who clicked.
        one_clicker = intervals(predictions_of([0, 1, 0, 0, 0, 0], probabilities, list("aabbcc")))
        assert one_user["auc"] is one_class["auc"] is one_clicker["auc"] is None
        assert one_class["logloss"] is not None

    def test_paired_is_of_a_less_b_and_narrower(self):
        a = drawn_predictions()
        noise = np.random.default_rng(1).normal(0, 0.2, len(a))
        b = scored(a, {"ctr": np.clip(a.probabilities["ctr"] * np.exp(noise), 0, 1)})
        auc = {name: roc_auc_score(p.labels["ctr"], p.probabilities["ctr"]) for name, p in [("a", a), ("b", b)]}

        def difference(one, other):
            return metrics.compare(one, other, CTR)["overall"]["ctr"]["auc"]["interval"]

        low, high = difference(a, b)
        assert low < auc["a"] - auc["b"] < high
        assert difference(b, a) == pytest.approx([-high, -low])
        assert difference(a, a) == [0, 0]
        alone = intervals(a)["auc"]
        assert high - low < (alone[1] - alone[0]) / 2
