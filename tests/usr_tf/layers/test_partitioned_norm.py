import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf

from tests.usr_tf.saved import check_config, check_everywhere
from usr_tf.layers import PartitionedNormalization
from usr_tf.layers.folding import folding

SCENARIOS = tf.constant([1, 0, 1, 1, 0])
EPSILON = 1e-3


def normal(*shape: int, seed: int = 0, shift: float = 0.0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(shift, size=shape), tf.float32)


REQUESTS, CANDIDATES = normal(5, 1), normal(5, 2, seed=1, shift=3.0)
X = np.concatenate([REQUESTS, CANDIDATES], 1)


def built(scenarios: int = 2, weights: bool = True, **options) -> PartitionedNormalization:
    layer = PartitionedNormalization(scenarios, **options)
    layer((REQUESTS, CANDIDATES), 0)
    for seed, weight in enumerate(layer.trainable_weights if weights else []):
        weight.assign(normal(*weight.shape, seed=seed + 5))
    return layer


def whole(parts) -> np.ndarray:
    return np.concatenate(parts, 1)


def normalized(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / np.sqrt(x.var(0) + EPSILON)


def test_training_normalises_by_the_rows_of_each_scenario_in_the_batch():
    layer = built()
    gamma, beta, own_gamma, own_beta = (weight.numpy() for weight in layer.trainable_weights)
    result = layer((REQUESTS, CANDIDATES), SCENARIOS, training=True)
    expected = np.empty_like(X)
    for p in range(2):
        rows = SCENARIOS.numpy() == p
        expected[rows] = gamma * own_gamma[p] * normalized(X[rows]) + beta + own_beta[p]
    np.testing.assert_allclose(whole(result.scenario), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(whole(result.shared), gamma * normalized(X) + beta, rtol=1e-4, atol=1e-4)
    by_whole_batch = (gamma * own_gamma[1] * normalized(X) + beta + own_beta[1])[SCENARIOS == 1]
    assert np.abs(whole(result.scenario)[SCENARIOS == 1] - by_whole_batch).max() > 0.1


def test_by_hand():
    layer = PartitionedNormalization(2, epsilon=1.0)
    values = tf.constant([[1.0], [5.0], [10.0], [4.0]])  # scenario 0: mean 3, variance 4; scenario 1: 7 and 9
    result = layer((values[:, :0], values), tf.constant([0, 0, 1, 1]), training=True)
    by_own = [-2 / 5**0.5, 2 / 5**0.5, 3 / 10**0.5, -3 / 10**0.5]
    np.testing.assert_allclose(result.scenario[1][:, 0], by_own, rtol=1e-5)
    # all: mean 5, variance (16 + 0 + 25 + 1) / 4 = 10.5
    np.testing.assert_allclose(result.shared[1][:, 0], np.array([-4, 0, 5, -1]) / 11.5**0.5, rtol=1e-5, atol=1e-6)
    serving = layer((tf.zeros([1, 0]), tf.constant([[3.0], [7.0]])), tf.constant([0, 0]))
    np.testing.assert_allclose(serving.scenario[1][:, 0], [0, 4 / 5**0.5], rtol=1e-5, atol=1e-6)


def test_elsewhere_it_is_an_affine_map_by_the_moving_statistics():
    layer = built()
    for seed, weight in enumerate(layer.non_trainable_weights):
        weight.assign(tf.abs(normal(*weight.shape, seed=seed + 20)))
    gamma, beta, own_gamma, own_beta = (weight.numpy() for weight in layer.trainable_weights)
    (_, mean, variance), (_, all_mean, all_variance) = layer.scenario_moving, layer.moving
    before = [weight.numpy() for weight in layer.weights]
    result = layer((REQUESTS, CANDIDATES), SCENARIOS)
    p = SCENARIOS.numpy()
    expected = gamma * own_gamma[p] * (X - mean.numpy()[p]) / np.sqrt(variance.numpy()[p] + EPSILON)
    np.testing.assert_allclose(whole(result.scenario), expected + beta + own_beta[p], rtol=1e-4, atol=1e-4)
    expected = gamma * (X - all_mean) / np.sqrt(all_variance + EPSILON) + beta
    np.testing.assert_allclose(whole(result.shared), expected, rtol=1e-4, atol=1e-4)
    for weight, kept in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, kept)


def test_one_request_stays_one_row():
    layer = built()
    result = layer((REQUESTS[:1], CANDIDATES), 1)
    assert [part.shape for part in (*result.scenario, *result.shared)] == [(1, 1), (5, 2)] * 2
    mixed = layer((REQUESTS[:1], CANDIDATES), tf.fill([5], 1))
    for part, other in zip(result.scenario, mixed.scenario, strict=True):
        np.testing.assert_allclose(part + tf.zeros_like(other), other, rtol=1e-6)


def test_moving_statistics_are_the_datas_and_inference_then_is_training():
    layer = built(momentum=0.9)
    first = layer((REQUESTS, CANDIDATES), SCENARIOS, training=True)
    np.testing.assert_allclose(layer.scenario_moving.mean[1], X[SCENARIOS == 1].mean(0), rtol=1e-5)  # of one batch
    np.testing.assert_allclose(layer.scenario_moving.variance[1], X[SCENARIOS == 1].var(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.moving.variance, X.var(0), rtol=1e-4)
    for part, other in zip(layer((REQUESTS, CANDIDATES), SCENARIOS).scenario, first.scenario, strict=True):
        np.testing.assert_allclose(part, other, rtol=1e-4, atol=1e-4)

    rng, scale, shift = np.random.default_rng(0), np.array([[1.0], [3.0]]), np.array([[-2.0], [5.0]])
    for _ in range(60):
        scenario = rng.integers(0, 2, 200).astype(np.int32)
        x = tf.constant(rng.normal(size=(200, 3)) * scale[scenario] + shift[scenario], tf.float32)
        result = layer((x[:, :1], x[:, 1:]), scenario, training=True)
    np.testing.assert_allclose(layer.scenario_moving.mean, np.repeat(shift, 3, 1), atol=0.2)
    np.testing.assert_allclose(layer.scenario_moving.variance, np.repeat(scale**2, 3, 1), rtol=0.1)
    np.testing.assert_allclose(layer.moving.mean, [1.5] * 3, atol=0.2)
    np.testing.assert_allclose(layer.moving.variance, [5 + 3.5**2] * 3, rtol=0.1)  # within and between
    again = layer((x[:, :1], x[:, 1:]), scenario)
    difference = np.abs(whole(again.scenario) - whole(result.scenario))
    assert 0.001 < difference.max() < 0.7


@pytest.mark.parametrize("rows", [1, 3])
def test_moving_statistics_do_not_depend_on_how_rows_fell_into_batches(rows):
    layer = PartitionedNormalization(1, momentum=0.999)  # which nine rows do not come to
    for start in range(0, 9, rows):
        x = normal(9, 3)[start : start + rows]
        layer((x[:, :1], x[:, 1:]), tf.zeros([rows], tf.int32), training=True)
    for statistics in (layer.scenario_moving, layer.moving):
        np.testing.assert_allclose(np.ravel(statistics.mean), normal(9, 3).numpy().mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(np.ravel(statistics.variance), normal(9, 3).numpy().var(0), rtol=1e-4)


def test_a_moving_average_is_the_mean_over_all_rows_until_momentum_holds_it():
    layer = PartitionedNormalization(1, momentum=0.75)

    def train(*values: float) -> float:
        rows = tf.constant(values)[:, tf.newaxis]
        layer((rows[:, :0], rows), tf.zeros([len(values)], tf.int32), training=True)
        return float(layer.scenario_moving.mean[0, 0])

    assert train(1.0) == 1.0
    assert train(3.0, 5.0) == 3.0  # (1 + 3 + 5) / 3
    assert train(7.0) == 4.0  # (1 + 3 + 5 + 7) / 4
    assert train(8.0) == 5.0  # 4 + (1 - 0.75) · (8 - 4), and no longer the mean


def test_an_absent_scenario_keeps_its_statistics():
    layer = built(3)
    layer((REQUESTS, CANDIDATES), SCENARIOS, training=True)
    layer((REQUESTS, CANDIDATES), tf.constant([2] * 5), training=True)
    before = [statistic.numpy() for statistic in layer.scenario_moving]
    layer((REQUESTS + 9, CANDIDATES + 9), tf.constant([1, 1, 1, 1, 0]), training=True)
    for now, then in zip(layer.scenario_moving, before, strict=True):
        assert np.isfinite(now).all()
        np.testing.assert_array_equal(now[2], then[2])
        assert np.abs(now[0] - then[0]).max() > 0.1


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_batch_without_rows_or_with_one_gives_no_nan(rows):
    layer = built()
    before = [weight.numpy() for weight in layer.weights]
    parts = tuple(tf.Variable(part[:rows]) for part in (REQUESTS, CANDIDATES))
    with tf.GradientTape() as tape:
        result = layer(parts, SCENARIOS[:rows], training=True)
        total = tf.add_n([tf.reduce_sum(part**2) for part in (*result.scenario, *result.shared)])
    for gradient in tape.gradient(total, [*parts, *layer.trainable_weights]):
        assert np.isfinite(tf.convert_to_tensor(gradient)).all()
    assert all(np.isfinite(weight).all() for weight in layer.weights)
    if rows == 0:
        assert whole(result.scenario).shape == (0, 3)
        for weight, kept in zip(layer.weights, before, strict=True):
            np.testing.assert_array_equal(weight, kept)
    if rows == 1:
        np.testing.assert_allclose(whole(result.scenario)[0], layer.beta + layer.scenario_beta[1], atol=1e-5)


def test_training_on_a_static_scenario_is_training_on_a_batch_of_it():
    static, mixed = built(), built()
    one = static((REQUESTS, CANDIDATES), 1, training=True)
    other = mixed((REQUESTS, CANDIDATES), tf.fill([5], 1), training=True)
    np.testing.assert_array_equal(whole(one.scenario), whole(other.scenario))
    for left, right in zip(static.weights, mixed.weights, strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_static_scenario_reads_nothing_of_the_others_and_is_folded():
    layer = built(3)
    before = layer((REQUESTS[:1], CANDIDATES), 1)
    for weight in (layer.scenario_gamma, layer.scenario_beta, *layer.scenario_moving):
        kept = weight[1]
        weight.assign(tf.fill(weight.shape, np.nan))
        weight[1].assign(kept)
    with folding():
        function = tf.function(lambda request, candidate: layer((request, candidate), 1)).get_concrete_function(
            tf.TensorSpec([1, 1]), tf.TensorSpec([None, 2])
        )
    assert not function.captured_inputs
    for result in (function(REQUESTS[:1], CANDIDATES), layer((REQUESTS[:1], CANDIDATES), 1)):
        for part, old in zip(tf.nest.flatten(result), tf.nest.flatten(before), strict=True):
            np.testing.assert_allclose(part, old, rtol=1e-6)


def test_everywhere(tmp_path):
    layer = built()
    layer((REQUESTS, CANDIDATES), SCENARIOS, training=True)
    parts = (REQUESTS[:1], CANDIDATES)
    check_everywhere(layer, (parts, SCENARIOS), tmp_path / "mixed")
    check_everywhere(layer, (parts, 1), tmp_path / "static")
    check_config(layer)


def test_without_the_shared_form():
    layer = built(use_shared=False)
    assert layer((REQUESTS, CANDIDATES), SCENARIOS, training=True).shared is None
    assert len(layer.non_trainable_weights) == 3


def test_refuses():
    with pytest.raises(ValueError, match=r"at least 1. Received: 0"):
        PartitionedNormalization(0)
    with pytest.raises(ValueError, match=r"`epsilon` above 0. Received: 1.0, 0.001"):
        PartitionedNormalization(2, momentum=1.0)
    with pytest.raises(ValueError, match=r"Received: 0.99, 0"):
        PartitionedNormalization(2, epsilon=0)
