"""M2M: experts with meta attention and meta towers generated from the scenario (Zhang et al., WSDM 2022)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.backbones.base import Backbone, BackboneOutput
from usr_tf.layers.dense import ExpertStack, glorot_uniform
from usr_tf.layers.folding import fold
from usr_tf.layers.meta_unit import MetaUnit
from usr_tf.layers.scenario import Scenario, route

_ACTIVATION = "leaky_relu"


@keras.saving.register_keras_serializable(package="usr_tf")
class M2M(Backbone):
    """Experts mixed by meta attention and refined by a meta tower; the scenario generates the weights of both.

    For scenario p with knowledge `s_p`, task t, experts `E_e(x)` of `x = [request ; candidate]` and
    `σ = leaky_relu`::

        T_t = σ(τ_t W + b)
        a_e = v_t · MetaUnit([E_e ; T_t] | s_p),   R_t = Σ_e softmax(a)_e E_e
        L_0 = R_t,   L_j = σ(MetaUnit_j(L_{j-1} | s_p) + L_{j-1})

    The hidden layer is the last `L_j`. What sets the scenarios apart is `s_p` alone, a learned vector each; the paper
    makes it of features of the scenario and the advertiser. The units serve all tasks, as by default in deep-rec-kit;
    each level of the tower has a unit of its own.

    The shared part is the same experts and units with the knowledge of a learned "any scenario".

    Each scenario's matrices are generated once, and the rows of a mixed batch are routed to them; no row has a matrix
    to itself. Of the attention's first layer, `[E_e ; T_t] W = E_e W_E + T_t W_T`, the first product is computed once
    for all tasks and the second once for all rows.

    Args:
      experts: Number of experts.
      expert: Size of each layer of an expert, at least one; the last is that of `T_t` and of the output too.
      scenario_embedding: Size of the `s_p`.
      task_embedding: Size of the `τ_t`.
      unit_depth: Number of layers of a meta unit.
      tower_depth: Number of levels of the tower; with 0 the output is `R_t`.
      scenarios, tasks, use_shared, l2: As for `Backbone`.
    """

    def __init__(
        self,
        scenarios: int,
        tasks: int,
        use_shared: bool = True,
        *,
        experts: int,
        expert: Sequence[int],
        scenario_embedding: int,
        task_embedding: int,
        unit_depth: int,
        tower_depth: int,
        **kwargs: Any,
    ):
        super().__init__(scenarios, tasks, use_shared, **kwargs)
        if min(scenario_embedding, task_embedding, tower_depth + 1) < 1:
            raise ValueError(
                "`scenario_embedding` and `task_embedding` must be at least 1, `tower_depth` at least 0. "
                f"Received: {scenario_embedding}, {task_embedding}, {tower_depth}"
            )
        self.experts = experts
        self.expert = list(expert)
        self.scenario_embedding = scenario_embedding
        self.task_embedding = task_embedding
        self.unit_depth = unit_depth
        self.tower_depth = tower_depth
        regularizer = self._kernel_regularizer()
        self._experts = ExpertStack(experts, expert, kernel_regularizer=regularizer)
        self._task_net = keras.layers.Dense(expert[-1], _ACTIVATION, kernel_regularizer=regularizer)
        units = [
            MetaUnit(unit_depth, scenario_embedding, _ACTIVATION, kernel_regularizer=regularizer)
            for _ in range(1 + tower_depth)
        ]
        self._attention_unit, self._tower_units = units[0], units[1:]

    def build(self, input_shape: tf.TensorShape) -> None:
        def add(name: str, *shape: int) -> tf.Variable:  # of about unit length
            initializer = keras.initializers.RandomNormal(stddev=shape[-1] ** -0.5)
            return self.add_weight(name=name, shape=shape, initializer=initializer)

        self._knowledge = add("scenario_embedding", self.scenarios, self.scenario_embedding)
        self._any_knowledge = add("any_scenario_embedding", self.scenario_embedding) if self.use_shared else None
        self._tasks = add("task_embedding", self.tasks, self.task_embedding)
        self._task_net.build(self._tasks.shape)  # here and not by its first call, which is inside of `fold`
        width = 2 * self.expert[-1]
        self._attention_kernel = self.add_weight(
            name="attention_kernel",
            shape=(self.tasks, width),
            initializer=glorot_uniform(width, 1),
            regularizer=self._kernel_regularizer(),
        )
        super().build(input_shape)

    def call(
        self, request: tf.Tensor, candidate: tf.Tensor, scenario: Scenario, training: bool = False
    ) -> BackboneOutput:
        experts = self._experts((request, candidate))  # [B, E, h]
        own = route(lambda rows, p: self._refine(rows, self._knowledge, p), experts, scenario, self.scenarios)
        return BackboneOutput(own, self._refine(experts, self._any_knowledge) if self.use_shared else None)

    def _refine(self, experts: tf.Tensor, knowledge: tf.Variable, scenario: int | None = None) -> tf.Tensor:
        """Meta attention and tower `[B, T, h]` of experts `[B, E, h]` for one scenario."""
        # [B, 1, E, h] and [1, T, 1, h]: the unit's first layer multiplies either once and adds the results
        pairs = (experts[:, tf.newaxis], self._task_views()[tf.newaxis, :, tf.newaxis])
        compared = self._attention_unit(pairs, knowledge, scenario)  # [B, T, E, 2h]
        scores = tf.reduce_sum(compared * self._attention_kernel[:, tf.newaxis], axis=-1)  # [B, T, E]
        hidden = tf.matmul(tf.nn.softmax(scores, axis=-1), experts)
        for unit in self._tower_units:
            hidden = unit.activation(unit(hidden, knowledge, scenario) + hidden)
        return hidden

    def _task_views(self) -> tf.Tensor:
        """Task vectors `T_t`, `[T, h]`, functions of weights alone."""
        return fold(lambda: self._task_net(self._tasks), self._tasks, *self._task_net.weights)
