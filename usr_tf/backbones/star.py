"""STAR: star topology, shared centre weights times scenario weights (Sheng et al., CIKM 2021)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.backbones.base import Backbone, BackboneOutput
from usr_tf.layers.dense import Split, SplitDense
from usr_tf.layers.partitioned_norm import PartitionedNormalization
from usr_tf.layers.scenario import Scenario, own_row
from usr_tf.layers.star_network import StarNetwork


@keras.saving.register_keras_serializable(package="usr_tf")
class STAR(Backbone):
    """With `x = [request ; candidate]`, for scenario p and task t::

        z = (γ ⊗ γ_p) ⊗ (x - μ_p) / √(σ_p² + ε) + (β + β_p)              partitioned normalisation
        h = relu((W_p ⊗ W) z + b_p + b), layer upon layer                 the network, for all tasks
        hidden_t = relu((W_{p,t} ⊗ W_t) h + b_{p,t} + b_t), upon layers   the tower of each task
        s_t = [MLP([e_p ; x])]_t                                          the auxiliary network, `scenario_logit`

    `e_p` is the scenario's vector. The auxiliary network reads the raw x, because x normalised by scenario does not
    distinguish scenarios. The paper has one task, all of whose layers are stars; here all tasks share the first layers,
    and the towers are stars as well. The weights of the heads per scenario replace the star of the last layer.

    The shared part is the same network and towers by the weights of the centre alone (W, b, γ, β), on an input that is
    normalised by the statistics of all rows, whatever their scenario.

    Args:
      network: Size of each layer that the tasks share, at least one.
      tower: Size of each layer of a task's tower.
      auxiliary: Size of each hidden layer of the auxiliary network.
      scenario_embedding: Size of the vectors e.
      scenarios, tasks, use_shared, l2: As for `Backbone`.
    """

    def __init__(
        self,
        scenarios: int,
        tasks: int,
        use_shared: bool = True,
        *,
        network: Sequence[int],
        tower: Sequence[int],
        auxiliary: Sequence[int],
        scenario_embedding: int,
        **kwargs: Any,
    ):
        super().__init__(scenarios, tasks, use_shared, **kwargs)
        if scenario_embedding < 1:
            raise ValueError(f"`scenario_embedding` must be at least 1. Received: {scenario_embedding}")
        self.network = list(network)
        self.tower = list(tower)
        self.auxiliary = list(auxiliary)
        self.scenario_embedding = scenario_embedding
        regularizer = self._kernel_regularizer()
        self._normalization = PartitionedNormalization(scenarios, use_shared, dtype="float32")
        self._network = StarNetwork(network, scenarios, kernel_regularizer=regularizer)
        self._towers = StarNetwork(tower, scenarios, tasks, regularizer) if tower else None
        self._auxiliary = [SplitDense(size, activation="relu", kernel_regularizer=regularizer) for size in auxiliary]
        self._auxiliary_logit = SplitDense(tasks, kernel_regularizer=regularizer)

    def build(self, input_shape: Any) -> None:
        self._embedding = self.add_weight(
            name="scenario_embedding", shape=[self.scenarios, self.scenario_embedding], initializer="uniform"
        )
        super().build(input_shape)

    def call(
        self, request: tf.Tensor, candidate: tf.Tensor, scenario: Scenario, training: bool = False
    ) -> BackboneOutput:
        x = (request, candidate)
        normalized = self._normalization(x, scenario, training=training)
        return BackboneOutput(
            scenario=self._hidden(normalized.scenario, scenario),
            shared=self._hidden(normalized.shared, None) if self.use_shared else None,
            scenario_logit=self._auxiliary_logits(x, scenario),
        )

    def _hidden(self, x: Split, scenario: Scenario | None) -> tf.Tensor:
        """Hidden layers `[B, T, h]` of the scenarios' stars, or of the centre alone."""
        hidden = self._network(x, scenario)
        if self._towers is None:
            return tf.repeat(hidden[:, tf.newaxis], self.tasks, axis=1)
        return self._towers(hidden, scenario)

    def _auxiliary_logits(self, x: Split, scenario: Scenario) -> tf.Tensor:
        """Logits `[B, T]` of the auxiliary network."""
        hidden = (own_row(self._embedding, scenario), *x)
        for dense in self._auxiliary:
            hidden = (dense(hidden),)
        return self._auxiliary_logit(hidden)
