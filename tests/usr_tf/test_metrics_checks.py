"""Argument checks of `usr_tf.metrics`; each message ends with the received value."""

import dataclasses

import numpy as np
import pytest

from tests.usr_tf.drawn import SCHEMA, drawn_predictions, scored
from usr_tf import metrics

ROWS = drawn_predictions(n=200, users=20)
LABELS, SCORES, USERS = ROWS.labels["ctr"], ROWS.probabilities["ctr"], ROWS.user
NAN = np.where(np.arange(200) == 3, np.nan, SCORES)


def with_first(values: np.ndarray, first: float) -> np.ndarray:
    return np.concatenate([[first], values[1:]])


BAD_ROWS = {
    "labels that are not 0 or 1": (
        {"labels": with_first(LABELS, 0.5)},
        "`labels` must be 0 or 1. Received: 0.5 in row",
    ),
    "labels that are NaN": ({"labels": with_first(LABELS, np.nan)}, "`labels` must be 0 or 1. Received: nan in row 0"),
    "labels that are words": (
        {"labels": np.array(["yes"] * 200)},
        "`labels` must be 0 or 1. Received: yes in row",
    ),
    "a column of labels": (
        {"labels": LABELS[:, None]},
        "`labels` must be one value a row, [N]. Received: shape [2",
    ),
    "too few labels": ({"labels": LABELS[1:]}, "must be of one length. Received: {'labels': 199, "),
    "a score of NaN": ({"scores": NAN}, ". Received: nan in row 3"),
    "an infinite score": ({"scores": with_first(SCORES, np.inf)}, ". Received: inf in row 0"),
    "scores that are words": ({"scores": np.array(["high"] * 200)}, "must be numbers. Received: dtype <U4"),
    "one score": ({"scores": 0.5}, "must be one value a row, [N]. Received: shape []"),
    "too many scores": ({"scores": np.tile(SCORES, 2)}, "must be of one length. Received: "),
}


def receive(function, **columns) -> str:
    with pytest.raises(ValueError, match=r"Received: ") as error:
        function(**columns)
    return str(error.value)


@pytest.mark.parametrize("case", BAD_ROWS)
def test_rows_that_no_figure_is_defined_of(case):
    columns, message = BAD_ROWS[case]
    columns = {"labels": LABELS, "scores": SCORES} | columns
    labels, scores = columns["labels"], columns["scores"]
    for a, b in ((scores, SCORES), (SCORES, scores)):
        assert message in receive(metrics.delong_test, labels=labels, scores_a=a, scores_b=b)


def test_lists_are_arrays():
    assert metrics.delong_test([1, 1, 0, 0], [4, 3, 2, 1], [4, 1, 3, 2]).difference == 0.5


def other(**columns):
    return dataclasses.replace(ROWS, **columns)


CALLS = {
    "predictions whose oracle is no probability": (
        lambda: other(oracle={"ctr": SCORES - 1}),
        "`oracle.ctr` must be from 0 to 1. Received: ",
    ),
    "predictions with a negative position": (
        lambda: other(position=ROWS.position - 5),
        "`position` must be from 0 to inf. Received: ",
    ),
    "predictions with a table for a user": (
        lambda: other(user=np.stack([USERS, USERS], axis=1)),
        "`user` must be one value a row, [N]. Received: shape [200, 2]",
    ),
    "predictions without a task": (
        lambda: metrics.metrics_document(other(labels={"ctr": LABELS}), SCHEMA),
        "`labels` must hold ctr, ctcvr. Received: ctr",
    ),
    "probabilities without a task": (
        lambda: metrics.compare(ROWS, scored(ROWS, {}), SCHEMA),
        "`probabilities` must hold ctr, ctcvr. Received: none",
    ),
    "details without replicates": (
        lambda: metrics.details_document(ROWS, SCHEMA, replicates=0),
        "`replicates` must be at least 1. Received: 0",
    ),
    "half a replicate": (
        lambda: metrics.details_document(ROWS, SCHEMA, replicates=1.5),
        "`replicates` must be a whole number from 0. Received: 1.5",
    ),
    "a level in percent": (
        lambda: metrics.compare(ROWS, ROWS, SCHEMA, level=95),
        "`level` must be above 0 and below 1. Received: 95",
    ),
    "a level of NaN": (
        lambda: metrics.compare(ROWS, ROWS, SCHEMA, level=np.nan),
        "`level` must be above 0 and below 1. Received: nan",
    ),
    "more clicks than impressions": (
        lambda: metrics.popularity_baseline(ROWS, {"i1": (1, 2), "i2": (3, 2)}),
        "`train_clicks` must hold clicks up to impressions. Received: 'i2': (3, 2)",
    ),
    "a negative count of clicks": (
        lambda: metrics.popularity_baseline(ROWS, {"i1": (-1, 2)}),
        "Received: 'i1': (-1, 2)",
    ),
    "a prior without strength": (
        lambda: metrics.popularity_baseline(ROWS, {"i1": (1, 2)}, strength=0),
        "`strength` must be above 0. Received: 0",
    ),
    "a history of negative length": (
        lambda: metrics.slices_of(other(history=np.full(200, -1)), metrics.Training()),
        "`history` must be from 0 to inf. Received: -1 in row 0 and 199 more",
    ),
    "a time that is none": (
        lambda: metrics.slices_of(other(timestamp=NAN), metrics.Training()),
        "`timestamp` must be finite. Received: nan in row 3",
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_arguments_that_make_no_sense(case):
    call, message = CALLS[case]
    assert message in receive(call)
