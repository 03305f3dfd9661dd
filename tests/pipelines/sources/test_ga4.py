"""Each rule of the GA4 import on events made by hand, and generated exports as a whole."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources import import_logs
from pipelines.sources.lists import parse_lists
from tests.pipelines.sources.generated import write_ga4
from tests.pipelines.sources.imported import Imported, assert_preprocess_takes
from usr_tf import cli
from usr_tf.errors import InputError
from usr_tf.schema import load_schema

SAMPLE = Path(__file__).parents[4] / "shared/data/ga4/ga4_events_sampled.snappy.parquet"
"""Events of Google's own shop, drawn one by one from the public data set."""

START = 1_700_000_000_000
"""Milliseconds: 22:13:20 UTC."""


def item(sku="A", listed=None, index=None, **more):
    return {"item_id": sku, "item_name": f"Name {sku}", "item_list_name": listed, "item_list_index": index, **more}


def param(key, value):
    return {"key": key, "value": {"string_value": value} if isinstance(value, str) else {"int_value": str(value)}}


def event(name, time, *items, user="u", session=1, **params):
    named = {"ga_session_id": session, **params}
    return {
        "event_name": name,
        "event_timestamp": str((START + time) * 1000),
        "user_pseudo_id": user,
        "event_params": [param(key, value) for key, value in named.items()],
        "items": list(items),
    }


def shown(time, *items, **more):
    return event("view_item_list", time, *items, **more)


def imported(folder, *events, **options):
    (folder / "in").mkdir()
    lines = [line if isinstance(line, str) else json.dumps(line) for line in events]
    (folder / "in/events_20231114").write_text("\n".join(lines))
    return Imported("ga4", folder / "in", **options)


def test_an_impression_row(tmp_path):
    known = {
        "device": {"category": "mobile"},
        "geo": {"country": "France"},
        "traffic_source": {"medium": "organic"},
        "platform": "WEB",
        "user_ltv": {"revenue": 9.0},
        "session_traffic_source_last_click": {"manual_campaign": {"medium": "cpc"}},
        "user_id": "buyer",
    }
    page = "https://shop.example/shop/bags/all?sort=new"
    logs = imported(tmp_path, shown(2_500, item("A", "Home"), item("B", "Home"), page_location=page) | known)
    assert logs.impressions[1] == {
        "request_id": "u/1700000002500000/Home",
        "scenario": "recommendation",
        "user_id": "u",
        "item_id": "B",
        "timestamp": 1_700_000_002_500,
        "position": 2,
        "price": None,
        "query": "",
        "device": "mobile",
        "platform": "WEB",
        "country": "France",
        "medium": "organic",
        "hour": "22",
        "page": "/shop/bags",
    }
    assert logs.impressions[0]["request_id"] == logs.impressions[1]["request_id"]


def test_lists_are_told_by_item_then_event_then_name_of_the_event(tmp_path):
    logs = imported(
        tmp_path,
        shown(1, item("A", "Search Results"), item("B", item_list_id="sale"), item("C"), item_list_name="Home"),
        shown(2, item("A")),
        event("view_search_results", 3, item("A")),
    )
    assert [(row["request_id"].split("/")[2], row["scenario"], row["item_id"]) for row in logs.impressions] == [
        ("Search Results", "search", "A"),
        ("sale", "recommendation", "B"),
        ("Home", "recommendation", "C"),
        ("view_item_list", "recommendation", "A"),
        ("view_search_results", "search", "A"),
    ]


def test_the_command_tells_what_a_list_stands_for(tmp_path):
    rules = parse_lists(["Find*=search", "plp_?=category", "Home=feed"])
    home = {"item_list_id": "plp_1", "item_list_name": "(not set)"}
    logs = imported(
        tmp_path,
        shown(1, item("A", "find results"), item("A", "Home"), item("A", **home), item("A", "Related")),
        shown(2, item("B")),
        event("select_item", 3, item("A", "Related")),
        event("select_item", 4, item("A", "Home")),
        event("select_item", 5, item("A")),
        event("purchase", 6, item("A", "Related")),
        lists=rules,
    )
    assert [row["scenario"] for row in logs.impressions] == ["search", "feed", "category"]
    assert load_schema(logs.logs / "schema.yaml").scenarios == ("search", "category", "feed")
    assert [(row["action"], row.get("scenario")) for row in logs.actions] == [
        ("click", "feed"),
        ("click", None),
        ("purchase", None),
    ]
    assert logs.report["read"]["impressions_by_list"] == {
        "find results": 1,
        "Home": 1,
        "plp_1": 1,
        "Related": 1,
        "view_item_list": 1,
    }
    assert logs.report["dropped"] == {"impression_in_other_list": 2, "click_in_other_list": 1}


def test_a_search_list_has_the_query_of_its_session(tmp_path):
    found = lambda time, **more: shown(time, item("A", "Search Results"), **more)  # noqa: E731
    logs = imported(
        tmp_path,
        found(1),
        event("view_search_results", 10, search_term="red bag"),
        found(10),  # at the same moment
        shown(11, item("A", "Home")),
        found(12, session=2),
        found(13, user="v"),
        found(14),  # the next page
        found(20, search_term="own"),
        event("view_search_results", 30),
        found(31),
    )
    queries = {(row["user_id"], row["timestamp"] - START): row["query"] for row in logs.impressions}
    expected = {1: "", 10: "red bag", 11: "", 12: "", 14: "red bag", 20: "own", 31: ""}
    assert queries == {**{("u", time): query for time, query in expected.items()}, ("v", 13): ""}


def test_positions_count_from_one_by_index_or_by_order(tmp_path):
    logs = imported(
        tmp_path,
        shown(1, item("A", "x", "7"), item("B", "x", "0"), item("C", "y", "1"), item("D", "y"), item("E", "z", "?")),
    )
    assert {row["item_id"]: row["position"] for row in logs.impressions} == {"A": 8, "B": 1, "C": 1, "D": 2, "E": 1}


def test_actions_and_what_is_none(tmp_path):
    logs = imported(
        tmp_path,
        shown(0, item("A", "Home")),
        event("select_item", 10, item("A"), item_list_name="Home"),
        event("add_to_cart", 20, item("A", "Search Results", quantity="2")),
        event("purchase", 30, item("A"), item("B")),
        event("refund", 40, item("A")),
        event("page_view", 50),
    )
    action = lambda name, after, sku="A", **more: {  # noqa: E731
        "user_id": "u",
        "item_id": sku,
        "timestamp": START + after,
        "action": name,
        **more,
    }
    assert logs.actions == [
        action("click", 10, scenario="recommendation"),
        action("cart", 20, scenario="search"),
        action("purchase", 30),
        action("purchase", 30, "B"),
    ]
    assert logs.report["read"]["events"]["refund"] == 1
    assert logs.report["written"] == {
        "impressions": {"search": 0, "recommendation": 1},
        "actions": {"click": 1, "cart": 1, "purchase": 2},
    }
    assert set(logs.items) == {"A", "B"}


def test_an_export_imported_twice_is_written_once(tmp_path):
    events = [
        shown(0, item("A", "Home"), item("A", "Home"), item("B", "Home")),
        event("select_item", 5, item("A", "Home")),
        event("select_item", 6, item("A", "Home")),  # a click more
        event("purchase", 10, item("A")) | {"ecommerce": {"transaction_id": "T1"}},
        event("purchase", 900, item("A")) | {"ecommerce": {"transaction_id": "T1"}},  # the page loaded again
        event("purchase", 901, item("A")) | {"ecommerce": {"transaction_id": "T2"}},
        event("purchase", 902, item("A")) | {"ecommerce": {"transaction_id": "(not set)"}},
        event("purchase", 903, item("A")),
    ]
    write = lambda name: (tmp_path / "in" / name).write_text("\n".join(map(json.dumps, events)))  # noqa: E731
    (tmp_path / "in").mkdir()
    write("events_20231114")
    once = Imported("ga4", tmp_path / "in")
    once.logs.rename(tmp_path / "once")
    write("events_intraday_20231114")
    twice = Imported("ga4", tmp_path / "in")
    assert twice.impressions == once.impressions
    assert twice.actions == once.actions
    assert [(row["action"], row["timestamp"] - START) for row in once.actions] == [
        ("click", 5),
        ("click", 6),
        ("purchase", 10),
        ("purchase", 901),
        ("purchase", 902),
        ("purchase", 903),
    ]
    assert once.report["dropped"] == {"repeated_impression": 1, "repeated_purchase": 1}
    assert twice.report["dropped"] == {"repeated_impression": 4, "repeated_click": 2, "repeated_purchase": 6}


def test_events_without_user_and_items_without_name_are_dropped(tmp_path):
    logs = imported(
        tmp_path,
        shown(0, item("(not set)", "Home", item_name=None), item(None, "Home", item_name="Cup")),
        shown(1, item("A", "Home"), user=None),
        event("add_to_cart", 2, item("", item_name="")),
    )
    assert [row["item_id"] for row in logs.impressions] == ["Cup"]
    assert logs.report["dropped"] == {
        "event_without_user": 1,
        "impression_without_item": 1,
        "cart_without_item": 1,
    }


def test_an_item_is_what_is_told_of_it_most(tmp_path):
    told = {"item_brand": "Acme", "item_category": "Home", "item_category2": "(not set)", "item_category3": "Cups"}
    logs = imported(
        tmp_path,
        shown(0, item("A", item_name="Cup")),
        shown(1, item("A", item_name="CUP", **told)),
        shown(2, item("A", item_name="Mug", item_category="Sale")),
        event("purchase", 3, item("A", item_name="Cup", item_category="Sale/")),
        shown(4, item("B", item_name=None)),
    )
    assert logs.items == {
        "A": {"name": "cup", "category": "Home/Cups", "brand": "Acme"},
        "B": {"name": None, "category": None, "brand": None},
    }


def test_the_price_is_that_of_the_impression(tmp_path):
    events = [shown(time, item("A", price=price)) for time, price in enumerate([5.5, 4.0, 0.0, -1.0, None])]
    logs = imported(tmp_path, *events, event("purchase", 9, item("A", price=3.0)))
    assert [row["price"] for row in logs.impressions] == [5.5, 4.0, None, None, None]
    assert "price" not in logs.items["A"]


def test_nothing_after_an_impression_reaches_it(tmp_path):
    events = [
        shown(0, item("A", "Search Results")),
        event("view_search_results", 10, search_term="bag"),
        event("select_item", 20, item("A")),
        shown(30, item("A", "Search Results")),
        event("purchase", 40, item("A")),
    ]
    (tmp_path / "whole").mkdir()
    whole = imported(tmp_path / "whole", *reversed(events))
    for length in range(1, len(events)):
        (tmp_path / str(length)).mkdir()
        known = imported(tmp_path / str(length), *events[:length])
        assert known.impressions == whole.impressions[: len(known.impressions)]
        assert known.actions == whole.actions[: len(known.actions)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"event_name": "purchase", ', "no JSON"),
        ("[1]", "Input should be an object"),
        (json.dumps({"event_timestamp": 1, "user_pseudo_id": "u"}), "event_name: Field required"),
        (
            json.dumps(event("purchase", 0) | {"event_timestamp": "soon"}),
            "event_timestamp: Input should be a valid integer, unable to parse string as an integer",
        ),
        (json.dumps(event("purchase", 0) | {"items": [1]}), "items: Input should be an object"),
    ],
)
def test_a_row_that_is_no_event_is_set_aside(tmp_path, line, reason):
    logs = imported(tmp_path, shown(0, item()), line, shown(0, item(), user="v"))
    assert [row["user_id"] for row in logs.impressions] == ["u", "v"]
    assert logs.report["rejected"] == {reason: 1}
    assert logs.rejected == [{"file": str(tmp_path / "in/events_20231114"), "line": 2, "reason": reason}]


@pytest.mark.parametrize(
    ("events", "found"),
    [
        (["{"], "found no GA4 event (no JSON), expected view_search_results or view_item_list with items in a list"),
        ([""], "found no rows"),
        (
            [shown(0, item("A", "Home")), event("purchase", 1, item("A"))],
            "found no impression to import; its lists are 'Home', its events view_item_list, purchase, expected",
        ),
    ],
)
def test_nothing_to_import(tmp_path, events, found):
    with pytest.raises(InputError) as refused:
        imported(tmp_path, *events, lists={"S*": "search"})
    assert found in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_generated_export_suits_preprocess(tmp_path):
    logs = Imported("ga4", write_ga4(tmp_path / "in"))
    assert logs.report["rejected"] == {}
    assert logs.report["dropped"] == {}
    assert_preprocess_takes(logs.logs)
    assert {row["query"] for row in logs.impressions if row["scenario"] == "search"} == {"red shirt", "acme home cup"}
    assert {row["query"] for row in logs.impressions if row["scenario"] != "search"} == {""}


@pytest.mark.parametrize("wrapped", [False, True])
def test_parquet_is_read_as_json_is(tmp_path, wrapped):
    """With lists as Parquet marks them, and as `bq extract` leaves them, in `list` and `element`."""
    lines = Imported("ga4", write_ga4(tmp_path / "lines", users=10))
    wrap = lambda rows: {"list": [{"element": row} for row in rows]} if wrapped else rows  # noqa: E731
    (tmp_path / "tables").mkdir()
    for path in (tmp_path / "lines").iterdir():
        events = [json.loads(line) for line in path.read_text().splitlines()]
        for row in events:
            row |= {"event_timestamp": int(row["event_timestamp"])}
            row |= {name: wrap(row[name]) for name in ("items", "event_params")}
        pq.write_table(pa.Table.from_pylist(events), tmp_path / "tables" / path.name)
    tables = Imported("ga4", tmp_path / "tables")
    assert (tables.impressions, tables.actions, tables.items) == (lines.impressions, lines.actions, lines.items)
    assert len(tables.impressions) > 50


def acted(logs):
    return [(row["action"], row["item_id"], row.get("scenario")) for row in logs.actions]


def test_other_events_show_and_act(tmp_path):
    logs = imported(
        tmp_path,
        event("view_item", 0, item("A", "Home"), item("B", "Home")),
        shown(1, item("C", "Home")),  # `shown` replaces the usual events
        event("view_product", 2, item("A", "Home")),
        event("select_item", 3, item("A", "Home")),  # `actions` replaces the usual event of a click
        event("add_to_cart", 4, item("A")),
        event("subscribe", 5, item("B")),
        shown=["view_item"],
        actions={"view_product": "click", "subscribe": "subscribe"},
        tasks={"ctr": "click", "sub": "subscribe"},
    )
    assert [row["item_id"] for row in logs.impressions] == ["A", "B"]
    assert acted(logs) == [("click", "A", "recommendation"), ("cart", "A", None), ("subscribe", "B", None)]
    schema = load_schema(logs.logs / "schema.yaml")
    assert [(task.name, task.action) for task in schema.tasks] == [("ctr", "click"), ("sub", "subscribe")]
    assert schema.history.actions == ("click", "cart", "purchase", "subscribe")
    assert schema.counters["item"].actions == ("click", "subscribe")
    assert schema.counters["page_item"].actions == ("click",)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"timezone": "Mars/Olympus"}, "--timezone: found 'Mars/Olympus', expected an IANA name"),
        (
            {"tasks": {"ctr": "tap"}},
            "--task ctr: found 'tap', expected an action that an event stands for: click, cart",
        ),
        ({"several": ["last"]}, "--several: found 'last', expected some of extra, first, all, none"),
    ],
)
def test_wrong_options(tmp_path, options, found):
    with pytest.raises(InputError) as refused:
        imported(tmp_path, shown(0, item()), **options)
    assert str(refused.value).startswith(found)


def test_a_list_rule_of_the_page(tmp_path):
    at = lambda path: {"page_location": f"https://shop.example{path}"}  # noqa: E731
    logs = imported(
        tmp_path,
        shown(0, item("A"), **at("/ASearch.html?q=a%20b")),
        shown(1, item("A", "(not set)"), **at("/bags/all")),
        shown(2, item("A", "Not available in demo dataset"), **at("/find?kind=text&q=x")),
        shown(3, item("A", "Related"), **at("/bags/all")),
        shown(4, item("A", "Ads"), **at("/home")),
        shown(5, item("A")),  # no page is told
        event("select_item", 10, item("A"), **at("/asearch.html")),
        event("select_item", 11, item("A", "Ads"), **at("/home")),
        event("add_to_cart", 12, item("A", "Related"), **at("/asearch.html")),  # on another page than the list's
        lists=parse_lists(
            ["page:/asearch.html=search", "page:*[?&]q=*=search", "Related=related", "page:/bags/*=bags"]
        ),
    )
    assert [(row["timestamp"] - START, row["scenario"]) for row in logs.impressions] == [
        (0, "search"),
        (1, "bags"),
        (2, "search"),
        (3, "related"),
    ]
    assert acted(logs) == [("click", "A", "search"), ("cart", "A", None)]
    assert logs.report["dropped"] == {"impression_in_other_list": 2, "click_in_other_list": 1}
    assert logs.report["read"]["impressions_by_page"] == {
        "/bags/all": 2,
        "/ASearch.html": 1,
        "/find": 1,
        "/home": 1,
        "": 1,
    }


def test_indices_from_one_are_positions(tmp_path):
    logs = imported(
        tmp_path,
        shown(0, item("A", "x", "2"), item("B", "x", "1"), item("C", "x", "?")),
        shown(1, item("D", "y", "13")),
        event("select_item", 2, item("A", "x", "0")),  # an action's index tells nothing
    )
    assert {row["item_id"]: row.get("position") for row in logs.impressions} == {"A": 2, "B": 1, "C": None, "D": 13}
    assert logs.report["read"]["index_from"] == 1


LIST = [item(sku, "Home", str(place)) for place, sku in enumerate("ABCDE", start=1)]
"""What is on the page, from place 1."""


@pytest.mark.parametrize(
    ("carried", "meant", "reason"),
    [
        ([*LIST[:1], LIST[2], *LIST[2:]], "C", "twice"),
        ([*LIST[:4], item("F", "Home", "17")], "F", "index_above"),
        ([*LIST[:4], item("F", "Home")], "F", "no_index"),
        ([*LIST[:2], item("D", "Home", "4", quantity=1), *LIST[4:]], "D", "quantity"),
        ([*LIST[:4], item("E", "Related", "5")], "E", "own_list"),
        ([*(item(sku) for sku in "ABCD"), item("X")], "X", "not_listed"),
        (LIST, None, "dropped"),
        ([item(sku) for sku in "ABC"], None, "dropped"),
        ([item(sku) for sku in "AX"], None, "dropped"),
    ],
)
@pytest.mark.parametrize("name", ["select_item", "add_to_cart"])
def test_which_of_several_items_an_action_means(tmp_path, name, carried, meant, reason):
    logs = imported(tmp_path, shown(0, *LIST), event(name, 5, *carried))
    action = "click" if name == "select_item" else "cart"
    assert [row["item_id"] for row in logs.actions] == ([meant] if meant else [])
    assert logs.report["actions_of_several_items"] == {action: {reason: 1}}
    assert logs.report["dropped"].get(f"{action}_of_several_items", 0) == (not meant)


@pytest.mark.parametrize(
    ("several", "clicked"),
    [(["first"], "A"), (["extra", "first"], "A"), (["all"], "ABCDE"), (["none"], ""), (["extra"], "")],
)
def test_rules_for_several_items(tmp_path, several, clicked):
    events = event("select_item", 5, *reversed(LIST)), event("purchase", 6, *LIST)
    logs = imported(tmp_path, shown(0, *LIST), *events, several=several)
    assert "".join(sorted(row["item_id"] for row in logs.actions if row["action"] == "click")) == clicked
    assert [row["item_id"] for row in logs.actions if row["action"] == "purchase"] == [
        *"ABCDE"
    ]  # of what is bought, all


def test_several_items_with_quantities_are_several_carts_but_no_several_clicks(tmp_path):
    bundle = [item("A", quantity=1), item("B", quantity=2)]
    logs = imported(tmp_path, shown(0, *bundle), event("add_to_cart", 1, *bundle), event("select_item", 2, *bundle))
    assert acted(logs) == [("cart", "A", None), ("cart", "B", None)]


def test_an_event_may_show_a_list_and_act_on_an_item_of_it(tmp_path):
    logs = imported(
        tmp_path,
        event("view_item", 0, LIST[2], *LIST[1:]),  # C in the place of A, and in its own
        event("view_item", 1, item("F", "Own", "17"), *LIST[1:]),  # in the place of A alone: no impression
        event("view_item", 2, LIST[0]),  # no list
        event("view_item", 3, *LIST[:3], item("D", "Home", "4", quantity=1), LIST[4]),  # a list that is whole
        shown=["view_item"],
        actions={"view_item": "click"},
    )
    requests = {after: f"u/{(START + after) * 1000}/Home" for after in range(4)}
    shown_at = {
        after: [row["item_id"] for row in logs.impressions if row["request_id"] == requests[after]]
        for after in range(4)
    }
    assert shown_at == {0: [*"CBDE"], 1: [*"BCDE"], 2: [], 3: [*"ABCDE"]}
    assert [(row["item_id"], row.get("request_id")) for row in logs.actions] == [
        ("C", requests[0]),
        ("D", requests[3]),
        ("F", None),  # shown nowhere
        ("A", None),  # shown later
    ]
    assert logs.report["dropped"] == {"repeated_impression": 1, "impression_of_acted_item": 2}


def test_an_action_on_a_variant_goes_to_the_shown_item_of_its_name(tmp_path):
    logs = imported(
        tmp_path,
        event("purchase", 0, item("TEE-L", item_name="Tee"), item("MUG", item_name="Mug"), user="early"),
        shown(1, item("OLD", item_name="tee"), item("B")),
        shown(2, item("TEE", item_name="TEE")),
        shown(3, item("TEE", item_name="TEE")),
    )
    assert [row["item_id"] for row in logs.actions] == ["TEE", "MUG"]
    assert set(logs.items) == {"TEE", "OLD", "B", "MUG"}
    assert logs.report["actions_on_variants"] == {"purchase": 1}


def test_what_analytics_writes_for_nothing_is_missing(tmp_path):
    nothing = ["(not set)", "Not available in demo dataset", "<Other>", "(data deleted)", "(not provided)", None, ""]
    events = [
        shown(time, item(f"I{time}", text, item_brand=text, item_category=text), search_term=text or "")
        | {"geo": {"country": text}, "traffic_source": {"medium": text}}
        for time, text in enumerate(nothing)
    ]
    logs = imported(tmp_path, *events)
    assert {(row["country"], row["medium"], row["query"]) for row in logs.impressions} == {("", "", "")}
    assert {(known["brand"], known["category"]) for known in logs.items.values()} == {(None, None)}
    assert logs.report["read"]["impressions_by_list"] == {"view_item_list": len(nothing)}


def test_the_hour_is_of_the_time_zone(tmp_path):
    logs = imported(tmp_path, shown(0, item()), timezone="Asia/Kolkata")
    assert logs.impressions[0]["hour"] == "3"  # 22:13 UTC and five hours and a half


def test_a_task_without_an_action_is_warned_of(tmp_path, capsys):
    (tmp_path / "in").write_text("\n".join(map(json.dumps, [shown(0, item()), event("view_item", 1, item())])))
    arguments = ["import", "--source=ga4", f"--input={tmp_path / 'in'}"]
    assert cli.main([*arguments, f"--out={tmp_path / 'a'}", "--task", "ctr=click", "--task", "ctcvr=cart"]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:")]
    assert [line.partition(", expected")[0] for line in warnings] == [
        f"warning: {tmp_path / 'a'}: found no action {action!r}" for action in ("click", "cart")
    ]
    assert "Events read: view_item_list 1, view_item 1. --action EVENT=ACTION" in warnings[0]
    options = [
        "--action",
        "view_item=click",
        "--task",
        "ctr=click",
        "--shown",
        "view_item_list",
        "--timezone=Asia/Tokyo",
    ]
    assert cli.main([*arguments, f"--out={tmp_path / 'b'}", *options, "--several=extra,first"]) == 0
    captured = capsys.readouterr()
    assert "warning" not in captured.err
    assert json.loads(captured.out)["written"]["actions"] == {"click": 1, "cart": 0, "purchase": 0}


needs_sample = pytest.mark.skipif(not SAMPLE.exists(), reason="the public GA4 sample is not beside the repository")
PAGES = {"page:/asearch.html": "search", "*": "recommendation"}


@needs_sample
def test_the_public_sample(tmp_path):
    with pytest.raises(
        InputError, match="found no impression to import; its lists are none, its events purchase, user_"
    ):
        import_logs("ga4", [str(SAMPLE)], tmp_path / "logs", progress=False)
    options = {"lists": PAGES, "shown": ["view_item"]}
    report = import_logs("ga4", [str(SAMPLE)], tmp_path / "logs", progress=False, options=options)
    assert sum(report["read"]["events"].values()) == 24_219
    assert report["read"]["index_from"] == 1
    assert report["written"] == {
        "impressions": {"search": 37, "recommendation": 15_038},
        "actions": {"click": 127, "cart": 304, "purchase": 1_769},
    }
    assert report["actions_of_several_items"] == {
        "click": {"twice": 92, "index_above": 16, "quantity": 3, "own_list": 3, "not_listed": 1, "dropped": 16},
        "cart": {"quantity": 175, "index_above": 112, "no_index": 7, "own_list": 1, "dropped": 1},
    }
    assert report["dropped"] == {
        "repeated_impression": 257,
        "purchase_without_item": 48,
        "repeated_purchase": 18,
        "click_of_several_items": 16,
        "cart_of_several_items": 1,
    }
    assert report["rejected"] == {}
