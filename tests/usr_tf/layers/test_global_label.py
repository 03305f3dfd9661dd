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


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_without_global_labels_the_chain_is_the_scenarios_own(tasks):
    layer = built(tasks, use_global=False)
    own = normal(4, tasks, 3, seed=8)
    kernel, bias = (weight.numpy() for weight in layer.weights)
    b = np.sum(own.numpy() * kernel[SCENARIOS], -1) + bias[SCENARIOS]
    result = layer(own, None, SCENARIOS)
    assert result.shared is None
    np.testing.assert_allclose(np.exp(result.scenario), np.cumprod(sigmoid(b), 1), rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1.0, 10.0, 60.0]))
def test_scenario_never_above_global_nor_a_task_above_the_one_before(seed, scale):
    layer = built(3)
    own, shared = normal(8, 3, 3, seed=seed, scale=scale), normal(8, 3, 3, seed=seed + 1, scale=scale)
    result = layer(own, shared, tf.constant([0, 1] * 4))
    assert (result.scenario.numpy() <= result.shared.numpy()).all()
    assert (np.diff(result.shared.numpy(), axis=1) <= 0).all()
    assert (result.shared.numpy() <= 0).all()


@pytest.mark.parametrize("own", [-80.0, 80.0])
@pytest.mark.parametrize("shared", [-80.0, 80.0])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_losses_and_gradients_stay_finite_at_extreme_logits(own, shared, label):
    layer = GlobalLabelHeads(2, scenarios=2)
    with tf.GradientTape() as tape:
        hidden = tf.ones([2, 2, 1])
        layer(hidden, hidden, tf.constant([0, 1]))
        layer.set_weights([np.full([2, 2, 1], own), np.zeros([2, 2]), np.full([2, 1], shared), np.zeros([2])])
        result = layer(hidden, hidden, tf.constant([0, 1]))
        loss = tf.add_n([tf.reduce_sum(binary_cross_entropy(log_p, label)) for log_p in result])
    assert np.isfinite(loss)
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(loss, layer.trainable_weights))


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
