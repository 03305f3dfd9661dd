"""States of a feature store against DESIGN §2 and §2.1 in plain Python: histories, past queries, counts, rows."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.replay_parity import build
from serving.features import RequestBuilder
from serving.features.event import EventReader
from tests.pipelines.random_logs import random_logs
from tests.pipelines.test_counters import SCHEMA, Expected, expected_queries, random_shop
from tests.pipelines.tiny import expected_attributes, expected_history
from tests.serving.features.memory import memory_store
from usr_tf.feature_states import CountSeries, Limits, add_version, valid_row
from usr_tf.schema import Counter, Schema, parse_schema

SPAN = 100  # ms; longer than random logs


@pytest.fixture(scope="module")
def schema() -> Schema:
    return parse_schema(SCHEMA)


def events_of(tables: dict[str, list[dict]], schema: Schema, *names: str) -> list:
    reader = EventReader(schema)
    return [reader.check(name, row) for name in names for row in tables[name]]


def expected_inputs(number: int, tables: dict[str, list[dict]], schema: Schema) -> dict:
    """The inputs of a request of one impression."""
    row = tables["impressions"][number]
    item, user = (expected_attributes(tables[f"{key}s"], f"{key}_id", row) for key in ("item", "user"))
    queries, ages = expected_queries(number, tables["impressions"], schema.history.queries.max_length)
    counts = Expected(tables, schema).row(number)
    return {
        "item_id": [row["item_id"]],
        "category": [item.get("category") or ""],
        "price": [item.get("price")],
        "user_id": row["user_id"],
        "city": user.get("city") or "",
        "device": row["device"] or "",
        "stock": [row["stock"]],
        "query": row["query"] or "",
        **expected_history(row, tables["impressions"], tables["actions"], tables["items"], schema),
        "history_queries": queries,
        "history_queries_age": ages,
        **{name: [value] for name, value in counts.items()},
    }


@settings(max_examples=60)
@given(random_logs(), st.randoms(use_true_random=False), st.sampled_from([0, 7, SPAN]))
def test_requests_of_a_stream_have_the_inputs_of_plain_python(schema, drawn, draw, lateness):
    """Each request is built when the store has what came before it, whatever the lateness."""
    tables = random_shop(draw, *drawn)
    store = memory_store(schema, Limits(lateness=f"{lateness}ms"))
    store.apply(events_of(tables, schema, "items", "users"))
    builder = RequestBuilder(store)
    waiting = sorted(events_of(tables, schema, "impressions", "actions"), key=lambda event: -event.row["timestamp"])
    for number, row in sorted(enumerate(tables["impressions"]), key=lambda entry: entry[1]["timestamp"]):
        before = []
        while waiting[-1].row["timestamp"] < row["timestamp"]:
            before.append(waiting.pop())
        assert set(store.apply(before)) <= {"written"}
        [event] = events_of({"impressions": [row]}, schema, "impressions")
        assert build(builder, [event])["inputs"] == expected_inputs(number, tables, schema)


@settings(max_examples=60)
@given(random_logs(), st.randoms(use_true_random=False))
def test_late_and_duplicate_events_change_nothing_twice_and_batches_do_not_matter(schema, drawn, draw):
    tables = random_shop(draw, *drawn)
    rows, events = (events_of(tables, schema, *names) for names in (("items", "users"), ("impressions", "actions")))
    in_order, shuffled = (memory_store(schema, Limits(lateness=f"{SPAN}ms")) for _ in range(2))
    for store in (in_order, shuffled):
        store.apply(rows)
    in_order.apply(sorted(events, key=lambda event: event.row["timestamp"]))
    late = events + draw.sample(events, len(events) // 2)
    late += [  # an impression that is logged again, later
        event._replace(row={**event.row, "timestamp": event.row["timestamp"] + 1})
        for event in draw.sample(events, len(events) // 3)
        if event.table == "impressions"
    ]
    draw.shuffle(late)
    outcomes = 0
    while late:
        size = draw.randint(1, 4)
        outcomes += shuffled.apply(late[:size]).total()
        late = late[size:]
    assert outcomes >= len(events)
    assert shuffled.backend.values == in_order.backend.values
    builder = RequestBuilder(shuffled)
    for number in range(len(tables["impressions"])):
        [event] = events_of({"impressions": [tables["impressions"][number]]}, schema, "impressions")
        assert build(builder, [event])["inputs"] == expected_inputs(number, tables, schema)


COUNTER = Counter(key=("item_id",), actions=("click",), windows=("10ms", "all"), delay="5ms")
EDGES = Counter(key=("item_id",), actions=("click",), windows=("10ms",), delay="5ms")


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 80)), min_size=1, max_size=30),
    st.sampled_from([COUNTER, EDGES]),
    st.integers(0, 30),
    st.data(),
)
def test_counts_are_exact_within_the_lateness_and_old_times_are_merged(events, counter, lateness, data):
    series = CountSeries(counter, Limits(lateness=f"{lateness}ms"))
    for event, time in events:
        series.add(event, time)
    removed = data.draw(st.sampled_from([None, *events]))
    newest = max(time for _, time in events)
    if removed and removed[1] > newest - lateness:  # what later events may still change
        series.add(*removed, -1)
        events.remove(removed)
    for moment in range(newest - lateness + 1, newest + 40):
        known = moment - counter.delay
        expected = [
            sum(kind == event and (since is None or time >= known - since) and time < known for event, time in events)
            for since in counter.windows
            for kind in (0, 1)
        ]
        assert series.before(moment) == expected
    _, times, *_ = series.document or [0, []]
    assert sum(time < newest - lateness - 15 for time in times) <= 1 + bool(removed)


def test_a_hot_key_stays_bounded_and_its_totals_exact():
    series = CountSeries(COUNTER, Limits(entries=16))
    for time in range(1_000):
        series.add(0, time)
    _, times, *_ = series.document
    assert len(times) <= 16
    assert series.before(1_005)[2:] == [1_000, 0]
    assert series.before(1_005)[0] == pytest.approx(10, abs=2)  # the newest times are told apart


def test_of_row_versions_the_first_of_a_time_holds_and_a_row_without_a_time_is_replaced():
    versions = []
    assert add_version(versions, 10, {"price": 2.0}, 2)
    assert not add_version(versions, 10, {"price": 3.0}, 2)
    assert add_version(versions, None, {"price": 1.0}, 2)
    assert not add_version(versions, None, {"price": 1.0}, 2)
    assert add_version(versions, None, {"price": 1.5}, 2)
    assert [valid_row(versions, moment).get("price") for moment in (0, 9, 10, 11)] == [1.5, 1.5, 2.0, 2.0]
    add_version(versions, 20, {"price": 4.0}, 2)
    assert [valid_row(versions, moment).get("price") for moment in (9, 19, 20)] == [None, 2.0, 4.0]


def test_a_user_of_many_events_stays_bounded(schema):
    """The events that no longer fit can no longer be told from duplicates: they are refused, not counted twice."""
    store = memory_store(schema, Limits(events=5, lateness="1d"))
    item = {"item_id": "a", "category": "c1", "price": 1.0}
    rows = [
        {
            "request_id": f"r{time}",
            "scenario": "search",
            "user_id": "u",
            "item_id": "a",
            "timestamp": time,
            "query": f"q{time}",
            "device": None,
            "stock": None,
        }
        for time in range(40)
    ]
    clicks = [{"user_id": "u", "item_id": "a", "timestamp": time, "action": "click"} for time in range(40)]
    tables = {"items": [item], "impressions": rows, "actions": clicks}
    store.apply(events_of(tables, schema, "items"))
    events = sorted(events_of(tables, schema, "impressions", "actions"), key=lambda event: event.row["timestamp"])
    assert store.apply(events) == {"written": 80}
    values = dict(store.backend.values)
    assert set(store.apply(random.Random(0).sample(events, len(events)))) == {"late", "duplicate"}
    assert store.backend.values == values
    history, recent = store.read(["history:u", "recent:u"])
    assert len(recent["shown"]) <= 5
    assert len(recent["done"]) <= 5
    assert len(history["actions"]) <= 5 + schema.history.max_length
    inputs = RequestBuilder(store).build("search", "u", None, ["a"], moment=40)["inputs"]
    assert inputs["history_age"] == [3, 2, 1]
    assert inputs["history_queries"] == ["q38", "q39"]
    assert inputs["counter_item_all_impression"] == [35]
