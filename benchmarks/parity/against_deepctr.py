"""Parity with `deepctr`: SharedBottom, MMoE, PLE and ESMM.

Its multi-task networks know no scenarios: each of our outputs, of a scenario and a task, is a task of theirs.

What copied weights do not show: `deepctr` draws every expert and every tower from one fixed seed (`DNN` of
`deepctr/layers/core.py`), so that they are born identical. Its gates have no bias, and ours is zero here.
"""

import usr_tf  # noqa: F401  (before TensorFlow)
from benchmarks.parity import offline_deepctr  # noqa: F401  (before deepctr)

# isort: split
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf
import tf_keras as keras
from deepctr.feature_column import DenseFeat
from deepctr.layers import DNN, PredictionLayer
from deepctr.models import ESMM, MMOE, PLE, SharedBottom

from benchmarks.parity.comparison import (
    BACKBONE_OUTPUT,
    INPUTS,
    OUTPUTS,
    PLE_SIZES,
    SCENARIO,
    SCENARIO_OUTPUT,
    SCENARIOS,
    TASKS,
    Array,
    Comparison,
    Network,
    backbone_output,
    build_backbone,
    networks,
    own_and_shared,
    own_scenario,
    with_random_weights,
)
from usr_tf.backbones.base import Towers
from usr_tf.layers.global_label import GlobalLabelHeads

_FEATURES = [DenseFeat("inputs", INPUTS.shape[1])]


def shared_bottom() -> tuple[Array, Array]:
    ours = build_backbone("shared_bottom", bottom=(16, 12), tower=(10, 8))
    theirs = SharedBottom(_FEATURES, bottom_dnn_hidden_units=(16, 12), **_tasks(OUTPUTS))
    (bottom,) = networks([weight for layer in (ours._first, *ours._rest) for weight in layer.weights])
    _set(theirs.layers[[type(layer) for layer in theirs.layers].index(DNN)], bottom)
    return backbone_output(ours), _output(theirs, ours._scenario_towers, ours._shared_towers)


def mmoe() -> tuple[Array, Array]:
    ours = build_backbone("mmoe", experts=4, expert=(16, 12), tower=(10, 8))
    theirs = MMOE(_FEATURES, num_experts=4, expert_dnn_hidden_units=(16, 12), **_tasks(OUTPUTS))
    for expert, network in enumerate(networks(ours._experts.weights)):
        _set(theirs.get_layer(f"expert_{expert}"), network)
    _set_gates(theirs, "gate_softmax_{}", ours._scenario_gates.weights, ours._shared_gates.weights)
    return backbone_output(ours), _output(theirs, ours._scenario_towers, ours._shared_towers)


def ple() -> tuple[Array, Array]:
    """Of the scenarios alone: each task of theirs has experts of its own, as no shared part has."""
    ours = build_backbone("ple", use_shared=False, **PLE_SIZES)
    theirs = PLE(_FEATURES, 3, 2, 2, expert_dnn_hidden_units=(16, 12), **_tasks(SCENARIOS * TASKS))
    for number, level in enumerate((*ours._levels, ours._last_level)):
        prefix, gates, experts = f"level_{number}", level._own[:2], level._own[2:]
        for expert, network in enumerate(networks(level._shared.weights)):
            _set(theirs.get_layer(f"{prefix}_expert_shared_{expert}"), network)
        for expert, network in enumerate(networks(experts)):
            _set(theirs.get_layer(f"{prefix}_task_{expert // 2}_expert_specific_{expert % 2}"), network)
        _set_gates(theirs, prefix + "_gate_softmax_specific_{}", gates)
    _set_gates(theirs, "level_0_gate_softmax_shared", ours._levels[0]._shared_gate.weights)
    return backbone_output(ours), _output(theirs, ours._scenario_towers)


def esmm() -> tuple[Array, Array]:
    """Heads without global labels: from a click to a purchase, in each scenario a network of theirs."""
    towers, heads = Towers((16, 12), 2, SCENARIOS), GlobalLabelHeads(2, SCENARIOS, use_global=False)
    ours = with_random_weights(lambda: heads(towers(INPUTS, SCENARIO), None, SCENARIO).scenario, towers, heads)
    kernel, bias = (weight.numpy() for weight in heads.weights)
    theirs = [
        _esmm_output(networks(towers.weights)[2 * p : 2 * p + 2], zip(kernel[p], bias[p], strict=True))
        for p in range(SCENARIOS)
    ]
    return np.exp(ours), own_scenario(np.stack(theirs, axis=1))


def global_labels() -> tuple[Array, Array]:
    """Heads of one task: from its global label to a scenario's, which is the same step as from click to purchase."""
    towers, shared, heads = Towers((16, 12), 1, SCENARIOS), Towers((16, 12), 1), GlobalLabelHeads(1, SCENARIOS)
    ours = with_random_weights(lambda: heads(towers(INPUTS, SCENARIO), shared(INPUTS), SCENARIO), towers, shared, heads)
    kernel, bias, global_kernel, global_bias = (weight.numpy() for weight in heads.weights)
    theirs = [
        _esmm_output(
            networks(shared.weights) + networks(towers.weights)[p : p + 1],
            [(global_kernel[0], global_bias[0]), (kernel[p, 0], bias[p, 0])],
        )
        for p in range(SCENARIOS)
    ]
    return np.exp(tf.concat([ours.shared, ours.scenario], axis=1)), own_scenario(np.stack(theirs, axis=1))


def _esmm_output(towers: Iterable[Network], heads: Iterable[tuple[Array, Array]]) -> Array:
    """Probabilities `[B, 2]` of their ESMM with the tower, and the kernel `[h]` and bias of the head, of each task."""
    theirs = ESMM(_FEATURES, tower_dnn_hidden_units=(16, 12))
    kinds = (DNN, keras.layers.Dense, PredictionLayer)
    layers = zip(*([layer for layer in theirs.layers if isinstance(layer, kind)] for kind in kinds), strict=True)
    for (network, logit, probability), tower, (kernel, bias) in zip(layers, towers, heads, strict=True):
        _set(network, tower)
        logit.set_weights([kernel[:, np.newaxis]])
        probability.set_weights([bias[np.newaxis]])
    return np.concatenate(theirs(INPUTS), axis=1)


def _tasks(number: int) -> dict:
    """The options for so many tasks, named 0, 1, …"""
    names = [str(task) for task in range(number)]
    return {"tower_dnn_hidden_units": (10, 8), "task_names": names, "task_types": ["binary"] * number}


def _output(theirs: keras.Model, *towers: keras.layers.Layer) -> Array:
    """The last hidden layers of theirs, once its towers have the weights of ours."""
    ours = networks(*(stack.weights for stack in towers))
    layers = [theirs.get_layer(f"tower_{task}") for task in range(len(ours))]
    for layer, network in zip(layers, ours, strict=True):
        _set(layer, network)
    hidden = keras.Model(theirs.inputs, [layer.output for layer in layers])
    return own_and_shared(np.stack(hidden(INPUTS), axis=1))


def _set(theirs: DNN, network: Network) -> None:
    kernels, biases = zip(*network, strict=True)
    theirs.set_weights([*kernels, *biases])


def _set_gates(theirs: keras.Model, name: str, *gates: Sequence[tf.Variable]) -> None:
    """Theirs have no bias: those of ours are set to zero."""
    for _, bias in gates:
        bias.assign(tf.zeros_like(bias))
    for task, [(kernel, _)] in enumerate(networks(*gates)):
        theirs.get_layer(name.format(task)).set_weights([kernel])


_NO_BIAS = "gates without bias"
COMPARISONS = [
    Comparison("SharedBottom", BACKBONE_OUTPUT, shared_bottom),
    Comparison("MMoE", f"{BACKBONE_OUTPUT}; {_NO_BIAS}", mmoe),
    Comparison("PLE", f"{SCENARIO_OUTPUT}; {_NO_BIAS}", ple),
    Comparison("ESMM chain", "probabilities of 2 tasks", esmm),
    Comparison("GLMT chain", "probabilities of a global and a scenario label", global_labels),
]
