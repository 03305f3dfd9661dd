"""Rankings: order, rows and table."""

import numpy as np
import pytest

from serving.client.formula import Formula
from serving.client.ranking import default_output, format_ranking, rank

OUTPUTS = {"ctr": np.array([0.5, 0.25, 0.5], np.float32), "ctcvr": np.array([0.25, 0.125, 0.0], np.float32)}


def ranked(by, inputs=None, items=("a", "b", "c")):
    return rank(OUTPUTS, Formula(by), inputs or {}, items)


def test_the_best_comes_first_and_equals_keep_their_order():
    assert ranked("ctr") == [
        {"rank": 1, "item_id": "a", "ctr": 0.5, "ctcvr": 0.25},
        {"rank": 2, "item_id": "c", "ctr": 0.5, "ctcvr": 0.0},
        {"rank": 3, "item_id": "b", "ctr": 0.25, "ctcvr": 0.125},
    ]


def test_the_output_that_ranks_is_told_first():
    rows = ranked("ctcvr")
    assert [row["item_id"] for row in rows] == ["a", "b", "c"]
    assert [list(row) for row in rows] == [["rank", "item_id", "ctcvr", "ctr"]] * 3


def test_a_formula_has_a_score_of_its_own():
    rows = ranked("ctcvr * price", {"price": np.array([1, 100, 5], np.float32)})
    assert [(row["item_id"], row["score"]) for row in rows] == [("b", 12.5), ("a", 0.25), ("c", 0.0)]
    assert list(rows[0]) == ["rank", "item_id", "score", "ctr", "ctcvr"]


def test_an_input_alone_ranks_too():
    rows = ranked("price", {"price": np.array([1, 3, 2])})
    assert [(row["item_id"], row["score"]) for row in rows] == [("b", 3.0), ("c", 2.0), ("a", 1.0)]


def test_a_score_that_is_no_number_comes_last():
    rows = ranked("ctr + price", {"price": np.array([np.nan, 0, 0])})
    assert [row["item_id"] for row in rows] == ["c", "b", "a"]


def test_without_ids_a_row_tells_its_place_in_the_request():
    assert [row["row"] for row in ranked("-ctr", items=None)] == [1, 0, 2]


@pytest.mark.parametrize(("outputs", "expected"), [(["ctcvr", "ctr"], "ctr"), (["gtr", "ctcvr"], "ctcvr")])
def test_the_output_to_rank_by_is_ctr_or_the_first(outputs, expected):
    assert default_output(outputs) == expected


def test_format_ranking_prints_every_row():
    rows = [{"rank": 9, "item_id": "a", "ctr": 0.25}, {"rank": 10, "item_id": "[bold]\x1b[31m\nb", "ctr": 12.5}]
    assert format_ranking(rows, "search").splitlines() == [
        "search",
        "rank  item_id              ctr",
        "   9  a               0.250000",
        "  10  [bold]�[31m�b  12.500000",
    ]


def test_format_ranking_of_nothing():
    assert format_ranking([], "search") == "search"


@pytest.mark.parametrize(
    ("outputs", "inputs", "items"),
    [
        ({"ctr": np.zeros(2), "ctcvr": np.zeros(3)}, {}, None),
        ({"ctr": np.zeros(2)}, {"price": np.zeros(1)}, None),
        ({"ctr": np.zeros(2)}, {}, ["a"]),
        ({"ctr": np.zeros([2, 2])}, {}, None),
        ({"ctr": np.float64(0.5)}, {}, None),
    ],
)
def test_columns_of_other_lengths_are_refused(outputs, inputs, items):
    with pytest.raises(ValueError, match=r"must be \[N\] each\. Received: shapes \{"):
        rank(outputs, Formula("ctr"), inputs, items)
