import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.transform.packing import pack
from pipelines.transform.tf_examples import encode_examples
from tests.usr_tf.fixtures import toy_schema
from usr_tf.data.parsing import densify, parse, row_spec
from usr_tf.schema import Schema

IDS = st.integers(0, 2**63 - 1)
KINDS = [("user", "categorical"), ("query", "text"), ("item", "numeric"), ("item", "categorical")]
KINDS += [("item", "categorical_list")]


@st.composite
def schemas(draw) -> Schema:
    """With or without single ids, numbers, lists and a history, in any order; at least one feature is of the item."""
    kinds = [*draw(st.lists(st.sampled_from(KINDS), max_size=5)), draw(st.sampled_from(KINDS[2:]))]
    features = {}
    for place, (group, kind) in enumerate(draw(st.permutations(kinds))):
        features[f"f{place}"] = {"group": group, "type": kind}
        if group == "item" and kind != "numeric":
            features[f"f{place}"]["in_history"] = draw(st.booleans())
        if kind == "categorical_list":
            features[f"f{place}"]["max_length"] = draw(st.integers(1, 3))
    has_history = any(feature.get("in_history") for feature in features.values()) and draw(st.booleans())
    return Schema(
        scenarios=("search", "home", "cart"),
        tasks=({"name": "ctr", "action": "click"},),
        history={"actions": ("click",) if has_history else ()},
        features=features,
    )


def rows_of(draw, schema: Schema) -> list[dict[str, list]]:
    """Transformed rows: a list a column."""

    def row() -> dict[str, list]:
        length = draw(st.integers(0, 3))
        values = {"scenario": [draw(st.sampled_from(schema.scenarios))], "request_id": [draw(st.text("ré"))]}
        values |= {name: [draw(st.integers(0, 1))] for name in schema.label_names}
        for name, feature in schema.features.items():
            if feature.type == "numeric":
                values[name] = [draw(st.floats(width=32, allow_nan=False))]
            else:
                values[name] = draw(st.lists(IDS, max_size=feature.length) if feature.is_list else st.tuples(IDS))
        for name in schema.history_columns:
            places = length * (schema.history_width(name) or 1)
            values[name] = draw(st.lists(IDS, min_size=places, max_size=places))
        return values

    return [row() for _ in range(draw(st.integers(1, 4)))]


def column(name: str, schema: Schema) -> pa.DataType:
    if name in ("scenario", "request_id"):
        return pa.list_(pa.string())
    return pa.list_(pa.float32() if name in schema.number_features else pa.int64())


def padded(lists: list[list], width: int | None) -> list[list]:
    """Zeros at the end, up to the longest; every `width` values together."""
    longest = max(map(len, lists))
    even = [values + [0] * (longest - len(values)) for values in lists]
    if width is None:
        return even
    return [[values[start : start + width] for start in range(0, longest, width)] for values in even]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_row_that_is_packed_and_parsed_has_its_features_padded(data):
    schema = data.draw(schemas())
    rows = rows_of(data.draw, schema)
    layout = pa.schema({name: column(name, schema) for name in rows[0]})
    records = encode_examples(pack(pa.RecordBatch.from_pylist(rows, schema=layout), schema)).to_pylist()
    spec = row_spec(schema) | {"request_id": tf.io.FixedLenFeature([], tf.string)}
    parsed = parse(tf.constant(records), spec, schema)
    assert set(parsed) == set(rows[0])
    for name, values in parsed.items():
        lists = [row[name] for row in rows]
        if name == "scenario":
            expected = [schema.scenarios.index(scenario) for [scenario] in lists]
        elif name in schema.list_features or name in schema.history_columns:
            expected = padded(lists, schema.history_width(name) if name in schema.history_columns else None)
        else:
            expected = [value.encode() if isinstance(value, str) else value for [value] in lists]
        assert values.numpy().tolist() == expected, name


def test_the_shapes_of_a_batch_are_known_before_it_comes():
    schema = toy_schema()
    traced = tf.function(lambda records: parse(records, row_spec(schema), schema))
    shapes = {
        name: values.shape.as_list()
        for name, values in traced.get_concrete_function(tf.TensorSpec([8], tf.string)).structured_outputs.items()
    }
    assert shapes["user_id"] == shapes["price"] == shapes["scenario"] == shapes["ctr"] == [8]
    assert shapes["tags"] == shapes["query"] == shapes["history_item_id"] == shapes["history_age"] == [8, None]
    assert shapes["history_tags"] == [8, None, 2]


@pytest.mark.parametrize("trace", [tf.function, lambda function: function], ids=["traced", "eager"])
@pytest.mark.parametrize("unknown", ["shop", "Search", "", "ré"])
def test_a_scenario_that_the_schema_lacks_is_refused(unknown, trace):
    schema = Schema(
        scenarios=("search", "home"),
        tasks=({"name": "ctr", "action": "click"},),
        features={"price": {"group": "item", "type": "numeric"}},
    )
    rows = [{"scenario": [name], "ctr": [0], "global_ctr": [0], "price": [1.0]} for name in ("home", unknown, "search")]
    layout = pa.schema({name: column(name, schema) for name in rows[0]})
    records = encode_examples(pack(pa.RecordBatch.from_pylist(rows, schema=layout), schema)).to_pylist()
    read = trace(lambda records: parse(records, row_spec(schema), schema)["scenario"])
    assert read(tf.constant(records[::2])).numpy().tolist() == [1, 0]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Scenarios must be among search, home\. Received:"):
        read(tf.constant(records))


def test_densify_pads_lists_and_folds_histories_of_lists():
    transformed = {
        "user_id": tf.constant([5, 6], tf.int64),
        "price": tf.constant([0.5, 1.5]),
        "tags": tf.sparse.from_dense(tf.constant([[3, 4], [1, 0]], tf.int64)),
        "history_item_id": tf.ragged.constant([[1, 2], []], tf.int64),
        "history_tags": tf.ragged.constant([[7, 0, 8, 9], []], tf.int64),
        "history_action": tf.ragged.constant([[1, 2], []], tf.int64),
        "history_scenario": tf.ragged.constant([[1, 1], []], tf.int64),
        "history_age": tf.ragged.constant([[9, 3], []], tf.int64),
    }
    dense = densify(transformed, toy_schema())
    np.testing.assert_array_equal(dense["tags"], [[3, 4], [1, 0]])
    np.testing.assert_array_equal(dense["history_item_id"], [[1, 2], [0, 0]])
    np.testing.assert_array_equal(dense["history_tags"], [[[7, 0], [8, 9]], [[0, 0], [0, 0]]])
    np.testing.assert_array_equal(dense["user_id"], [5, 6])
    np.testing.assert_array_equal(dense["price"], [0.5, 1.5])


def test_densify_of_empty_histories():
    empty = {name: tf.ragged.constant([[], []], tf.int64) for name in toy_schema().history_columns}
    dense = densify(empty, toy_schema())
    assert dense["history_item_id"].shape == [2, 0]
    assert dense["history_tags"].shape == [2, 0, 2]
