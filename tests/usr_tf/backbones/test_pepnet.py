import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf

from tests.usr_tf.backbones.common import (
    CANDIDATES,
    REQUESTS,
    arrays,
    assert_same,
    built,
    check_oracle,
    parts,
    relu,
    scenarios_of,
    tower,
)
from tests.usr_tf.saved import check_config
from usr_tf.backbones.pepnet import PEPNet, PPNet


def gate_oracle(weights: list[np.ndarray], condition: np.ndarray) -> np.ndarray:
    w1, b1, w2, b2 = weights
    return 2 / (1 + np.exp(-(relu(condition @ w1 + b1) @ w2 + b2)))


def ppnet_oracle(ppnet: PPNet, prior: np.ndarray, x: np.ndarray) -> np.ndarray:
    hidden, condition = np.stack([x] * ppnet.tasks), np.concatenate([prior, x])
    for dense, gate in zip(ppnet._dense, ppnet._gates, strict=True):
        kernel, bias = arrays(dense)
        gates = np.split(gate_oracle(arrays(gate), condition), ppnet.tasks)
        hidden = np.stack([relu(hidden[t] @ kernel[t] + bias[t]) * gates[t] for t in range(ppnet.tasks)])
    return hidden


def pepnet_oracle(backbone: PEPNet, x: np.ndarray, scenarios: np.ndarray):
    vectors, (any_scenario,) = backbone._embedding.numpy(), backbone._any_embedding.numpy()
    own, shared = [], []
    for row, p in zip(x, scenarios, strict=True):
        for ppnet, vector, outputs in (
            (backbone._scenario_ppnet, vectors[p], own),
            (backbone._shared_ppnet, any_scenario, shared),
        ):
            gated = row * gate_oracle(arrays(backbone._epnet), np.concatenate([vector, row]))
            outputs.append(ppnet_oracle(ppnet, row, gated))
    return np.array(own), np.array(shared)


@pytest.mark.parametrize(("scenarios", "tasks"), [(3, 2), (1, 1), (2, 3)])
def test_equals_the_oracle(scenarios, tasks):
    check_oracle("pepnet", pepnet_oracle, scenarios, tasks)


def test_with_open_gates_it_is_a_tower_for_each_task():
    backbone = built("pepnet")
    for gate in (backbone._epnet, *backbone._scenario_ppnet._gates):
        for weight in gate._gate.weights:
            weight.assign(tf.zeros_like(weight))
    towers = [array for dense in backbone._scenario_ppnet._dense for array in arrays(dense)]
    x = np.concatenate([REQUESTS, CANDIDATES], 1)
    expected = np.array([[tower(towers, (t,), row) for t in range(2)] for row in x])
    assert_same([backbone(REQUESTS, CANDIDATES, scenarios_of(3)).scenario], [expected])


def test_the_scenarios_differ_in_their_vectors_alone():
    backbone = built("pepnet")
    backbone._embedding.assign(tf.repeat(backbone._any_embedding, 3, 0))
    for own, shared in zip(backbone._scenario_ppnet.weights, backbone._shared_ppnet.weights, strict=True):
        own.assign(shared)
    result = backbone(REQUESTS, CANDIDATES, scenarios_of(3))
    assert_same([result.scenario], [result.shared])


def test_no_gate_passes_a_gradient_to_the_input():
    """With its gates held, a ReLU network without biases is homogeneous in x: `x · ∂y/∂x = y` (Euler)."""
    backbone = built("pepnet")
    for ppnet in (backbone._scenario_ppnet, backbone._shared_ppnet):
        for dense in ppnet._dense:
            dense.bias.assign(tf.zeros_like(dense.bias))
    x = tf.concat([REQUESTS, CANDIDATES], 1)
    with tf.GradientTape() as tape:
        tape.watch(x)
        result = tf.concat(parts(backbone(x[:, :3], x[:, 3:], scenarios_of(3))), -1)
        y = tf.reduce_sum(result, [1, 2])
    np.testing.assert_allclose(tf.reduce_sum(x * tape.gradient(y, x), 1), y, rtol=1e-4)


def test_refuses():
    with pytest.raises(ValueError, match=r"at least one layer. Received: \(\)"):
        PEPNet(2, 2, scenario_embedding=2, gate_hidden=4, tower=())
    with pytest.raises(ValueError, match=r"at least 1. Received: 0"):
        PEPNet(2, 2, scenario_embedding=0, gate_hidden=4, tower=(4,))
    with pytest.raises(ValueError, match=r"from 0 to 2. Received: 3"):
        built("pepnet")(REQUESTS, CANDIDATES, 3)


def test_ppnet_has_a_configuration():
    check_config(built("pepnet", l2=0.1)._scenario_ppnet)
