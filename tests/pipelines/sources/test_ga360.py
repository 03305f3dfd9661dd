"""Each rule of the GA360 import on sessions made by hand, and the counts of the public sample."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources import import_logs
from pipelines.sources.ga360 import GA360
from tests.pipelines.sources.imported import read_table
from usr_tf.errors import InputError
from usr_tf.schema import load_schema

START = 1_500_000_000
SAMPLE = Path(__file__).parents[4] / "shared/data/ga360/sessions.ndjson.gz"


def product(sku="A", name=None, listed="Category", **more):
    return {"productSKU": sku, "v2ProductName": name or f"Name {sku}", "productListName": listed, **more}


def shown(sku="A", position=1, **more):
    return product(sku, isImpression=True, productListPosition=position, **more)


def hit(time, *products, action="0", number=None, path="/shop/bags/all?sort=new", **page):
    return {
        "hitNumber": time + 1 if number is None else number,
        "time": time,
        "hour": 13,
        "page": {"pagePath": path, **page},
        "eCommerceAction": {"action_type": action},
        "product": list(products),
    }


def click(time, sku="A", listed="Category", **more):
    return hit(time, product(sku, listed=listed, isClick=True, **more), action="1")


def cart(time, sku="A", **more):
    return hit(time, product(sku, listed="(not set)", **more), action="3")


def buy(time, sku="A", **more):
    return hit(time, product(sku, listed="(not set)", **more), action="6")


def session(*hits, user="u", start=START, **more):
    return {"fullVisitorId": user, "visitId": START, "visitStartTime": start, "hits": list(hits), **more}


class Imported:
    """What `import_logs` makes of sessions (or raw lines)."""

    def __init__(self, folder, *rows, source="ga360"):
        (folder / "in.json").write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
        self.logs = folder / "logs"
        self.report = import_logs(source, [str(folder / "in.json")], self.logs, progress=False)
        self.impressions = read_table(self.logs, "impressions")
        self.actions = read_table(self.logs, "actions")
        self.items = {item.pop("item_id"): item for item in read_table(self.logs, "items")}


def test_an_impression_row(tmp_path):
    logs = Imported(
        tmp_path,
        session(
            hit(2500, shown("A"), shown("B", 2), number=7),
            channelGrouping="Organic Search",
            device={"deviceCategory": "mobile"},
            geoNetwork={"country": "France"},
            totals={"transactions": 1},
        ),
    )
    assert logs.impressions[1] == {
        "request_id": "u/1500000000/7/Category",
        "scenario": "recommendation",
        "user_id": "u",
        "item_id": "B",
        "timestamp": 1_500_000_002_500,
        "position": 2,
        "price": None,
        "query": "",
        "device": "mobile",
        "country": "France",
        "channel": "Organic Search",
        "hour": "13",
        "page": "/shop/bags",
    }
    assert logs.impressions[0]["request_id"] == logs.impressions[1]["request_id"]


def test_lists_become_scenarios_and_others_are_dropped(tmp_path):
    keyword = {"searchKeyword": "red bag"}
    logs = Imported(
        tmp_path,
        session(
            hit(0, shown("A"), shown("A", listed="Search Results"), shown("A", listed="Related Products"), **keyword)
        ),
    )
    assert [(row["scenario"], row["query"]) for row in logs.impressions] == [
        ("recommendation", ""),
        ("search", "red bag"),
    ]
    assert len({row["request_id"] for row in logs.impressions}) == 2
    assert logs.report["read"]["impressions_by_list"] == {"Category": 1, "Search Results": 1, "Related Products": 1}
    assert logs.report["dropped"] == {"impression_in_other_list": 1}


def test_requests_are_apart_by_visitor_visit_and_hit(tmp_path):
    pages = hit(0, shown(), number=1), hit(9, shown(), number=2)
    # The second row is the same visit after midnight: GA keeps its visitId and counts its hits anew.
    logs = Imported(tmp_path, session(*pages), session(*pages, start=START + 60), session(*pages, user="v"))
    assert len({row["request_id"] for row in logs.impressions}) == 6


def test_shops_may_name_their_lists(tmp_path):
    source = GA360({"Home": "feed", "Plp": "feed", "Find": "search"})
    logs = Imported(tmp_path, session(hit(0, *(shown(listed=name) for name in ("Home", "Plp", "Find")))), source=source)
    assert [row["scenario"] for row in logs.impressions] == ["feed", "feed", "search"]
    assert load_schema(logs.logs / "schema.yaml").scenarios == ("feed", "search")


def test_patterns_of_pages_are_refused():
    with pytest.raises(InputError, match="--list: found a pattern of the page, expected patterns of productListName"):
        GA360({"page:/search": "search"})


def test_integers_may_be_text_and_null_may_be_left_out(tmp_path):
    lean = {
        "fullVisitorId": 12345678901234567890,
        "visitStartTime": "1500000000",
        "hits": [
            {
                "hitNumber": "3",
                "time": "2500",
                "hour": "7",
                "product": [
                    {
                        "productSKU": "A",
                        "isImpression": True,
                        "productListName": "Category",
                        "productPrice": "1990000",
                        "productListPosition": "4",
                    }
                ],
            },
            {"hitNumber": 4, "time": 3000, "product": None, "page": None, "eCommerceAction": None},
        ],
    }
    logs = Imported(tmp_path, lean)
    assert logs.impressions == [
        {
            "request_id": "12345678901234567890/1500000000/3/Category",
            "scenario": "recommendation",
            "user_id": "12345678901234567890",
            "item_id": "A",
            "timestamp": 1_500_000_002_500,
            "position": 4,
            "price": 1.99,
            "query": "",
            "device": "",
            "country": "",
            "channel": "",
            "hour": "7",
            "page": "",
        }
    ]
    assert logs.items == {"A": {"name": "", "category": "", "brand": ""}}


def test_positions_below_one_are_left_out(tmp_path):
    logs = Imported(tmp_path, session(hit(0, shown("A", 0), shown("B", None), shown("C", 1))))
    assert [row.get("position") for row in logs.impressions] == [None, None, 1]
    assert "position" not in logs.impressions[0]


def test_products_without_a_sku_or_told_twice_in_a_list_are_dropped(tmp_path):
    logs = Imported(tmp_path, session(hit(0, shown("(not set)"), shown("A"), shown("A", 2)), cart(5, "(not set)")))
    assert [(row["item_id"], row["position"]) for row in logs.impressions] == [("A", 1)]
    assert logs.actions == []
    assert logs.report["dropped"] == {
        "impression_without_sku": 1,
        "impression_repeated_in_list": 1,
        "cart_without_sku": 1,
    }


def test_actions_name_their_scenario_where_ga_does(tmp_path):
    logs = Imported(
        tmp_path,
        session(
            hit(0, shown("A"), shown("B")),
            click(10, "A"),
            click(20, "A", "Search Results"),
            click(30, "B", "(not set)"),
            cart(40),
            buy(50),
            click(60, "A", "Related Products"),
            hit(70, product("A"), action="2"),  # a detail view
            hit(80, product("A"), action="1"),  # in the hit of a click, but not what was clicked
        ),
    )
    action = lambda name, after, item="A", **scenario: {  # noqa: E731
        "user_id": "u",
        "item_id": item,
        "timestamp": START * 1000 + after,
        "action": name,
        **scenario,
    }
    assert logs.actions == [
        action("click", 10, scenario="recommendation"),
        action("click", 20, scenario="search"),
        action("click", 30, "B"),
        action("cart", 40),
        action("purchase", 50),
    ]
    assert logs.report["dropped"] == {"click_in_other_list": 1}
    assert logs.report["written"] == {
        "impressions": {"search": 0, "recommendation": 2},
        "actions": {"click": 3, "cart": 1, "purchase": 1},
    }


def test_repeats_within_ten_seconds_of_the_first_are_dropped(tmp_path):
    logs = Imported(
        tmp_path,
        session(
            hit(0, shown("A"), shown("B")),
            click(1_000),
            click(1_000, "B"),  # another item
            click(1_500, "A", "Search Results"),  # another list
            click(6_000),  # dropped
            click(10_999),  # dropped
            click(11_000),  # ten seconds after the first
            cart(12_000),
            cart(12_001),  # one more piece
            buy(20_000),
            buy(20_025),  # dropped: the order page told it twice
        ),
        session(click(1_000), user="v"),
    )
    kept = [(row["user_id"], row["action"], row["item_id"], row["timestamp"] - START * 1000) for row in logs.actions]
    assert kept == [
        ("u", "click", "A", 1_000),
        ("u", "click", "B", 1_000),
        ("u", "click", "A", 1_500),
        ("u", "click", "A", 11_000),
        ("u", "cart", "A", 12_000),
        ("u", "cart", "A", 12_001),
        ("u", "purchase", "A", 20_000),
        ("v", "click", "A", 1_000),
    ]
    assert logs.report["dropped"] == {"duplicate_click": 2, "duplicate_purchase": 1}


def test_actions_on_variants_go_to_the_shown_sku_of_their_name(tmp_path):
    logs = Imported(
        tmp_path,
        session(buy(0, "TEE-L", name="Tee"), buy(1, "MUG", name="Mug"), buy(2, "B", name="Bag"), user="early"),
        session(
            hit(0, shown("TEE-OLD", name="Tee")),
            hit(1, shown("TEE", name="Tee"), shown("B", name="Bag")),
            hit(2, shown("TEE", name="Tee")),
        ),
    )
    assert [row["item_id"] for row in logs.actions] == ["TEE", "MUG", "B"]
    assert set(logs.items) == {"TEE", "TEE-OLD", "MUG", "B"}
    assert logs.report["actions_on_variants"] == {"purchase": 1}
    assert logs.report["written"]["actions"] == {"click": 0, "cart": 0, "purchase": 3}


def test_an_item_is_what_is_told_of_it_most(tmp_path):
    found = {"listed": "Search Results", "name": "A Bag", "v2ProductCategory": "(not set)"}
    bag = {"name": "7&quot;  Red BAG", "v2ProductCategory": "Home/Bags/"}
    logs = Imported(
        tmp_path,
        session(
            hit(0, shown(**found)),
            hit(1, shown(**found)),
            hit(2, shown(**bag, productBrand="(not set)")),
            hit(3, shown(**bag, productBrand="Acme")),
            hit(4, shown(**bag)),
            *(hit(time, shown(**bag | {"v2ProductCategory": "${escCatTitle}"})) for time in (5, 6, 7)),
            click(20, name="Bag", v2ProductCategory="Home/Sale/"),  # actions do not say where an item is shown
            *(cart(time, name="(not set)", v2ProductCategory="Home/Sale/") for time in (30, 40, 50, 60)),
        ),
    )
    assert logs.items == {"A": {"name": '7" red bag', "category": "Home/Bags", "brand": "Acme"}}


def test_the_price_is_that_of_the_impression(tmp_path):
    prices = [5_000_000, "3990000", 0, None]
    hits = [hit(time, shown(productPrice=price)) for time, price in enumerate(prices)]
    logs = Imported(tmp_path, session(*hits, cart(10, productPrice=1_000_000)))
    assert [row["price"] for row in logs.impressions] == [5.0, 3.99, None, None]
    assert "price" not in logs.items["A"]


def test_nothing_after_an_impression_reaches_it(tmp_path):
    hits = [hit(0, shown("A")), click(10), hit(20, shown("B")), cart(30), hit(40, shown("A")), buy(50)]
    whole = Imported(tmp_path, session(*hits, totals={"hits": 6, "transactions": 1}, visitNumber=1))
    for length in range(1, 6):
        part = tmp_path / str(length)
        part.mkdir()
        known = Imported(part, session(*hits[:length], totals={"hits": length}, visitNumber=1))
        assert known.impressions == whole.impressions[: len(known.impressions)]
        assert known.actions == whole.actions[: len(known.actions)]


def test_parquet_is_read_as_json_is(tmp_path):
    """As `bq extract` writes it: lists in `list` and `element`."""
    wrap = lambda rows: {"list": [{"element": row} for row in rows]}  # noqa: E731
    rows = session(hit(0, shown("A"), shown("B", 2)), click(10), buy(20))
    lines = Imported(tmp_path, rows)
    rows["hits"] = wrap([moment | {"product": wrap(moment["product"])} for moment in rows["hits"]])
    pq.write_table(pa.Table.from_pylist([rows]), tmp_path / "sessions")
    import_logs("ga360", [str(tmp_path / "sessions")], tmp_path / "tables", progress=False)
    assert read_table(tmp_path / "tables", "impressions") == lines.impressions
    assert read_table(tmp_path / "tables", "actions") == lines.actions
    assert len(lines.actions) == 2


def test_sessions_imported_twice_give_equal_rows(tmp_path):
    """So that preprocess, which writes equal rows once, sets the second ones aside."""
    sessions = [session(hit(0, shown("A"), shown("B", 2)), click(10), buy(20)), session(hit(0, shown("C")), user="v")]
    once = Imported(tmp_path, *sessions)
    (tmp_path / "twice").mkdir()
    twice = Imported(tmp_path / "twice", *sessions, *sessions)
    assert twice.impressions == [*once.impressions, *once.impressions]
    assert twice.actions == [*once.actions, *once.actions]
    assert twice.items == once.items


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"fullVisitorId": "u", ', "no JSON"),
        ("[1]", "Input should be an object"),
        (json.dumps({"visitStartTime": START, "hits": [hit(0)]}), "fullVisitorId: Field required"),
        (json.dumps(session(hit(0), user="")), "fullVisitorId: String should have at least 1 character"),
        (json.dumps({"fullVisitorId": "u", "visitStartTime": START}), "hits: Field required"),
        (
            json.dumps(session(hit(0), {"hitNumber": 2, "time": "soon"})),
            "hits.time: Input should be a valid integer, unable to parse string as an integer",
        ),
    ],
)
def test_a_row_that_is_no_session_is_set_aside_whole(tmp_path, line, reason):
    logs = Imported(tmp_path, session(hit(0, shown())), line, session(hit(0, shown()), user="v"))
    assert [row["user_id"] for row in logs.impressions] == ["u", "v"]
    assert logs.report["rejected"] == {reason: 1}
    assert logs.report["read"]["sessions"] == 2
    rejected = [json.loads(row) for row in (logs.logs / "rejected.jsonl").read_text().splitlines()]
    assert rejected == [{"file": str(tmp_path / "in.json"), "line": 2, "reason": reason}]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["{"], "found no GA360 session (no JSON), expected products shown in 'Search Results', 'Category'"),
        ([""], "found no rows, expected"),
        (
            [session(hit(0, shown(listed="Shelf")), click(1))],
            "found no impression to import; its lists are 'Shelf', expected",
        ),
    ],
)
def test_nothing_to_import(tmp_path, lines, found):
    with pytest.raises(InputError) as refused:
        Imported(tmp_path, *lines)
    assert found in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.json"]


def test_the_schema_suits_the_rows(tmp_path):
    logs = Imported(tmp_path, session(hit(0, shown()), click(1)))
    schema = load_schema(logs.logs / "schema.yaml")
    assert schema.scenarios == ("search", "recommendation")
    assert [(task.name, task.action) for task in schema.tasks] == [("ctr", "click"), ("ctcvr", "cart")]
    assert set(schema.features_of("item")) <= {"item_id", *logs.items["A"]}
    assert set(schema.features_of("user", "query", "context", "candidate")) <= set(logs.impressions[0])


@pytest.mark.skipif(not SAMPLE.exists(), reason="the public GA360 sample is not beside the repository")
def test_the_public_sample(tmp_path):
    report = import_logs("ga360", [str(SAMPLE)], tmp_path / "logs", progress=False)
    assert report["written"]["impressions"] == {"recommendation": 75_726, "search": 2_550}
    assert report["read"]["sessions"] == 2_738
    assert report["rejected"] == {}
    assert report["dropped"] == {
        "impression_in_other_list": 2_911,
        "duplicate_click": 817,
        "duplicate_purchase": 109,
    }
    rows = read_table(tmp_path / "logs", "impressions")
    assert len(rows) == 78_276
    assert len({(row["request_id"], row["item_id"]) for row in rows}) == 78_276  # no item twice in a request
