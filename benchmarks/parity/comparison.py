"""Common parts of the parity checks: inputs, random weights, construction and calls of our backbones."""

import usr_tf  # noqa: F401  (before TensorFlow)

# isort: split
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import tensorflow as tf
import tf_keras as keras
from numpy.typing import NDArray

from usr_tf.backbones import BACKBONES, Backbone

TOLERANCE = 1e-5
SCENARIOS, TASKS = 3, 2
ROWS, REQUEST, CANDIDATE = 64, 5, 7

Array = NDArray[np.float32]
Network = list[tuple[Array, Array]]
"""Kernel `[in, out]` and bias `[out]` of each dense layer, first layer first."""
Result = TypeVar("Result")


class Comparison(NamedTuple):
    """One of our parts and its counterpart in a public package."""

    part: str
    compared: str
    outputs: Callable[[], tuple[Array, Array]]
    """Ours and theirs: of one shape, of the same inputs and the same weights."""


INPUTS: Array = np.random.default_rng(0).normal(size=(ROWS, REQUEST + CANDIDATE)).astype(np.float32)
REQUESTS, CANDIDATES = INPUTS[:, :REQUEST], INPUTS[:, REQUEST:]
SCENARIO = np.random.default_rng(1).integers(SCENARIOS, size=ROWS).astype(np.int32)
"""Each row's: the batch is mixed."""

OUTPUTS = (SCENARIOS + 1) * TASKS
"""How many outputs a backbone has: a scenario's tasks after another's, then those of the shared part."""
BACKBONE_OUTPUT = "hidden layers, own scenario and shared"
SCENARIO_OUTPUT = "hidden layers, own scenario"

PLE_SIZES = {"levels": 2, "specific_experts": 2, "shared_experts": 3, "expert": (16, 12), "tower": (10, 8)}


def with_random_weights(call: Callable[[], Result], *layers: keras.layers.Layer) -> Result:
    """Output of `call` with random weights and biases; zero biases would hide errors."""
    call()
    generator = np.random.default_rng(2)
    for weight in (weight for layer in layers for weight in layer.weights):
        values = 0.3 * generator.normal(size=weight.shape)  # layers of about ten units then stay near 1
        weight.assign(np.abs(values) if "variance" in weight.name else values)
    return call()


def build_backbone(name: str, **sizes) -> Backbone:
    """Our backbone of that name, with random weights."""
    backbone = BACKBONES[name](SCENARIOS, TASKS, **sizes)
    with_random_weights(lambda: backbone_output(backbone), backbone)
    return backbone


def backbone_output(backbone: Backbone) -> Array:
    """`[B, 2 · TASKS, h]`: of each row's own scenario, then of the shared part; `[B, TASKS, h]` without it."""
    output = backbone(REQUESTS, CANDIDATES, SCENARIO)
    return np.concatenate([part for part in (output.scenario, output.shared) if part is not None], axis=1)


def own_and_shared(outputs: Array) -> Array:
    """The same out of the outputs of every scenario, `[B, OUTPUTS, h]`; `[B, SCENARIOS · TASKS, h]` without shared."""
    own, shared = np.split(outputs, [SCENARIOS * TASKS], axis=1)
    return np.concatenate([own_scenario(own.reshape(ROWS, SCENARIOS, TASKS, -1)), shared], axis=1)


def own_scenario(values: Array) -> Array:
    """Rows' own scenario outputs `[B, …]` from `[B, SCENARIOS, …]`."""
    return values[np.arange(ROWS), SCENARIO]


def networks(*stacks: Sequence[tf.Variable]) -> list[Network]:
    """Networks of one stack after another.

    A stack is its layers' kernels and biases in turn, all with the same axes before those of one network, or none.
    """
    found = []
    for stack in stacks:
        arrays = [weight.numpy() for weight in stack]
        for index in np.ndindex(arrays[0].shape[:-2]):
            network = [array[index] for array in arrays]
            found.append(list(zip(network[::2], network[1::2], strict=True)))
    return found
