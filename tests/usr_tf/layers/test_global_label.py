import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.usr_tf.saved import check_config, check_everywhere
from usr_tf.layers import GlobalLabelHeads, binary_cross_entropy

SCENARIOS = tf.constant([1, 0, 1, 1])


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape, scale=scale), tf.float32)


def built(tasks: int, use_global: bool = True, hidden: int = 3) -> GlobalLabelHeads:
    layer = GlobalLabelHeads(tasks, scenarios=2, use_global=use_global)
    shared = tf.zeros([1, tasks, hidden]) if use_global else None
    layer(tf.zeros([1, tasks, hidden]), shared, 0)
    for seed, weight in enumerate(layer.weights):
        weight.assign(normal(*weight.shape, seed=seed))
    return layer


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_probabilities_are_the_chain_times_the_global_ones(tasks):
    layer = built(tasks)
    own, shared = normal(4, tasks, 3, seed=8), normal(4, tasks, 3, seed=9)
    scenario_kernel, scenario_bias, global_kernel, global_bias = (weight.numpy() for weight in layer.weights)
    a = np.sum(shared.numpy() * global_kernel, -1) + global_bias
    b = np.sum(own.numpy() * scenario_kernel[SCENARIOS], -1) + scenario_bias[SCENARIOS]
    p_global = np.cumprod(sigmoid(a), 1)
    result = layer(own, shared, SCENARIOS)
    np.testing.assert_allclose(np.exp(result.shared), p_global, rtol=1e-5)
    np.testing.assert_allclose(np.exp(result.scenario), p_global * sigmoid(b), rtol=1e-5)
    more_own, more_shared = normal(4, tasks, seed=10), normal(4, tasks, seed=11)
    result = layer(own, shared, SCENARIOS, more_own, more_shared)
    p_global = np.cumprod(sigmoid(a + more_shared), 1)
    np.testing.assert_allclose(np.exp(result.shared), p_global, rtol=1e-5)
    np.testing.assert_allclose(np.exp(result.scenario), p_global * sigmoid(b + more_own), rtol=1e-5)


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_without_global_labels_the_chain_is_the_scenarios_own(tasks):
    layer = built(tasks, use_global=False)
    own = normal(4, tasks, 3, seed=8)
    kernel, bias = (weight.numpy() for weight in layer.weights)
    b = np.sum(own.numpy() * kernel[SCENARIOS], -1) + bias[SCENARIOS]
    result = layer(own, None, SCENARIOS)
    assert result.shared is None
    np.testing.assert_allclose(np.exp(result.scenario), np.cumprod(sigmoid(b), 1), rtol=1e-5)
    more = normal(4, tasks, seed=10)
    result = layer(own, None, SCENARIOS, more)
    np.testing.assert_allclose(np.exp(result.scenario), np.cumprod(sigmoid(b + more), 1), rtol=1e-5)


def heads_of_logits(use_global: bool) -> GlobalLabelHeads:
    """Heads whose logits are the first number of each task's hidden layer."""
    layer = built(3, use_global, hidden=1)
    for weight in layer.weights:
        weight.assign(tf.ones(weight.shape) if "kernel" in weight.name else tf.zeros(weight.shape))
    return layer


HEADS = {use_global: heads_of_logits(use_global) for use_global in (True, False)}
LOGITS = st.lists(st.floats(-80, 80, width=32), min_size=3, max_size=3)
EXTREMES = [[80.0] * 3, [-80.0] * 3, [80.0, -80.0, 80.0], [-80.0, 80.0, -80.0]]


@settings(max_examples=60)
@given(LOGITS, LOGITS, st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0]))
def test_invariants_and_finite_gradients_at_logits_up_to_80(own, shared, label, global_label):
    check_invariants(own, shared, label, global_label)


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("own", EXTREMES)
def test_invariants_and_finite_gradients_at_the_extremes(own, label):
    for shared in EXTREMES:
        check_invariants(own, shared, label, 1 - label)


def check_invariants(own, shared, label: float, global_label: float) -> None:
    """Scenario ≤ global, a task ≤ the one before, logs of float64's probabilities, finite loss and gradients."""
    own, shared = (tf.constant(logits, tf.float32, [1, 3, 1]) for logits in (own, shared))
    for use_global, layer in HEADS.items():
        with tf.GradientTape() as tape:
            tape.watch([own, shared])
            result = layer(own, shared if use_global else None, tf.constant([1]))
            losses = binary_cross_entropy(result.scenario, tf.fill([1, 3], label))
            if use_global:
                losses += binary_cross_entropy(result.shared, tf.fill([1, 3], global_label))
            loss = tf.reduce_sum(losses)
        read = [own, shared] if use_global else [own]
        assert np.isfinite(loss)
        assert all(np.isfinite(gradient).all() for gradient in tape.gradient(loss, read + layer.trainable_weights))
        log_own, log_shared = (-np.logaddexp(0, -logits.numpy().astype(float)[..., 0]) for logits in (own, shared))
        if use_global:
            log_shared = np.cumsum(log_shared, 1)
            np.testing.assert_allclose(result.shared, log_shared, rtol=1e-5)
            np.testing.assert_allclose(result.scenario, log_shared + log_own, rtol=1e-5)
            assert (result.scenario.numpy() <= result.shared.numpy()).all()
        else:
            np.testing.assert_allclose(result.scenario, np.cumsum(log_own, 1), rtol=1e-5)
        chain = (result.shared if use_global else result.scenario).numpy()
        assert (chain <= 0).all()
        assert (np.diff(chain, axis=1) <= 0).all()


def test_a_static_scenario_is_that_scenarios_rows_and_no_other_weights():
    layer = built(2)
    own, shared = normal(4, 2, 3, seed=8), normal(4, 2, 3, seed=9)
    mixed, static = layer(own, shared, SCENARIOS), layer(own, shared, 1)
    np.testing.assert_allclose(
        static.scenario.numpy()[SCENARIOS == 1], mixed.scenario.numpy()[SCENARIOS == 1], rtol=1e-5
    )
    layer.weights[0][0].assign(tf.fill([2, 3], np.nan))
    np.testing.assert_array_equal(layer(own, shared, 1).scenario, static.scenario)


def test_scenarios_and_tasks_are_born_different():
    layer = GlobalLabelHeads(2, scenarios=2)
    layer(normal(1, 2, 50), normal(1, 2, 50), 0)
    heads = np.concatenate([layer.weights[0].numpy().reshape(4, 50), layer.weights[2].numpy()])
    assert all(np.abs(heads[a] - heads[b]).max() > 0.1 for a in range(6) for b in range(a))


@pytest.mark.parametrize("use_global", [True, False])
def test_everywhere(use_global, tmp_path):
    layer = built(2, use_global)
    shared = normal(4, 2, 3, seed=9) if use_global else None
    check_everywhere(layer, (normal(4, 2, 3, seed=8), shared, SCENARIOS), tmp_path / "mixed")
    check_everywhere(layer, (normal(4, 2, 3, seed=8), shared, 1), tmp_path / "static")
    check_config(layer)


def test_refuses_a_shared_part_that_does_not_suit():
    with pytest.raises(ValueError, match=r"if and only if `use_global`. Received: None"):
        GlobalLabelHeads(2, 2)(normal(1, 2, 3), None, 0)
    with pytest.raises(ValueError, match=r"with use_global=False"):
        GlobalLabelHeads(2, 2, use_global=False)(normal(1, 2, 3), normal(1, 2, 3), 0)
    with pytest.raises(ValueError, match=r"at least 1\. Received: 0, 2"):
        GlobalLabelHeads(0, 2)
