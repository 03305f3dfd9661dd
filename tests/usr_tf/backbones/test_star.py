import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.usr_tf.backbones.common import (
    BATCH,
    CANDIDATES,
    REQUESTS,
    SIZES,
    arrays,
    assert_same,
    built,
    check_oracle,
    parts,
    relu,
    scenarios_of,
    tower,
)
from tests.usr_tf.fixtures import random_rows, sizes_of, small_config, toy_schema
from usr_tf.backbones.star import STAR
from usr_tf.model import USRModel

X = np.concatenate([REQUESTS, CANDIDATES], 1).astype(float)


def star_oracle(backbone: STAR, x: np.ndarray, scenarios: np.ndarray, by_batch: bool = False):
    norm, tasks = backbone._normalization, range(backbone.tasks)
    gamma, beta, own_gamma, own_beta = (weight.numpy().astype(float) for weight in norm.trainable_weights)
    auxiliary = [array for dense in backbone._auxiliary for array in arrays(dense)]
    last, last_bias = arrays(backbone._auxiliary_logit)

    def normalized(row, rows, moving, index):
        mean, variance = (rows.mean(0), rows.var(0)) if by_batch else (array.numpy()[index] for array in moving[1:])
        return (row - mean) / np.sqrt(variance + norm.epsilon)

    def through(row, t, p=None):
        for network, task in ((backbone._network, ()), (backbone._towers, (t,))):
            center, factors = ([w.numpy().astype(float) for w in ws] for ws in (network._center, network._factors))
            if p is not None:
                center[::2] = [kernel * factor[p] for kernel, factor in zip(center[::2], factors[::2], strict=True)]
                center[1::2] = [bias + own[p] for bias, own in zip(center[1::2], factors[1::2], strict=True)]
            row = tower(center, task, row)
        return row

    own, shared, logits = [], [], []
    for row, p in zip(x, scenarios, strict=True):
        z = gamma * own_gamma[p] * normalized(row, x[scenarios == p], norm.scenario_moving, p) + beta + own_beta[p]
        own.append([through(z, t, p) for t in tasks])
        z = gamma * normalized(row, x, norm.moving, ...) + beta
        shared.append([through(z, t) for t in tasks])
        hidden = np.concatenate([backbone._embedding[p], row])
        for kernel, bias in zip(auxiliary[::2], auxiliary[1::2], strict=True):
            hidden = relu(hidden @ kernel + bias)
        logits.append(hidden @ last + last_bias)
    return np.array(own), np.array(shared), np.array(logits)


@pytest.mark.parametrize(("scenarios", "tasks"), [(3, 2), (1, 1), (2, 3)])
def test_equals_the_oracle(scenarios, tasks):
    check_oracle("star", star_oracle, scenarios, tasks)


@pytest.mark.parametrize(("scenarios", "tasks"), [(3, 2), (1, 1), (2, 3)])
def test_equals_the_oracle_in_training(scenarios, tasks):
    star, own = built("star", scenarios, tasks), scenarios_of(scenarios)
    expected = star_oracle(star, X, own.numpy(), by_batch=True)
    assert min(np.abs(part).max() for part in expected) > 0.1
    assert_same(star(REQUESTS, CANDIDATES, own, training=True), expected, rtol=1e-4, atol=1e-4)


def test_a_new_star_is_an_mlp_on_the_input_normalised_by_scenario():
    star, own = STAR(2, 1, use_shared=False, **SIZES["star"]), scenarios_of(2)
    result = star(REQUESTS, CANDIDATES, own, training=True)
    z = np.empty_like(X)
    for p in range(2):
        rows = X[own == p]
        z[own == p] = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-3)
    layers = [keras.layers.Dense(size, "relu") for size in (7, 5, 4, 3)]
    mlp = keras.Sequential(layers)
    mlp.build([None, 7])
    weights = [weight.numpy() for weight in (*star._network._center, *star._towers._center)]
    mlp.set_weights([array.reshape(weight.shape) for array, weight in zip(weights, mlp.weights, strict=True)])
    np.testing.assert_allclose(result.scenario[:, 0], mlp(z), rtol=1e-4, atol=1e-5)


def test_training_moves_the_statistics_and_inference_reads_them():
    star, own = built("star"), scenarios_of(3)
    before = star(REQUESTS, CANDIDATES, own)
    statistics = [weight.numpy() for weight in star.non_trainable_weights]
    star(REQUESTS, CANDIDATES, own)
    assert_same(star.non_trainable_weights, statistics, rtol=0, atol=0)
    trained = star(REQUESTS, CANDIDATES, own, training=True)
    assert np.abs(trained.scenario - before.scenario).max() > 0.1
    assert np.abs(trained.shared - before.shared).max() > 0.1
    after = star(REQUESTS, CANDIDATES, own)
    assert np.abs(after.scenario - before.scenario).max() > 0.01
    assert np.abs(after.shared - before.shared).max() > 0.01


def test_permuting_a_training_batch_permutes_the_outputs():
    order = [4, 2, 0, 5, 1, 3]
    whole = built("star")(REQUESTS, CANDIDATES, scenarios_of(3), training=True)
    permuted = built("star")(
        *(tf.gather(value, order) for value in (REQUESTS, CANDIDATES, scenarios_of(3))), training=True
    )
    assert_same(permuted, [tf.gather(part, order) for part in whole], rtol=1e-4)


@pytest.mark.parametrize("rows", [0, 1, BATCH])
def test_training_on_one_scenario_few_rows_or_none_gives_no_nan(rows):
    star = built("star")
    others = np.arange(3) != 1
    before = [statistic.numpy()[others] for statistic in star._normalization.scenario_moving]
    with tf.GradientTape() as tape:
        result = parts(star(REQUESTS[:rows], CANDIDATES[:rows], tf.fill([rows], 1), training=True))
        total = tf.add_n([tf.reduce_sum(part**2) for part in result])
    for gradient in tape.gradient(total, star.trainable_weights):
        assert np.isfinite(tf.convert_to_tensor(gradient)).all()
    assert all(np.isfinite(weight).all() for weight in star.weights)
    for statistic, kept in zip(star._normalization.scenario_moving, before, strict=True):
        np.testing.assert_array_equal(statistic.numpy()[others], kept)


def test_the_auxiliary_network_reads_the_scenario_and_its_logit_may_be_negative():
    star = built("star")
    logits = [star(REQUESTS, CANDIDATES, p).scenario_logit for p in range(3)]
    assert min(np.abs(logits[a] - logits[b]).max() for a, b in ((0, 1), (0, 2), (1, 2))) > 0.01
    assert np.min(logits) < 0 < np.max(logits)


def test_a_checkpoint_holds_every_variable(tmp_path):
    star, other = built("star"), built("star")
    star(REQUESTS, CANDIDATES, scenarios_of(3), training=True)
    path = tf.train.Checkpoint(backbone=star).save(str(tmp_path / "weights"))
    for weight in other.weights:
        weight.assign(tf.zeros_like(weight))
    tf.train.Checkpoint(backbone=other).restore(path).assert_consumed()
    for weight, original in zip(other.weights, star.weights, strict=True):
        np.testing.assert_array_equal(weight, original)


def test_the_model_adds_the_auxiliary_logit_to_the_scenarios_own():
    schema = toy_schema()
    model = USRModel(schema, sizes_of(schema), small_config(backbone="star", usr={"ie": False, "contrastive": False}))
    features, _ = random_rows(schema, 8)
    before = model(features)
    model.backbone._auxiliary_logit.bias.assign([0.5, -1.0])
    after = model(features)

    def logits(p, task):
        own = p[task] / p[f"global_{task}"]  # σ(b_t)
        return np.log(own / (1 - own))

    np.testing.assert_allclose(logits(after, "ctr") - logits(before, "ctr"), 0.5, rtol=1e-3)
    np.testing.assert_allclose(logits(after, "ctcvr") - logits(before, "ctcvr"), -1.0, rtol=1e-3)
    np.testing.assert_array_equal(after["global_ctr"], before["global_ctr"])


def test_refuses():
    with pytest.raises(ValueError, match=r"at least one layer. Received: \(\)"):
        STAR(2, 2, **{**SIZES["star"], "network": ()})
    with pytest.raises(ValueError, match=r"`scenario_embedding` must be at least 1. Received: 0"):
        STAR(2, 2, **{**SIZES["star"], "scenario_embedding": 0})
