"""Each rule of the Diginetica import on rows made by hand, and generated files as a whole."""

import pytest

from tests.pipelines.sources.generated import (
    CATEGORIES,
    CLICKS,
    PRODUCTS,
    PURCHASES,
    QUERIES,
    VIEWS,
    write_csv,
    write_diginetica,
)
from tests.pipelines.sources.imported import Imported, assert_preprocess_takes
from usr_tf.errors import InputError
from usr_tf.schema import load_schema

DAY = 1_462_752_000_000
"""The midnight of 2016-05-09 UTC, in milliseconds."""
DAY_MS = 86_400_000


def request(query, time, items="1,2", session=1, words="", category=0, user="NA", date="2016-05-09", test="FALSE"):
    return (query, session, user, time, 300, date, words, category, items, test)


def imported(folder, queries=(), clicks=(), views=(), purchases=(), products=((1, 10, "5,6"), (2, "", ""))):
    write_csv(folder / "in/train-queries.csv", QUERIES, list(queries), ";")
    write_csv(folder / "in/train-clicks.csv", CLICKS, list(clicks), ";")
    write_csv(folder / "in/train-item-views.csv", VIEWS, list(views), ";")
    write_csv(folder / "in/train-purchases.csv", PURCHASES, list(purchases), ";")
    write_csv(folder / "in/products.csv", PRODUCTS, list(products), ";")
    write_csv(folder / "in/product-categories.csv", CATEGORIES, [(1, 33)], ";")
    return Imported("diginetica", folder / "in")


def test_rows_of_every_table(tmp_path):
    logs = imported(
        tmp_path,
        [request(8, 1_000, words="12,7"), request(9, 90_000, "2", category=44, user=3)],
        clicks=[(9, 91_000, 2), (8, 2_000, 1)],
        views=[(1, 3, 1, 2_500, "2016-05-09")],
        purchases=[(1, 3, 95_000, "2016-05-09", 77, 2)],
    )
    search = {"request_id": "8", "scenario": "search"}
    browse = {"request_id": "9", "scenario": "recommendation"}
    features = {"query": "12 7", "list_category": "", "customer": ""}
    assert logs.impressions == [
        {"user_id": "1", "timestamp": DAY + 1_000, **search, "item_id": "1", "position": 1, **features},
        {"user_id": "1", "timestamp": DAY + 1_000, **search, "item_id": "2", "position": 2, **features},
        {"user_id": "1", "timestamp": DAY + 90_000, **browse, "item_id": "2", "position": 1}
        | {"query": "", "list_category": "44", "customer": "3"},
    ]
    assert logs.actions == [
        {"user_id": "1", "timestamp": DAY + 2_000, **search, "item_id": "1", "action": "click"},
        {"user_id": "1", "timestamp": DAY + 2_500, "item_id": "1", "action": "view"},
        {"user_id": "1", "timestamp": DAY + 91_000, **browse, "item_id": "2", "action": "click"},
        {"user_id": "1", "timestamp": DAY + 95_000, "item_id": "2", "action": "purchase"},
    ]
    assert logs.items == {
        "1": {"category": "33", "name": "5 6", "price_log2": 10.0},
        "2": {"category": "", "name": "", "price_log2": None},
    }
    assert logs.report["written"] == {
        "impressions": {"search": 2, "recommendation": 1},
        "actions": {"click": 2, "view": 1, "purchase": 1},
    }


def test_a_session_is_a_user_and_keeps_its_order_over_midnight(tmp_path):
    logs = imported(
        tmp_path,
        [
            request(1, 500, "1", session=10, user=3, date="2016-05-10"),
            request(2, 100, "1", session=2, user=3, date="2016-05-09"),
            request(3, 900, "1", session=2, user="NA", date="2016-05-10"),  # past midnight
        ],
        clicks=[(3, 950, 1)],
        purchases=[(2, 3, 960, "2016-5-10", 7, 1)],
    )
    day = 86_400_000
    assert [(row["user_id"], row["timestamp"] - DAY, row["customer"]) for row in logs.impressions] == [
        ("10", day + 500, "3"),
        ("2", 100, "3"),
        ("2", 900, ""),
    ]
    assert [(row["user_id"], row["timestamp"] - DAY) for row in logs.actions] == [("2", 950), ("2", 960)]


def test_test_requests_and_what_belongs_to_no_request_are_dropped(tmp_path):
    logs = imported(
        tmp_path,
        [request(1, 0, "1,2,1,,2"), request(2, 5, test="TRUE"), request(3, 5, session=4, test="TRUE")],
        clicks=[(1, 1, 2), (2, 6, 1), (99, 7, 1)],
        views=[(1, "NA", 1, 7, "2016-05-09"), (4, "NA", 1, 7, "2016-05-09")],
    )
    assert [(row["item_id"], row["position"]) for row in logs.impressions] == [("1", 1), ("2", 2)]
    assert [row["action"] for row in logs.actions] == ["click", "view"]
    assert logs.report["dropped"] == {
        "test_request": 2,
        "click_without_request": 2,
        "impression_repeated_in_list": 2,
        "action_of_session_without_request": 1,
    }


def test_nothing_after_an_impression_reaches_it(tmp_path):
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    before = imported(tmp_path / "before", [request(1, 0)])
    later = {"clicks": [(1, 50, 1)], "purchases": [(1, "NA", 60, "2016-05-09", 7, 1)]}
    after = imported(tmp_path / "after", [request(1, 0), request(2, 100, words="3", user=5)], **later)
    assert after.impressions[:2] == before.impressions
    assert after.items == before.items


def test_counters_hold_earlier_dates_alone(tmp_path):
    """Sessions of one day are in no order, so none of them may count in another one of that day."""
    logs = Imported("diginetica", write_diginetica(tmp_path / "in"))
    schema = load_schema(logs.logs / "schema.yaml")
    delay = min(counter.delay for counter in schema.counters.values())
    events = [row["timestamp"] for row in logs.impressions + logs.actions]
    counted = [(row["timestamp"], e) for row in logs.impressions for e in events if e < row["timestamp"] - delay]
    assert counted
    assert all(event // DAY_MS < moment // DAY_MS for moment, event in counted)
    assert any(event // DAY_MS == row["timestamp"] // DAY_MS for row in logs.impressions for event in events)


def test_rows_that_cannot_be_read_are_set_aside(tmp_path):
    logs = imported(
        tmp_path,
        [
            request("", 0),
            request(1, 0, session="NA"),
            request(2, "soon"),
            request(3, 0, date="yesterday"),
            request(4, 0),
        ],
        clicks=[(4, 1, ""), (4, -1, 1)],
        products=[("", 1, "")],
    )
    assert {row["request_id"] for row in logs.impressions} == {"4"}
    assert [(row["file"].rpartition("/")[2], row["line"], row["reason"]) for row in logs.rejected] == [
        ("train-queries.csv", 2, "queryId: none"),
        ("train-queries.csv", 3, "sessionId: none"),
        ("train-queries.csv", 4, "timeframe: no number from 0"),
        ("train-queries.csv", 5, "eventdate: no date"),
        ("train-clicks.csv", 2, "itemId: none"),
        ("train-clicks.csv", 3, "timeframe: no number from 0"),
        ("products.csv", 2, "itemId: none"),
    ]


def test_what_is_missing_is_told(tmp_path):
    with pytest.raises(InputError, match=r"train-queries\.csv: found no impression to import, expected requests"):
        imported(tmp_path)
    (tmp_path / "in/train-clicks.csv").unlink()
    with pytest.raises(InputError, match=r"--input: found no train-clicks\.csv"):
        Imported("diginetica", tmp_path / "in")


def test_generated_files_suit_preprocess(tmp_path):
    logs = Imported("diginetica", write_diginetica(tmp_path / "in"))
    assert logs.report["rejected"] == {}
    assert logs.report["dropped"]["test_request"] > 0
    assert_preprocess_takes(logs.logs)
