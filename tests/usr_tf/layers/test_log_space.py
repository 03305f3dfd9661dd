import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from usr_tf.layers import binary_cross_entropy, log1mexp

LOGITS = st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=4)


def exact_log1mexp(x: np.ndarray) -> np.ndarray:
    """In float64, by the form that keeps its digits."""
    return np.where(x > -0.5, np.log(-np.expm1(np.maximum(x, -0.5))), np.log1p(-np.exp(np.minimum(x, -0.5))))


def test_hand_computed():
    np.testing.assert_allclose(log1mexp(tf.math.log([0.5, 0.25, 0.999])), np.log([0.5, 0.75, 0.001]), rtol=1e-4)
    loss = binary_cross_entropy(tf.math.log([0.25, 0.25, 0.25]), tf.constant([1.0, 0.0, 0.5]))
    np.testing.assert_allclose(loss, [1.3862944, 0.2876821, 0.8369882], rtol=1e-5)


def test_log1mexp_keeps_its_digits_from_one_end_to_the_other():
    x = -np.logspace(-37, 3, 4001).astype(np.float32)
    np.testing.assert_allclose(log1mexp(tf.constant(x)), exact_log1mexp(x.astype(float)), rtol=2e-6, atol=1e-37)


@pytest.mark.parametrize("x", [0.0, -0.0, -1e-45, -1e4, -3e38])
def test_ends_are_finite(x):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = log1mexp(x)
    assert np.isfinite(value)
    assert np.isfinite(tape.gradient(value, x))


@settings(max_examples=150)
@given(LOGITS, st.sampled_from([0.0, 1.0]))
def test_cross_entropy_of_a_product_equals_float64_and_has_finite_gradients(logits, label):
    given_logits = tf.constant(logits, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(given_logits)
        loss = binary_cross_entropy(tf.reduce_sum(tf.math.log_sigmoid(given_logits)), tf.constant(label))
    gradient = tape.gradient(loss, given_logits)
    assert np.isfinite(gradient).all()

    a = np.array(logits, np.float32).astype(float)
    log_p = -np.logaddexp(0, -a).sum()
    complement = -np.expm1(log_p)
    expected = -log_p if label else -exact_log1mexp(log_p)
    np.testing.assert_allclose(loss, expected, rtol=2e-5, atol=1e-37)
    # d log σ(a) = σ(-a), and d log(1 - p) / d log p = -p / (1 - p)
    slope = -1.0 if label else np.exp(log_p) / complement
    np.testing.assert_allclose(gradient, slope * np.exp(-np.logaddexp(0, a)), rtol=1e-4, atol=1e-30)
