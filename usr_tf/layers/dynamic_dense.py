"""Dense layer with a low-rank core generated from a condition (Yan et al., "APG", NeurIPS 2022)."""

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.layers.configured_layer import ConfiguredLayer
from usr_tf.layers.dense import Split, SplitDense, affine
from usr_tf.layers.folding import fold
from usr_tf.layers.scenario import Scenario

_SPREAD = 0.1
"""How far a generated core stands from the identity at the start, entry by entry, for hidden values of size 1."""


@keras.saving.register_keras_serializable(package="usr_tf")
class DynamicDense(ConfiguredLayer):
    """`activation(x V S(z) U + b)` with a core `S(z) = reshape(MLP(z))`, `[r, r]`, for the condition `z`.

    `V [in, r]` and `U [r, units]` are shared by all rows. Over-parameterised, `V = V_l V_r` and `U = U_l U_r` with an
    inner size p: more weights in training for the same function. What depends on weights alone is multiplied before
    any row is, and folded at export: `V_l V_r`, `U_l U_r` and, where `z` is a weight itself, `V S(z)`. No row has
    a matrix to itself that is larger than its core.

    `V U` starts with the variance of a Glorot-uniform kernel `[in, units]`, whatever r and p are, and `S` near the
    identity.

    Args:
      units: Size of the output.
      rank: Size of the core, r.
      overparameter: The inner size, p; None: no over-parameterisation.
      generator: Size of each hidden (ReLU) layer of the MLP.
      activation: As for `keras.layers.Dense`.
      kernel_regularizer: As for `keras.layers.Dense`, on each factor and on the kernels of the MLP.

    Call arguments:
      inputs: `[B, in]`, or a tuple of parts, as for `SplitDense`.
      condition: `z` as a tuple of parts, as for `SplitDense`. Their shapes say how many cores there are: `[B, ...]`,
        one for each row; `[K, e]` with a `scenario`, one for each scenario; `[e]`, one for all rows. The latter two
        are folded if they are variables.
      scenario: As for `Backbone`, or None.

    Returns:
      `[B, units]`.
    """

    def __init__(
        self,
        units: int,
        rank: int,
        overparameter: int | None = None,
        generator: Sequence[int] = (),
        activation: Any = None,
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if min(units, rank, 1 if overparameter is None else overparameter, *generator) < 1:
            raise ValueError(
                "`units`, `rank`, `overparameter` and `generator` must be at least 1. "
                f"Received: {units}, {rank}, {overparameter}, {generator}"
            )
        self.units = units
        self.rank = rank
        self.overparameter = overparameter
        self.generator = list(generator)
        self.activation = keras.activations.get(activation)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self._mlp = [SplitDense(size, "relu", kernel_regularizer=kernel_regularizer) for size in generator]
        self._mlp.append(_Core(rank, kernel_regularizer))

    def build(self, input_shape: Any) -> None:
        width = sum(shape[-1] for shape in tf.nest.flatten(input_shape))
        inner = [] if self.overparameter is None else [self.overparameter]

        def add(name: str, sizes: Sequence[int], gain: float = 1.0) -> list[tf.Variable]:
            """Factors that together keep a row's mean square up to `gain`."""
            return [
                self.add_weight(
                    name=f"{name}_kernel_{index}",
                    shape=shape,
                    initializer=keras.initializers.VarianceScaling(1.0 if index else gain, "fan_in", "uniform"),
                    regularizer=self.kernel_regularizer,
                )
                for index, shape in enumerate(pairwise(sizes))
            ]

        self._down = add("down", [width, *inner, self.rank])
        self._up = add("up", [self.rank, *inner, self.units], gain=2 * width / (width + self.units))
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor | Split, condition: Split, scenario: Scenario | None = None) -> tf.Tensor:
        if len(condition[0].shape) == 1 or isinstance(scenario, int):
            compressed = affine(inputs, self._compressor(condition, scenario))
        else:
            compressed = affine(inputs, fold(_product_of(self._down), *self._down))
            cores = self.cores(condition)
            if scenario is None:
                compressed = tf.linalg.matvec(cores, compressed, transpose_a=True)
            else:  # K products of r numbers, and no copy of a core for each row
                compressed = tf.gather(tf.einsum("br,krs->bks", compressed, cores), scenario, axis=1, batch_dims=1)
        return self.activation(affine(compressed, fold(_product_of(self._up), *self._up), self.bias))

    def cores(self, condition: Split) -> tf.Tensor:
        """Cores `S(z)`, `[..., r, r]`, for parts `[..., e_i]`."""
        hidden = condition
        for layer in self._mlp:
            hidden = layer(hidden)
        return hidden

    def _compressor(self, condition: Split, scenario: int | None) -> tf.Tensor:
        """`V S(z)`, `[in, r]`, for one condition."""

        def compute() -> tf.Tensor:
            one = condition if scenario is None else tuple(part[scenario] for part in condition)
            return tf.matmul(_product_of(self._down)(), self.cores(one))

        generator = [weight for layer in self._mlp for weight in layer.weights]
        return fold(compute, *condition, *self._down, *generator)


class _Core(keras.layers.Layer):
    """Core generator `reshape(z W + b)`, `[..., r, r]`, near the identity at the start."""

    def __init__(self, rank: int, kernel_regularizer: Any = None):
        super().__init__()
        self._rank = rank
        self._kernel_regularizer = kernel_regularizer

    def build(self, input_shape: Any) -> None:
        width = sum(shape[-1] for shape in tf.nest.flatten(input_shape))
        size = self._rank * self._rank
        self.kernel = self.add_weight(
            name="kernel",
            shape=(width, size),
            initializer=keras.initializers.RandomNormal(stddev=_SPREAD * width**-0.5),
            regularizer=self._kernel_regularizer,
        )
        self.bias = self.add_weight(
            name="bias",
            shape=(size,),
            initializer=lambda shape, dtype: tf.reshape(tf.eye(self._rank, dtype=dtype), shape),
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor | Split) -> tf.Tensor:
        flat = affine(inputs, self.kernel, self.bias)
        return tf.reshape(flat, tf.concat([tf.shape(flat)[:-1], [self._rank, self._rank]], axis=0))


def _product_of(factors: Sequence[tf.Variable]) -> Callable[[], tf.Tensor]:
    return lambda: reduce(tf.matmul, factors)
