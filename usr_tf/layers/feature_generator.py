"""Feature generator (FG) of USR (DESIGN §4.3; our reading of arXiv 2405.10835)."""

from typing import Any, Literal, get_args

import tensorflow as tf
import tf_keras as keras

from usr_tf.layers.dense import Split
from usr_tf.layers.gate_unit import GateUnit
from usr_tf.layers.shapes import check_shapes

Condition = Literal["trigger", "trigger_and_features"]


@keras.saving.register_keras_serializable(package="usr_tf")
class FeatureGenerator(GateUnit):
    """Gate that rescales the scenario-agnostic features, once per scenario view.

    With `t` the view's trigger, `x = [request ; candidate]` and `sg` stop-gradient::

        f = x ⊗ δ,   δ = 2 · σ(W_2 relu(W_1 c + b_1) + b_2),   c = t  or  [t ; sg(x)]

    `W_2` and `b_2` start at zero, so the layer starts as the identity. The condition `trigger` costs once a request
    in serving and leaves the request's features as one row, so the layer after it still splits;
    `trigger_and_features` rescales the request's features for every candidate.

    Args:
      hidden: Width of the gate's hidden layer.
      condition: What the gate reads: `trigger` or `trigger_and_features`.
      kernel_regularizer: As for `GateUnit`.

    Call arguments:
      features: `(request [R, dr], candidate [B, dc])`, R being B in training, 1 in serving.
      trigger: `[R, V, t]`, one for each view.

    Returns:
      `(request, candidate)`, rescaled. The candidate's is `[B, V, dc]`. The request's is `[R, V, dr]` under
      `trigger` and `[B, V, dr]` under `trigger_and_features`.
    """

    _gate_initializer = "zeros"

    def __init__(self, hidden: int, condition: Condition = "trigger", **kwargs: Any):
        super().__init__(hidden, **kwargs)
        if condition not in get_args(Condition):
            raise ValueError(f"`condition` must be one of {get_args(Condition)}. Received: {condition}")
        self.condition = condition

    def call(self, features: Split, trigger: tf.Tensor) -> Split:
        check_shapes(request=(features[0], "R dr"), candidate=(features[1], "B dc"), trigger=(trigger, "T V t"))
        values = _by_view(features)
        return super().call(values, self._condition(values, trigger))

    def gates(self, features: Split, trigger: tf.Tensor) -> Split:
        """Gates δ of request and candidate, once the layer is built."""
        values = _by_view(features)
        return self._gates(values, self._condition(values, trigger))

    def _condition(self, values: Split, trigger: tf.Tensor) -> Split:
        if self.condition == "trigger":
            return (trigger,)
        return (trigger, *map(tf.stop_gradient, values))


def _by_view(features: Split) -> Split:
    """Features with a view axis."""
    return tuple(tf.expand_dims(part, 1) for part in features)
