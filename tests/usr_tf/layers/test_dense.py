import usr_tf  # picks Keras 2, before TensorFlow comes

# isort: split
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import usr_tf.layers.dense
from tests.usr_tf.saved import check_config, check_everywhere
from usr_tf.layers import ExpertStack, ScenarioDense, SplitDense, StackedDense


def normal(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def biased(layer: keras.layers.Layer) -> keras.layers.Layer:
    """The layer with biases that are not zero, so that one gone astray shows."""
    for seed, weight in enumerate(layer.weights):
        if "bias" in weight.name:
            weight.assign(normal(*weight.shape, seed=seed + 100))
    return layer


class TestSplitDense:
    def test_is_a_dense_layer_on_the_concatenation(self):
        request, candidate = normal(5, 3), normal(5, 4, seed=1)
        split = SplitDense(6, activation="relu")
        split((request, candidate))
        biased(split)
        dense = keras.layers.Dense(6, activation="relu")
        dense.build([None, 7])
        dense.set_weights(split.get_weights())
        expected = dense(tf.concat([request, candidate], 1))
        np.testing.assert_allclose(split((request, candidate)), expected, rtol=1e-5, atol=1e-6)

    def test_one_request_serves_many_candidates(self):
        request, candidate = normal(1, 3), normal(5, 4, seed=1)
        split = SplitDense(6)
        tiled = split((tf.repeat(request, 5, 0), candidate))
        np.testing.assert_allclose(split((request, candidate)), tiled, rtol=1e-5, atol=1e-6)

    def test_a_part_without_features_adds_nothing(self):
        candidate = normal(5, 4)
        split = SplitDense(6, use_bias=False)
        result = split((tf.zeros([1, 0]), candidate))
        np.testing.assert_allclose(result, candidate @ split.kernel, rtol=1e-5, atol=1e-6)

    def test_initial_weights_follow_glorot_over_both_parts(self):
        split = SplitDense(300)
        split((normal(1, 40), normal(2, 60)))
        limit = np.sqrt(6 / (100 + 300))
        assert np.abs(split.kernel).max() == pytest.approx(limit, rel=1e-3)
        assert np.abs(split.kernel[:40]).max() == pytest.approx(limit, rel=1e-2)

    def test_everywhere(self, tmp_path):
        layer = SplitDense(6, activation="relu", kernel_regularizer=keras.regularizers.L2(0.5))
        check_everywhere(layer, ((normal(1, 3), normal(5, 4)),), tmp_path)
        check_config(layer)
        np.testing.assert_allclose(layer.losses, [0.5 * np.sum(np.square(layer.kernel))], rtol=1e-5)

    def test_refuses_no_units(self):
        with pytest.raises(ValueError, match=r"at least 1\. Received: 0"):
            SplitDense(0)


class TestStackedDense:
    @pytest.mark.parametrize("own_inputs", [True, False])
    def test_each_layer_has_its_own_weights(self, own_inputs):
        x = normal(5, 3, 4) if own_inputs else normal(5, 4)
        layer = StackedDense(2, layers=3, activation="relu")
        layer(x)
        biased(layer)
        expected = [np.maximum((x[:, s] if own_inputs else x) @ layer.kernel[s] + layer.bias[s], 0) for s in range(3)]
        np.testing.assert_allclose(layer(x), np.stack(expected, 1), rtol=1e-5, atol=1e-6)

    def test_parts(self):
        layer = StackedDense(2, layers=3)
        whole = layer(normal(5, 7))
        parts = layer((normal(5, 7)[:, :3], normal(5, 7)[:, 3:]))
        np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)

    def test_config(self):
        check_config(StackedDense(2, 3, "relu", use_bias=False, kernel_regularizer="l2"))


class TestScenarioDense:
    SCENARIOS = tf.constant([1, 0, 2, 1, 1])

    @pytest.fixture(params=["narrow", "wide"], autouse=True)
    def width_of_all(self, request, monkeypatch):
        """Outputs that are computed for every scenario, and ones that rows are routed to."""
        if request.param == "wide":
            monkeypatch.setattr(usr_tf.layers.dense, "_NARROW", 0)

    @pytest.mark.parametrize(("tasks", "width"), [(None, (4,)), (2, (4,)), (2, (2, 4))])
    def test_each_row_uses_its_own_scenario(self, tasks, width):
        x = normal(5, *width)
        layer = ScenarioDense(3, scenarios=3, tasks=tasks, activation="relu")
        layer(x, self.SCENARIOS)
        biased(layer)
        kernel, bias = (weight.numpy() for weight in layer.weights)
        expected = []
        for row, scenario in zip(x.numpy(), self.SCENARIOS.numpy(), strict=True):
            if tasks is None:
                expected.append(row @ kernel[scenario] + bias[scenario])
            else:
                rows = row if len(width) == 2 else [row] * tasks
                expected.append([rows[t] @ kernel[scenario, t] + bias[scenario, t] for t in range(tasks)])
        np.testing.assert_allclose(layer(x, self.SCENARIOS), np.maximum(expected, 0), rtol=1e-5, atol=1e-6)
        for scenario in range(3):
            np.testing.assert_allclose(layer(x, scenario), layer(x, tf.fill([5], scenario)), rtol=1e-5, atol=1e-6)

    def test_parts_of_one_request(self):
        request, candidate = normal(1, 3), normal(5, 4)
        layer = ScenarioDense(3, scenarios=3, tasks=2)
        whole = layer(tf.concat([tf.repeat(request, 5, 0), candidate], 1), self.SCENARIOS)
        np.testing.assert_allclose(layer((request, candidate), self.SCENARIOS), whole, rtol=1e-5, atol=1e-6)

    def test_scenarios_are_born_different_and_by_the_fans_of_one_layer(self):
        layer = ScenarioDense(300, scenarios=3, tasks=2)
        layer(normal(2, 100), 0)
        slices = layer.kernel.numpy().reshape(6, -1)
        assert np.abs(np.corrcoef(slices) - np.eye(6)).max() < 0.05
        np.testing.assert_allclose(np.abs(slices).max(1), np.sqrt(6 / 400), rtol=1e-2)

    def test_the_seed_decides_the_weights(self):
        def weights(seed):
            keras.utils.set_random_seed(seed)
            layers = [ScenarioDense(3, scenarios=2), ScenarioDense(3, scenarios=2)]
            return [layer(normal(2, 4), 0) is not None and layer.kernel.numpy() for layer in layers]

        first, again, other = weights(1), weights(1), weights(2)
        np.testing.assert_array_equal(first, again)
        assert np.abs(first[0] - first[1]).min() > 0
        assert np.abs(first[0] - other[0]).min() > 0

    def test_a_scenario_that_is_absent_has_zero_gradient(self):
        layer = ScenarioDense(3, scenarios=3)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(tf.square(layer(normal(2, 4), tf.constant([0, 2]))))
        gradient = tape.gradient(total, layer.kernel)
        assert np.abs(gradient[0]).min() > 0
        np.testing.assert_array_equal(gradient[1], np.zeros([4, 3]))

    def test_everywhere(self, tmp_path):
        layer = ScenarioDense(3, scenarios=3, tasks=2)
        check_everywhere(layer, ((normal(1, 3), normal(5, 4)), self.SCENARIOS), tmp_path / "mixed")
        check_everywhere(layer, (normal(5, 7), 1), tmp_path / "static")
        check_config(layer)

    @pytest.mark.parametrize("scenario", [-1, 3])
    def test_refuses_a_static_scenario_that_does_not_exist(self, scenario):
        with pytest.raises(ValueError, match=rf"from 0 to 2. Received: {scenario}"):
            ScenarioDense(3, scenarios=3)(normal(5, 4), scenario)


class TestExpertStack:
    def test_each_expert_is_a_network_of_its_own(self):
        request, candidate = normal(1, 3), normal(5, 4, seed=1)
        layer = ExpertStack(3, (6, 2))
        layer((request, candidate))
        biased(layer)
        first, first_bias, second, second_bias = (weight.numpy() for weight in layer.weights)
        x = np.concatenate([np.repeat(request, 5, 0), candidate], 1)
        expected = []
        for e in range(3):
            hidden = np.maximum(x @ first[e] + first_bias[e], 0)
            expected.append(np.maximum(hidden @ second[e] + second_bias[e], 0))
        np.testing.assert_allclose(layer((request, candidate)), np.stack(expected, 1), rtol=1e-5, atol=1e-5)

    def test_experts_are_born_different(self):
        layer = ExpertStack(4, (8, 8))
        layer((normal(2, 30), normal(2, 30)))
        for kernel in (layer.weights[0].numpy(), layer.weights[2].numpy()):
            assert all(np.abs(kernel[a] - kernel[b]).max() > 0.1 for a in range(4) for b in range(a))

    def test_everywhere(self, tmp_path):
        layer = ExpertStack(3, (6, 2), kernel_regularizer=keras.regularizers.L2(0.1))
        check_everywhere(layer, ((normal(1, 3), normal(5, 4)),), tmp_path)
        check_config(layer)
        assert len(layer.losses) == 2

    def test_refuses_no_layer(self):
        with pytest.raises(ValueError, match=r"at least one layer. Received"):
            ExpertStack(3, ())
