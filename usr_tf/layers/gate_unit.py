"""Gate NU, the gate unit of PEPNet (Chang et al., KDD 2023)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.layers.configured_layer import ConfiguredLayer
from usr_tf.layers.dense import Split, SplitDense

_GAMMA = 2.0
"""Twice a sigmoid, as in the paper: a gate that can raise a value as well as lower it, and passes it on at 1."""


@keras.saving.register_keras_serializable(package="usr_tf")
class GateUnit(ConfiguredLayer):
    """Scales values by the output of a small network on a condition::

        x ⊗ δ,   δ = 2 · σ(W_2 relu(W_1 c + b_1) + b_2)

    Args:
      hidden: Width of the gate's hidden layer.
      kernel_regularizer: As for `keras.layers.Dense`, of both kernels.

    Call arguments:
      values: Parts of x, each `[..., d_i]`, such as `(request [R, dr], candidate [B, dc])`. One gate, `Σ d_i` wide,
        scales them all.
      condition: Parts of c, of the same rank, as for `SplitDense`. The leading axes of both broadcast.

    Returns:
      The parts, scaled: `[..., d_i]` each.
    """

    _gate_initializer = "glorot_uniform"

    def __init__(self, hidden: int, kernel_regularizer: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        if hidden < 1:
            raise ValueError(f"`hidden` must be at least 1. Received: {hidden}")
        self.hidden = hidden
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self._hidden = SplitDense(hidden, activation="relu", kernel_regularizer=kernel_regularizer)

    def build(self, input_shape: Sequence[tf.TensorShape]) -> None:
        self._gate = keras.layers.Dense(
            sum(shape[-1] for shape in input_shape),
            activation="sigmoid",
            kernel_initializer=self._gate_initializer,
            kernel_regularizer=self.kernel_regularizer,
        )
        super().build(input_shape)

    def call(self, values: Sequence[tf.Tensor], condition: Split) -> Split:
        return tuple(value * gate for value, gate in zip(values, self._gates(values, condition), strict=True))

    def _gates(self, values: Sequence[tf.Tensor], condition: Split) -> Split:
        """Gates δ of each part, `[..., d_i]`."""
        gate = _GAMMA * self._gate(self._hidden(condition))
        return tuple(tf.split(gate, [value.shape[-1] for value in values], axis=-1))
