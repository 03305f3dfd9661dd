import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.usr_tf.saved import check_config
from tests.usr_tf.traced import exported, largest_tensor, weights_read
from usr_tf.layers.dynamic_dense import DynamicDense

ROWS, WIDTH, UNITS, RANK, KNOWN = 6, 5, 4, 2, 3


def normal(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


X, Z = normal(ROWS, WIDTH), normal(ROWS, KNOWN, seed=1)
SCENARIO = tf.constant([2, 0, 1, 1, 0, 2])


def made(condition: int = KNOWN, overparameter: int | None = 3, **options) -> DynamicDense:
    layer = DynamicDense(UNITS, RANK, overparameter, **{"generator": (4,), **options})
    layer(X, (tf.zeros([ROWS, condition]),))
    for seed, weight in enumerate(layer.weights):
        weight.assign(normal(*weight.shape, seed=seed + 10) * 0.6)
    return layer


def set_cores(layer: DynamicDense, core) -> None:
    """Every condition gets this core."""
    last = layer._mlp[-1]
    last.kernel.assign(tf.zeros_like(last.kernel))
    last.bias.assign(tf.reshape(tf.constant(core, tf.float32), [-1]))


def expected(layer: DynamicDense, x: np.ndarray, cores: np.ndarray) -> np.ndarray:
    """Row by row: `x V S U + b`, with a core for each row."""
    down, up = (tf.linalg.matmul(*factors).numpy() for factors in (layer._down, layer._up))
    return np.array([row @ down @ core @ up for row, core in zip(x.numpy(), cores, strict=True)]) + layer.bias


def assert_near(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_a_core_for_each_row_is_its_own_conditions():
    layer = made()
    cores = layer.cores((Z,)).numpy()
    assert cores.shape == (ROWS, RANK, RANK)
    assert all(np.abs(cores[row] - cores[0]).max() > 0.01 for row in range(1, ROWS))
    assert_near(layer(X, (Z,)), expected(layer, X, cores))
    alone = [layer(X[row : row + 1], (Z[row : row + 1],))[0] for row in range(ROWS)]
    assert_near(layer(X, (Z,)), alone)


def test_a_core_for_each_scenario_is_the_rows_own_and_not_the_firsts():
    layer, known = made(), Z[:3]
    cores = layer.cores((known,)).numpy()
    mixed = layer(X, (known,), SCENARIO)
    assert_near(mixed, expected(layer, X, cores[SCENARIO.numpy()]))
    for scenario in range(3):
        static = layer(X, (known,), scenario)
        assert_near(static, expected(layer, X, cores[[scenario] * ROWS]))
        assert_near(static, layer(X, (known[scenario],)))


def test_parts_equal_their_concatenation():
    layer = made(condition=WIDTH)
    parts = (X[:1, :2], X[:, 2:])
    whole = tf.concat([tf.repeat(X[:1, :2], ROWS, 0), X[:, 2:]], 1)
    assert_near(layer(parts, parts), layer(whole, (whole,)))


@pytest.mark.parametrize("condition", [(Z,), (Z[0],)], ids=["rows", "one"])
def test_with_the_identity_for_a_core_it_is_a_dense_layer_of_low_rank(condition):
    layer = made()
    set_cores(layer, np.eye(RANK))
    kernel = tf.linalg.matmul(*layer._down) @ tf.linalg.matmul(*layer._up)
    assert np.linalg.matrix_rank(kernel) == RANK
    assert_near(layer(X, condition), X @ kernel + layer.bias)


def test_the_core_stands_between_the_factors():
    layer = made(overparameter=None)
    layer._down[0].assign(tf.eye(WIDTH)[:, :RANK])
    layer._up[0].assign(tf.eye(UNITS)[:RANK])
    layer.bias.assign(tf.zeros([UNITS]))
    set_cores(layer, [[1, 2], [3, 4]])
    np.testing.assert_allclose(layer(tf.constant([[1.0, 10, 7, 7, 7]]), (Z[:1],)), [[31, 42, 0, 0]], rtol=1e-6)


def test_over_parameterised_it_computes_what_its_products_do():
    layer, plain = made(), made(overparameter=None)
    plain.set_weights([tf.matmul(*layer._down), tf.matmul(*layer._up), *layer.get_weights()[4:]])
    assert len(layer.weights) == len(plain.weights) + 2
    assert_near(layer(X, (Z,)), plain(X, (Z,)))


def test_export_folds_what_depends_on_weights_alone():
    layer, known = made(), tf.Variable(normal(3, KNOWN, seed=5))
    of_scenario = exported(lambda x: layer(x, (known,), 1), X)
    assert_near(of_scenario(X), layer(X, (known,), 1))
    assert [weight.name for weight in weights_read(of_scenario, layer)] == [layer.bias.name]
    of_rows = exported(lambda x, z: layer(x, (z,)), X, Z)
    assert_near(of_rows(X, Z), layer(X, (Z,)))
    assert not any("down" in weight.name or "up" in weight.name for weight in weights_read(of_rows, layer))
    before = of_scenario(X)
    for weight in (known, *layer._down, *layer._up):
        weight.assign(tf.fill(weight.shape, np.nan))
    np.testing.assert_array_equal(of_scenario(X), before)


@pytest.mark.parametrize("condition", ["rows", "scenarios"])
def test_no_row_has_anything_larger_than_its_core(condition):
    rows, width, units, rank = 97, 20, 24, 4
    layer, x = DynamicDense(units, rank, 6, (7,)), normal(rows, width)
    if condition == "rows":
        largest = largest_tensor(lambda x: layer(x, (x,)), x)
    else:
        known = tf.Variable(normal(3, KNOWN))
        largest = largest_tensor(lambda x: layer(x, (known,), tf.range(rows) % 3), x)
    assert largest <= rows * max(rank * rank, width, units)


@pytest.mark.parametrize(("rank", "overparameter"), [(8, None), (8, 64), (2, 16)])
def test_starts_with_the_variance_of_a_glorot_layer(rank, overparameter):
    keras.utils.set_random_seed(0)
    results = []
    for _ in range(4):
        layer = DynamicDense(256, rank, overparameter, (64, 32))
        results.append(layer(normal(200, 128), (normal(200, 8, seed=1),)))
    assert 0.7 < np.var(results) / (2 * 128 / (128 + 256)) < 1.4


def test_starts_near_the_identity_with_the_conditions_a_little_apart():
    keras.utils.set_random_seed(0)
    layer = DynamicDense(32, 8, 64, (64, 32))
    layer(normal(2, 16), (normal(2, 8),))
    cores = layer.cores((normal(100, 8),)).numpy()
    assert np.abs(cores - np.eye(8)).max() < 0.5
    assert 0.005 < np.std(cores - cores.mean(0)) < 0.1


@pytest.mark.parametrize("overparameter", [None, 3])
def test_every_weight_learns(overparameter):
    layer, known = made(overparameter=overparameter), tf.Variable(Z[:3])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.square(layer(X, (known,), SCENARIO)))
    for gradient in tape.gradient(total, [*layer.trainable_weights, known]):
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0


def test_config():
    check_config(made(activation="relu", kernel_regularizer=keras.regularizers.L2(0.1)))


def test_refuses():
    with pytest.raises(ValueError, match=r"at least 1. Received: 4, 2, 0, \(\)"):
        DynamicDense(4, 2, 0)
