"""Canary comparison: differences, rankings, AUC and errors by hand."""

import json

import grpc
import numpy as np
import pytest

from serving.client.errors import NotFound, Overloaded
from serving.formats.logged_requests import LoggedRequest
from serving.formats.request import TensorSpec
from serving.publishing.canary import (
    Limits,
    compare_versions,
    format_comparison,
    kendall_tau,
    refuse_beyond,
    top_overlap,
)
from usr_tf.errors import InputError

REQUESTS = [
    LoggedRequest(f"r{i}", "search", {"price": [float(i), 0.0, 0.0, 0.0]}, labels={"ctr": [0, 0, 1, 1]})
    for i in range(4)
]


class Version:
    """Stands for a `Ranker`. Answers each request with the scores given, or raises the error given."""

    def __init__(self, *answers):
        self.answers, self.asked = answers, []

    def metadata(self):
        return {"search": {"price": TensorSpec(np.dtype(np.float32), (-1,))}}

    def predict(self, _, inputs):
        number = int(inputs["price"][0])
        self.asked.append(number)
        answer = self.answers[number % len(self.answers)]
        if isinstance(answer, Exception):
            raise answer
        return {"ctr": np.array(answer), "ctcvr": 0.5 * np.array(answer)}


def test_answers_are_compared_score_by_score_and_as_rankings():
    stable, canary = Version([0.1, 0.2, 0.3, 0.4]), Version([0.1, 0.2, 0.4, 0.3], [0.1, 0.2, 0.3, 0.4])
    found = compare_versions(stable, canary, REQUESTS)
    figures = found["scenarios"]["search"]
    ctr, ctcvr = figures["tasks"]["ctr"], figures["tasks"]["ctcvr"]
    # Of 16 scores 4 lie 0.1 apart.
    assert (ctr["mean"], ctr["max"], ctcvr["max"]) == pytest.approx((0.025, 0.1, 0.05))
    assert (ctr["auc_stable"], ctr["auc_canary"], ctr["auc_drop"]) == (1.0, 1.0, 0.0)
    assert ctcvr["auc_stable"] is None  # no labels of it
    # In two of four requests 1 of 6 pairs is ordered otherwise.
    assert figures["ranking"] == pytest.approx({"change": 1 / 12, "kendall_tau": 5 / 6, "top_overlap": 1.0})
    assert figures["requests"] == found["requests"] == 4
    assert found["errors"] == {"stable": {}, "canary": {}}
    assert found["latency"]["ratio_p50"] > 0
    assert stable.asked == canary.asked == [0, 1, 2, 3]
    assert json.loads(json.dumps(found)) == found
    assert format_comparison(found).renderables


def test_kendall_tau_and_overlap_by_hand():
    one, other = np.array([4.0, 3.0, 2.0, 1.0]), np.array([4.0, 2.0, 3.0, 3.0])
    # Of 6 pairs 3 are ordered alike, 2 otherwise, and 1 is a tie of the second.
    assert kendall_tau(one, other) == pytest.approx((3 - 2) / np.sqrt(6 * 5))
    assert kendall_tau(one, -one) == pytest.approx(-1)
    assert kendall_tau(one, np.zeros(4)) is None
    assert top_overlap(one, other, top=2) == 0.5
    assert top_overlap(one, one, top=10) == 1


def test_errors_are_counted_and_left_out():
    away = Overloaded(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "localhost:1")
    stable = Version([0.1, 0.2, 0.3, 0.4], away)
    canary = Version([0.1, 0.2, 0.3, np.nan], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4], away)
    found = compare_versions(stable, canary, REQUESTS)
    assert found["errors"] == {
        "stable": {"RESOURCE_EXHAUSTED": 2},
        "canary": {"NOT_A_NUMBER": 1, "RESOURCE_EXHAUSTED": 1},
    }
    assert found["scenarios"]["search"]["requests"] == 1  # the third
    refuse_beyond(found, Limits())
    found["errors"]["stable"] = {}
    with pytest.raises(InputError, match="errors of the canary: found 1 NOT_A_NUMBER, 1 RESOURCE_EXHAUSTED"):
        refuse_beyond(found, Limits())


def test_limits_name_what_passes_them():
    found = compare_versions(Version([0.1, 0.2, 0.3, 0.4]), Version([0.4, 0.3, 0.2, 0.1]), REQUESTS)
    refuse_beyond(found, Limits(difference=0.31, rank_change=1, auc_drop=1, latency_ratio=1e9))
    passed = {
        "search ctr p99 difference: found 0.3, expected at most 0.2": Limits(difference=0.2),
        "search rank change: found 1, expected at most 0.5": Limits(rank_change=0.5),
        "search ctr AUC drop: found 1, expected at most 0.5": Limits(auc_drop=0.5),
        "latency, canary / stable, p50: found": Limits(latency_ratio=0),
    }
    for said, limits in passed.items():
        with pytest.raises(InputError, match=said):
            refuse_beyond(found, limits)


def test_a_limit_of_what_is_not_known_is_refused():
    unlabelled = [LoggedRequest("r0", "search", {"price": [0.0]})]
    found = compare_versions(Version([0.1]), Version([0.1]), unlabelled)
    refuse_beyond(found, Limits(difference=0))
    with pytest.raises(InputError, match=r"AUC drop: found no figure, expected at most 0\.1"):
        refuse_beyond(found, Limits(auc_drop=0.1))
    with pytest.raises(InputError, match="rank change: found no figure"):
        refuse_beyond(found, Limits(rank_change=0.1))


def test_versions_of_different_tasks_are_refused():
    class WithoutPurchases(Version):
        def predict(self, *asked):
            return {"ctr": super().predict(*asked)["ctr"]}

    with pytest.raises(InputError, match="canary: found scores of ctr, expected ctcvr, ctr, as of stable"):
        compare_versions(Version([0.1, 0.2]), WithoutPurchases([0.1, 0.2]), REQUESTS)


def test_nothing_to_compare_is_refused():
    fine = Version([0.1, 0.2, 0.3, 0.4])
    gone = Version(NotFound(grpc.StatusCode.NOT_FOUND, "no such version", "localhost:1"))
    with pytest.raises(InputError, match="requests: found none"):
        compare_versions(fine, fine, [])
    with pytest.raises(InputError, match=r"found errors alone \(stable 0; canary 4 NOT_FOUND\)"):
        compare_versions(fine, gone, REQUESTS)
    with pytest.raises(InputError, match="by: found 'cvr', expected one of ctcvr, ctr"):
        compare_versions(fine, fine, REQUESTS, by="cvr")
    with pytest.raises(InputError, match="request r1: scenario: found 'home', expected one of search"):
        compare_versions(fine, fine, [LoggedRequest("r1", "home", {})])
