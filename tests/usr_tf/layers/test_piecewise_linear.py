"""Piecewise-linear encoding of numbers: values by hand, bins from data, NaN, saving."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from usr_tf.layers import PiecewiseLinear
from usr_tf.model import USRModel

# Quartiles 0, 1, 2, 3, 4 of the first column; of the second three are equal.
VALUES = np.array([[4, 0], [0, 0], [2, 0], [1, 0], [3, 8]], np.float32)


@pytest.fixture
def layer() -> PiecewiseLinear:
    layer = PiecewiseLinear(2, 4)
    layer.adapt(VALUES)
    return layer


@pytest.mark.parametrize("wrap", [lambda layer: layer, tf.function], ids=["eager", "function"])
def test_a_bin_tells_how_far_the_number_has_passed_through_it(layer, wrap):
    encoded = wrap(layer)(tf.constant([[2.25, 2.0], [-7.0, -7.0], [99.0, 99.0]]))
    np.testing.assert_allclose(
        encoded,
        [[1, 0.25, 1, 0, 0.25, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 1, 0, 1, 0]],
    )


def test_numbers_may_be_some_of_all_and_have_further_axes(layer):
    encoded = layer(tf.constant([[[2.0], [8.0]]]), [1])
    np.testing.assert_allclose(encoded, [[[0.25, 0, 0, 0], [1, 0, 0, 0]]])


def test_a_number_that_is_always_the_same_gives_a_step(layer):
    layer.adapt(np.full([3, 2], 5.0, np.float32))
    np.testing.assert_allclose(layer(tf.constant([[5.0, 6.0]])), [[0, 1, 0, 0, 0, 0, 0, 0]])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_so_and_makes_no_bin(layer, value):
    assert np.isnan(layer(tf.constant([[value, 0.0]])).numpy()[0, ::2]).all()
    starts = layer.starts.numpy()
    layer.adapt(np.concatenate([VALUES, [[value, value]]]).astype(np.float32))
    np.testing.assert_array_equal(layer.starts, starts)


def test_bins_are_saved_with_the_layer(layer, tmp_path):
    inputs = keras.Input([2])
    model = keras.Model(inputs, layer(inputs))
    row = tf.constant([[2.25, 2.0]])
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(row), model(row))
    tf.saved_model.save(layer, str(tmp_path / "saved"), signatures=tf.function(layer.call).get_concrete_function(row))
    saved = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    np.testing.assert_array_equal(*saved(row).values(), model(row))


def test_a_model_takes_its_bins_from_training_rows(toy_data):
    embedding = USRModel.from_data(toy_data).embedding
    rows = next(iter(toy_data.validation(10_000, "train")))[0]  # all of them: fewer than are sampled
    price = rows["price"].numpy()
    edges = np.quantile(price, [0, 0.25, 0.5, 0.75, 1])
    expected = np.clip((price[:, np.newaxis] - edges[:-1]) / np.diff(edges), 0, 1)
    np.testing.assert_allclose(embedding(rows, ["price"]), expected, atol=1e-5)
