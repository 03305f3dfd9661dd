"""Golden requests: logged requests joined with offline scores, and comparison with served scores."""

import json
from pathlib import Path

import numpy as np
import pytest

from serving.formats.logged_requests import LoggedRequest, read_requests
from serving.publishing.golden import FILE, golden_requests, largest_difference, read_golden, write_golden
from usr_tf.errors import InputError
from usr_tf.metrics import Predictions
from usr_tf.schema import parse_schema

SCHEMA = parse_schema(
    """\
scenarios: [search]
tasks: [{name: ctr, action: click}]
history: {actions: []}
features:
  item_id: {group: item, type: categorical}
  query: {group: query, type: text}
"""
)


def logged(folder: Path, *requests: dict) -> Path:
    folder.mkdir()
    (folder / "search.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in requests))
    return folder


def request(request_id: str, *items: str, **more) -> dict:
    return {"request_id": request_id, "scenario": "search", "inputs": {"item_id": list(items), "query": "tea"}} | more


def predictions(*rows: tuple[str, int, str, float, int]) -> Predictions:
    """Rows of request, position, item, ctr and click."""
    requests, positions, items, ctr, clicks = zip(*rows, strict=True)
    return Predictions(
        scenario=np.zeros(len(rows), int),
        user=np.full(len(rows), b"u", object),
        request=np.array([name.encode() for name in requests], object),
        item=np.array([name.encode() for name in items], object),
        position=np.array(positions),
        labels={"ctr": np.array(clicks)},
        probabilities={"ctr": np.array(ctr, np.float32)},
    )


def test_each_request_gets_the_scores_and_labels_of_its_own_rows(tmp_path):
    folder = logged(tmp_path / "requests", request("r2", "b", "a"), request("r1", "c"))
    rows = predictions(
        ("r1", 1, "c", 0.5, 0), ("r2", 2, "a", 0.25, 1), ("r3", 1, "a", 0.125, 0), ("r2", 1, "b", 0.75, 0)
    )
    golden = golden_requests(folder, SCHEMA, rows)
    assert [(found.request_id, found.expected, found.labels) for found in golden] == [
        ("r2", {"ctr": [0.75, 0.25]}, {"ctr": [0, 1]}),
        ("r1", {"ctr": [0.5]}, {"ctr": [0]}),
    ]


def test_without_their_rows_or_without_requests_there_is_nothing_to_compare(tmp_path):
    folder = logged(tmp_path / "requests", request("r1", "a", "b"))
    with pytest.raises(InputError, match="found request r1 of 2 items, expected 1, its rows in the split"):
        golden_requests(folder, SCHEMA, predictions(("r1", 1, "a", 0.5, 0)))
    with pytest.raises(InputError, match=r"search\.jsonl: found no logged request"):
        golden_requests(tmp_path, SCHEMA, predictions(("r1", 1, "a", 0.5, 0)))


def test_golden_requests_read_back_as_written(tmp_path):
    line_separator = "tea\u2028green"  # a line's end to `str.splitlines`, and none to JSON
    written = LoggedRequest("r1", "search", {"item_id": ["a"], "query": line_separator}, {"ctr": [0.1]}, {"ctr": [1.0]})
    assert write_golden(tmp_path, [written, written]) == tmp_path / FILE
    first, second = read_golden(tmp_path)
    assert (first.document, first.expected, first.labels) == (written.document, written.expected, written.labels)
    assert second.inputs["query"] == line_separator


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "requests.jsonl:1: found no JSON"),
        ("[]", "requests.jsonl:1: found a list at the top, expected an object with inputs"),
        ('{"inputs": {}}', "requests.jsonl:1: scenario: found nothing"),
        ('{"scenario": "search"}', "requests.jsonl:1: inputs: found nothing"),
        (json.dumps(request("r1", "a", expected=[0.5])), "requests.jsonl:1: expected: found something else"),
        (json.dumps(request("r1", "a", exp={})), "requests.jsonl:1: exp: found an unknown key"),
    ],
)
def test_a_broken_line_is_refused(tmp_path, line, said):
    path = tmp_path / "requests.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(InputError, match=said):
        read_requests(path)


def test_a_version_without_expected_scores_is_refused(tmp_path):
    with pytest.raises(InputError, match="found no readable file"):
        read_golden(tmp_path)
    write_golden(tmp_path, [LoggedRequest("r1", "search", {"item_id": ["a"]})])
    with pytest.raises(InputError, match="found a request without expected scores"):
        read_golden(tmp_path)


def test_the_worst_score_is_named():
    requests = [
        LoggedRequest("r1", "search", {"item_id": ["a", "b"]}, {"ctr": [0.5, 0.25], "ctcvr": [0.1, 0.1]}),
        LoggedRequest("r2", "home", {"price": [1.0]}, {"ctr": [0.5]}),
    ]
    near = {"ctr": np.array([0.5, 0.25]), "ctcvr": np.array([0.1, 0.125])}
    worst = largest_difference(requests, [near, {"ctr": np.array([0.5])}])
    assert (worst.request_id, worst.item, worst.task) == ("r1", "b", "ctcvr")
    assert worst.value == pytest.approx(0.025)
    assert str(worst) == "2.5e-02 (ctcvr of item b in request r1 of search: 0.1250000 served, 0.1000000 offline)"

    for bad in ({"ctr": np.array([np.nan])}, {"ctr": np.array([0.5, 0.5])}, {}):
        worst = largest_difference(requests, [near, bad])
        assert (worst.value, worst.request_id, worst.item, worst.task) == (np.inf, "r2", "[0]", "ctr")
