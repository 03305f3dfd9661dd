"""Figures against hand-computed values and against scikit-learn, group by group."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score

from usr_tf import metrics
from usr_tf.metrics import FIGURES, Predictions
from usr_tf.schema import Schema

SCHEMA = Schema.model_validate(
    {
        "scenarios": ["search", "recommendation"],
        "tasks": [{"name": "ctr", "action": "click"}, {"name": "ctcvr", "action": "purchase"}],
        "features": {"item_id": {"group": "item", "type": "categorical"}},
    }
)


def predictions_of(labels, probabilities, users=None, requests=None, *, items=None, position=None, scenario=None):
    """One task, `ctr`, with what a test leaves out filled in."""
    n = len(labels)
    users = ["u"] * n if users is None else users
    return Predictions(
        scenario=np.zeros(n, np.int64) if scenario is None else np.array(scenario),
        user=np.array(users, object),
        request=np.array(users if requests is None else requests, object),
        item=np.array(["i"] * n if items is None else items, object),
        position=np.zeros(n, np.int64) if position is None else np.array(position),
        labels={"ctr": np.array(labels, np.float64)},
        probabilities={"ctr": np.array(probabilities, np.float64)},
    )


def drawn_predictions(seed=0, n=3_000, users=150, oracle=True):
    """Rows of many users, with both tasks, tied scores, and one purchase in five clicks."""
    generator = np.random.default_rng(seed)
    true = 1 / (1 + np.exp(-generator.normal(-2, 1, n)))
    click = (generator.uniform(size=n) < true).astype(np.float64)
    purchase = click * (generator.uniform(size=n) < 0.2)
    model = np.clip(np.round(true * np.exp(generator.normal(0, 0.3, n)), 2), 0, 1)
    request = np.sort(generator.integers(0, n // 10, n))
    return Predictions(
        scenario=request % 2,
        user=np.char.add("u", (request % users).astype(str)).astype(object),
        request=np.char.add("r", request.astype(str)).astype(object),
        item=np.char.add("i", generator.integers(0, 50, n).astype(str)).astype(object),
        position=generator.integers(1, 11, n),
        labels={"ctr": click, "ctcvr": purchase},
        probabilities={"ctr": model, "ctcvr": model * 0.2},
        oracle={"ctr": true, "ctcvr": true * 0.2} if oracle else {},
    )


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


class TestTaskMetrics:
    def test_hand_computed(self):
        figures = metrics.task_metrics(
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
        # −ln of: ½, ½, ¾, ¼, ½, ½.
        loss = (4 * np.log(2) + np.log(4 / 3) + np.log(4)) / 6
        assert figures["logloss"] == pytest.approx(loss)
        assert figures["ne"] == pytest.approx(loss / np.log(2))  # base rate ½
        assert figures["calibration"] == pytest.approx(2.5 / 3)
        # Request r: places 1 and 2 shared, so (1 + 1/log2 3) / 2. Request s: place 2. Request t: 1.
        second = 1 / np.log2(3)
        assert figures["ndcg@10"] == pytest.approx(((1 + second) / 2 + second + 1) / 3)
        assert (figures["n"], figures["positives"]) == (6, 3)
        assert list(figures) == ["auc", "gauc", "logloss", "ne", "calibration", "ndcg@10", "n", "positives"]

    def test_ndcg_counts_ten_places(self):
        labels = np.zeros(12)
        labels[[10, 11]] = 1
        scores = np.linspace(0.9, 0.1, 12)
        one = np.zeros(12, np.int64)
        assert metrics.rank_metrics(labels, scores, one, one)["ndcg@10"] == 0
        # With places 10 and 11 tied, the positive of the two gets half of place 10.
        labels[:] = 0
        labels[10] = 1
        scores[10] = scores[9]
        expected = 0.5 / np.log2(11)
        assert metrics.rank_metrics(labels, scores, one, one)["ndcg@10"] == pytest.approx(expected)

    @settings(max_examples=150)
    @given(rows)
    def test_equals_scikit_learn_group_by_group(self, rows):
        labels, probabilities, users, requests = (np.array(column) for column in zip(*rows, strict=True))
        figures = metrics.task_metrics(labels.astype(np.float64), probabilities, users, requests)

        mixed = [users == user for user in set(users) if 0 < labels[users == user].mean() < 1]
        ranked = [requests == request for request in set(requests) if labels[requests == request].any()]
        expected = {
            "auc": roc_auc_score(labels, probabilities) if 0 < labels.mean() < 1 else None,
            "gauc": np.average(
                [roc_auc_score(labels[mask], probabilities[mask]) for mask in mixed], weights=[m.sum() for m in mixed]
            )
            if mixed
            else None,
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

    @pytest.mark.parametrize("label", [0, 1])
    def test_one_class_is_undefined(self, label):
        figures = metrics.task_metrics(
            np.full(4, float(label)), np.full(4, 0.25), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])
        )
        assert figures["auc"] is figures["gauc"] is figures["ne"] is None
        assert figures["logloss"] == pytest.approx(-np.log(0.25 if label else 0.75))
        if label:
            assert (figures["calibration"], figures["ndcg@10"]) == (0.25, pytest.approx(1))
        else:
            assert figures["calibration"] is figures["ndcg@10"] is None

    def test_no_rows(self):
        empty = np.array([])
        figures = metrics.task_metrics(empty, empty, empty.astype(object), empty.astype(object), empty)
        assert figures.pop("n") == figures.pop("positives") == 0
        assert set(figures.values()) == {None}

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_certain_and_wrong_is_finite(self, dtype):
        figures = metrics.task_metrics(np.array([0.0, 1.0]), np.array([1, 0], dtype), np.zeros(2), np.zeros(2))
        assert figures["logloss"] == pytest.approx(-np.log(np.finfo(dtype).eps), rel=1e-6)

    def test_oracle_only_where_every_row_has_one(self):
        labels, p, one = np.array([0.0, 1, 1]), np.array([0.5, 0.5, 0.5]), np.zeros(3)
        known = metrics.task_metrics(labels, p, one, one, np.array([0.1, 0.2, 0.05]))
        assert known["oracle_auc"] == 0.5
        partly = metrics.task_metrics(labels, p, one, one, np.array([0.1, np.nan, 0.3]))
        assert "oracle_auc" not in partly
        assert metrics.task_metrics(np.ones(3), p, one, one, p)["oracle_auc"] is None


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

    def test_with_probabilities_keeps_the_rest(self):
        predictions = drawn_predictions(n=50)
        other = predictions.with_probabilities({"ctr": np.zeros(50)})
        assert list(other.probabilities) == ["ctr"]
        assert other.labels is predictions.labels

    @pytest.mark.parametrize(
        ("labels", "probabilities", "message"),
        [
            ([0, 1], [0.5], "one length.*probabilities.ctr': 1"),
            ([0, 2], [0.5, 0.5], "must be 0 or 1. Received: .*2"),
            ([0, 1], [0.5, np.nan], "within .0, 1.. Received: nan and 0 more"),
            ([0, 1], [1.5, -0.1], "within .0, 1.. Received: 1.5 and 1 more"),
        ],
    )
    def test_refuses(self, labels, probabilities, message):
        with pytest.raises(ValueError, match=message):
            predictions_of(labels, probabilities)


class TestDocument:
    def test_scenarios_are_their_rows_alone(self):
        predictions = drawn_predictions()
        document = metrics.metrics_document(predictions, SCHEMA)
        assert list(document) == ["scenarios", "overall"]
        search = predictions.only(predictions.scenario == 0)
        assert document["scenarios"]["search"]["ctcvr"]["auc"] == pytest.approx(
            roc_auc_score(search.labels["ctcvr"], search.probabilities["ctcvr"])
        )
        assert document["overall"]["ctr"]["auc"] == pytest.approx(
            roc_auc_score(predictions.labels["ctr"], predictions.probabilities["ctr"])
        )
        counts = [document["scenarios"][name]["ctr"]["n"] for name in SCHEMA.scenarios]
        assert sum(counts) == document["overall"]["ctr"]["n"] == len(predictions)

    def test_is_strict_json_and_has_scenarios_without_rows(self):
        predictions = drawn_predictions(n=500)
        document = metrics.metrics_document(predictions.only(predictions.scenario == 0), SCHEMA)
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        empty = document["scenarios"]["recommendation"]["ctr"]
        assert empty["n"] == 0
        assert empty["auc"] is empty["logloss"] is None
        assert set(document["scenarios"]["search"]["ctr"]) == {*FIGURES, "n", "positives", "oracle_auc"}

    def test_refuses_a_scenario_that_the_schema_lacks(self):
        with pytest.raises(ValueError, match=r"below 2\. Received: 0 to 2"):
            metrics.metrics_document(predictions_of([0, 1], [0.5, 0.5], scenario=[0, 2]), SCHEMA)

    def test_details(self):
        predictions = drawn_predictions(n=800)
        clicks = {f"i{index}": (index, 100) for index in range(50)}
        details = metrics.details_document(predictions, SCHEMA, clicks, replicates=20, seed=3)
        assert json.loads(json.dumps(details, allow_nan=False)) == details
        assert (details["level"], details["replicates"], details["seed"]) == (0.95, 20, 3)
        search = predictions.only(predictions.scenario == 0)
        task = details["scenarios"]["search"]["ctr"]
        assert task["intervals"]["auc"] == list(metrics.bootstrap_interval(search, "ctr", "auc", 20, 3))
        assert task["baselines"]["position"]["auc"] == pytest.approx(
            roc_auc_score(search.labels["ctr"], -search.position)
        )
        rank = [int(item[1:]) for item in search.item]  # the smoothed rate rises with the clicks
        assert task["baselines"]["popularity"]["auc"] == pytest.approx(roc_auc_score(search.labels["ctr"], rank))

    def test_details_hold_the_loss_of_the_true_probabilities(self):
        # Four rows of the base rate ½, of which the oracle gives 4/5 to what happens each time.
        known = dataclasses.replace(
            predictions_of([1, 0, 1, 0], [0.5] * 4, users=list("abab")),
            labels={task: np.array([1.0, 0, 1, 0]) for task in SCHEMA.task_names},
            probabilities={task: np.full(4, 0.5) for task in SCHEMA.task_names},
            oracle={"ctr": np.array([0.8, 0.2, 0.8, 0.2]), "ctcvr": np.array([0.8, 0.2, np.nan, 0.2])},
        )
        details = metrics.details_document(known, SCHEMA, replicates=2)
        loss = -np.log(0.8)
        assert details["scenarios"]["search"]["ctr"]["oracle"] == pytest.approx(
            {"logloss": loss, "ne": loss / np.log(2)}
        )
        assert details["overall"]["ctcvr"]["oracle"] is None  # a row has none
        assert details["scenarios"]["recommendation"]["ctr"]["oracle"] == {"logloss": None, "ne": None}  # no rows

    def test_details_of_logs_that_say_little(self):
        predictions = dataclasses.replace(drawn_predictions(n=300, oracle=False), position=np.zeros(300, np.int64))
        details = metrics.details_document(predictions, SCHEMA, replicates=5)
        assert details["overall"]["ctr"]["oracle"] is None
        assert details["overall"]["ctr"]["baselines"] == {"position": None, "popularity": None}


class TestBootstrap:
    @pytest.mark.parametrize("figure", FIGURES)
    def test_is_the_figure_of_copied_users(self, figure):
        predictions = drawn_predictions(n=400, users=12)
        codes = np.unique(predictions.user, return_inverse=True)[1]
        # One replicate has its one value at both ends.
        low, high = metrics.bootstrap_interval(predictions, "ctr", figure, replicates=1, seed=5)
        assert low == high
        order = {user: index for index, user in enumerate(dict.fromkeys(predictions.user))}
        drawn = np.bincount(np.random.default_rng(5).integers(12, size=12), minlength=12)
        copies = [
            (np.flatnonzero(predictions.user == user), copy)
            for user, index in order.items()
            for copy in range(drawn[index])
        ]
        chosen = np.concatenate([index for index, _ in copies])
        copy = np.concatenate([np.full(len(index), number) for index, number in copies])
        resampled = metrics.task_metrics(
            predictions.labels["ctr"][chosen],
            predictions.probabilities["ctr"][chosen],
            codes[chosen] * 100 + copy,
            np.char.add(predictions.request[chosen].astype(str), copy.astype(str)),
        )
        assert low == pytest.approx(resampled[figure], rel=1e-9)

    @pytest.mark.parametrize("figure", FIGURES)
    def test_holds_the_figure_and_repeats(self, figure):
        predictions = drawn_predictions()
        value = metrics.metrics_document(predictions, SCHEMA)["overall"]["ctr"][figure]
        interval = metrics.bootstrap_interval(predictions, "ctr", figure)
        assert interval[0] < value < interval[1]
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


class TestBaselines:
    def test_position(self):
        np.testing.assert_allclose(
            metrics.position_baseline(predictions_of([0, 1, 0], [0.1] * 3, position=[1, 2, 4])), [1, 0.5, 0.25]
        )
        assert metrics.position_baseline(predictions_of([0, 1, 0], [0.1] * 3, position=[1, 0, 4])) is None

    def test_popularity_is_smoothed_towards_the_prior(self):
        predictions = predictions_of([0, 1, 0, 0], [0.1] * 4, items=["hot", "new", "cold", "hot"])
        # Prior (8 + 2) / (20 + 80) = 0.1; it counts for 10 impressions.
        scores = metrics.popularity_baseline(predictions, {"hot": (8, 20), "cold": (2, 80)}, strength=10)
        np.testing.assert_allclose(scores, [9 / 30, 0.1, 3 / 90, 9 / 30])

    def test_popularity_without_training_rows(self):
        assert metrics.popularity_baseline(predictions_of([0], [0.1]), {}) is None


def test_imports_no_tensorflow():
    code = "import sys, usr_tf.metrics, usr_tf.report; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
