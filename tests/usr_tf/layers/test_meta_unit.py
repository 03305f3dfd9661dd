import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.usr_tf.saved import check_config
from usr_tf.layers.meta_unit import MetaUnit


def normal(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def made(width: int, depth: int = 2, knowledge: int = 3, activation="leaky_relu") -> MetaUnit:
    unit = MetaUnit(depth, knowledge, activation)
    unit(tf.zeros([1, width]), tf.zeros([knowledge]))
    return unit


def test_the_generated_numbers_are_the_matrix_row_by_row_and_then_the_bias():
    unit = made(width=2, depth=1, knowledge=1)
    unit.set_weights([np.array([[1.0, 0, 0, 0, 0, 0]]), np.array([0.0, 2, 3, 4, 5, -60])])
    # known to be 1: W = [[1, 2], [3, 4]], b = [5, -60], and leaky_relu keeps a fifth of what is negative
    np.testing.assert_allclose(unit(tf.constant([[10.0, 1]]), tf.constant([1.0])), [[18, -7.2]], rtol=1e-6)
    # known to be 3: W = [[3, 2], [3, 4]]
    knowledge = tf.constant([[1.0], [3.0]])
    np.testing.assert_allclose(unit(tf.constant([[10.0, 1]]), knowledge, 1), [[38, -7.2]], rtol=1e-6)


def test_parts_equal_their_concatenation():
    unit, known = made(width=5), normal(3)
    left, right = normal(4, 1, 6, 2, seed=1), normal(1, 7, 1, 3, seed=2)
    whole = tf.concat([tf.broadcast_to(left, [4, 7, 6, 2]), tf.broadcast_to(right, [4, 7, 6, 3])], -1)
    np.testing.assert_allclose(unit((left, right), known), unit(whole, known), rtol=1e-5, atol=1e-6)


def test_starts_as_a_glorot_layer_with_the_scenarios_a_little_apart():
    keras.utils.set_random_seed(0)
    unit = made(width=64, depth=2, knowledge=16, activation="linear")
    known = tf.math.l2_normalize(normal(2, 16), axis=-1)
    (one, one_bias), (second, _) = unit.generate(known, 0)
    other = unit.generate(known, 1)[0][0]
    size = np.sqrt(2 / (64 + 64))  # Glorot's standard deviation
    np.testing.assert_allclose([np.std(one), np.std(other), np.std(second)], size, rtol=0.05)
    assert np.std(one_bias) < 0.2 * size
    np.testing.assert_allclose(np.std(one - other), 0.1 * np.sqrt(2) * size, rtol=0.3)
    assert np.std(one - second) > size  # two layers, two matrices
    assert 0.8 < np.var(unit(normal(500, 64), known, 0)) < 1.2  # of rows with variance 1


def test_every_weight_learns():
    unit = made(width=4)
    knowledge = tf.Variable(normal(2, 3))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.square(unit(normal(5, 4), knowledge, 1)))
    *weights, of_knowledge = tape.gradient(total, [*unit.trainable_weights, knowledge])
    assert all(np.abs(gradient).max() > 0 for gradient in weights)
    of_knowledge = tf.convert_to_tensor(of_knowledge).numpy()
    assert np.abs(of_knowledge[1]).min() > 0
    np.testing.assert_array_equal(of_knowledge[0], 0)


def test_config():
    check_config(MetaUnit(2, 3, kernel_regularizer=keras.regularizers.L2(0.1)))


def test_refuses():
    with pytest.raises(ValueError, match=r"at least 1. Received: 0, 3"):
        MetaUnit(0, 3)
