"""Position tower: position bias, learned in training and left out of every score (Zhao et al., RecSys 2019)."""

from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras as keras

from usr_tf.layers.configured_layer import ConfiguredLayer
from usr_tf.layers.shapes import check_shapes


class LogitBias(NamedTuple):
    """Terms added to the logits of `GlobalLabelHeads`."""

    scenario: tf.Tensor
    """`[B, T]`, to those of the example's scenario."""
    shared: tf.Tensor | None
    """`[B, T]`, to the global ones; None without global labels."""


@keras.saving.register_keras_serializable(package="usr_tf")
class PositionTower(ConfiguredLayer):
    """Learned logit bias per scenario and position.

    Users look more at what stands first, so a model of logged clicks learns where the old ranker put an item as well as
    how good the item is. This tower, called in training alone, takes the first part upon itself. A row of unknown place
    gets 0, and so does a random share of the others, which holds the score without the tower at the average of the
    labels. It starts at 0.

    The bias stands where examination decides. In an ESMM chain that is the first task, `p_ctr = σ(a_s + β)`: the others
    are conditional on it. With global labels it is each factor that a place bears on::

        p_gctr = σ(a_g + β_g),   p_ctr = p_gctr · σ(a_s + β_1),   p_ctcvr = p_gctcvr · σ(c_s + β_2)

    A later task needs the click *here* too, but its chain runs over the global tasks, past `p_ctr`: hence `β_2`. And a
    global label counts this impression's own action among others, so without `β_g` items would keep some of the place's
    advantage through `p_gctr`.

    Args:
      scenarios: Number of scenarios, K.
      tasks: Number of tasks, T.
      use_global: Whether there are global labels.
      positions: Number of distinct positions; later ones share the last one's bias.
      dropout: Share of the rows that get 0 at random.

    Call arguments:
      scenario: int32 `[B]`.
      position: int `[B]`, from 1; 0 where unknown.
      seed: int `[2]`, what the rows that get 0 are drawn from; without it none is.

    Returns:
      `LogitBias`.
    """

    def __init__(
        self, scenarios: int, tasks: int, use_global: bool = True, *, positions: int, dropout: float, **kwargs: Any
    ):
        super().__init__(**kwargs)
        if min(scenarios, tasks, positions) < 1:
            raise ValueError(
                f"`scenarios`, `tasks` and `positions` must be at least 1. Received: {scenarios}, {tasks}, {positions}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be from 0 to below 1. Received: {dropout}")
        self.scenarios = scenarios
        self.tasks = tasks
        self.use_global = use_global
        self.positions = positions
        self.dropout = dropout

    def build(self, input_shape: tf.TensorShape) -> None:
        biases = self.tasks + 1 if self.use_global else 1
        shape = (self.scenarios, self.positions, biases)
        self.bias = self.add_weight(name="bias", shape=shape, initializer="zeros")
        super().build(input_shape)

    def call(self, scenario: tf.Tensor, position: tf.Tensor, seed: tf.Tensor | None = None) -> LogitBias:
        check_shapes(scenario=(scenario, "B"), position=(position, "B"))
        place = tf.clip_by_value(tf.cast(position, tf.int32), 1, self.positions) - 1
        known = position > 0
        if seed is not None:
            known &= tf.random.stateless_uniform(tf.shape(position), seed) >= self.dropout
        bias = tf.gather_nd(self.bias, tf.stack([scenario, place], axis=1))
        bias = tf.where(known[:, tf.newaxis], bias, 0.0)
        first_alone = [[0, 0], [0, self.tasks - 1]]
        if not self.use_global:
            return LogitBias(tf.pad(bias, first_alone), None)
        return LogitBias(bias[:, 1:], tf.pad(bias[:, :1], first_alone))
