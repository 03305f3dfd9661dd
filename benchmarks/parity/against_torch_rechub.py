"""Parity with `torch-rechub` (PyTorch): SharedBottom, MMoE, PLE.

Its multi-task networks know no scenarios: each of our outputs, of a scenario and a task, is a task of theirs. Each of
its dense layers, gates too, has batch normalisation, which ours have not; here its statistics make it the identity.
"""

import usr_tf  # noqa: F401  (before TensorFlow)

# isort: split
from collections.abc import Iterable

import tf_keras as keras
import torch
from torch import nn
from torch_rechub.basic.features import DenseFeature
from torch_rechub.basic.layers import MLP
from torch_rechub.models.multi_task import MMOE, PLE, SharedBottom

from benchmarks.parity.comparison import (
    BACKBONE_OUTPUT,
    INPUTS,
    OUTPUTS,
    PLE_SIZES,
    ROWS,
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
)

_FEATURES = [DenseFeature("inputs", embed_dim=INPUTS.shape[1])]


def shared_bottom() -> tuple[Array, Array]:
    ours = build_backbone("shared_bottom", bottom=(16, 12), tower=(10, 8))
    theirs = SharedBottom(_FEATURES, bottom_params={"dims": [16, 12]}, **_tasks(OUTPUTS))
    bottom = [weight for layer in (ours._first, *ours._rest) for weight in layer.weights]
    _set([theirs.bottom_mlp], networks(bottom))
    return backbone_output(ours), _output(theirs, ours._scenario_towers, ours._shared_towers)


def mmoe() -> tuple[Array, Array]:
    ours = build_backbone("mmoe", experts=4, expert=(16, 12), tower=(10, 8))
    theirs = MMOE(_FEATURES, n_expert=4, expert_params={"dims": [16, 12]}, **_tasks(OUTPUTS))
    _set(theirs.experts, networks(ours._experts.weights))
    _set(theirs.gates, networks(ours._scenario_gates.weights, ours._shared_gates.weights))
    return backbone_output(ours), _output(theirs, ours._scenario_towers, ours._shared_towers)


def ple() -> tuple[Array, Array]:
    """Of the scenarios alone: each task of theirs has experts of its own, as no shared part has."""
    ours = build_backbone("ple", use_shared=False, **PLE_SIZES)
    theirs = PLE(
        _FEATURES,
        n_level=2,
        n_expert_specific=2,
        n_expert_shared=3,
        expert_params={"dims": [16, 12]},
        **_tasks(SCENARIOS * TASKS),
    )
    for cgc, level in zip(theirs.cgc_layers, (*ours._levels, ours._last_level), strict=True):
        _set(cgc.experts_shared, networks(level._shared.weights))
        _set(cgc.gates_specific, networks(level._own[:2]))
        _set(cgc.experts_specific, networks(level._own[2:]))
    _set([theirs.cgc_layers[0].gate_shared], networks(ours._levels[0]._shared_gate.weights))
    return backbone_output(ours), _output(theirs, ours._scenario_towers)


def _tasks(number: int) -> dict:
    """The options for so many tasks, whose output is that of the tower."""
    return {
        "task_types": ["regression"] * number,
        "tower_params_list": [{"dims": [10, 8], "output_layer": False}] * number,
    }


def _output(theirs: nn.Module, *towers: keras.layers.Layer) -> Array:
    """The last hidden layers of theirs, once its towers have the weights of ours."""
    _set(theirs.towers, networks(*(stack.weights for stack in towers)))
    with torch.no_grad():
        output = theirs.eval()({"inputs": torch.from_numpy(INPUTS)})
    return own_and_shared(output.numpy().reshape(ROWS, len(theirs.towers), -1))


def _set(theirs: Iterable[MLP], ours: Iterable[Network]) -> None:
    for mlp, network in zip(theirs, ours, strict=True):
        linear = [layer for layer in mlp.modules() if isinstance(layer, nn.Linear)]
        for layer, (kernel, bias) in zip(linear, network, strict=True):
            layer.weight.data, layer.bias.data = torch.from_numpy(kernel.T), torch.from_numpy(bias)
        for layer in mlp.modules():
            if isinstance(layer, nn.BatchNorm1d):
                layer.running_var.fill_(1 - layer.eps)  # and the mean is 0: the identity


COMPARISONS = [
    Comparison("SharedBottom", BACKBONE_OUTPUT, shared_bottom),
    Comparison("MMoE", BACKBONE_OUTPUT, mmoe),
    Comparison("PLE", SCENARIO_OUTPUT, ple),
]
