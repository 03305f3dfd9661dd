"""Base class of backbones, and their output."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras as keras

from usr_tf.layers.configured_layer import ConfiguredLayer
from usr_tf.layers.dense import glorot_uniform, relu_network
from usr_tf.layers.scenario import Scenario, apply_own_weights


class BackboneOutput(NamedTuple):
    """Hidden layers that the heads read, width h."""

    scenario: tf.Tensor
    """`[B, T, h]`, of the example's own scenario."""
    shared: tf.Tensor | None
    """`[B, T, h]`, of the shared part, for the global heads; None without it."""
    scenario_logit: tf.Tensor | None = None
    """`[B, T]`, added to the scenario heads' logits; None for nothing."""


class Backbone(ConfiguredLayer):
    """Multi-scenario, multi-task network without its heads.

    A subclass adds its own sizes to the constructor, keeps them in attributes of the same names, and writes `call`.

    Args:
      scenarios: Number of scenarios, K.
      tasks: Number of tasks, T.
      use_shared: Whether to compute the shared part, which reads no scenario-specific parameter.
      l2: Factor of the L2 penalty on every kernel; 0 for none.

    Call arguments:
      request: `[R, dr]`, what all candidates of a request share. R is B in training; in serving it is 1.
      candidate: `[B, dc]`.
      scenario: int32 `[B]`; or a Python int, and then only that scenario's weights are read.
      training: Whether statistics of the batch are used and moving ones updated, where a backbone has any.

    Returns:
      `BackboneOutput`.
    """

    def __init__(self, scenarios: int, tasks: int, use_shared: bool = True, *, l2: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        if min(scenarios, tasks) < 1:
            raise ValueError(f"`scenarios` and `tasks` must be at least 1. Received: {scenarios}, {tasks}")
        if l2 < 0:
            raise ValueError(f"`l2` must not be below 0. Received: {l2}")
        self.scenarios = scenarios
        self.tasks = tasks
        self.use_shared = use_shared
        self.l2 = l2

    def call(
        self, request: tf.Tensor, candidate: tf.Tensor, scenario: Scenario, training: bool = False
    ) -> BackboneOutput:
        raise NotImplementedError

    def _kernel_regularizer(self) -> keras.regularizers.Regularizer | None:
        return keras.regularizers.L2(self.l2) if self.l2 else None


@keras.saving.register_keras_serializable(package="usr_tf")
class Towers(ConfiguredLayer):
    """ReLU networks, one per task, and per scenario unless `scenarios` is None.

    The rows of a mixed batch are routed to their scenarios' towers (`usr_tf.layers.scenario.route`), and each runs
    through one tower a task.

    Args:
      units: Size of each layer. Empty: the input as it is.
      tasks: Number of tasks, T.
      scenarios: Number of scenarios, or None for towers that all scenarios share.
      kernel_regularizer: As for `keras.layers.Dense`.

    Call arguments:
      inputs: `[B, h]`, read by every task, or `[B, T, h]`.
      scenario: As for `Backbone`; None for shared towers.

    Returns:
      `[B, T, units[-1]]`.
    """

    def __init__(
        self,
        units: Sequence[int],
        tasks: int,
        scenarios: int | None = None,
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = list(units)
        self.tasks = tasks
        self.scenarios = scenarios
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: tf.TensorShape) -> None:
        prefix, stack = ("", ()) if self.scenarios is None else ("scenario_", (self.scenarios,))
        self._parameters = []
        for index, (width, size) in enumerate(pairwise([input_shape[-1], *self.units])):
            kernel = self.add_weight(
                name=f"{prefix}kernel_{index}",
                shape=(*stack, self.tasks, width, size),
                initializer=glorot_uniform(width, size),
                regularizer=self.kernel_regularizer,
            )
            bias = self.add_weight(name=f"{prefix}bias_{index}", shape=(*stack, self.tasks, size), initializer="zeros")
            self._parameters += [kernel, bias]
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, scenario: Scenario | None = None) -> tf.Tensor:
        if (scenario is None) != (self.scenarios is None):
            raise ValueError(
                f"`scenario` must be given if and only if the towers differ by scenario. Received: {scenario} "
                f"with scenarios={self.scenarios}"
            )
        if not self.units:
            return inputs if len(inputs.shape) == 3 else tf.repeat(inputs[:, tf.newaxis], self.tasks, axis=1)
        if scenario is None:
            return relu_network(inputs, *self._parameters)
        return apply_own_weights(relu_network, inputs, self._parameters, scenario)
