"""Benchmark of scenario routing on parts of a training step, forward and backward.

python -m benchmarks.routing [--against every | sorted | padded] [--out FILE]

*routed* is the library's way (`usr_tf.layers.scenario.route`): rows parted by scenario, a product for each, and put
back. The other way runs in turn with it:

- *every*: all scenarios computed for every row and the row's own kept, layer by layer;
- *chosen*: the same for one narrow layer on a shared input, all scenarios' outputs in one product, and the row's own
  by a product with 0 and 1: the library's way for gates (`usr_tf.layers.dense.ScenarioDense`);
- *sorted*: rows sorted by scenario, split, and sorted back;
- *padded*: as many places for each scenario as the commonest one has rows, and one batched product a layer.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import usr_tf  # noqa: F401  (before TensorFlow)

# isort: split
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from benchmarks.alternate import alternate
from usr_tf.layers.dense import affine, relu_network
from usr_tf.layers.scenario import apply_own_weights

TASKS = 2
PARTS = {
    "tower 128→64": ([128, 64], False),
    "tower 256→128→64": ([256, 128, 64], False),
    "gate 300→4": ([300, 4], False),
    "gate 300→8": ([300, 8], False),
    "head 64→1": ([64, 1], True),
}
"""Widths of the input and of each layer, and whether each task reads an input of its own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", choices=WAYS, default="every")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rows", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--scenarios", type=int, nargs="+", default=[1, 2, 3, 5, 10])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1, help="of TensorFlow")
    parser.add_argument("--out", help="file to write the figures to")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)

    ways = {arguments.against: WAYS[arguments.against], "routed": routed}
    table = Table("part", "rows", "K", *(f"{way} ms" for way in ways), "ratio", "p10", "p90")
    cells = []
    for name, rows, scenarios in itertools.product(arguments.parts, arguments.rows, arguments.scenarios):
        figures = alternate(_steps(ways, *PARTS[name], rows, scenarios), arguments.repeats)
        cells.append({"part": name, "rows": rows, "scenarios": scenarios, **figures})
        milliseconds = [f"{figures['milliseconds'][way]['p50']:.1f}" for way in ways]
        ratios = [f"{figures['ratio'][percentile]:.2f}" for percentile in ("p50", "p10", "p90")]
        table.add_row(name, f"{rows:,}", str(scenarios), *milliseconds, *ratios)
    Console().print(table)
    if arguments.out:
        document = {"threads": arguments.threads, "against": arguments.against, "tasks": TASKS, "cells": cells}
        Path(arguments.out).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def routed(inputs: tf.Tensor, weights: list[tf.Variable], scenario: tf.Tensor) -> tf.Tensor:
    return apply_own_weights(relu_network, inputs, weights, scenario)


def every(inputs: tf.Tensor, weights: list[tf.Variable], scenario: tf.Tensor) -> tf.Tensor:
    hidden = inputs
    for kernel, bias in _layers(weights):
        if len(hidden.shape) == 2:  # one product of two matrices
            results = tf.einsum("bi,ktiu->bktu", hidden, kernel)
        else:
            results = tf.transpose(tf.matmul(tf.transpose(hidden, [1, 0, 2]), kernel), [2, 0, 1, 3])
        hidden = tf.nn.relu(tf.gather(results + bias, scenario, axis=1, batch_dims=1))
    return hidden


def chosen(inputs: tf.Tensor, weights: list[tf.Variable], scenario: tf.Tensor) -> tf.Tensor:
    (kernel, bias), *further = _layers(weights)
    if further or len(inputs.shape) > 2:
        raise SystemExit("--against chosen: found a part of more than a layer, expected --parts with gates alone")
    stack = kernel.shape[0] * kernel.shape[1]
    flat = tf.reshape(kernel, [stack, *kernel.shape[2:]]), tf.reshape(bias, [stack, bias.shape[2]])
    every = tf.reshape(affine(inputs, *flat), [-1, *bias.shape])
    own = tf.one_hot(scenario, len(kernel))[:, :, tf.newaxis, tf.newaxis]
    return tf.nn.relu(tf.reduce_sum(every * own, axis=1))


def in_order(inputs: tf.Tensor, weights: list[tf.Variable], scenario: tf.Tensor) -> tf.Tensor:
    order, back = _orders(scenario)
    counts = tf.math.bincount(scenario, minlength=len(weights[0]))
    segments = tf.split(_permute(inputs, order, back), counts, num=len(weights[0]))
    own = zip(*(tf.unstack(weight) for weight in weights), strict=True)
    results = [relu_network(rows, *weights) for rows, weights in zip(segments, own, strict=True)]
    return _permute(tf.concat(results, axis=0), back, order)


def padded(inputs: tf.Tensor, weights: list[tf.Variable], scenario: tf.Tensor) -> tf.Tensor:
    scenarios = len(weights[0])
    _, back = _orders(scenario)
    counts = tf.math.bincount(scenario, minlength=scenarios)
    places = tf.reduce_max(counts)
    first = tf.gather(tf.cumsum(counts, exclusive=True), scenario)
    place = scenario * places + back - first  # [B], of each row
    if len(inputs.shape) == 2:
        inputs = inputs[:, tf.newaxis]
    shape = [scenarios * places, *inputs.shape[1:]]
    hidden = tf.transpose(
        tf.reshape(tf.scatter_nd(place[:, tf.newaxis], inputs, shape), [scenarios, places, *inputs.shape[1:]]),
        [0, 2, 1, 3],
    )  # [K, T or 1, places, width]
    for kernel, bias in _layers(weights):
        hidden = tf.nn.relu(tf.matmul(hidden, kernel) + bias[:, :, tf.newaxis])
    flat = tf.reshape(tf.transpose(hidden, [0, 2, 1, 3]), [-1, TASKS, hidden.shape[-1]])
    return tf.gather(flat, place)


WAYS = {"every": every, "chosen": chosen, "sorted": in_order, "padded": padded}


def _steps(
    ways: dict[str, Callable], widths: list[int], by_task: bool, rows: int, scenarios: int
) -> dict[str, Callable[[], np.ndarray]]:
    """Outputs and gradients of each implementation on the same rows, checked to be equal."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    inputs = tf.constant(normal(rows, TASKS, widths[0]) if by_task else normal(rows, widths[0]))
    scenario = tf.constant(rng.integers(scenarios, size=rows), tf.int32)
    weights = []
    for fan_in, fan_out in pairwise(widths):
        weights.append(tf.Variable(normal(scenarios, TASKS, fan_in, fan_out) / fan_in**0.5))
        weights.append(tf.Variable(normal(scenarios, TASKS, fan_out)))

    def step(way: Callable) -> Callable[[], np.ndarray]:
        @tf.function(input_signature=[tf.TensorSpec([None, *inputs.shape[1:]]), tf.TensorSpec([None], tf.int32)])
        def run(x: tf.Tensor, of: tf.Tensor) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(x)
                result = way(x, weights, of)
                total = tf.reduce_mean(tf.square(result))
            return [result, *tape.gradient(total, [x, *weights])]

        return lambda: [value.numpy() for value in run(inputs, scenario)]

    steps = {name: step(way) for name, way in ways.items()}
    for values in zip(*(run() for run in steps.values()), strict=True):
        np.testing.assert_allclose(*values, rtol=1e-3, atol=1e-4 * np.abs(values[0]).max())
    return steps


def _layers(parameters: list[tf.Tensor]) -> zip:
    return zip(parameters[::2], parameters[1::2], strict=True)


def _orders(scenario: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Sort order of the rows by scenario, and its inverse."""
    order = tf.argsort(scenario, stable=True)
    return order, tf.math.invert_permutation(order)


@tf.custom_gradient
def _permute(values: tf.Tensor, order: tf.Tensor, back: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Row permutation whose gradient is a permutation, not the scatter-add of a gather."""
    return tf.gather(values, order), lambda upstream: (tf.gather(upstream, back), None, None)


if __name__ == "__main__":
    main()
