"""Slices of a split, and that training counts exclude later rows."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from tests.usr_tf.drawn import SCHEMA, drawn_predictions, predictions_of
from usr_tf import metrics
from usr_tf.metrics.keys import query_keys
from usr_tf.metrics.slices import (
    Training,
    by_value,
    day_slice,
    history_slice,
    position_slice,
    query_limits,
    query_slice,
    slices_of,
)
from usr_tf.schema import Schema


def test_users_and_items_are_new_unless_training_showed_them():
    rows = predictions_of([0, 1, 0], [0.1] * 3, users=[b"a", b"b", b"a"], items=[b"x", b"x", b"y"])
    slices = slices_of(rows, Training(users={b"a": 2}, items={b"y": (0, 1), b"z": (5, 9)}))
    assert list(slices["user"]) == ["seen", "new", "seen"]
    assert list(slices["item"]) == ["new", "new", "seen"]
    assert set(slices) == {"user", "item"}  # the rows know neither place nor time, history nor query


def test_history_position_and_day():
    assert list(history_slice(np.array([0, 1, 4, 5, 19, 20, 50]))) == ["0", "1-4", "1-4", "5-19", "5-19", "20+", "20+"]
    places = position_slice(np.array([0, 1, 2, 3, 4, 5, 6, 10, 11, 20, 21]))
    assert [str(place) for place in places] == [
        "nan",
        "1",
        "2",
        "3",
        "4-5",
        "4-5",
        "6-10",
        "6-10",
        "11-20",
        "11-20",
        "21+",
    ]
    midnight = 1_700_006_400_000  # 2023-11-15 00:00 UTC
    assert list(day_slice(np.array([midnight - 1, midnight]))) == ["2023-11-14", "2023-11-15"]


def test_head_and_torso_hold_a_third_of_the_impressions_each():
    # 30 impressions: the query shown 12 times holds the first third, those shown 5 times the next.
    limits = query_limits(np.array([12, 5, 5, 2, 2, 1, 1, 1, 1]))
    assert limits == (5, 12)
    keys = np.array([0, 1, 2, 3, 4, 5], np.uint64)
    parts = query_slice(keys, np.array([0, 0, 1, 4, 5, 12]), limits)
    assert list(parts) == ["none", "unseen", "tail", "tail", "torso", "head"]
    assert list(query_slice(keys[:2], np.zeros(2), query_limits(np.zeros(0)))) == ["none", "unseen"]


def test_queries_are_told_by_which_feature_has_which_ids():
    schema = Schema.model_validate(
        {
            "scenarios": ["search"],
            "tasks": [{"name": "ctr", "action": "click"}],
            "features": {
                "item_id": {"group": "item", "type": "categorical"},
                "words": {"group": "query", "type": "categorical_list"},
                "shelf": {"group": "query", "type": "categorical"},
                "length": {"group": "query", "type": "numeric"},
            },
        }
    )
    words = np.array([[0, 0], [5, 0], [0, 5], [5, 4], [4, 5], [4, 0], [0, 0], [0, 0], [0, 0]])
    shelf = np.array([0, 0, 0, 0, 0, 5, 4, 5, 6])
    keys = query_keys({"words": words, "shelf": shelf, "length": np.arange(9.0)}, schema)
    assert keys[0] == 0
    assert keys[1] == keys[2] != 0  # padding is nothing
    assert len(set(keys.tolist())) == 8


def test_values_stand_in_the_order_of_their_definition():
    for values in (["new", "seen"], ["none", "unseen", "tail", "torso", "head"], ["0", "1-4", "5-19", "20+"]):
        assert sorted(set(values), key=by_value) == values
    assert sorted(["21+", "11-20", "2", "1"], key=by_value) == ["1", "2", "11-20", "21+"]


def test_figures_of_a_slice_are_those_of_its_rows():
    rows = drawn_predictions(n=900)
    rows = dataclasses.replace(rows, slices={"position": position_slice(rows.position)})
    details = metrics.details_document(rows, SCHEMA, replicates=30, seed=2)
    slices = details["scenarios"]["search"]["ctr"]["slices"]
    assert [part["value"] for part in slices["position"]] == ["1", "2", "3", "4-5", "6-10"]
    last = rows.only((rows.scenario == 0) & (rows.position > 5))
    labels, probabilities = last.labels["ctr"], last.probabilities["ctr"]
    expected = metrics.metrics_document(last, SCHEMA)["overall"]["ctr"]
    alone = metrics.details_document(last, SCHEMA, replicates=30, seed=2)["overall"]["ctr"]
    assert slices["position"][-1] == {
        "value": "6-10",
        "n": len(last),
        "positives": labels.sum(),
        "auc": pytest.approx(roc_auc_score(labels, probabilities)),
        "auc_interval": pytest.approx(alone["intervals"]["auc"]),
        "gauc": pytest.approx(expected["gauc"]),
        "logloss": pytest.approx(log_loss(labels, probabilities)),
        "ne": pytest.approx(expected["ne"]),
        "calibration": pytest.approx(probabilities.sum() / labels.sum()),
        "oracle_auc": pytest.approx(roc_auc_score(labels, last.oracle["ctr"])),
    }
    assert sum(part["n"] for part in slices["position"]) == np.count_nonzero(rows.scenario == 0)
