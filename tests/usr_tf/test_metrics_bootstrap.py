"""Poisson bootstrap over users: resamples, intervals and paired intervals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tests.usr_tf.drawn import SCHEMA, drawn_predictions, predictions_of
from usr_tf import metrics
from usr_tf.metrics import FIGURES
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


class TestBootstrap:
    @pytest.mark.parametrize("figure", FIGURES)
    def test_is_the_figure_of_copied_users(self, figure):
        predictions = drawn_predictions(n=400, users=12)
        codes = np.unique(predictions.user, return_inverse=True)[1]
        # One replicate has its one value at both ends.
        low, high = metrics.bootstrap_interval(predictions, "ctr", figure, replicates=1, seed=5)
        assert low == high
        resample = Resample.of(predictions.user, replicates=1, seed=5)
        assert resample.weights[1].max() > 1
        copies = [
            (np.flatnonzero(resample.users == user), copy)
            for user, drawn in enumerate(resample.weights[1])
            for copy in range(drawn)
        ]
        chosen = np.concatenate([index for index, _ in copies])
        copy = np.concatenate([np.full(len(index), number) for index, number in copies])
        figures = metrics.task_metrics(
            predictions.labels["ctr"][chosen],
            predictions.probabilities["ctr"][chosen],
            codes[chosen] * 100 + copy,
            np.char.add(predictions.request[chosen].astype(str), copy.astype(str)),
        )
        if figure != "ece":  # whose deciles are those of all rows
            assert low == pytest.approx(figures[figure], rel=1e-9)

    @pytest.mark.parametrize("figure", FIGURES)
    def test_holds_the_figure_and_repeats(self, figure):
        predictions = drawn_predictions()
        value = metrics.metrics_document(predictions, SCHEMA)["overall"]["ctr"][figure]
        interval = metrics.bootstrap_interval(predictions, "ctr", figure)
        assert interval[0] < (interval[1] if figure == "ece" else value) <= interval[1]  # noise adds to ECE
        assert metrics.bootstrap_interval(predictions, "ctr", figure) == interval
        assert metrics.bootstrap_interval(predictions, "ctr", figure, seed=1) != interval
        narrower = metrics.bootstrap_interval(predictions, "ctr", figure, level=0.5)
        assert interval[0] < narrower[0] < narrower[1] < interval[1]

    def test_rows_of_a_user_are_not_independent(self):
        predictions = drawn_predictions(n=600)
        tripled = predictions.only(np.repeat(np.arange(600), 3))
        assert metrics.bootstrap_interval(tripled, "ctr") == pytest.approx(
            metrics.bootstrap_interval(predictions, "ctr")
        )

    @pytest.mark.parametrize("figure", FIGURES)
    def test_undefined_without_rows(self, figure):
        empty = drawn_predictions(n=50).only(np.zeros(50, bool))
        assert metrics.bootstrap_interval(empty, "ctr", figure) is None

    def test_undefined(self):
        labels, probabilities = [0, 1, 0, 1, 0, 0], [0.1, 0.4, 0.2, 0.3, 0.2, 0.3]
        one_user = predictions_of(labels, probabilities)
        assert metrics.bootstrap_interval(one_user, "ctr") is None
        one_class = predictions_of([0] * 6, probabilities, list("aabbcc"))
        assert metrics.bootstrap_interval(one_class, "ctr") is None
        assert metrics.bootstrap_interval(one_class, "ctr", "logloss") is not None
        # A third of the resamples lack the only user who clicked.
        one_clicker = predictions_of([0, 1, 0, 0, 0, 0], probabilities, list("aabbcc"))
        assert metrics.bootstrap_interval(one_clicker, "ctr") is None

    def test_paired_is_of_a_less_b_and_narrower(self):
        a = drawn_predictions()
        noise = np.random.default_rng(1).normal(0, 0.2, len(a))
        b = a.with_probabilities({"ctr": np.clip(a.probabilities["ctr"] * np.exp(noise), 0, 1)})
        auc = {name: roc_auc_score(p.labels["ctr"], p.probabilities["ctr"]) for name, p in [("a", a), ("b", b)]}
        low, high = metrics.paired_bootstrap(a, b, "ctr")
        assert low < auc["a"] - auc["b"] < high
        assert metrics.paired_bootstrap(b, a, "ctr") == pytest.approx((-high, -low))
        assert metrics.paired_bootstrap(a, a, "ctr") == (0, 0)
        alone = metrics.bootstrap_interval(a, "ctr")
        assert high - low < (alone[1] - alone[0]) / 2

    def test_paired_refuses_other_rows(self):
        a = drawn_predictions(n=100)
        with pytest.raises(ValueError, match="Received: 100 and 99 rows"):
            metrics.paired_bootstrap(a, a.only(np.arange(99)), "ctr")
        with pytest.raises(ValueError, match="same rows"):
            metrics.paired_bootstrap(a, a.only(np.arange(100)[::-1]), "ctr")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"figure": "recall"}, "one of auc, gauc.*Received: 'recall'"),
            ({"replicates": 0}, "Received: 0"),
            ({"level": 95}, "Received: 95"),
        ],
    )
    def test_refuses(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            metrics.bootstrap_interval(drawn_predictions(n=50), "ctr", **arguments)
