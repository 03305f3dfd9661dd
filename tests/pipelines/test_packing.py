import pyarrow as pa
import pytest

from pipelines.transform.packing import pack
from usr_tf.schema import parse_schema

SCHEMA = """\
scenarios: [search]
tasks: [{name: ctr, action: click}]
history: {actions: [click], max_length: 4}
features:
  price:   {group: item, type: numeric}
  item_id: {group: item, type: categorical, in_history: true}
  words:   {group: item, type: categorical_list, max_length: 2, in_history: true}
  weight:  {group: item, type: numeric}
  device:  {group: context, type: categorical}
"""
ROWS = {
    "ctr": [[0], [1]],
    "device": [[1], [2]],
    "history_action": [[], [1, 1]],
    "history_age": [[], [9, 8]],
    "history_item_id": [[], [3, 4]],
    "history_scenario": [[], [2, 1]],
    "history_words": [[], [5, 6, 7, 0]],
    "item_id": [[10], [20]],
    "price": [[0.5], [1.5]],
    "weight": [[-1.0], [-2.0]],
    "words": [[5], []],
}


def batch_of(rows):
    kinds = {name: pa.list_(pa.float32() if name in ("price", "weight") else pa.int64()) for name in rows}
    return pa.RecordBatch.from_pydict(rows, schema=pa.schema(kinds))


@pytest.mark.parametrize("first", [0, 1])  # a slice's columns start amid their values
def test_features_stand_in_the_order_of_the_schema_and_a_history_action_after_action(first):
    expected = {
        "ctr": [[0], [1]],
        "words": [[5], []],
        "packed_ids": [[10, 1], [20, 2]],
        "packed_numbers": [[0.5, -1.0], [1.5, -2.0]],
        "packed_history": [[], [3, 5, 6, 1, 2, 9, 4, 7, 0, 1, 1, 8]],  # item_id, words, action, scenario, age
    }
    packed = pack(batch_of(ROWS).slice(first), parse_schema(SCHEMA))
    assert packed.to_pydict() == {name: values[first:] for name, values in expected.items()}


def test_what_the_schema_does_not_have_gets_no_column():
    schema = {"scenarios": ["search"], "tasks": [{"name": "ctr", "action": "click"}]}
    schema = parse_schema(str(schema | {"features": {"words": {"group": "item", "type": "categorical_list"}}}))
    rows = {name: ROWS[name] for name in ("ctr", "words")}
    assert pack(batch_of(rows), schema).to_pydict() == rows
