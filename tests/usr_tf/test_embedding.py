import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf

from tests.usr_tf.saved import check_config
from usr_tf.embedding import FeatureEmbedding
from usr_tf.schema import AGE_BUCKETS, parse_schema

TEXT = """\
scenarios: [search, recommendation]
tasks: [{name: ctr, action: click}]
history: {actions: [click, purchase]}
features:
  item_id: {group: item, type: categorical, in_history: true, embedding_size: 2}
  tags: {group: item, type: categorical_list, in_history: true, max_length: 2}
  price: {group: item, type: numeric}
  query: {group: query, type: text}
"""
SCHEMA = parse_schema(TEXT)
SIZES = {"item_id": 4, "tags": 3, "query": 5}


@pytest.fixture
def embedding() -> FeatureEmbedding:
    """Items are (1, 2), (3, 4), (5, 6) from id 1; tags 10 and 20; words 100 to 400. Descriptions are 0."""
    layer = FeatureEmbedding(SCHEMA, SIZES, size=1)
    set_rows(layer, "item_id", [[1, 2], [3, 4], [5, 6]])
    set_rows(layer, "tags", [[10], [20]])
    set_rows(layer, "query", [[100], [200], [300], [400]])
    for weight in layer.weights:
        if "history" in weight.name:
            weight.assign(tf.zeros_like(weight))
    return layer


def set_rows(layer: FeatureEmbedding, name: str, vectors: list) -> None:
    place = layer.places[name]
    assert place.ids == len(vectors)
    table_of(layer, place.width)[place.before + 1 : place.before + 1 + place.ids].assign(vectors)


def table_of(layer: FeatureEmbedding, width: int) -> tf.Variable:
    (table,) = (weight for weight in layer.weights if f"table_{width}" in weight.name)
    return table


def history(items, tags, ages, actions=None, scenarios=None) -> dict[str, tf.Tensor]:
    blank = np.zeros_like(ages)
    columns = {"item_id": items, "tags": tags, "age": ages}
    columns |= {"action": blank if actions is None else actions, "scenario": blank if scenarios is None else scenarios}
    return {f"history_{name}": tf.constant(values, tf.int64) for name, values in columns.items()}


def test_features_of_a_width_share_a_table_and_the_zero_row(embedding):
    assert embedding.places == {"item_id": (2, 0, 3), "tags": (1, 0, 2), "query": (1, 2, 4)}
    assert {name: table_of(embedding, width).shape[0] for name, width in (("item", 2), ("tags and words", 1))} == {
        "item": 1 + 3,
        "tags and words": 1 + 2 + 4,
    }
    for width in (1, 2):
        assert not table_of(FeatureEmbedding(SCHEMA, SIZES, size=1), width)[0].numpy().any()


def test_an_id_is_its_row_and_0_is_the_zero_vector(embedding):
    vectors = embedding({"item_id": tf.constant([0, 1, 3])}, ["item_id"])
    np.testing.assert_array_equal(vectors, [[0, 0], [1, 2], [5, 6]])


def test_lists_and_texts_are_the_mean_of_their_values(embedding):
    features = {"tags": tf.constant([[1, 2], [2, 0], [0, 0]]), "query": tf.constant([[1, 2, 4], [0, 3, 0], [0, 0, 0]])}
    vectors = embedding(features, ["tags", "query"])
    np.testing.assert_allclose(vectors, [[15, 700 / 3], [20, 300], [0, 0]], rtol=1e-6)


def test_a_number_is_itself(embedding):
    np.testing.assert_array_equal(embedding({"price": tf.constant([0.5, -2.0])}, ["price"]), [[0.5], [-2.0]])


def test_single_values_stand_before_lists_and_lists_before_numbers(embedding):
    ids = {"item_id": tf.constant([2]), "tags": tf.constant([[1, 0]]), "price": tf.constant([0.5])}
    np.testing.assert_array_equal(embedding(ids, ["price", "tags", "item_id"]), [[3, 4, 10, 0.5]])


def test_features_that_share_ids_have_the_same_rows():
    schema = parse_schema(TEXT + "  title: {group: item, type: text, shares: query}\n")
    layer = FeatureEmbedding(schema, {**SIZES, "title": SIZES["query"]}, size=2)
    assert layer.places["title"] == layer.places["query"]
    assert table_of(layer, 2).shape[0] == 1 + 3 + 2 + 4  # items, tags and words
    query, title = tf.split(
        layer({name: tf.constant([[1, 4]]) for name in ("query", "title")}, ["query", "title"]), 2, 1
    )
    np.testing.assert_array_equal(query, title)


def test_widths(embedding):
    assert [embedding.width(name) for name in SCHEMA.features] == [2, 1, 1, 1]
    assert embedding.item_width == 3


def test_an_action_is_its_item_and_what_was_done_where_and_when(embedding):
    action, scenario, age = (
        next(w for w in embedding.weights if f"history_{n}" in w.name) for n in ("action", "scenario", "age")
    )
    assert [table.shape[0] for table in (action, scenario, age)] == [3, 3, AGE_BUCKETS + 1]
    action.assign(np.arange(9).reshape(3, 3))
    scenario[1].assign([10, 20, 30])
    age[5].assign([100, 200, 300])
    vectors, real = embedding.history(history([[2, 0]], [[[1, 2], [0, 0]]], [[5, 0]], [[2, 0]], [[1, 0]]))
    np.testing.assert_array_equal(real, [[True, False]])
    np.testing.assert_array_equal(vectors[0, 0], [3 + 6 + 110, 4 + 7 + 220, 15 + 8 + 330])


@pytest.mark.parametrize(
    ("ages", "places"),
    [
        ([[5, 4, 3, 2]], [[3, 3, 2, 1]]),  # those beyond the longest history share the last place
        ([[0, 5, 4, 0, 3, 0]], [[0, 3, 2, 0, 1, 0]]),  # padding, wherever it stands, takes none
        ([[0, 0]], [[0, 0]]),
    ],
)
def test_a_place_is_counted_from_the_newest_real_action(ages, places):
    schema = SCHEMA.model_copy(update={"history": SCHEMA.history.model_copy(update={"max_length": 3})})
    layer = FeatureEmbedding(schema, SIZES, size=1, describe=["position"])
    items, tags = np.zeros_like(ages), np.zeros((*np.shape(ages), 1), int)
    layer.history(history(items, tags, ages))
    (table,) = (weight for weight in layer.weights if "history_position" in weight.name)
    assert table.shape[0] == 4
    table.assign(tf.repeat(tf.range(4.0)[:, tf.newaxis], 3, 1))
    vectors, real = layer.history(history(items, tags, ages))
    np.testing.assert_array_equal(vectors[..., 0], places)
    np.testing.assert_array_equal(real, np.array(ages) > 0)


def test_an_action_is_described_by_what_was_asked_for_alone():
    actions, others = history([[1]], [[[1]]], [[3]], [[1]], [[1]]), history([[1]], [[[1]]], [[9]], [[2]], [[1]])
    for describe, same in (([], True), (["scenario"], True), (["action"], False), (["age", "scenario"], False)):
        layer = FeatureEmbedding(SCHEMA, SIZES, size=1, describe=describe)
        assert np.array_equal(layer.history(actions)[0], layer.history(others)[0]) == same
        assert len(layer.weights) == 2 + len(describe)  # the tables of the two widths
    with pytest.raises(ValueError, match=r"`describe` must hold names of .*Received: {'price'}"):
        FeatureEmbedding(SCHEMA, SIZES, size=1, describe=["price"])


def test_the_history_shares_its_candidates_table(embedding):
    vectors, _ = embedding.history(history([[3]], [[[2, 0]]], [[1]]))
    item = embedding({"item_id": tf.constant([3]), "tags": tf.constant([[2, 0]])}, ["item_id", "tags"])
    np.testing.assert_array_equal(vectors[:, 0], item)


def test_no_history(embedding):
    vectors, real = embedding.history(history(np.zeros((2, 0)), np.zeros((2, 0, 2)), np.zeros((2, 0))))
    assert vectors.shape == [2, 0, 3]
    assert real.shape == [2, 0]


def test_padding_gets_no_gradient(embedding):
    table = table_of(embedding, 1)
    rows = {"tags": tf.constant([[1, 0], [0, 0]]), "query": tf.constant([[0, 3, 0], [3, 3, 0]])}
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(embedding(rows, ["tags", "query"]))
    gradient = tape.gradient(total, table)
    assert isinstance(gradient, tf.IndexedSlices)
    np.testing.assert_array_equal(tf.convert_to_tensor(gradient), [[0], [1], [0], [0], [0], [2], [0]])


def test_descriptions_get_the_gradients_of_their_own_actions(embedding):
    rows = history([[1, 2]], [[[1, 0], [2, 0]]], [[5, 5]], actions=[[1, 2]], scenarios=[[1, 1]])
    tables = [weight for weight in embedding.weights if "history" in weight.name]
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(embedding.history(rows)[0])
    for gradient, expected in zip(tape.gradient(total, tables), ([0, 1, 1], [0, 2, 0], {5: 2}), strict=True):
        dense = tf.convert_to_tensor(gradient).numpy()
        if isinstance(expected, dict):
            expected = [expected.get(row, 0) for row in range(len(dense))]
        np.testing.assert_array_equal(dense, np.repeat(expected, 3).reshape(-1, 3))


def test_config():
    check_config(FeatureEmbedding(SCHEMA, SIZES, size=4, describe=["position", "action"]))


def test_every_feature_with_ids_needs_a_size():
    with pytest.raises(ValueError, match=r"must hold every feature with ids. Received none for: {'query'}"):
        FeatureEmbedding(SCHEMA, {"item_id": 4, "tags": 3}, size=4)


def test_weights_of_a_list_count_relative_to_each_other_whatever_their_size():
    schema = parse_schema(TEXT.replace("max_length: 2}", "max_length: 2, weights: w}"))
    layer = FeatureEmbedding(schema, SIZES, size=1)
    set_rows(layer, "tags", [[10], [20]])
    rows = {
        "tags": [[1, 2], [1, 2], [1, 2], [1, 0], [1, 2]],
        "w": [[3, 1], [3e38, 3e38], [1e-30, -3e-30], [2, 3e38], [0, 0]],
    }
    features = {"tags": tf.constant(rows["tags"], tf.int64), "w": tf.constant(rows["w"], tf.float32)}
    # (3 * 10 + 20) / 4; equal; (10 - 3 * 20) / 4; the second is padding; no weight
    np.testing.assert_allclose(layer(features, ["tags"]), [[12.5], [15], [-12.5], [10], [0]], rtol=1e-6)


def test_ages_of_past_queries_out_of_range_are_refused():
    schema = parse_schema(TEXT.replace("history: {", "history: {queries: {max_length: 2, tokens: 1}, "))
    layer = FeatureEmbedding(schema, SIZES, size=1)
    features = {"history_queries": tf.constant([[[1], [0]]], tf.int64)}
    for age in (-1, AGE_BUCKETS + 1):
        with pytest.raises(tf.errors.InvalidArgumentError, match="ids of history_queries_age: found"):
            layer.past_queries(features | {"history_queries_age": tf.constant([[age, 0]], tf.int64)})
