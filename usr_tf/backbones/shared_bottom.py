"""SharedBottom: one shared network, and a tower per scenario and task (Caruana, "Multitask Learning", 1997)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.backbones.base import Backbone, BackboneOutput, Towers
from usr_tf.layers.dense import SplitDense
from usr_tf.layers.scenario import Scenario


@keras.saving.register_keras_serializable(package="usr_tf")
class SharedBottom(Backbone):
    """`tower_{p,t}(bottom([request ; candidate]))` for scenario p and task t.

    The shared part is the bottom with a tower of its own for each task.

    Args:
      bottom: Size of each layer of the bottom, at least one.
      tower: Size of each layer of a tower.
      scenarios, tasks, use_shared, l2: As for `Backbone`.
    """

    def __init__(
        self,
        scenarios: int,
        tasks: int,
        use_shared: bool = True,
        *,
        bottom: Sequence[int],
        tower: Sequence[int],
        **kwargs: Any,
    ):
        super().__init__(scenarios, tasks, use_shared, **kwargs)
        if not bottom:
            raise ValueError(f"`bottom` must hold at least one layer. Received: {bottom}")
        self.bottom = list(bottom)
        self.tower = list(tower)
        regularizer = self._kernel_regularizer()
        self._first = SplitDense(bottom[0], activation="relu", kernel_regularizer=regularizer)
        self._rest = [keras.layers.Dense(size, "relu", kernel_regularizer=regularizer) for size in bottom[1:]]
        self._scenario_towers = Towers(tower, tasks, scenarios, kernel_regularizer=regularizer)
        self._shared_towers = Towers(tower, tasks, kernel_regularizer=regularizer) if use_shared else None

    def call(
        self, request: tf.Tensor, candidate: tf.Tensor, scenario: Scenario, training: bool = False
    ) -> BackboneOutput:
        hidden = self._first((request, candidate))
        for dense in self._rest:
            hidden = dense(hidden)
        return BackboneOutput(
            scenario=self._scenario_towers(hidden, scenario),
            shared=self._shared_towers(hidden) if self.use_shared else None,
        )
