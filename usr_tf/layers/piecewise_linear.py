"""Piecewise-linear encoding of numbers (Gorishniy et al., NeurIPS 2022, arXiv 2203.05556)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from usr_tf.layers.configured_layer import ConfiguredLayer
from usr_tf.layers.folding import fold

_NO_BIN = float(np.finfo(np.float32).max)
"""Start of a bin that a number with few distinct values lacks: the bin's output is always 0."""


@keras.saving.register_keras_serializable(package="usr_tf")
class PiecewiseLinear(ConfiguredLayer):
    """Encodes each number by how far it has passed through each of its bins.

    The output of a bin is 0 below it, 1 above it, and rises linearly within it. A network over the bins can bend at
    their edges, as a tree splits; it fits skewed numbers such as counts and recencies better than one over the numbers.
    Bins are quantiles of the values that `adapt` sees. Until then they are four from -2 to 2, or as many as there are.
    NaN and infinity come out as NaN.

    Args:
      numbers: Count of numbers, n.
      bins: Bins of each number, m.

    Call arguments:
      inputs: `[..., k]`.
      places: which of the n numbers these are; all of them when absent.

    Returns:
      `[..., k * m]`, bin by bin: the first bins of all numbers, then the second ones, and so on.
    """

    def __init__(self, numbers: int, bins: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.numbers, self.bins = numbers, bins
        edges = np.linspace(-2.0, 2.0, bins + 1, dtype=np.float32)
        self.starts = self._constant("starts", edges[:-1])
        self.widths = self._constant("widths", np.diff(edges))

    def _constant(self, name: str, values: np.ndarray) -> tf.Variable:
        return self.add_weight(
            name=name,
            shape=(self.bins, self.numbers),
            initializer=keras.initializers.Constant(np.tile(values[:, np.newaxis], (1, self.numbers))),
            trainable=False,
            experimental_autocast=False,
        )

    def adapt(self, values: np.ndarray) -> None:
        """Sets the bins to quantiles of values `[B, n]`; equal quantiles make one edge."""
        starts, widths = np.full((2, self.bins, self.numbers), [[[_NO_BIN]], [[1.0]]], np.float32)
        for number, column in enumerate(values.T):
            finite = column[np.isfinite(column)]
            if finite.size:
                edges = np.unique(np.quantile(finite, np.linspace(0, 1, self.bins + 1)).astype(np.float32))
                count = max(edges.size - 1, 1)
                starts[:count, number] = edges[:-1] if edges.size > 1 else edges
                widths[:count, number] = np.diff(edges) if edges.size > 1 else 1.0
        self.starts.assign(starts)
        self.widths.assign(widths)

    def call(self, inputs: tf.Tensor, places: Sequence[int] | None = None) -> tf.Tensor:
        # Numbers last: a CPU computes a bin of all of them several times as fast as all bins of one.
        values = tf.cast(inputs, tf.float32)[..., tf.newaxis, :]
        starts, widths = self.starts, self.widths
        if places is not None:
            starts, widths = fold(
                lambda: [tf.gather(edges, places, axis=1) for edges in (starts, widths)], starts, widths
            )
        passed = tf.clip_by_value((values - starts) / widths, 0.0, 1.0)
        # Some CPUs clip NaN to a number.
        passed += tf.where(tf.math.is_finite(values), 0.0, float("nan"))
        width = inputs.shape[-1] * self.bins
        encoded = tf.reshape(passed, tf.concat([tf.shape(inputs)[:-1], [width]], axis=0))
        return tf.cast(tf.ensure_shape(encoded, [*inputs.shape[:-1], width]), self.compute_dtype)
