"""Benchmark of expert layers: one product per expert (`ExpertStack`) against batched products.

python -m benchmarks.experts [--xla] [--out FILE]

A training step's part is forward and backward on as many requests as candidates, serving forward on one request.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import usr_tf  # noqa: F401  (before TensorFlow)

# isort: split
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from benchmarks.alternate import alternate
from usr_tf.layers import ExpertStack
from usr_tf.layers.dense import Split

REQUEST, CANDIDATE, UNITS = 180, 120, (256, 128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--rows", type=int, nargs="+", default=[512, 2048, 8192], help="of training batches")
    parser.add_argument("--items", type=int, nargs="+", default=[100, 500], help="of served requests")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1, help="of TensorFlow")
    parser.add_argument("--xla", action="store_true", help="compile both ways")
    parser.add_argument("--out", help="file to write the figures to")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)

    table = Table("", "rows", "experts", "batched ms", "one by one ms", "ratio", "p10", "p90")
    cells = []
    settings = [(True, rows) for rows in arguments.rows] + [(False, rows) for rows in arguments.items]
    for (training, rows), experts in itertools.product(settings, arguments.experts):
        figures = alternate(_steps(training, rows, experts, arguments.xla), arguments.repeats)
        cells.append({"training": training, "rows": rows, "experts": experts, **figures})
        milliseconds = [f"{values['p50']:.1f}" for values in figures["milliseconds"].values()]
        ratios = [f"{figures['ratio'][percentile]:.2f}" for percentile in ("p50", "p10", "p90")]
        name = "training" if training else "serving"
        table.add_row(name, f"{rows:,}", str(experts), *milliseconds, *ratios)
    Console().print(table)
    if arguments.out:
        document = {"threads": arguments.threads, "xla": arguments.xla, "cells": cells}
        Path(arguments.out).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def batched(layer: ExpertStack, inputs: Split) -> tf.Tensor:
    kernel, bias, *others = layer.weights
    parts = tf.split(kernel, [part.shape[-1] for part in inputs], axis=1)
    products = [tf.matmul(part, own) for part, own in zip(inputs, parts, strict=True)]  # [E, R, u] and [E, B, u]
    hidden = tf.nn.relu(products[0] + products[1] + bias[:, tf.newaxis])
    for kernel, bias in zip(others[::2], others[1::2], strict=True):
        hidden = tf.nn.relu(tf.matmul(hidden, kernel) + bias[:, tf.newaxis])
    return tf.transpose(hidden, [1, 0, 2])


def _steps(training: bool, rows: int, experts: int, xla: bool) -> dict[str, Callable[[], np.ndarray]]:
    """Both implementations on the same rows, checked to give equal results."""
    rng = np.random.default_rng(0)
    request, candidate = (
        tf.constant(rng.normal(size=shape), tf.float32)
        for shape in ([rows if training else 1, REQUEST], [rows, CANDIDATE])
    )
    layer = ExpertStack(experts, UNITS)
    layer((request, candidate))

    def step(way: Callable[[Split], tf.Tensor]) -> Callable[[], list[np.ndarray]]:
        @tf.function(jit_compile=xla)
        def run(*inputs: tf.Tensor) -> list[tf.Tensor]:
            if not training:
                return [way(inputs)]
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                result = way(inputs)
                total = tf.reduce_mean(tf.square(result))
            return [result, *tape.gradient(total, [*inputs, *layer.trainable_variables])]

        return lambda: [value.numpy() for value in run(request, candidate)]

    steps = {"batched": step(lambda inputs: batched(layer, inputs)), "one by one": step(layer)}
    for values in zip(*(run() for run in steps.values()), strict=True):
        np.testing.assert_allclose(*values, rtol=1e-3, atol=1e-4 * np.abs(values[0]).max())
    return steps


if __name__ == "__main__":
    main()
