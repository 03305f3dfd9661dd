"""Signals of one request and N candidates against plain Python, and against those of N rows with a request each."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.transform.history_match import history_match_signals
from pipelines.transform.match import presence, vocabulary
from usr_tf.schema import history_column, parse_schema

SCHEMA = parse_schema("""
scenarios: [search, feed]
tasks: [{name: ctr, action: click}]
history: {actions: [click, buy], max_length: 6}
features:
  item_id: {group: item, type: categorical, in_history: true}
  tags: {group: item, type: categorical_list, max_length: 2, in_history: true}
history_match: [item_id, tags]
""")

TOKENS = st.lists(st.integers(0, 5) | st.integers(2**62, 2**62 + 2), min_size=4, max_size=4)


@settings(max_examples=30, deadline=None)
@given(st.lists(TOKENS, min_size=1, max_size=3), st.lists(TOKENS, min_size=3, max_size=3), st.booleans())
def test_presence_is_that_of_sets(requests, documents, one):
    """0 pads requests and documents, and is never present."""
    requests = requests[:1] if one else [requests[row % len(requests)] for row in range(3)]
    known = vocabulary(tf.constant(requests, tf.int64))
    found = presence(known, tf.constant(documents, tf.int64)).numpy()
    entries = np.broadcast_to(known.numpy(), found.shape)
    for row, document in enumerate(documents):
        request = requests[0 if one else row]
        assert [*entries[row][entries[row] > 0]] == sorted({*request} - {0})
        np.testing.assert_array_equal(found[row], np.isin(entries[row], [*{*document} - {0}]))


def _sparse(rows: list, kind: tf.DType = tf.string) -> tf.SparseTensor:
    return tf.ragged.constant(rows, kind, ragged_rank=1).to_sparse()


@pytest.mark.parametrize("actions", [0, 1, 3, 6])
def test_a_history_matches_candidates_as_it_matches_each_alone(actions):
    """More actions than candidates, and fewer; values that repeat, and missing ones on both sides."""
    items, tags = ["a", "b", "", "c"], [["x"], ["x", "y"], [], ["z"]]
    past = {
        "item_id": ["a", "b", "a", "", "d", "a"][:actions],
        "tags": ["x", "", "y", "x", "", "", "z", "", "q", "", "x", ""][: 2 * actions],
        "action": ["click", "buy", "click", "click", "buy", "buy"][:actions],
        "scenario": ["feed", "search", "", "feed", "search", "feed"][:actions],
    }
    ages = [50_000, 40_000, 30_000, 2_000, 1_000, 10][:actions]

    def signals(requests: int) -> dict[str, np.ndarray]:
        inputs = {history_column(name): _sparse([values] * requests) for name, values in past.items()}
        inputs[history_column("age")] = _sparse([ages] * requests, tf.int64)
        inputs |= {"item_id": tf.constant(items), "tags": _sparse(tags)}
        return {name: values.numpy() for name, values in history_match_signals(inputs, SCHEMA).items()}

    one, each = signals(1), signals(len(items))
    assert one.keys() == each.keys() == {*SCHEMA.signals}
    for name, values in one.items():
        np.testing.assert_allclose(values, each[name], rtol=1e-6, err_msg=name)
    same = [value == "a" for value in past["item_id"]]
    np.testing.assert_allclose(one["history_match_item_id_share"][0], sum(same) / max(actions, 1), rtol=1e-6)
    assert one["history_match_item_id_last"][0] == float(bool(same and same[-1]))
    assert one["history_match_item_id_share"][2] == 0.0
