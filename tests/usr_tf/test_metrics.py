"""Metrics against hand-computed values and scikit-learn."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, log_loss, ndcg_score, roc_auc_score

from tests.usr_tf.drawn import CTR, drawn_predictions, metrics_of_rows, predictions_of
from usr_tf import metrics
from usr_tf.metrics.registry import metrics_for

rows = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.9]) | st.floats(0, 1, width=32),
        st.integers(0, 4),
        st.integers(0, 6),
    ),
    min_size=1,
    max_size=60,
)


class TestMetrics:
    def test_hand_computed(self):
        figures = metrics_of_rows(
            labels=np.array([1.0, 0, 0, 1, 0, 1]),
            probabilities=np.array([0.5, 0.5, 0.25, 0.25, 0.5, 0.5]),
            users=np.array(["a", "a", "a", "b", "b", "c"]),
            requests=np.array(["r", "r", "r", "s", "s", "t"]),
        )
        # Pairs of a positive with a negative: 0.5 against 0.5, 0.25, 0.5 (½ + 1 + ½), twice;
        # 0.25 against the same (0 + ½ + 0): 4.5 of 9.
        assert figures["auc"] == pytest.approx(4.5 / 9)
        # User a: 0.5 against 0.5 and 0.25, so ¾, on 3 rows. User b: 0 on 2 rows. User c has one class.
        assert figures["gauc"] == pytest.approx((0.75 * 3 + 0 * 2) / 5)
        # The same, and each of the two has one positive.
        assert figures["gauc_clicks"] == pytest.approx((0.75 * 1 + 0 * 1) / 2)
        # Four rows score ½, two of them positive; all six score ¼ or more, three of them positive.
        assert figures["pr_auc"] == pytest.approx((2 / 4 + 2 / 4 + 3 / 6) / 3)
        # −ln of: ½, ½, ¾, ¼, ½, ½.
        loss = (4 * np.log(2) + np.log(4 / 3) + np.log(4)) / 6
        assert figures["logloss"] == pytest.approx(loss)
        assert figures["ne"] == pytest.approx(loss / np.log(2))  # base rate ½
        assert figures["calibration"] == pytest.approx(2.5 / 3)
        # Request r: places 1 and 2 shared, so (1 + 1/log2 3) / 2. Request s: place 2. Request t: 1.
        second = 1 / np.log2(3)
        assert figures["ndcg@10"] == pytest.approx(((1 + second) / 2 + second + 1) / 3)
        # Request r: place 1 or 2, as likely. Request s: place 2. Request t: place 1.
        assert figures["mrr"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
        # Two groups of tied rows: two of ¼ with one positive, four of ½ with two.
        assert figures["ece"] == pytest.approx((2 * (1 / 2 - 1 / 4) + 4 * 0) / 6)
        assert (figures["n"], figures["positives"]) == (6, 3)
        assert list(figures) == [*(metric.name for metric in metrics_for(CTR, "ctr")), "n", "positives"]

    def test_ndcg_counts_ten_places(self):
        labels = np.zeros(12)
        labels[[10, 11]] = 1
        scores = np.linspace(0.9, 0.1, 12)
        one = np.zeros(12, np.int64)
        assert metrics_of_rows(labels, scores, one, one)["ndcg@10"] == 0
        # With places 10 and 11 tied, the positive of the two gets half of place 10.
        labels[:] = 0
        labels[10] = 1
        scores[10] = scores[9]
        expected = 0.5 / np.log2(11)
        assert metrics_of_rows(labels, scores, one, one)["ndcg@10"] == pytest.approx(expected)

    @settings(max_examples=60)
    @given(rows)
    def test_equals_scikit_learn_group_by_group(self, rows):
        labels, probabilities, users, requests = (np.array(column) for column in zip(*rows, strict=True))
        figures = metrics_of_rows(labels.astype(np.float64), probabilities, users, requests)

        mixed = [users == user for user in set(users) if 0 < labels[users == user].mean() < 1]
        ranked = [requests == request for request in set(requests) if labels[requests == request].any()]
        expected = {
            "auc": roc_auc_score(labels, probabilities) if 0 < labels.mean() < 1 else None,
            "gauc": np.average(
                [roc_auc_score(labels[mask], probabilities[mask]) for mask in mixed], weights=[m.sum() for m in mixed]
            )
            if mixed
            else None,
            "gauc_clicks": np.average(
                [roc_auc_score(labels[mask], probabilities[mask]) for mask in mixed],
                weights=[labels[mask].sum() for mask in mixed],
            )
            if mixed
            else None,
            "pr_auc": average_precision_score(labels, probabilities) if labels.any() else None,
            "logloss": log_loss(labels, probabilities, labels=[0, 1]),
            # scikit-learn refuses a slate of one, which is always in the right order.
            "ndcg@10": np.mean(
                [1.0 if m.sum() == 1 else ndcg_score([labels[m]], [probabilities[m]], k=10) for m in ranked]
            )
            if ranked
            else None,
        }
        assert {name: figures[name] for name in expected} == {
            name: value if value is None else pytest.approx(value, abs=1e-9) for name, value in expected.items()
        }

    @given(rows, st.randoms(use_true_random=False))
    def test_only_the_order_of_scores_and_not_that_of_rows_counts(self, rows, random):
        columns = [np.array(column) for column in zip(*rows, strict=True)]
        shuffled = random.sample(range(len(rows)), len(rows))
        labels, scores, users, requests = (column[shuffled] for column in columns)
        # Powers of two of small whole numbers: as many distinct scores as before, in the same order.
        rising = np.ldexp(1.0, np.unique(scores, return_inverse=True)[1] - len(scores))
        expected, found = metrics_of_rows(*columns), metrics_of_rows(labels, rising, users, requests)
        for name, metric in metrics.METRICS.items():
            if metric.ranking:
                assert found[name] == pytest.approx(expected[name])

    @given(st.lists(st.integers(0, 1), min_size=1, max_size=6), st.data())
    def test_mrr_is_the_mean_over_the_orders_of_tied_rows(self, labels, data):
        scores = [data.draw(st.integers(0, 2)) for _ in labels]
        ranks = []
        for order in itertools.permutations(range(len(labels))):
            ranked = sorted(order, key=lambda row: -scores[row])  # stable, so it keeps the order of ties
            ranks.append(next((1 / (1 + place) for place, row in enumerate(ranked) if labels[row]), None))
        one = np.zeros(len(labels), np.int64)
        found = metrics_of_rows(np.array(labels), np.array(scores) / 2, one, one)["mrr"]
        assert found == (pytest.approx(np.mean(ranks)) if any(labels) else None)

    @pytest.mark.parametrize("label", [0, 1])
    def test_one_class_is_undefined(self, label):
        figures = metrics_of_rows(
            np.full(4, float(label)), np.full(4, 0.25), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])
        )
        assert figures["auc"] is figures["gauc"] is figures["ne"] is None
        assert figures["logloss"] == pytest.approx(-np.log(0.25 if label else 0.75))
        if label:
            assert (figures["calibration"], figures["ndcg@10"]) == (0.25, pytest.approx(1))
            assert (figures["pr_auc"], figures["mrr"], figures["ece"]) == (1, 1, 0.75)
        else:
            assert figures["calibration"] is figures["ndcg@10"] is figures["pr_auc"] is figures["mrr"] is None

    def test_no_rows(self):
        empty = np.array([])
        figures = metrics_of_rows(empty, empty, empty, empty, empty)
        assert figures.pop("n") == figures.pop("positives") == 0
        assert set(figures.values()) == {None}

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_certain_and_wrong_is_finite(self, dtype):
        figures = metrics_of_rows(np.array([0.0, 1.0]), np.array([1, 0], dtype), np.zeros(2), np.zeros(2))
        assert figures["logloss"] == pytest.approx(-np.log(np.finfo(dtype).eps), rel=1e-6)

    def test_oracle_only_where_every_row_has_one(self):
        labels, p, one = np.array([0.0, 1, 1]), np.array([0.5, 0.5, 0.5]), np.zeros(3)
        known = metrics_of_rows(labels, p, one, one, np.array([0.1, 0.2, 0.05]))
        assert known["oracle_auc"] == 0.5
        partly = metrics_of_rows(labels, p, one, one, np.array([0.1, np.nan, 0.3]))
        assert "oracle_auc" not in partly
        assert metrics_of_rows(np.ones(3), p, one, one, p)["oracle_auc"] is None

    @pytest.mark.slow  # Numba compiles for half a minute
    @pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaTypeSafetyWarning")
    def test_equals_ranx(self):
        """Without ties, which ranx breaks by the order in which rows come."""
        ranx = pytest.importorskip("ranx")
        predictions = drawn_predictions(n=600)
        labels, requests = predictions.labels["ctr"], predictions.request
        scores = np.random.default_rng(1).permutation(600) / 600
        relevant: dict[str, dict[str, int]] = {}
        ranked: dict[str, dict[str, float]] = {}
        for row in np.flatnonzero(np.isin(requests, requests[labels == 1])):  # ranx gives 0 to one without a positive
            ranked.setdefault(requests[row], {})[str(row)] = scores[row]
            relevant.setdefault(requests[row], {})[str(row)] = int(labels[row])
        expected = ranx.evaluate(ranx.Qrels(relevant), ranx.Run(ranked), ["ndcg@10", "mrr"])
        figures = metrics_of_rows(labels, scores, predictions.user, requests)
        assert {name: figures[name] for name in expected} == pytest.approx(expected)


class TestPredictions:
    def test_only_takes_rows_of_every_column(self):
        predictions = drawn_predictions(n=50)
        mask = predictions.scenario == 1
        taken = predictions.only(mask)
        assert 0 < len(taken) < 50
        for name in ("scenario", "user", "request", "item", "position"):
            np.testing.assert_array_equal(getattr(taken, name), getattr(predictions, name)[mask])
        for name in ("labels", "probabilities", "oracle"):
            for task in ("ctr", "ctcvr"):
                np.testing.assert_array_equal(getattr(taken, name)[task], getattr(predictions, name)[task][mask])

    @pytest.mark.parametrize(
        ("labels", "probabilities", "message"),
        [
            ([0, 1], [0.5], "one length.*probabilities.ctr': 1"),
            ([0, 2], [0.5, 0.5], r"`labels.ctr` must be 0 or 1\. Received: 2.0 in row 1$"),
            ([0, np.nan], [0.5, 0.5], r"`labels.ctr` must be 0 or 1\. Received: nan in row 1$"),
            ([0, 1], [0.5, np.nan], r"`probabilities.ctr` must be from 0 to 1\. Received: nan in row 1$"),
            ([0, 1], [1.5, -0.1], r"must be from 0 to 1\. Received: 1.5 in row 0 and 1 more$"),
        ],
    )
    def test_refuses(self, labels, probabilities, message):
        with pytest.raises(ValueError, match=message):
            predictions_of(labels, probabilities)


class TestBaselines:
    def test_position(self):
        np.testing.assert_allclose(
            metrics.position_baseline(predictions_of([0, 1, 0], [0.1] * 3, position=[1, 2, 4])), [1, 0.5, 0.25]
        )
        unknown = metrics.position_baseline(predictions_of([0, 1, 0], [0.1] * 3, position=[1, 0, 4]))
        np.testing.assert_array_equal(unknown, [1, np.nan, 0.25])

    def test_popularity_is_smoothed_towards_the_prior(self):
        predictions = predictions_of([0, 1, 0, 0], [0.1] * 4, items=["hot", "new", "cold", "hot"])
        # Prior (8 + 2) / (20 + 80) = 0.1; it counts for 10 impressions.
        scores = metrics.popularity_baseline(predictions, {"hot": (8, 20), "cold": (2, 80)}, strength=10)
        np.testing.assert_allclose(scores, [9 / 30, 0.1, 3 / 90, 9 / 30])

    def test_popularity_without_training_rows(self):
        assert metrics.popularity_baseline(predictions_of([0], [0.1]), {}) is None


def test_imports_no_tensorflow():
    code = "import sys, usr_tf.metrics, usr_tf.evaluation.report; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
