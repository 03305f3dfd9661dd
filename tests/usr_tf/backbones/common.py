"""Common parts of the backbone tests: small backbones with random weights, and a tower in NumPy."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from usr_tf.backbones import BACKBONES, Backbone

BATCH, REQUEST, CANDIDATE = 6, 3, 4
SIZES = {
    "shared_bottom": {"bottom": (7, 5), "tower": (4, 3)},
    "mmoe": {"experts": 3, "expert": (7, 5), "tower": (4, 3)},
    "ple": {"levels": 2, "specific_experts": 1, "shared_experts": 2, "expert": (7, 5), "tower": (4, 3)},
    "star": {"network": (7, 5), "tower": (4, 3), "auxiliary": (4,), "scenario_embedding": 2},
    "m2m": {
        "experts": 3,
        "expert": (7, 3),
        "scenario_embedding": 2,
        "task_embedding": 4,
        "unit_depth": 1,
        "tower_depth": 1,
    },
    "apg": {
        "bottom": (7, 5),
        "tower": (4, 3),
        "condition": "group",
        "scenario_embedding": 2,
        "rank": 2,
        "overparameter": 4,
        "generator": (4,),
    },
    "pepnet": {"scenario_embedding": 2, "gate_hidden": 4, "tower": (4, 3)},
}


def normal(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


REQUESTS, CANDIDATES = normal(BATCH, REQUEST), normal(BATCH, CANDIDATE, seed=1)


def scenarios_of(number: int) -> tf.Tensor:
    return tf.constant([2, 0, 1, 1, 0, 2]) % number


def built(name: str, scenarios: int = 3, tasks: int = 2, use_shared: bool = True, **options) -> Backbone:
    backbone = BACKBONES[name](scenarios, tasks, use_shared, **{**SIZES[name], **options})
    backbone(REQUESTS, CANDIDATES, 0)
    for seed, weight in enumerate(backbone.weights):  # no bias at zero, where one gone astray would not show
        values = normal(*weight.shape, seed=seed + 10) * 0.6
        weight.assign(values if weight.trainable else tf.abs(values))  # statistics: a variance is not negative
    return backbone


def parts(output) -> list:
    """Outputs of a backbone that are not None."""
    return [part for part in output if part is not None]


def assert_same(one, other, rtol=1e-5, atol=1e-5):
    for left, right in zip(parts(one), parts(other), strict=True):
        np.testing.assert_allclose(left, right, rtol=rtol, atol=atol)


# For the oracles: NumPy, row by row and task by task.


def relu(x):
    return np.maximum(x, 0)


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def arrays(layer) -> list[np.ndarray]:
    return [weight.numpy().astype(float) for weight in layer.weights]


def tower(weights: list[np.ndarray], index: tuple[int, ...], x: np.ndarray) -> np.ndarray:
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        x = relu(x @ kernel[index] + bias[index])
    return x


def check_oracle(name: str, oracle: Callable, scenarios: int, tasks: int, **options) -> None:
    """The backbone equals `oracle(backbone, x [B, d], scenarios [B])`, its `(scenario, shared)`, and `scenario_logit`
    where it has one."""
    backbone = built(name, scenarios, tasks, **options)
    result = backbone(REQUESTS, CANDIDATES, scenarios_of(scenarios))
    x = np.concatenate([REQUESTS, CANDIDATES], 1).astype(float)
    expected = oracle(backbone, x, scenarios_of(scenarios).numpy())
    assert min(np.abs(part).max() for part in expected) > 0.1  # something to compare
    assert_same(result, expected)
