"""Heads of the global label space multi-task layer, GLMT (DESIGN §4.4; our reading of arXiv 2405.10835)."""

from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras as keras

from usr_tf.layers.configured_layer import ConfiguredLayer
from usr_tf.layers.dense import glorot_uniform
from usr_tf.layers.scenario import Scenario, apply_own_weights
from usr_tf.layers.shapes import check_shapes


class LogProbabilities(NamedTuple):
    """Natural logarithms of each task's probabilities."""

    scenario: tf.Tensor
    """`[B, T]`, of the label in the example's scenario."""
    shared: tf.Tensor | None
    """`[B, T]`, of the global label; None without global labels."""


@keras.saving.register_keras_serializable(package="usr_tf")
class GlobalLabelHeads(ConfiguredLayer):
    """Heads that give probabilities along the chain of tasks, tied to the global labels.

    A scenario label implies its global label, and a later task implies the one before it. With global logits `a_t`
    and scenario logits `b_t`::

        g_1 = σ(a_1),  g_t = g_{t-1} · σ(a_t),  s_t = g_t · σ(b_t)

    so that `s_t ≤ g_t` and `g_t ≤ g_{t-1}` always hold. Without global labels the chain is over the scenario's own
    logits, as in ESMM: `s_1 = σ(b_1)`, `s_t = s_{t-1} · σ(b_t)`. All of it is in log space.

    Args:
      tasks: Number of tasks, T.
      scenarios: Number of scenarios, K.
      use_global: Whether there are global heads.
      kernel_regularizer: As for `keras.layers.Dense`.

    Call arguments:
      scenario_hidden: `[B, T, h]`, of the example's own scenario.
      shared_hidden: `[B, T, h]`, of the shared part; None without global labels.
      scenario: int32 `[B]`; or a Python int, and then only that scenario's weights are read.
      scenario_logit: `[B, T]`, added to the `b_t`: what bears on them beside the hidden layer. None for nothing.
      shared_logit: `[B, T]`, added to the `a_t`. None for nothing.

    Returns:
      `LogProbabilities`.

    Raises:
      ValueError: another shape; or `shared_hidden` is missing where there are global heads, or given where there are
        none.
    """

    def __init__(
        self, tasks: int, scenarios: int, use_global: bool = True, kernel_regularizer: Any = None, **kwargs: Any
    ):
        super().__init__(**kwargs)
        if min(tasks, scenarios) < 1:
            raise ValueError(f"`tasks` and `scenarios` must be at least 1. Received: {tasks}, {scenarios}")
        self.tasks = tasks
        self.scenarios = scenarios
        self.use_global = use_global
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: tf.TensorShape) -> None:
        width = input_shape[-1]

        def add(name: str, *stack: int) -> list[tf.Variable]:
            kernel = self.add_weight(
                name=f"{name}_kernel",
                shape=(*stack, width),
                initializer=glorot_uniform(width, 1),
                regularizer=self.kernel_regularizer,
            )
            return [kernel, self.add_weight(name=f"{name}_bias", shape=stack, initializer="zeros")]

        self._scenario_head = add("scenario", self.scenarios, self.tasks)
        self._global_head = add("global", self.tasks) if self.use_global else None
        super().build(input_shape)

    def call(
        self,
        scenario_hidden: tf.Tensor,
        shared_hidden: tf.Tensor | None,
        scenario: Scenario,
        scenario_logit: tf.Tensor | None = None,
        shared_logit: tf.Tensor | None = None,
    ) -> LogProbabilities:
        if self.use_global != (shared_hidden is not None):
            raise ValueError(
                f"`shared_hidden` must be given if and only if `use_global`. Received: {shared_hidden} "
                f"with use_global={self.use_global}"
            )
        check_shapes(
            scenario_hidden=(scenario_hidden, f"B {self.tasks} h"),
            shared_hidden=(shared_hidden, f"B {self.tasks} h"),
            scenario_logit=(scenario_logit, f"B {self.tasks}"),
            shared_logit=(shared_logit, f"B {self.tasks}"),
        )
        own = self._own_logits(scenario_hidden, scenario)
        # In mixed precision, what comes from other layers has fewer bits than what logarithms need.
        if scenario_logit is not None:
            own += tf.cast(scenario_logit, own.dtype)
        log_own = tf.math.log_sigmoid(own)
        if not self.use_global:
            return LogProbabilities(tf.cumsum(log_own, axis=1), None)
        shared = _logits(tf.cast(shared_hidden, own.dtype), *self._global_head)
        if shared_logit is not None:
            shared += tf.cast(shared_logit, own.dtype)
        log_global = tf.math.log_sigmoid(shared)
        log_global = tf.cumsum(log_global, axis=1)
        return LogProbabilities(log_global + log_own, log_global)

    def _own_logits(self, hidden: tf.Tensor, scenario: Scenario) -> tf.Tensor:
        """Logits `[B, T]` of each row's own scenario; heads are vectors, so rows gather copies."""
        if isinstance(scenario, int):
            return apply_own_weights(_logits, hidden, self._scenario_head, scenario)
        # A product with 0 and 1, unlike a gather, has a dense gradient without a scatter.
        own = tf.one_hot(scenario, self.scenarios, dtype=hidden.dtype)
        return _logits(hidden, *(tf.tensordot(own, weight, axes=1) for weight in self._scenario_head))


def _logits(hidden: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Logits `[B, T]` of `hidden [B, T, h]` and `kernel [T, h]` or `[B, T, h]`."""
    return tf.reduce_sum(hidden * kernel, axis=-1) + bias
