"""DIN: target attention over the history by an activation unit (Zhou et al., KDD 2018)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.layers.configured_layer import ConfiguredLayer
from usr_tf.layers.dense import glorot_uniform
from usr_tf.layers.folding import fold
from usr_tf.layers.shapes import check_mask, check_shapes


@keras.saving.register_keras_serializable(package="usr_tf")
class DIN(ConfiguredLayer):
    """The sum of a history's actions, each weighed by an activation unit that compares it with the candidate::

        a_l = MLP([h_l ; e ; h_l − e ; h_l ⊙ e]),   i = Σ_l a_l h_l   over the real history

    As in the paper there is no softmax: the weights' sum tells how strong the interest is. Hidden layers have PReLU,
    the last one is linear. An empty history gives the zero vector.

    The first layer's kernel is of four parts, and its product is computed as
    `h (K_h + K_d) + e (K_e − K_d) + (h ⊙ e) K_p`: the four vectors never stand side by side.

    Args:
      units: Size of each hidden layer of the unit, at least one.

    Call arguments:
      item: `[B, d]`, the candidates.
      history: `[B, L, d]`.
      mask: bool `[B, L]`, True where an action is real.

    Returns:
      `[B, d]`.
    """

    def __init__(self, units: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        if not units or min(units) < 1:
            raise ValueError(f"`units` must hold at least one layer, each of at least 1. Received: {units}")
        self.units = list(units)
        self._rest = [_prelu()]
        for size in units[1:]:
            self._rest += [keras.layers.Dense(size), _prelu()]
        self._rest.append(keras.layers.Dense(1))

    def build(self, input_shape: tf.TensorShape) -> None:
        width, units = input_shape[-1], self.units[0]
        self.kernel = self.add_weight(
            name="kernel", shape=(4 * width, units), initializer=glorot_uniform(4 * width, units)
        )
        self.bias = self.add_weight(name="bias", shape=(units,), initializer="zeros")
        super().build(input_shape)

    def call(self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        return tf.matmul(self.attention(item, history, mask)[:, tf.newaxis], history)[:, 0]

    def attention(self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Attention weights `[B, L]`, once the layer is built."""
        check_shapes(item=(item, "B d"), history=(history, "B L d"), mask=(mask, "B L"))
        check_mask(mask)
        of_history, of_item, of_product = self._kernels()
        item = item[:, tf.newaxis]
        first = tf.tensordot(history, of_history, 1) + tf.tensordot(item, of_item, 1)
        first += tf.tensordot(history * item, of_product, 1)
        return self._weigh(first, mask)

    def serve(self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Pooled histories of one request's candidates, once the layer is built.

        `(h_l ⊙ e) K_p = e (diag(h_l) K_p)`: with the request's history known, the first layer is one affine map of
        the candidate, whose kernel `[d, L·u]` is computed once.

        Args:
          item: `[N, d]`, the candidates.
          history: `[1, L, d]`. L may be 0.
          mask: bool `[1, L]`.

        Returns:
          `[N, d]`.
        """
        of_history, of_item, of_product = self._kernels()
        history = history[0]
        kernel = tf.transpose(history)[:, :, tf.newaxis] * of_product[:, tf.newaxis] + of_item[:, tf.newaxis]
        length, (width, units) = tf.shape(history)[0], of_product.shape
        first = tf.matmul(item, tf.reshape(kernel, [width, length * units]))
        first = tf.reshape(first, [tf.shape(item)[0], length, units]) + tf.matmul(history, of_history)
        return tf.matmul(self._weigh(first, mask), history)

    def _kernels(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """First-layer kernels of history, candidate and their product, each `[d, u]`."""

        def compute() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            history, item, difference, product = tf.split(self.kernel, 4)
            return history + difference, item - difference, product

        return fold(compute, self.kernel)

    def _weigh(self, first: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Attention weights `[B, L]` from first-layer outputs `[B, L, u]`; 0 for padding."""
        hidden = first + self.bias
        for layer in self._rest:
            hidden = layer(hidden)
        return hidden[..., 0] * tf.cast(mask, hidden.dtype)


def _prelu() -> keras.layers.PReLU:
    return keras.layers.PReLU(shared_axes=[1])  # a slope a unit, whatever the place in the history
