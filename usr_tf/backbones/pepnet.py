"""PEPNet: personalised gates on the input (EPNet) and on the towers (PPNet) (Chang et al., KDD 2023)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.backbones.base import Backbone, BackboneOutput
from usr_tf.layers.configured_layer import ConfiguredLayer
from usr_tf.layers.dense import Split, StackedDense
from usr_tf.layers.gate_unit import GateUnit
from usr_tf.layers.scenario import Scenario, own_row


@keras.saving.register_keras_serializable(package="usr_tf")
class PEPNet(Backbone):
    """With `x = [request ; candidate]`, scenario p, task t, and `sg` for stop-gradient::

        EPNet:   O_p = x ⊗ Gate NU([e_p ; sg(x)])
        PPNet:   H_0 = O_p,   H_{l+1,t} = relu(H_{l,t} W_{l,t} + b_{l,t}) ⊗ Gate NU_{l,t}([sg(x) ; sg(O_p)])

    `Gate NU` is `GateUnit`, of which EPNet has one and PPNet one for each layer, whose output is dealt out to the
    tasks. The scenarios differ in `e_p` alone. The shared part has a vector of its own in its place, for "any
    scenario", and a PPNet of its own, as its tasks are tasks of their own; EPNet's gate serves both.

    PPNet's prior is in the paper the embeddings of the user's, the item's and the author's id, which learn from the
    gates. A backbone does not know which column is which, so ours is all of x, and no gate passes a gradient to x.
    EPNet's gate reads the candidate, so the request's columns are rescaled for each candidate.

    Args:
      scenario_embedding: Size of the vectors e.
      gate_hidden: Width of the hidden layer of each gate.
      tower: Size of each layer of a tower, at least one.
      scenarios, tasks, use_shared, l2: As for `Backbone`.
    """

    def __init__(
        self,
        scenarios: int,
        tasks: int,
        use_shared: bool = True,
        *,
        scenario_embedding: int,
        gate_hidden: int,
        tower: Sequence[int],
        **kwargs: Any,
    ):
        super().__init__(scenarios, tasks, use_shared, **kwargs)
        if scenario_embedding < 1:
            raise ValueError(f"`scenario_embedding` must be at least 1. Received: {scenario_embedding}")
        self.scenario_embedding = scenario_embedding
        self.gate_hidden = gate_hidden
        self.tower = list(tower)
        regularizer = self._kernel_regularizer()
        self._epnet = GateUnit(gate_hidden, kernel_regularizer=regularizer)
        self._scenario_ppnet = PPNet(tower, tasks, gate_hidden, kernel_regularizer=regularizer)
        if use_shared:
            self._shared_ppnet = PPNet(tower, tasks, gate_hidden, kernel_regularizer=regularizer)

    def build(self, input_shape: Any) -> None:
        def add(name: str, rows: int) -> tf.Variable:  # so wide that the gates tell the scenarios apart at once
            initializer = keras.initializers.RandomNormal(stddev=1.0)
            return self.add_weight(name=name, shape=(rows, self.scenario_embedding), initializer=initializer)

        self._embedding = add("scenario_embedding", self.scenarios)
        if self.use_shared:
            self._any_embedding = add("any_scenario_embedding", 1)
        super().build(input_shape)

    def call(
        self, request: tf.Tensor, candidate: tf.Tensor, scenario: Scenario, training: bool = False
    ) -> BackboneOutput:
        x = (request, candidate)
        prior = tuple(map(tf.stop_gradient, x))
        own = self._scenario_ppnet(self._epnet(x, (own_row(self._embedding, scenario), *prior)), prior)
        if not self.use_shared:
            return BackboneOutput(own, None)
        shared = self._shared_ppnet(self._epnet(x, (self._any_embedding, *prior)), prior)
        return BackboneOutput(own, shared)


@keras.saving.register_keras_serializable(package="usr_tf")
class PPNet(ConfiguredLayer):
    """ReLU networks, one per task, with each layer scaled by a gate.

    Args:
      units: Size of each layer, at least one.
      tasks: Number of tasks, T.
      gate_hidden: Width of the hidden layer of each gate.
      kernel_regularizer: As for `keras.layers.Dense`.

    Call arguments:
      inputs: `(request [R, dr], candidate [B, dc])`, as for `SplitDense`.
      prior: What the gates read besides, without their gradient: parts as for `SplitDense`.

    Returns:
      `[B, T, units[-1]]`.
    """

    def __init__(
        self, units: Sequence[int], tasks: int, gate_hidden: int, kernel_regularizer: Any = None, **kwargs: Any
    ):
        super().__init__(**kwargs)
        if not units:
            raise ValueError(f"`units` must hold at least one layer. Received: {units}")
        self.units = list(units)
        self.tasks = tasks
        self.gate_hidden = gate_hidden
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self._dense = [
            StackedDense(size, tasks, activation="relu", kernel_regularizer=kernel_regularizer) for size in units
        ]
        self._gates = [GateUnit(gate_hidden, kernel_regularizer=kernel_regularizer) for _ in units]

    def call(self, inputs: Split, prior: Split) -> tf.Tensor:
        condition = (*prior, *map(tf.stop_gradient, inputs))
        hidden = inputs
        for dense, gate in zip(self._dense, self._gates, strict=True):
            tasks = tf.unstack(dense(hidden), axis=1)  # T parts, which one gate scales
            hidden = tf.stack(gate(tasks, condition), axis=1)
        return hidden
