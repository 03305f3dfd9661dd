"""Look-up of counts in a snapshot: keys of the request's side beside those of its candidates."""

import pandas as pd
import pytest
import tensorflow as tf

from usr_tf.counter_snapshot import CounterSnapshot
from usr_tf.schema import parse_schema

SCHEMA = """
scenarios: [search]
tasks: [{name: ctr, action: click}]
features:
  user_id: {group: user, type: categorical}
  item_id: {group: item, type: categorical}
  brand: {group: item, type: categorical}
  query: {group: query, type: text, normalize: FORM}
counters:
  query: {key: [query], actions: [click]}
  query_item: {key: [query, item_id], actions: [click]}
  item_brand: {key: [item_id, brand], actions: [click]}
  user_brand: {key: [user_id, brand], actions: [click]}
"""
KEYS = {
    "query": {"query": ["green tea", "mug"]},
    "query_item": {"query": ["green tea", "mug"], "item_id": ["i1", "i1"]},
    "item_brand": {"item_id": ["i1", "i2"], "brand": ["b", "c"]},
    "user_brand": {"user_id": ["u", "v"], "brand": ["b", "b"]},
}


@pytest.mark.parametrize("form", ["nfc", "none"])
@pytest.mark.parametrize("items", [["i1"], ["i1", "i2", "i1", "i9"]])
def test_every_key_has_its_counts_whatever_the_number_of_candidates(tmp_path, form, items):
    schema = parse_schema(SCHEMA.replace("FORM", form))
    expected = {}
    for number, (name, keys) in enumerate(KEYS.items()):
        shown, clicks = schema.counters[name].columns(name)
        counts = {shown: [10.0 * number + 1, 10.0 * number + 2], clicks: [0.5, 1.5]}
        pd.DataFrame({**keys, **counts}).to_parquet(tmp_path / f"{name}.parquet")
        expected[name] = counts[shown]
    brands = {"i1": "b", "i2": "c", "i9": ""}
    inputs = {
        "user_id": tf.constant(["u"]),
        "query": tf.constant(["  Green TEA "]),
        "item_id": tf.constant(items),
        "brand": tf.constant([brands[item] for item in items]),
    }
    snapshot = CounterSnapshot(tmp_path, schema)
    specs = {name: tf.TensorSpec([1 if name in ("user_id", "query") else None], tf.string) for name in inputs}
    found = tf.function(lambda values: snapshot.look_up(values, "search"), input_signature=[specs])(inputs)
    assert found["counter_query_all_impression"].numpy().tolist() == [expected["query"][0]] * len(items)
    of_item = {"i1": expected["query_item"][0]}
    assert found["counter_query_item_all_impression"].numpy().tolist() == [of_item.get(item, 0.0) for item in items]
    of_item = dict(zip(("i1", "i2"), expected["item_brand"], strict=True))
    assert found["counter_item_brand_all_impression"].numpy().tolist() == [of_item.get(item, 0.0) for item in items]
    of_brand = {"b": expected["user_brand"][0]}
    assert found["counter_user_brand_all_impression"].numpy().tolist() == [
        of_brand.get(brands[item], 0.0) for item in items
    ]
