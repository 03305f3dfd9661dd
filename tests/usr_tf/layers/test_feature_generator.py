import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf

from tests.usr_tf.saved import check_config, check_everywhere
from usr_tf.layers import FeatureGenerator

CONDITIONS = ["trigger", "trigger_and_features"]


def normal(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def built(condition: str, grown: bool = True) -> FeatureGenerator:
    """A layer with 3 request, 4 candidate and 2 trigger features; `grown`: with weights as after some training."""
    layer = FeatureGenerator(5, condition)
    layer((normal(1, 3), normal(1, 4)), normal(1, 1, 2))
    for seed, weight in enumerate(layer.weights if grown else ()):
        weight.assign(normal(*weight.shape, seed=seed + 10))
    return layer


@pytest.mark.parametrize("condition", CONDITIONS)
def test_starts_as_the_identity(condition):
    request, candidate = normal(6, 3), normal(6, 4, seed=1)
    scaled = built(condition, grown=False)((request, candidate), normal(6, 2, 2))
    for before, after in zip((request, candidate), scaled, strict=True):
        np.testing.assert_array_equal(after, np.repeat(before[:, None], 2, 1))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_gate_of_zero_is_the_identity_whatever_stands_before_it(condition):
    layer = built(condition)
    for weight in layer.weights[-2:]:
        weight.assign(tf.zeros_like(weight))
    request, candidate = normal(6, 3), normal(6, 4, seed=1)
    for before, after in zip((request, candidate), layer((request, candidate), normal(6, 2, 2)), strict=True):
        np.testing.assert_array_equal(after, np.repeat(before[:, None], 2, 1))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_formula(condition):
    request, candidate, trigger = normal(6, 3), normal(6, 4, seed=1), normal(6, 2, 2, seed=2)
    layer = built(condition)
    w1, b1, w2, b2 = (weight.numpy() for weight in layer.weights)
    x = np.concatenate([request, candidate], 1)
    scaled = tf.concat(layer((request, candidate), trigger), -1)
    assert scaled.shape == [6, 2, 7]
    for view in range(2):
        c = trigger[:, view] if condition == "trigger" else np.concatenate([trigger[:, view], x], 1)
        delta = 2 / (1 + np.exp(-(np.maximum(c @ w1 + b1, 0) @ w2 + b2)))
        np.testing.assert_allclose(scaled[:, view], x * delta, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_serving_equals_training(condition):
    request, candidate, trigger = normal(1, 3), normal(6, 4, seed=1), normal(1, 1, 2, seed=2)
    layer = built(condition)
    served = layer((request, candidate), trigger)
    assert served[0].shape == ([1, 1, 3] if condition == "trigger" else [6, 1, 3])
    trained = layer((tf.repeat(request, 6, 0), candidate), tf.repeat(trigger, 6, 0))
    for one, other in zip(served, trained, strict=True):
        np.testing.assert_allclose(np.broadcast_to(one, other.shape), other, rtol=1e-5, atol=1e-6)


def test_the_gate_passes_no_gradient_to_the_features():
    """The features' gradient is the gate alone, and the trigger's is not zero."""
    request, candidate, trigger = normal(6, 3), normal(6, 4, seed=1), normal(6, 2, 2, seed=2)
    with tf.GradientTape() as tape:
        tape.watch([request, candidate, trigger])
        scaled = built("trigger_and_features")((request, candidate), trigger)
        total = tf.reduce_sum(scaled[0]) + tf.reduce_sum(scaled[1])
    for_request, _, for_trigger = tape.gradient(total, [request, candidate, trigger])
    gate = tf.reduce_sum(scaled[0] / request[:, tf.newaxis], 1)
    np.testing.assert_allclose(for_request, gate, rtol=1e-4)
    assert np.abs(for_trigger).max() > 0


@pytest.mark.parametrize("condition", CONDITIONS)
def test_everywhere(condition, tmp_path):
    layer = built(condition)
    check_everywhere(layer, ((normal(6, 3), normal(6, 4)), normal(6, 2, 2)), tmp_path / "train")
    check_everywhere(layer, ((normal(1, 3), normal(6, 4)), normal(1, 1, 2)), tmp_path / "serve")
    check_config(layer)


def test_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"one of .*Received: features"):
        FeatureGenerator(4, "features")
    with pytest.raises(ValueError, match=r"at least 1\. Received: 0"):
        FeatureGenerator(0)
