import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf

from tests.usr_tf.saved import check_config, check_everywhere
from usr_tf.layers import DIN

BATCH, LENGTH, WIDTH = 4, 5, 3


def normal(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def inputs() -> tuple[tf.Tensor, ...]:
    """Item, history and mask; row b has b real actions, so the first has none."""
    mask = np.arange(LENGTH) < np.arange(BATCH)[:, None]
    return normal(BATCH, WIDTH), normal(BATCH, LENGTH, WIDTH, seed=1), tf.constant(mask)


@pytest.fixture
def layer() -> DIN:
    layer = DIN([6, 2])
    layer(*inputs())
    for seed, weight in enumerate(layer.weights):
        weight.assign(normal(*weight.shape, seed=seed + 10))
    return layer


def by_definition(layer: DIN, item, history, mask) -> np.ndarray:
    """The paper's unit, action by action."""
    prelu_1, dense, prelu_2, last = layer._rest
    result = np.zeros(item.shape)
    for b, action in np.argwhere(mask.numpy()):
        e, h = item[b].numpy(), history[b, action].numpy()
        hidden = np.concatenate([h, e, h - e, h * e]) @ layer.kernel.numpy() + layer.bias.numpy()
        hidden = np.maximum(hidden, 0) + prelu_1.alpha.numpy()[0] * np.minimum(hidden, 0)
        hidden = hidden @ dense.kernel.numpy() + dense.bias.numpy()
        hidden = np.maximum(hidden, 0) + prelu_2.alpha.numpy()[0] * np.minimum(hidden, 0)
        result[b] += (hidden @ last.kernel.numpy() + last.bias.numpy()) * h
    return result


def test_equals_the_definition(layer):
    expected = by_definition(layer, *inputs())
    assert np.abs(expected[1:]).max() > 1  # something to compare
    np.testing.assert_allclose(layer(*inputs()), expected, rtol=1e-4, atol=1e-4)


def test_weights_are_not_normalised():
    """A unit that answers 2 whatever it reads: the same action three times counts six times."""
    layer = DIN([1])
    action = tf.constant([[1.0, -2.0]])
    layer(action, action[tf.newaxis], tf.constant([[True]]))
    layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    layer._rest[-1].bias.assign([2.0])
    three = tf.repeat(action[tf.newaxis], 3, 1)
    np.testing.assert_array_equal(layer(action, three, tf.constant([[True] * 3])), [[6.0, -12.0]])


def test_serving_equals_training(layer):
    history, items = inputs()[1][:1], normal(7, WIDTH, seed=5)
    for mask in ([True] * LENGTH, [True, False, True, False, False], [False] * LENGTH):
        mask = tf.constant([mask])
        expected = layer(items, tf.repeat(history, 7, 0), tf.repeat(mask, 7, 0))
        np.testing.assert_allclose(layer.serve(items, history, mask), expected, rtol=1e-4, atol=1e-5)


def test_serving_does_history_and_candidates_in_products_of_their_own(layer):
    """No product has N·L rows of inputs: history is multiplied with the kernel for one request, not N times."""
    specs = [tf.TensorSpec([11, WIDTH]), tf.TensorSpec([1, LENGTH, WIDTH]), tf.TensorSpec([1, LENGTH], tf.bool)]
    graph = tf.function(layer.serve).get_concrete_function(*specs).graph
    sides = [tuple(tensor.shape) for op in graph.get_operations() if op.type == "Mul" for tensor in op.outputs]
    assert (11, LENGTH, WIDTH) not in sides
    assert (WIDTH, LENGTH, 6) in sides  # diag(h_l) K_p


@pytest.mark.parametrize("length", [0, LENGTH])
def test_an_empty_history_gives_exactly_zero_and_finite_gradients(layer, length):
    item, history = normal(BATCH, WIDTH), normal(BATCH, length, WIDTH)
    mask = tf.zeros([BATCH, length], tf.bool)
    with tf.GradientTape() as tape:
        result = layer(item, history, mask)
        total = tf.reduce_sum(tf.square(result - 1))
    np.testing.assert_array_equal(result, np.zeros([BATCH, WIDTH]))
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(total, layer.trainable_weights))
    np.testing.assert_array_equal(layer.serve(item, history[:1], mask[:1]), np.zeros([BATCH, WIDTH]))


def test_padding_has_no_say(layer):
    item, history, mask = inputs()
    other = tf.where(mask[..., tf.newaxis], history, 1e3)
    np.testing.assert_allclose(layer(item, other, mask), layer(item, history, mask), rtol=1e-5)


def test_rows_do_not_see_each_other(layer):
    order = [2, 0, 3, 1]
    permuted = layer(*(tf.gather(value, order) for value in inputs()))
    np.testing.assert_allclose(permuted, layer(*inputs()).numpy()[order], rtol=1e-5, atol=1e-5)


def test_everywhere(layer, tmp_path):
    check_everywhere(layer, inputs(), tmp_path / "call", dynamic=2)
    item, history, mask = inputs()
    result = check_everywhere(layer, (item, history[3:], mask[3:]), tmp_path / "serve", layer.serve, dynamic=2)
    assert result.shape == [BATCH, WIDTH]
    check_config(layer)


@pytest.mark.parametrize("units", [[], [4, 0]])
def test_refuses_units_that_cannot_be(units):
    with pytest.raises(ValueError, match=r"at least one layer, each of at least 1\. Received"):
        DIN(units)
