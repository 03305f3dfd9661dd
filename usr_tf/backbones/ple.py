"""PLE: levels of task-specific and shared experts (Tang et al., RecSys 2020)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.backbones.base import Backbone, BackboneOutput, Towers
from usr_tf.layers.dense import ExpertStack, Split, SplitDense, StackedDense, affine, glorot_uniform, relu_network
from usr_tf.layers.folding import fold
from usr_tf.layers.scenario import Scenario, apply_own_weights


@keras.saving.register_keras_serializable(package="usr_tf")
class PLE(Backbone):
    """Levels of Customised Gate Control, then a tower, per group g = (scenario p, task t).

    A group has m experts of its own, and n experts are shared. With `x_g` the group's input to a level and `x_s` the
    shared one, both `[request ; candidate]` at the first level::

        E_g = [expert_{g,1}(x_g) … expert_{g,m}(x_g)],   E_s = [expert_{s,1}(x_s) … expert_{s,n}(x_s)]
        x_g' = softmax(W_g x_g + b_g) · [E_g ; E_s]
        x_s' = softmax(W_s x_s + b_s) · [E_1 ; … ; E_{K·T} ; E_s]       at no last level
        hidden_g = tower_g(x_g')                                        after the last level

    The shared part is `tower_t(softmax(W_t x_s + b_t) · E_s)` at the last level, a gate and a tower for each task.

    Below the last level, the shared gate reads the experts of every scenario and task, so all of them are computed for
    every row, in serving too: that is what PLE is. At the last level a row needs its own scenario's alone.

    Args:
      levels: Number of levels.
      specific_experts: Experts of each group at each level, m; 0 makes one level an MMoE.
      shared_experts: Shared experts of each level, n. At least 1, except with one level and no shared part.
      expert: Size of each layer of an expert, at least one.
      tower: Size of each layer of a tower.
      scenarios, tasks, use_shared, l2: As for `Backbone`.
    """

    def __init__(
        self,
        scenarios: int,
        tasks: int,
        use_shared: bool = True,
        *,
        levels: int,
        specific_experts: int,
        shared_experts: int,
        expert: Sequence[int],
        tower: Sequence[int],
        **kwargs: Any,
    ):
        super().__init__(scenarios, tasks, use_shared, **kwargs)
        if levels < 1:
            raise ValueError(f"`levels` must be at least 1. Received: {levels}")
        least = 1 if use_shared or levels > 1 or not specific_experts else 0
        if specific_experts < 0 or shared_experts < least:
            raise ValueError(
                "`specific_experts` must be at least 0, and `shared_experts` at least 1 unless one level without the "
                f"shared part has specific ones. Received: {specific_experts}, {shared_experts}"
            )
        if not expert:
            raise ValueError(f"`expert` must hold at least one layer. Received: {expert}")
        self.levels = levels
        self.specific_experts = specific_experts
        self.shared_experts = shared_experts
        self.expert = list(expert)
        self.tower = list(tower)
        regularizer = self._kernel_regularizer()
        sizes = (scenarios, tasks, specific_experts, shared_experts, expert, regularizer)
        self._levels = [_Level(*sizes) for _ in range(levels - 1)]
        self._last_level = _LastLevel(*sizes)
        self._scenario_towers = Towers(tower, tasks, scenarios, kernel_regularizer=regularizer)
        if use_shared:
            self._shared_gates = StackedDense(
                shared_experts, tasks, activation="softmax", kernel_regularizer=regularizer
            )
            self._shared_towers = Towers(tower, tasks, kernel_regularizer=regularizer)

    def call(
        self, request: tf.Tensor, candidate: tf.Tensor, scenario: Scenario, training: bool = False
    ) -> BackboneOutput:
        shared = (request, candidate)
        own = [shared] * self.scenarios
        for level in self._levels:
            shared, own = level(shared, own)
        inputs = _own_stream(own, scenario) if self._levels else shared
        experts, hidden = self._last_level(shared, inputs, scenario)
        hidden = self._scenario_towers(hidden, scenario)
        if not self.use_shared:
            return BackboneOutput(hidden, None)
        return BackboneOutput(hidden, self._shared_towers(tf.matmul(self._shared_gates(shared), *experts)))


def _own_stream(own: Sequence[Split], scenario: Scenario) -> Split:
    """Stream `([B, T, h],)` of each row's own scenario."""
    if isinstance(scenario, int):
        return own[scenario]
    return (tf.gather(tf.stack([stream for (stream,) in own], axis=1), scenario, axis=1, batch_dims=1),)


Experts = tuple[tf.Tensor, ...]
"""`([B, n, h],)`, what n experts make of a row; or nothing, where there are none."""


class _GateControl(keras.layers.Layer):
    """Common parts of every level: experts and gates per scenario and task, and shared experts.

    The first call argument is what the shared experts read, `(request [R, dr], candidate [B, dc])` or `([B, h],)`. A
    scenario's tasks read the first form as well, or `([B, T, h],)`, a slice for each.
    """

    def __init__(
        self,
        scenarios: int,
        tasks: int,
        specific_experts: int,
        shared_experts: int,
        expert: Sequence[int],
        regularizer: keras.regularizers.Regularizer | None,
    ):
        super().__init__()
        self._scenarios, self._tasks, self._specific = scenarios, tasks, specific_experts
        self._expert, self._regularizer = expert, regularizer
        self._shared_experts = shared_experts
        self._shared = ExpertStack(shared_experts, expert, kernel_regularizer=regularizer) if shared_experts else None

    def build(self, input_shape: tuple[tf.TensorShape, ...]) -> None:
        def add(name: str, layers: int, width: int, size: int) -> list[tf.Variable]:
            stack = (self._scenarios, layers)
            kernel = self.add_weight(
                name=f"scenario_{name}_kernel",
                shape=(*stack, width, size),
                initializer=glorot_uniform(width, size),
                regularizer=self._regularizer,
            )
            bias = self.add_weight(name=f"scenario_{name}_bias", shape=(*stack, size), initializer="zeros")
            return [kernel, bias]

        width = sum(shape[-1] for shape in input_shape)
        self._own = add("gate", self._tasks, width, self._specific + self._shared_experts)
        if self._specific:
            for index, (before, size) in enumerate(pairwise((width, *self._expert))):
                self._own += add(f"expert_{index}", self._tasks * self._specific, before, size)
        super().build(input_shape)

    def _of_shared(self, inputs: Split) -> Experts:
        return (self._shared(inputs),) if self._shared else ()

    def _extract(self, inputs: Split, shared: Experts, *weights: tf.Tensor) -> tuple[Experts, tf.Tensor]:
        """A scenario's specific experts (m of its first task first) and its gated mixtures `[B, T, h]`."""
        gate_kernel, gate_bias, *expert_weights = weights
        gate = tf.nn.softmax(affine(inputs, gate_kernel, gate_bias))  # [B, T, m + n]
        outputs = []
        for number, own in enumerate(zip(*map(tf.unstack, expert_weights), strict=True)):
            task = number // self._specific
            read = tuple(part if len(part.shape) == 2 else part[:, task] for part in inputs)
            outputs.append(relu_network(read, *own))  # expert by expert, as in `ExpertStack`
        mixed = [tf.matmul(gate[..., self._specific :], experts) for experts in shared]
        if not outputs:
            return (), mixed[0]
        specific = tf.stack(outputs, axis=1)
        by_task = tf.reshape(specific, [-1, self._tasks, self._specific, specific.shape[-1]])
        mixed.append(tf.einsum("btm,btmh->bth", gate[..., : self._specific], by_task))
        return (specific,), tf.add_n(mixed)


class _Level(_GateControl):
    """Level below the last: tasks of all scenarios, and the shared gate that reads all experts.

    Call arguments:
      shared: What the shared experts read.
      own: What each scenario's tasks read.

    Returns:
      Both for the next level.
    """

    def build(self, input_shape: tuple[tf.TensorShape, ...]) -> None:
        experts = self._scenarios * self._tasks * self._specific + self._shared_experts
        self._shared_gate = SplitDense(experts, activation="softmax", kernel_regularizer=self._regularizer)
        super().build(input_shape)

    def call(self, shared: Split, own: Sequence[Split]) -> tuple[Split, list[Split]]:
        experts = self._of_shared(shared)
        weights = fold(lambda: [tf.unstack(weight) for weight in self._own], *self._own)
        extracted = [
            self._extract(inputs, experts, *slices)
            for inputs, slices in zip(own, zip(*weights, strict=True), strict=True)
        ]
        every = tf.concat([part for specific, _ in extracted for part in specific] + [*experts], axis=1)
        mixed = tf.matmul(self._shared_gate(shared)[:, tf.newaxis], every)[:, 0]
        return (mixed,), [(stream,) for _, stream in extracted]


class _LastLevel(_GateControl):
    """Last level: tasks of each row's own scenario, without a shared gate.

    Call arguments:
      shared: What the shared experts read.
      own: What the tasks of the row's own scenario read.
      scenario: As for `Backbone`.

    Returns:
      The shared experts, and `[B, T, h]`.
    """

    def call(self, shared: Split, own: Split, scenario: Scenario) -> tuple[Experts, tf.Tensor]:
        experts = self._of_shared(shared)
        mixed = apply_own_weights(
            lambda rows, *weights: self._extract(*rows, *weights)[1], (own, experts), self._own, scenario
        )
        return experts, mixed
