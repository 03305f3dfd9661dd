"""Scenario routing: each row of a batch uses the weights of its own scenario."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from usr_tf.layers.folding import fold

Scenario = tf.Tensor | int
"""Each row's scenario, int32 `[B]`; or one scenario that is known when the graph is traced."""


def route(function: Callable[[Any, int], tf.Tensor], inputs: Any, scenario: Scenario, scenarios: int) -> tf.Tensor:
    """Applies `function(rows, p)` to the rows of each scenario p and restores the row order.

    Each row is computed once, however many scenarios there are. A scenario without rows in the batch gets none, and
    its weights a gradient of zero. Against computing every scenario for every row and keeping one, towers take 0.4 to
    0.65 of the time with two scenarios and 0.1 to 0.2 with ten. Gates and heads are too narrow for it until there are
    many scenarios: see `ScenarioDense` and `GlobalLabelHeads` (`docs/performance.md`).

    Args:
      function: Maps `inputs` of n rows, n ≥ 0, and a scenario to values `[n, ...]`, each row by itself.
      inputs: Tensors `[B, ...]`, nested as `function` likes; or `[1, ...]`, the same for all rows.
      scenario: int32 `[B]`; or a Python int, and then `function` is called once, on the inputs as they are.
      scenarios: Number of scenarios, K.

    Returns:
      `[B, ...]`.

    Raises:
      ValueError: A static scenario that does not exist.
    """
    if isinstance(scenario, int):
        _check(scenario, scenarios)
        return function(inputs, scenario)
    if scenarios == 1:
        return function(inputs, 0)
    rows = tf.shape(scenario)[0]

    def part(tensor: tf.Tensor) -> list[tf.Tensor]:
        whole = tf.broadcast_to(tensor, tf.concat([[rows], tf.shape(tensor)[1:]], axis=0))
        return tf.dynamic_partition(tf.ensure_shape(whole, [None, *tensor.shape[1:]]), scenario, scenarios)

    own = zip(*(part(tensor) for tensor in tf.nest.flatten(inputs)), strict=True)
    results = [function(tf.nest.pack_sequence_as(inputs, tensors), p) for p, tensors in enumerate(own)]
    return tf.dynamic_stitch(part(tf.range(rows)), results)


def apply_own_weights(
    function: Callable[..., tf.Tensor], inputs: Any, weights: Sequence[tf.Tensor], scenario: Scenario
) -> tf.Tensor:
    """Applies `function(rows, *weights)` per scenario with that scenario's weights, as `route`.

    Args:
      function: Maps `inputs` of n rows, and weights `[...]`, to values `[n, ...]`.
      inputs: As for `route`.
      weights: Each `[K, ...]`, one slice a scenario; at least one.
      scenario: int32 `[B]`; or a Python int, and then no other scenario's weights are read.

    Returns:
      `[B, ...]`.

    Raises:
      ValueError: A static scenario that does not exist.
    """
    scenarios = weights[0].shape[0]
    if isinstance(scenario, int):
        return route(lambda rows, p: function(rows, *_own(weights, p)), inputs, scenario, scenarios)
    # Taken apart once: the gradient of a slice is as large as all of the weights, for each scenario again.
    slices = list(zip(*(tf.unstack(weight) for weight in weights), strict=True))
    return route(lambda rows, p: function(rows, *slices[p]), inputs, scenario, scenarios)


def own_row(table: tf.Variable, scenario: Scenario) -> tf.Tensor:
    """Row of `table [K, e]` of each row's scenario: `[B, e]`; `[1, e]` if static, folded at export.

    Raises:
      ValueError: A static scenario that does not exist.
    """
    if isinstance(scenario, int):
        _check(scenario, table.shape[0])
        return fold(lambda: table[scenario : scenario + 1], table)
    return tf.gather(table, scenario)


def _own(weights: Sequence[tf.Tensor], scenario: int) -> list[tf.Tensor]:
    return fold(lambda: [weight[scenario] for weight in weights], *weights)


def _check(scenario: int, scenarios: int) -> None:
    if not 0 <= scenario < scenarios:
        raise ValueError(f"`scenario` must be from 0 to {scenarios - 1}. Received: {scenario}")
