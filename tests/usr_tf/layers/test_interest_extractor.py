import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf

from tests.usr_tf.saved import check_config, check_everywhere
from usr_tf.layers import InterestExtractor

BATCH, VIEWS, LENGTH, WIDTH, TRIGGER, RANK = 4, 2, 5, 6, 3, 2


def normal(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def inputs(batch: int = BATCH, length: int = LENGTH, views: int = VIEWS) -> tuple[tf.Tensor, ...]:
    """Item, history, mask and trigger; row b has b real actions, so the first has none."""
    mask = np.arange(length) < np.arange(batch)[:, None]
    return (
        normal(batch, WIDTH),
        normal(batch, length, WIDTH, seed=1),
        tf.constant(mask),
        normal(batch, views, TRIGGER, seed=2),
    )


@pytest.fixture(params=[1, 3], ids=["one head", "three heads"])
def layer(request) -> InterestExtractor:
    """A layer whose generated matrices are far from the identity, and from one another."""
    layer = InterestExtractor(rank=RANK, hidden=7, heads=request.param)
    layer(*inputs())
    for seed, weight in enumerate(layer.weights):
        weight.assign(normal(*weight.shape, seed=seed + 10) * 0.7)
    return layer


def plain(layer: InterestExtractor, item, history, mask, trigger) -> np.ndarray:
    """The formula as it stands: d × d projections for every example and view, action by action."""
    w1, b1, w2, b2 = (weight.numpy() for dense in layer._generator for weight in dense.weights)
    result = np.zeros([*trigger.shape[:2], WIDTH])
    for b, v in np.ndindex(*trigger.shape[:2]):
        generated = np.maximum(trigger[b, v].numpy() @ w1 + b1, 0) @ w2 + b2
        s_query, s_key, s_value = np.eye(RANK) + generated.reshape(3, RANK, RANK)
        w_query = np.eye(WIDTH) + layer.query_down.numpy() @ s_query @ layer.query_up.numpy()
        w_key = np.eye(WIDTH) + layer.key_down.numpy() @ s_key @ layer.key_up.numpy()
        w_value = np.eye(WIDTH) + layer.value_down.numpy() @ s_value @ layer.value_up.numpy()
        real = history[b].numpy()[mask[b]]
        if len(real):
            parts = (np.split(x, layer.heads, -1) for x in (item[b].numpy() @ w_query, real @ w_key, real @ w_value))
            result[b, v] = np.concatenate([attend(*part) for part in zip(*parts, strict=True)])
    return result


def attend(query: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Dot-product attention of one head: `[w]`, `[l, w]` and `[l, w]`."""
    scores = np.exp(keys @ query - (keys @ query).max())
    return scores / scores.sum() @ values


def test_fast_form_equals_the_plain_one(layer):
    expected = plain(layer, *inputs())
    assert np.abs(expected[1:]).max() > 1  # something to compare
    np.testing.assert_allclose(layer(*inputs()), expected, rtol=1e-4, atol=1e-4)


def test_without_a_correction_it_is_plain_attention(layer):
    for weight in (layer.query_up, layer.key_up, layer.value_up):
        weight.assign(tf.zeros_like(weight))
    item, history, mask, trigger = (value[3:] for value in inputs())
    heads = (np.split(x.numpy(), layer.heads, -1) for x in (item[0], history[0, :3], history[0, :3]))
    expected = np.concatenate([attend(*head) for head in zip(*heads, strict=True)])
    np.testing.assert_allclose(layer(item, history, mask, trigger)[0, 0], expected, rtol=1e-5)


def test_more_heads_attend_otherwise_with_the_same_weights(layer):
    one, three = (InterestExtractor(rank=RANK, hidden=7, heads=heads) for heads in (1, 3))
    for other in (one, three):
        other(*inputs())
        other.set_weights(layer.get_weights())
    assert np.abs(one(*inputs()) - three(*inputs())).max() > 0.1


def test_views_differ_a_little_from_the_start():
    result = InterestExtractor(rank=RANK, hidden=7)(*inputs()).numpy()[1:]
    difference = np.abs(result[:, 0] - result[:, 1]).max()
    assert 0 < difference < 0.5 * np.abs(result).max()


def test_serving_equals_training(layer):
    _, history, _, trigger = inputs()
    items = normal(7, WIDTH, seed=5)
    for mask in ([True] * LENGTH, [True, False, True, False, False], [False] * LENGTH):
        mask = tf.constant([mask])
        served = layer.serve(items, history[:1], mask, trigger[:1, 1:])
        repeated = [tf.repeat(value, 7, 0) for value in (history[:1], mask, trigger[:1, 1:])]
        np.testing.assert_allclose(served, layer(items, *repeated)[:, 0], rtol=1e-4, atol=1e-5)


def test_an_empty_history_gives_exactly_zero_and_finite_gradients(layer):
    item, history, _, trigger = inputs()
    mask = tf.zeros([BATCH, LENGTH], tf.bool)
    with tf.GradientTape() as tape:
        tape.watch([item, history, trigger])
        result = layer(item, history, mask, trigger)
        total = tf.reduce_sum(tf.square(result - 1))
    np.testing.assert_array_equal(result, np.zeros([BATCH, VIEWS, WIDTH]))
    gradients = tape.gradient(total, [item, history, trigger, *layer.trainable_weights])
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_padding_has_no_say(layer):
    item, history, mask, trigger = inputs()
    other = tf.where(mask[..., tf.newaxis], history, 1e3)
    np.testing.assert_allclose(layer(item, other, mask, trigger), layer(item, history, mask, trigger), rtol=1e-5)


def test_a_history_of_length_zero_gives_zero(layer):
    item, _, _, trigger = inputs()
    empty = tf.zeros([BATCH, 0, WIDTH]), tf.zeros([BATCH, 0], tf.bool)
    np.testing.assert_array_equal(layer(item, *empty, trigger), np.zeros([BATCH, VIEWS, WIDTH]))
    served = layer.serve(item, empty[0][:1], empty[1][:1], trigger[:1, :1])
    np.testing.assert_array_equal(served, np.zeros([BATCH, WIDTH]))


def test_extreme_scores_stay_finite(layer):
    item, history, mask, trigger = inputs()
    with tf.GradientTape() as tape:
        result = layer(item * 1e4, history * 1e4, mask, trigger)
        total = tf.reduce_sum(result)
    assert np.isfinite(result).all()
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(total, layer.trainable_weights))


def test_rows_do_not_see_each_other(layer):
    order = [2, 0, 3, 1]
    result = layer(*inputs()).numpy()
    permuted = layer(*(tf.gather(value, order) for value in inputs()))
    np.testing.assert_allclose(permuted, result[order], rtol=1e-5, atol=1e-5)
    alone = layer(*(value[3:] for value in inputs()))
    np.testing.assert_allclose(alone, result[3:], rtol=1e-5, atol=1e-5)


def test_history_is_touched_twice_and_no_row_gets_a_projection(layer):
    """In the traced graph: two products read the history, and nothing has d × d or d × r numbers a row."""
    specs = [tf.TensorSpec(value.shape, value.dtype) for value in inputs(batch=11)]
    graph = tf.function(layer.call).get_concrete_function(*specs).graph
    history = graph.inputs[1]
    readers = [op for op in graph.get_operations() if any(tensor is history for tensor in op.inputs)]
    assert [op.type for op in readers] == ["BatchMatMulV2", "BatchMatMulV2"]
    largest = max(
        int(np.prod(tensor.shape))
        for op in graph.get_operations()
        for tensor in op.outputs
        if tensor.shape.rank and 11 in tensor.shape and tensor is not history
    )
    assert largest <= 11 * VIEWS * max(layer.heads * max(WIDTH, LENGTH), 3 * RANK * RANK)


def test_everywhere(layer, tmp_path):
    check_everywhere(layer, inputs(), tmp_path / "call", dynamic=2)
    item, history, mask, trigger = inputs()
    served = (item, history[3:], mask[3:], trigger[3:, :1])
    result = check_everywhere(layer, served, tmp_path / "serve", function=layer.serve, dynamic=2)
    assert result.shape == (BATCH, WIDTH)
    reloaded = tf.saved_model.load(str(tmp_path / "serve"))
    (empty,) = reloaded.run(item, history[:1, :0], mask[:1, :0], trigger[:1, :1])
    np.testing.assert_array_equal(empty, np.zeros([BATCH, WIDTH]))
    check_config(layer)


def test_refuses_sizes_that_cannot_be():
    with pytest.raises(ValueError, match=r"at least 1\. Received: 0, 4, 1"):
        InterestExtractor(0, 4)
    with pytest.raises(ValueError, match=r"at least 1\. Received: 2, 4, 0"):
        InterestExtractor(2, 4, heads=0)
    with pytest.raises(ValueError, match=r"must divide the width of the history, 6\. Received: 4"):
        InterestExtractor(2, 4, heads=4)(*inputs())
