import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
from functools import reduce

import numpy as np
import pytest
import tensorflow as tf

from tests.usr_tf.backbones.common import (
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
from tests.usr_tf.traced import exported, weights_read
from usr_tf.backbones.apg import APG
from usr_tf.backbones.shared_bottom import SharedBottom
from usr_tf.layers.dynamic_dense import DynamicDense

CONDITIONS = ["group", "mix", "self"]


def core_oracle(layer: DynamicDense, z: np.ndarray) -> np.ndarray:
    *hidden, last = layer._mlp
    for dense in hidden:
        z = tower(arrays(dense), (), z)
    kernel, bias = arrays(last)
    return (z @ kernel + bias).reshape(layer.rank, layer.rank)


def apg_oracle(backbone: APG, x: np.ndarray, scenarios: np.ndarray):
    own_towers, shared_towers = arrays(backbone._scenario_towers), arrays(backbone._shared_towers)

    def bottom(row, embedding):
        for layer in backbone._bottom:
            z = {"group": embedding, "mix": np.concatenate([embedding, row]), "self": row}[backbone.condition]
            factors = [*(factor.numpy() for factor in layer._down), core_oracle(layer, z)]
            factors += [factor.numpy() for factor in layer._up]
            row = relu(reduce(np.matmul, factors, row) + layer.bias.numpy())
        return row

    own, shared = [], []
    for row, p in zip(x, scenarios, strict=True):
        own_vector = any_vector = np.zeros(0)
        if backbone.condition != "self":
            own_vector, any_vector = backbone._embedding.numpy()[p], backbone._any_embedding.numpy()
        own.append([tower(own_towers, (p, t), bottom(row, own_vector)) for t in range(backbone.tasks)])
        shared.append([tower(shared_towers, (t,), bottom(row, any_vector)) for t in range(backbone.tasks)])
    return np.array(own), np.array(shared)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize(("scenarios", "tasks", "overparameter"), [(3, 2, 4), (1, 1, None)])
def test_equals_the_oracle(scenarios, tasks, overparameter, condition):
    check_oracle("apg", apg_oracle, scenarios, tasks, condition=condition, overparameter=overparameter)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_each_row_has_its_own_scenario_and_not_the_firsts(condition):
    backbone = built("apg", condition=condition)
    mixed = backbone(REQUESTS, CANDIDATES, scenarios_of(3)).scenario
    of = [backbone(REQUESTS, CANDIDATES, scenario).scenario for scenario in range(3)]
    assert_same(mixed, [of[scenario][row] for row, scenario in enumerate(scenarios_of(3).numpy())])


@pytest.mark.parametrize("condition", ["mix", "self"])
def test_one_request_equals_its_copies_under_every_condition(condition):
    backbone = built("apg", condition=condition)
    copies = tf.repeat(REQUESTS[:1], len(CANDIDATES), 0)
    for scenario in (1, scenarios_of(3)):
        assert_same(backbone(REQUESTS[:1], CANDIDATES, scenario), backbone(copies, CANDIDATES, scenario))


@pytest.mark.parametrize("condition", ["mix", "self"])
def test_rows_do_not_see_each_other_under_every_condition(condition):
    backbone = built("apg", condition=condition)
    whole = parts(backbone(REQUESTS, CANDIDATES, scenarios_of(3)))
    for row in range(len(CANDIDATES)):
        only = slice(row, row + 1)
        alone = backbone(REQUESTS[only], CANDIDATES[only], scenarios_of(3)[only])
        assert_same(alone, [part[only] for part in whole])


def bottoms(backbone: APG, scenario) -> np.ndarray:
    """Hidden layers without the towers."""
    return backbone._hidden((REQUESTS, CANDIDATES), backbone._embedding, scenario).numpy()


def test_the_condition_says_what_the_bottom_depends_on():
    for condition, differs in (("group", True), ("mix", True), ("self", False)):
        backbone = built("apg", condition=condition)
        assert (np.abs(bottoms(backbone, 0) - bottoms(backbone, 1)).max() > 0.01) == differs
        assert (backbone._embedding is not None) == differs
    layer = built("apg", condition="self")._bottom[1]
    cores = layer.cores((tf.random.stateless_normal([4, 7], seed=[1, 2]),)).numpy()
    assert all(np.abs(cores[a] - cores[b]).max() > 0.01 for a in range(4) for b in range(a))


@pytest.mark.parametrize("condition", ["group", "mix"])
def test_the_shared_bottom_is_that_of_a_scenario_with_the_same_vector(condition):
    backbone = built("apg", condition=condition, tower=())
    backbone._any_embedding.assign(backbone._embedding[2])
    result = backbone(REQUESTS, CANDIDATES, 2)
    assert_same([result.scenario], [result.shared])


def test_with_identity_cores_it_is_a_shared_bottom_of_low_rank_kernels():
    backbone = built("apg")
    twin = SharedBottom(3, 2, bottom=SIZES["apg"]["bottom"], tower=SIZES["apg"]["tower"])
    twin(REQUESTS, CANDIDATES, 0)
    for layer, dense in zip(backbone._bottom, [twin._first, *twin._rest], strict=True):
        layer._mlp[-1].kernel.assign(tf.zeros_like(layer._mlp[-1].kernel))
        layer._mlp[-1].bias.assign(tf.reshape(tf.eye(layer.rank), [-1]))
        dense.kernel.assign(tf.linalg.matmul(*layer._down) @ tf.linalg.matmul(*layer._up))
        dense.bias.assign(layer.bias)
    for name in ("_scenario_towers", "_shared_towers"):
        getattr(twin, name).set_weights(getattr(backbone, name).get_weights())
    assert_same(backbone(REQUESTS, CANDIDATES, scenarios_of(3)), twin(REQUESTS, CANDIDATES, scenarios_of(3)))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_export_folds_the_factors_and_what_a_scenario_generates(condition):
    backbone = built("apg", condition=condition)
    function = exported(lambda request, candidate: parts(backbone(request, candidate, 1)), REQUESTS, CANDIDATES)
    assert_same(function(REQUESTS[:1], CANDIDATES), backbone(REQUESTS[:1], CANDIDATES, 1))
    left = {weight.name for weight in weights_read(function, backbone)}
    assert not [name for name in left if "down_" in name or "up_" in name or "/scenario_embedding" in name]
    generators = {weight.name for layer in backbone._bottom for part in layer._mlp for weight in part.weights}
    assert bool(generators & left) == (condition != "group")


def test_refuses():
    with pytest.raises(ValueError, match=r"one of \('group', 'mix', 'self'\). Received: all"):
        built("apg", condition="all")
    with pytest.raises(ValueError, match=r"`bottom` must hold at least one layer"):
        built("apg", bottom=())
    with pytest.raises(ValueError, match=r"`scenario_embedding` must be at least 1. Received: 0"):
        built("apg", scenario_embedding=0)
