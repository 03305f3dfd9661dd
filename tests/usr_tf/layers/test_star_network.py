import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.usr_tf.saved import check_config, check_everywhere
from usr_tf.layers import StarNetwork
from usr_tf.layers.folding import folding

SCENARIOS = tf.constant([1, 0, 2, 1, 1])


def normal(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def built(x, tasks: int | None = None, **options) -> StarNetwork:
    layer = StarNetwork((4, 2), 3, tasks, **options)
    layer(x)
    for seed, weight in enumerate(layer.weights):
        weight.assign(normal(*weight.shape, seed=seed + 5))
    return layer


def test_weights_are_multiplied_and_biases_added():
    layer = StarNetwork((1,), scenarios=2)
    layer(tf.zeros([1, 2]))
    weights = [[[2.0], [3.0]], [5.0], [[[7.0], [11.0]], [[1.0], [0.0]]], [[13.0], [17.0]]]
    layer.set_weights([np.array(weight) for weight in weights])
    x = tf.constant([[1.0, 10.0], [1.0, 10.0]])
    # 2·7·1 + 3·11·10 + 5 + 13;  2·1·1 + 3·0·10 + 5 + 17
    np.testing.assert_array_equal(layer(x, tf.constant([0, 1])), [[362.0], [24.0]])
    np.testing.assert_array_equal(layer(x), [[37.0], [37.0]])  # the centre: 2·1 + 3·10 + 5


@pytest.mark.parametrize(("tasks", "width"), [(None, (4,)), (2, (4,)), (2, (2, 4))])
def test_each_row_uses_its_own_scenarios_star(tasks, width):
    x = normal(5, *width)
    layer = built(x, tasks)
    own = x.numpy() if tasks is None or len(width) == 2 else np.repeat(x[:, None], tasks, 1)
    product = "bi,biu->bu" if tasks is None else "bti,btiu->btu"
    for index in range(2):
        kernel, bias, factors, biases = (weight.numpy() for weight in layer.weights[4 * index : 4 * index + 4])
        own = np.einsum(product, own, (kernel * factors)[SCENARIOS]) + bias + biases[SCENARIOS]
        own = np.maximum(own, 0)
    assert own.max() > 0.1
    np.testing.assert_allclose(layer(x, SCENARIOS), own, rtol=1e-4, atol=1e-5)
    for scenario in range(3):
        np.testing.assert_allclose(layer(x, scenario), layer(x, tf.fill([5], scenario)), rtol=1e-5, atol=1e-6)


def test_scenarios_start_as_the_centre():
    layer, x = StarNetwork((4, 3), 2, tasks=2), normal(5, 4)
    center = layer(x)
    assert np.abs(center).max() > 0.1
    np.testing.assert_allclose(layer(x, tf.constant([0, 1, 1, 0, 0])), center, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(layer(x, 1), center)


def test_a_static_scenarios_star_is_folded():
    layer = built(normal(5, 4))
    with folding():
        function = tf.function(lambda x: layer(x, 1)).get_concrete_function(tf.TensorSpec([None, 4]))
    assert not function.captured_inputs
    assert "Mul" not in {op.type for op in function.graph.get_operations()}
    np.testing.assert_allclose(function(normal(5, 4)), layer(normal(5, 4), 1), rtol=1e-6)


def test_everywhere(tmp_path):
    parts = (normal(1, 3), normal(5, 4))
    layer = built(parts, tasks=2, kernel_regularizer=keras.regularizers.L2(0.1))
    check_everywhere(layer, (parts, SCENARIOS), tmp_path / "mixed")
    check_everywhere(layer, (parts, 1), tmp_path / "static")
    check_config(layer)
    assert len(layer.losses) == 4


def test_refuses():
    with pytest.raises(ValueError, match=r"at least one layer. Received: \(\)"):
        StarNetwork((), 2)
    with pytest.raises(ValueError, match=r"at least 1\. Received: \(3,\), 0, None"):
        StarNetwork((3,), 0)
    with pytest.raises(ValueError, match=r"from 0 to 2. Received: 3"):
        built(normal(5, 4))(normal(5, 4), 3)
