"""Feature store on every backend: transactions, offsets, limits, and the requests built from it."""

import json
import threading
import time

import pytest

from serving.features import FeatureStore, RequestBuilder, open_store
from serving.features.backend import Stored
from serving.features.event import EventReader
from serving.features.redis import RedisBackend
from serving.features.store import bulk_load
from usr_tf.errors import InputError
from usr_tf.feature_states import Limits
from usr_tf.schema import parse_schema

SCHEMA = """
scenarios: [search, feed]
tasks: [{name: ctr, action: click}]
labels: {attribution: 1h, global_window: 1d}
history: {actions: [click], max_length: 3, queries: {max_length: 2}}
features:
  user_id: {group: user, type: categorical}
  taste: {group: user, type: vector, width: 2}
  item_id: {group: item, type: categorical, in_history: true}
  tags: {group: item, type: categorical_list, in_history: true, max_length: 2, weights: tag_weights}
  price: {group: item, type: numeric}
  query: {group: query, type: text}
  hour: {group: context, type: numeric}
  device: {group: context, type: categorical}
  stock: {group: candidate, type: numeric}
  badge: {group: candidate, type: categorical}
counters:
  item: {key: [item_id], actions: [click], delay: 0s, windows: [1h], by_scenario: true}
  badge: {key: [badge, device], actions: [click], delay: 0s}
  query: {key: [query], actions: [click], delay: 0s}
"""
HOUR = 3_600_000
ITEM = {"item_id": "a", "tags": ["x", "y", "z"], "tag_weights": [0.1, 0.2, 0.3], "price": 0.1}
SHOWN = {
    "request_id": "r1",
    "scenario": "search",
    "user_id": "u",
    "item_id": "a",
    "timestamp": HOUR,
    "query": " Tea ",
    "device": "ios",
    "badge": "sale",
}
CLICK = {"user_id": "u", "item_id": "a", "timestamp": HOUR + 1000, "action": "click"}


@pytest.fixture(scope="module")
def schema():
    return parse_schema(SCHEMA)


def apply(store: FeatureStore, *rows: dict, **options):
    reader = EventReader(store.schema)
    return dict(store.apply([reader.parse(json.dumps(row).encode()) for row in rows], **options))


def test_values_are_read_in_order_and_written_together(open_backend):
    backend = open_backend("store")
    assert backend.read([]) == []

    def work(transaction):
        assert transaction.read(["a", "b"]) == [None, None]
        assert transaction.read([]) == []
        transaction.write({"a": Stored(b"1"), "b": Stored(b"\x002", lifetime=3_600_000), "c": None})
        return "done"

    assert backend.transact(work) == "done"
    assert open_backend("store").read(["b", "c", "a", "b"]) == [b"\x002", None, b"1", b"\x002"]
    backend.transact(lambda transaction: transaction.write({"a": None}))
    assert backend.read(["a"]) == [None]
    many = [f"key {number}" for number in range(40_000)]
    backend.transact(lambda transaction: transaction.write({key: Stored(key.encode()) for key in many}))
    assert backend.read(many) == [key.encode() for key in many]


def test_a_transaction_that_fails_changes_nothing(open_backend):
    backend = open_backend("store")

    def fail(transaction):
        transaction.read(["a"])
        raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        backend.transact(fail)
    backend.transact(lambda transaction: transaction.write({"b": Stored(b"1")}))
    assert backend.read(["a", "b"]) == [None, b"1"]


def test_what_has_expired_is_gone(open_backend):
    backend = open_backend("store")
    if not hasattr(backend, "close") or type(backend).__name__ == "MemoryBackend":
        pytest.skip("a dictionary forgets nothing")
    backend.transact(lambda transaction: transaction.write({"a": Stored(b"1", 1), "b": Stored(b"1", HOUR)}))
    time.sleep(0.05)
    backend.transact(lambda transaction: transaction.write({"c": Stored(b"1")}))
    assert backend.read(["a", "b", "c"]) == [None, b"1", b"1"]


def test_writers_at_a_time_lose_no_event(open_backend, schema):
    """Clicks of many users on one item: each changes the same count."""
    apply(FeatureStore(open_backend("store"), schema), ITEM)

    def write(number: int) -> None:
        store = FeatureStore(open_backend("store"))
        for request in range(8):
            apply(store, {**SHOWN, "request_id": f"r{request}", "user_id": f"u{number}"})

    if type(open_backend("store")).__name__ == "MemoryBackend":
        pytest.skip("not for several threads")
    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    request = RequestBuilder(FeatureStore(open_backend("store"))).build("search", "u", "tea", ["a"], moment=HOUR + 1)
    assert request["inputs"]["counter_query_all_impression"] == [32.0]


def test_a_request_of_what_the_store_knows(open_backend, schema):
    store = FeatureStore(open_backend("store"), schema)
    assert apply(store, ITEM, {"user_id": "u", "taste": [0.1, 1]}) == {"written": 2}
    assert apply(store, SHOWN, CLICK, CLICK, {**CLICK, "item_id": "b"}) == {
        "written": 2,
        "duplicate": 1,
        "unknown_item": 1,
    }
    request = RequestBuilder(FeatureStore(open_backend("store"))).build(
        "search",
        "u",
        "tea",
        ["a", "new"],
        {"device": "ios", "hour": 0.1},
        candidates={"stock": [1, None], "badge": ["sale", None]},
        moment=HOUR + 2000,
    )
    single = 0.10000000149011612  # 0.1 as training has it
    assert request == {
        "scenario": "search",
        "inputs": {
            "user_id": "u",
            "taste": [single, 1.0],
            "item_id": ["a", "new"],
            "tags": [["x", "y", "z"], []],
            "tag_weights": [[single, 0.20000000298023224, 0.30000001192092896], []],
            "price": [single, None],
            "query": "tea",
            "hour": single,
            "device": "ios",
            "stock": [1.0, None],
            "badge": ["sale", ""],
            "history_item_id": ["a"],
            "history_tags": [["x", "y"]],
            "history_action": ["click"],
            "history_scenario": ["search"],
            "history_age": [1000],
            "history_queries": [" Tea "],
            "history_queries_age": [2000],
            "counter_item_1h_impression": [1.0, 0.0],
            "counter_item_1h_click": [1.0, 0.0],
            "counter_badge_all_impression": [1.0, 0.0],
            "counter_badge_all_click": [1.0, 0.0],
            "counter_query_all_impression": [1.0, 1.0],
            "counter_query_all_click": [1.0, 1.0],
        },
    }
    later = RequestBuilder(store).build("feed", None, None, ["a"], moment=3 * HOUR)["inputs"]
    assert later["user_id"] == later["query"] == ""
    assert later["taste"] == [0.0, 0.0]
    assert later["hour"] is None
    assert later["history_action"] == later["history_queries"] == []
    assert {later[name][0] for name in later if name.startswith("counter_")} == {0.0}


def test_an_impression_after_its_click_gives_the_click_its_scenario_and_keys(open_backend, schema):
    store = FeatureStore(open_backend("store"), schema)
    apply(store, ITEM, CLICK)
    builder = RequestBuilder(store)
    ask = {"context": {"device": "ios"}, "candidates": {"badge": ["sale"]}, "moment": HOUR + 2000}
    before = builder.build("search", "u", "tea", ["a"], **ask)["inputs"]
    assert (before["history_scenario"], before["counter_badge_all_click"]) == ([""], [0.0])
    apply(store, SHOWN)
    after = builder.build("search", "u", "tea", ["a"], **ask)["inputs"]
    assert (after["history_scenario"], after["counter_badge_all_click"]) == (["search"], [1.0])


def test_offsets_are_stored_with_their_events_and_a_second_ingest_is_refused(open_backend, schema):
    store = FeatureStore(open_backend("store"), schema)
    assert store.offsets(["one", "two"]) == [0, 0]
    assert apply(store, ITEM, SHOWN, offsets={"one": (0, 10), "two": (0, 5)}) == {"written": 2}
    assert store.offsets(["one", "two"]) == [10, 5]
    with pytest.raises(InputError, match=r"offset of one: found 10, expected 0: does another ingest follow it\?"):
        apply(store, {**SHOWN, "request_id": "r2"}, offsets={"one": (0, 20)})
    assert store.offsets(["one"]) == [10]
    assert apply(store, {**SHOWN, "request_id": "r2"}, offsets={"one": (10, 20)}) == {"written": 1}


def test_a_store_keeps_its_schema_and_limits(open_backend, schema):
    with pytest.raises(InputError, match="found no feature store"):
        FeatureStore(open_backend("store"))
    FeatureStore(open_backend("store"), schema, Limits(lateness="2h"))
    again = FeatureStore(open_backend("store"))
    assert (again.schema, again.limits.lateness) == (schema, 2 * HOUR)
    with pytest.raises(InputError, match="a store of another schema"):
        FeatureStore(open_backend("store"), parse_schema(SCHEMA.replace("[search, feed]", "[search]")))
    with pytest.raises(InputError, match="limits"):
        FeatureStore(open_backend("store"), limits=Limits())


def test_a_store_whose_load_has_not_ended_is_refused(tmp_path, schema):
    def fail() -> None:
        with bulk_load(tmp_path / "store", schema, Limits()) as write:
            write([("item:a", b"[]", None)])
            raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        fail()
    with pytest.raises(InputError, match="load has not ended"):
        open_store(tmp_path / "store")
    with bulk_load(tmp_path / "store", schema, Limits()) as write:
        write([("item:a", b"[]", None)])
    with open_store(tmp_path / "store") as store:
        assert store.read(["item:a"]) == [[]]
    with (
        pytest.raises(InputError, match="expected a new one to load"),
        bulk_load(tmp_path / "store", schema, Limits()),
    ):
        pass
    (tmp_path / "text").write_text("no database, but text" * 100)
    with pytest.raises(InputError, match="no usable SQLite file"):
        open_store(tmp_path / "text")


def test_a_request_takes_one_round_trip_to_redis_and_a_second_one_for_counters(redis_url, schema):
    redis = pytest.importorskip("redis")
    store = FeatureStore(RedisBackend(redis_url, prefix="trips:"), schema)
    apply(store, ITEM)
    client = redis.Redis.from_url(redis_url)
    for counters, trips in ((False, 1), (True, 2)):
        builder = RequestBuilder(store, counters)
        client.config_resetstat()
        builder.build("search", "u", "tea", [f"i{number}" for number in range(500)], {"device": "ios"})
        calls = {name: figures["calls"] for name, figures in client.info("commandstats").items()}
        calls.pop("cmdstat_config|resetstat", None)
        assert calls == {"cmdstat_mget": trips}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scenario": "shop"}, r"scenario: found 'shop', expected one of search, feed"),
        ({"item_ids": []}, "item_ids: found nothing, expected at least one item"),
        ({"context": {"colour": "red"}}, "context.colour: found an unknown feature, expected one of"),
        ({"context": {"hour": "noon"}}, "context.hour: found 'noon', expected a number"),
        ({"candidates": {"price": [1.0]}}, "candidates.price: found an unknown feature, expected one of stock, badge"),
        ({"candidates": {"stock": [1, 2]}}, "candidates.stock: found 2 values, expected 1, one an item"),
        ({"candidates": {"stock": ["much"]}}, r"candidates.stock\[0\]: found 'much', expected a number"),
    ],
)
def test_a_request_that_cannot_be_is_told_by_name(tmp_path, schema, changes, message):
    with open_store(tmp_path / "store", schema) as store:
        arguments = {"scenario": "search", "user_id": "u", "query": None, "item_ids": ["a"], **changes}
        with pytest.raises(InputError, match=message):
            RequestBuilder(store).build(**arguments)
