"""Meta unit: dense layers with weights generated from the scenario's knowledge (M2M, WSDM 2022)."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.layers.configured_layer import ConfiguredLayer
from usr_tf.layers.dense import Split, affine, glorot_uniform
from usr_tf.layers.folding import fold

_SPREAD = 0.1
"""How far each scenario's initial matrix stands from what all share, as a share of its size."""


@keras.saving.register_keras_serializable(package="usr_tf")
class MetaUnit(ConfiguredLayer):
    """`h_{i+1} = activation(h_i W_i + b_i)` with `[W_i, b_i] = reshape(s A_i + a_i)` for the scenario's knowledge `s`.

    Every layer is as wide as the input, w. Of the `w·w + w` generated numbers the first `w·w` are `W_i`, `[in, out]`
    row by row. One scenario's weights serve all rows, so no row has a matrix to itself.

    `a_i` starts as a Glorot-uniform matrix and a bias of zeros; `A_i` starts small, so that with knowledge of length 1
    the scenarios' matrices are a tenth apart. (Generators that start as ordinary dense layers give matrices whose
    size is an accident of w and e.)

    Args:
      depth: Number of layers.
      knowledge: Size of the knowledge, e.
      activation: As for `keras.layers.Dense`.
      kernel_regularizer: As for `keras.layers.Dense`, on the `A_i`.

    Call arguments:
      inputs: `[B, ..., w]`; or a tuple of parts `[..., w_i]`, as for `SplitDense`, and w is the sum of the `w_i`.
      knowledge: `[K, e]` with a `scenario`, or `[e]`. Given as a variable, the weights are folded at export.
      scenario: The row of `knowledge` that is meant.

    Returns:
      `[B, ..., w]`.
    """

    def __init__(
        self,
        depth: int,
        knowledge: int,
        activation: Any = "leaky_relu",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if min(depth, knowledge) < 1:
            raise ValueError(f"`depth` and `knowledge` must be at least 1. Received: {depth}, {knowledge}")
        self.depth = depth
        self.knowledge = knowledge
        self.activation = keras.activations.get(activation)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: Any) -> None:
        self._width = sum(shape[-1] for shape in tf.nest.flatten(input_shape))
        size = self._width * self._width + self._width

        def shared_start(shape: tf.TensorShape, dtype: tf.DType) -> tf.Tensor:
            matrix = glorot_uniform(self._width, self._width)([size - self._width], dtype)
            return tf.concat([matrix, tf.zeros([self._width], dtype)], axis=0)

        self._generators = []
        for index in range(self.depth):
            kernel = self.add_weight(
                name=f"kernel_{index}",
                shape=(self.knowledge, size),
                initializer=keras.initializers.RandomNormal(stddev=_SPREAD * self._width**-0.5),
                regularizer=self.kernel_regularizer,
            )
            bias = self.add_weight(name=f"bias_{index}", shape=(size,), initializer=shared_start)
            self._generators.append((kernel, bias))
        super().build(input_shape)

    def call(
        self, inputs: tf.Tensor | Split, knowledge: tf.Variable | tf.Tensor, scenario: int | None = None
    ) -> tf.Tensor:
        hidden = inputs
        for kernel, bias in self.generate(knowledge, scenario):
            hidden = self.activation(affine(hidden, kernel, bias))
        return hidden

    def generate(
        self, knowledge: tf.Variable | tf.Tensor, scenario: int | None = None
    ) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Weights `(W_i [w, w], b_i [w])` of each layer, once the layer is built."""

        def compute() -> list[tuple[tf.Tensor, tf.Tensor]]:
            known = knowledge if scenario is None else knowledge[scenario]
            layers = []
            for kernel, bias in self._generators:
                generated = tf.linalg.matvec(kernel, known, transpose_a=True) + bias
                matrix, vector = tf.split(generated, [self._width * self._width, self._width])
                layers.append((tf.reshape(matrix, [self._width, self._width]), vector))
            return layers

        return fold(compute, knowledge, *(weight for generator in self._generators for weight in generator))
