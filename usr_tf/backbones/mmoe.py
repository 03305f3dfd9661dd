"""MMoE: experts mixed by a gate per scenario and task (Ma et al., KDD 2018)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.backbones.base import Backbone, BackboneOutput, Towers
from usr_tf.layers.dense import ExpertStack, ScenarioDense, StackedDense
from usr_tf.layers.scenario import Scenario


@keras.saving.register_keras_serializable(package="usr_tf")
class MMoE(Backbone):
    """`tower_{p,t}(Σ_e softmax(W_{p,t} x)_e · expert_e(x))`, `x = [request ; candidate]`, for scenario p and task t.

    The shared part is the experts with a gate and a tower of its own for each task.

    Args:
      experts: Number of experts.
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
        experts: int,
        expert: Sequence[int],
        tower: Sequence[int],
        **kwargs: Any,
    ):
        super().__init__(scenarios, tasks, use_shared, **kwargs)
        self.experts = experts
        self.expert = list(expert)
        self.tower = list(tower)
        regularizer = self._kernel_regularizer()
        gate = {"activation": "softmax", "kernel_regularizer": regularizer}
        self._experts = ExpertStack(experts, expert, kernel_regularizer=regularizer)
        self._scenario_gates = ScenarioDense(experts, scenarios, tasks, **gate)
        self._scenario_towers = Towers(tower, tasks, scenarios, kernel_regularizer=regularizer)
        if use_shared:
            self._shared_gates = StackedDense(experts, tasks, **gate)
            self._shared_towers = Towers(tower, tasks, kernel_regularizer=regularizer)

    def call(
        self, request: tf.Tensor, candidate: tf.Tensor, scenario: Scenario, training: bool = False
    ) -> BackboneOutput:
        x = (request, candidate)
        experts = self._experts(x)  # [B, E, h]
        own = self._scenario_towers(tf.matmul(self._scenario_gates(x, scenario), experts), scenario)
        if not self.use_shared:
            return BackboneOutput(own, None)
        return BackboneOutput(own, self._shared_towers(tf.matmul(self._shared_gates(x), experts)))
