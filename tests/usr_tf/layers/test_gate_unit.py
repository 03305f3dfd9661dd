import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf

from tests.usr_tf.saved import check_config, check_everywhere
from usr_tf.layers import GateUnit


def normal(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


VALUES = (normal(1, 3), normal(6, 4, seed=1))
CONDITION = (normal(1, 2, seed=2), normal(6, 3, seed=3))


def built(**options) -> GateUnit:
    layer = GateUnit(5, **options)
    layer(VALUES, CONDITION)
    for seed, weight in enumerate(layer.weights):
        weight.assign(normal(*weight.shape, seed=seed + 10))
    return layer


def test_by_hand():
    layer = GateUnit(1)
    layer((tf.ones([1, 1]), tf.ones([1, 1])), (tf.ones([1, 2]),))
    for weight, value in zip(layer.weights, ([[1.0], [1.0]], [-1.0], [[np.log(3), 0.0]], [0.0, -80.0]), strict=True):
        weight.assign(value)
    scaled = layer((tf.constant([[8.0]]), tf.constant([[8.0]])), (tf.constant([[0.5, 1.5]]),))
    # the hidden unit is 0.5 + 1.5 - 1 = 1, and 2 σ(ln 3) = 3/2
    np.testing.assert_allclose(tf.concat(scaled, 1), [[12.0, 0.0]], atol=1e-5)
    closed = layer((tf.constant([[8.0]]), tf.constant([[8.0]])), (tf.constant([[0.5, 0.25]]),))
    np.testing.assert_allclose(closed[0], [[8.0]], rtol=1e-6)  # the hidden unit is cut off at 0, and 2 σ(0) = 1


def test_formula_and_parts():
    layer = built()
    w1, b1, w2, b2 = (weight.numpy() for weight in layer.weights)
    c = np.concatenate([np.repeat(CONDITION[0], 6, 0), CONDITION[1]], 1)
    x = np.concatenate([np.repeat(VALUES[0], 6, 0), VALUES[1]], 1)
    delta = 2 / (1 + np.exp(-(np.maximum(c @ w1 + b1, 0) @ w2 + b2)))
    scaled = layer(VALUES, CONDITION)
    assert [part.shape for part in scaled] == [(6, 3), (6, 4)]
    np.testing.assert_allclose(np.concatenate(scaled, 1), x * delta, rtol=1e-4, atol=1e-5)


def test_l2_reaches_both_kernels():
    layer = built(kernel_regularizer="l2")
    expected = 0.01 * sum(np.sum(np.square(weight)) for weight in layer.weights[::2])
    np.testing.assert_allclose(sum(layer.losses), expected, rtol=1e-5)


def test_everywhere(tmp_path):
    layer = built(kernel_regularizer="l2")
    check_everywhere(layer, (VALUES, CONDITION), tmp_path)
    check_config(layer)


def test_refuses_an_empty_hidden_layer():
    with pytest.raises(ValueError, match=r"at least 1\. Received: 0"):
        GateUnit(0)
