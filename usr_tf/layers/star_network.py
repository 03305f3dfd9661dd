"""Star topology network: centre weights shared by all scenarios, and factors per scenario."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.layers.configured_layer import ConfiguredLayer
from usr_tf.layers.dense import Split, glorot_uniform, relu_network
from usr_tf.layers.folding import fold
from usr_tf.layers.scenario import Scenario, apply_own_weights, route


@keras.saving.register_keras_serializable(package="usr_tf")
class StarNetwork(ConfiguredLayer):
    """ReLU layers `relu((W_p ⊗ W) x + b_p + b)` of scenario p, or `relu(W x + b)` of the centre alone.

    The `W_p` start at one and the `b_p` at zero: every scenario starts as the centre. The products depend on weights
    alone; those of a static scenario are folded at export.

    Args:
      units: Size of each layer, at least one.
      scenarios: Number of scenarios, K.
      tasks: Number of tasks, T, each with a star of its own. None: no such axis.
      kernel_regularizer: As for `keras.layers.Dense`; on W and on each W_p.

    Call arguments:
      inputs: `[B, in]`; with tasks also `[B, T, in]`, each task reading its own slice; or a tuple of parts of either
        form, as for `SplitDense`.
      scenario: int32 `[B]`; or a Python int, and then only that scenario's weights are read; or None for the centre.

    Returns:
      `[B, units[-1]]`, with tasks `[B, T, units[-1]]`.
    """

    def __init__(
        self,
        units: Sequence[int],
        scenarios: int,
        tasks: int | None = None,
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not units:
            raise ValueError(f"`units` must hold at least one layer. Received: {units}")
        if min(*units, scenarios, 1 if tasks is None else tasks) < 1:
            raise ValueError(
                f"`units`, `scenarios` and `tasks` must be at least 1. Received: {units}, {scenarios}, {tasks}"
            )
        self.units = list(units)
        self.scenarios = scenarios
        self.tasks = tasks
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: Any) -> None:
        def add(name: str, shape: tuple[int, ...], initializer: Any, regularizer: Any = None) -> tf.Variable:
            return self.add_weight(name=name, shape=shape, initializer=initializer, regularizer=regularizer)

        width = sum(shape[-1] for shape in tf.nest.flatten(input_shape))
        stack = () if self.tasks is None else (self.tasks,)
        self._center, self._factors = [], []  # a kernel and a bias for each layer
        for index, (before, size) in enumerate(pairwise((width, *self.units))):
            kernel, bias = (*stack, before, size), (*stack, size)
            self._center += [
                add(f"center_kernel_{index}", kernel, glorot_uniform(before, size), self.kernel_regularizer),
                add(f"center_bias_{index}", bias, "zeros"),
            ]
            self._factors += [
                add(f"scenario_kernel_{index}", (self.scenarios, *kernel), "ones", self.kernel_regularizer),
                add(f"scenario_bias_{index}", (self.scenarios, *bias), "zeros"),
            ]
        super().build(input_shape)

    def call(self, inputs: tf.Tensor | Split, scenario: Scenario | None = None) -> tf.Tensor:
        if scenario is None:
            return relu_network(inputs, *self._center)
        if isinstance(scenario, int):
            return route(lambda rows, p: relu_network(rows, *self._star_of(p)), inputs, scenario, self.scenarios)
        return apply_own_weights(relu_network, inputs, self._star(self._factors), scenario)

    def _star_of(self, scenario: int) -> list[tf.Tensor]:
        return fold(lambda: self._star([factor[scenario] for factor in self._factors]), *self._center, *self._factors)

    def _star(self, factors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Weights of the centre times one scenario's factors, or all scenarios' `[K, ...]`."""
        star = []
        for kernel, bias, own_kernel, own_bias in zip(
            self._center[::2], self._center[1::2], factors[::2], factors[1::2], strict=True
        ):
            star += [kernel * own_kernel, bias + own_bias]
        return star
