"""Weights of which each row of a batch uses one scenario's."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from usr_tf.layers.folding import fold

Scenario = tf.Tensor | int
"""Each row's scenario, int32 `[B]`; or one scenario that is known when the graph is traced."""


def apply_own_scenario(
    function: Callable[..., tf.Tensor], weights: Sequence[tf.Tensor], scenario: Scenario
) -> tf.Tensor:
    """`function` of each row's own scenario's weights.

    A mixed batch is computed with every scenario's weights, and each row keeps its own result: no row gets a copy
    of its weights. A static scenario touches its own slice of the weights and nothing else.

    Args:
      function: Maps weights `[K, ...]` to values `[B, K, ...]`, and weights `[...]` to values `[B, ...]`.
      weights: Each `[K, ...]`, one slice a scenario.
      scenario: int32 `[B]`, or a Python int.

    Returns:
      `[B, ...]`.

    Raises:
      ValueError: A static scenario that does not exist.
    """
    if isinstance(scenario, int):
        scenarios = weights[0].shape[0]
        if not 0 <= scenario < scenarios:
            raise ValueError(f"`scenario` must be from 0 to {scenarios - 1}. Received: {scenario}")
        return function(*fold(lambda: [weight[scenario] for weight in weights], *weights))
    return tf.gather(function(*(tf.convert_to_tensor(weight) for weight in weights)), scenario, axis=1, batch_dims=1)
