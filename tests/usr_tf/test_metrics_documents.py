"""Contents of `metrics.json` and `details.json`."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score, roc_curve

from tests.usr_tf.drawn import CTR, SCHEMA, drawn_predictions, predictions_of, scored
from usr_tf import metrics
from usr_tf.metrics import METRICS
from usr_tf.metrics.curves import BINS, bin_sums, bins_of, deciles_of, roc_of, roc_points
from usr_tf.metrics.resample import Resample

GIVEN_PREVIOUS = "auc_given_previous"


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
        assert set(document["scenarios"]["search"]["ctr"]) == {*METRICS, "n", "positives", "oracle_auc"} - {
            GIVEN_PREVIOUS
        }
        assert set(document["overall"]["ctcvr"]) - set(document["overall"]["ctr"]) == {GIVEN_PREVIOUS}

    def test_conversion_given_the_click_is_among_clicked_rows(self):
        predictions = drawn_predictions()
        noise = np.random.default_rng(2).uniform(0.1, 0.3, len(predictions))
        ctr = predictions.probabilities["ctr"]
        document = metrics.metrics_document(scored(predictions, {"ctr": ctr, "ctcvr": ctr * noise}), SCHEMA)
        clicked = (predictions.labels["ctr"] == 1) & (ctr > 0)
        assert document["overall"]["ctcvr"][GIVEN_PREVIOUS] == pytest.approx(
            roc_auc_score(predictions.labels["ctcvr"][clicked], noise[clicked]), abs=0.01
        )

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
        alone = metrics.details_document(search, CTR, replicates=20, seed=3)
        task = details["scenarios"]["search"]["ctr"]
        assert task["intervals"]["auc"] == alone["overall"]["ctr"]["intervals"]["auc"]
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
        assert details["scenarios"]["recommendation"]["ctr"]["oracle"] is None  # no rows

    def test_details_of_logs_that_say_little(self):
        predictions = dataclasses.replace(drawn_predictions(n=300, oracle=False), position=np.zeros(300, np.int64))
        details = metrics.details_document(predictions, SCHEMA, replicates=5)
        assert details["overall"]["ctr"]["oracle"] is None
        assert details["overall"]["ctr"]["baselines"] == {"position": None, "popularity": None}

    def test_details_of_a_scenario_without_rows_have_every_key(self):
        predictions = drawn_predictions(n=300)
        details = metrics.details_document(predictions.only(predictions.scenario == 0), SCHEMA, replicates=5)
        empty, full = (details["scenarios"][name]["ctcvr"] for name in ("recommendation", "search"))
        assert set(empty) == set(full) - {"oracle_roc"}
        assert set(empty["intervals"]) == set(full["intervals"]) == {*METRICS}
        assert set(empty["intervals"].values()) == {None}
        assert (empty["deciles"], empty["roc"], empty["scores"]["edges"]) == ([], None, [])


class TestPlots:
    def test_deciles_are_those_of_scikit_learn(self):
        generator = np.random.default_rng(3)
        probabilities = generator.uniform(size=1_000)
        labels = (generator.uniform(size=1_000) < probabilities).astype(np.float64)
        observed, predicted = calibration_curve(labels, probabilities, n_bins=BINS, strategy="quantile")
        bins = deciles_of(bin_sums(labels, probabilities, bins_of(probabilities), self._undrawn(1_000)))
        assert [each["rows"] for each in bins] == [100] * BINS
        np.testing.assert_allclose([each["observed"] for each in bins], observed)
        np.testing.assert_allclose([each["predicted"] for each in bins], predicted)
        lowest, highest = ([each[name] for each in bins] for name in ("lowest", "highest"))
        assert lowest == sorted(lowest)
        assert all(low <= high for low, high in zip(lowest, highest, strict=True))

    def test_tied_rows_are_of_one_decile(self):
        probabilities = np.array([0.1] * 15 + [0.2] * 5)
        bins = deciles_of(bin_sums(np.zeros(20), probabilities, bins_of(probabilities), self._undrawn(20)))
        assert [(each["rows"], each["lowest"], each["highest"]) for each in bins] == [(15, 0.1, 0.1), (5, 0.2, 0.2)]

    def test_roc_keeps_the_corners_and_the_area(self):
        predictions = drawn_predictions(n=3_000)
        labels, scores = predictions.labels["ctr"], predictions.oracle["ctr"]
        roc = roc_of(roc_points(labels, scores))
        false_positive, true_positive = roc["false_positive"], roc["true_positive"]
        assert (false_positive[0], true_positive[0]) == (0, 0)
        assert (false_positive[-1], true_positive[-1]) == (1, 1)
        assert 150 <= len(false_positive) <= 200
        all_false, all_true, _ = roc_curve(labels, scores, drop_intermediate=False)
        assert set(zip(false_positive, true_positive, strict=True)) <= set(zip(all_false, all_true, strict=True))
        assert np.trapezoid(true_positive, false_positive) == pytest.approx(roc_auc_score(labels, scores), abs=5e-4)
        assert roc_of(roc_points(np.ones(3), np.arange(3.0))) is None

    def test_the_histogram_counts_every_row(self):
        predictions = drawn_predictions(n=500)
        scores = metrics.details_document(predictions, SCHEMA, replicates=2)["overall"]["ctr"]["scores"]
        assert len(scores["edges"]) == len(scores["negatives"]) + 1 == len(scores["positives"]) + 1
        positives = predictions.labels["ctr"].sum()
        assert (sum(scores["positives"]), sum(scores["negatives"])) == (positives, 500 - positives)
        assert scores["edges"][0] == -8  # rows of probability 0
        assert scores["edges"][-1] == pytest.approx(
            np.ceil(20 * np.log10(predictions.probabilities["ctr"].max())) / 20, abs=0.051
        )

    def _undrawn(self, rows):
        return Resample.of(np.arange(rows), replicates=0)
