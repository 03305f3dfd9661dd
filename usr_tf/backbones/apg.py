"""APG: layers with a low-rank core generated per scenario or example (Yan et al., NeurIPS 2022)."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import tensorflow as tf
import tf_keras as keras

from usr_tf.backbones.base import Backbone, BackboneOutput, Towers
from usr_tf.layers.dense import Split
from usr_tf.layers.dynamic_dense import DynamicDense
from usr_tf.layers.scenario import Scenario, own_row

Condition = Literal["group", "mix", "self"]


@keras.saving.register_keras_serializable(package="usr_tf")
class APG(Backbone):
    """`tower_{p,t}(bottom(x | z))`, `x = [request ; candidate]`, whose layers are `h ↦ relu(h V S(z) U + b)`.

    `S(z) = reshape(MLP(z))` is r×r, with an MLP for each layer, and the condition `z` is one of

    - `group`: `e_p`, a learned vector for scenario p: a core for each scenario, folded at export;
    - `mix`: `[e_p ; h]`: a core for each row;
    - `self`: `h`, the layer's own input: a core for each row, and no scenario in it.

    The towers are those of `SharedBottom`, so what sets the two apart is the bottom.

    The shared part is the same bottom with a learned vector of "any scenario" for `e_p`, and a tower of its own for
    each task. Under `self` one pass of the bottom serves both.

    Args:
      bottom: Size of each layer of the bottom, at least one.
      tower: Size of each layer of a tower.
      condition: `group`, `mix` or `self`.
      scenario_embedding: Size of the `e_p`; unused under `self`.
      rank, overparameter, generator: As for `DynamicDense`.
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
        condition: Condition,
        scenario_embedding: int,
        rank: int,
        overparameter: int | None,
        generator: Sequence[int],
        **kwargs: Any,
    ):
        super().__init__(scenarios, tasks, use_shared, **kwargs)
        if not bottom:
            raise ValueError(f"`bottom` must hold at least one layer. Received: {bottom}")
        if condition not in get_args(Condition):
            raise ValueError(f"`condition` must be one of {get_args(Condition)}. Received: {condition}")
        if scenario_embedding < 1:
            raise ValueError(f"`scenario_embedding` must be at least 1. Received: {scenario_embedding}")
        self.bottom = list(bottom)
        self.tower = list(tower)
        self.condition = condition
        self.scenario_embedding = scenario_embedding
        self.rank = rank
        self.overparameter = overparameter
        self.generator = list(generator)
        regularizer = self._kernel_regularizer()
        self._bottom = [
            DynamicDense(size, rank, overparameter, generator, activation="relu", kernel_regularizer=regularizer)
            for size in bottom
        ]
        self._scenario_towers = Towers(tower, tasks, scenarios, kernel_regularizer=regularizer)
        self._shared_towers = Towers(tower, tasks, kernel_regularizer=regularizer) if use_shared else None

    def build(self, input_shape: tf.TensorShape) -> None:
        def add(name: str, *shape: int) -> tf.Variable:  # so wide that the MLPs tell the scenarios apart at once
            return self.add_weight(name=name, shape=shape, initializer=keras.initializers.RandomNormal(stddev=1.0))

        self._embedding = self._any_embedding = None
        if self.condition != "self":
            self._embedding = add("scenario_embedding", self.scenarios, self.scenario_embedding)
            if self.use_shared:
                self._any_embedding = add("any_scenario_embedding", self.scenario_embedding)
        super().build(input_shape)

    def call(
        self, request: tf.Tensor, candidate: tf.Tensor, scenario: Scenario, training: bool = False
    ) -> BackboneOutput:
        x = (request, candidate)
        own = self._hidden(x, self._embedding, scenario)
        result = self._scenario_towers(own, scenario)
        if not self.use_shared:
            return BackboneOutput(result, None)
        shared = own if self.condition == "self" else self._hidden(x, self._any_embedding)
        return BackboneOutput(result, self._shared_towers(shared))

    def _hidden(self, x: Split, embedding: tf.Variable | None, scenario: Scenario | None = None) -> tf.Tensor:
        """Output of the bottom `[B, bottom[-1]]`, under `embedding[scenario]`, or `embedding` without a scenario."""
        if embedding is None:
            known = ()
        else:
            known = (embedding[tf.newaxis] if scenario is None else own_row(embedding, scenario),)
        hidden = x
        for layer in self._bottom:
            if self.condition == "group":
                hidden = layer(hidden, (embedding,), scenario)
            else:
                hidden = layer(hidden, (*known, *tf.nest.flatten(hidden)))
        return hidden
