"""Interface of history encoders: the vector that a model reads of a user's history."""

import abc
from typing import ClassVar

import tensorflow as tf
import tf_keras as keras

from usr_tf.config import Config


class HistoryEncoder(abc.ABC):
    """Encoder of a history `[R, L, d]` as one vector per candidate and scenario view.

    The weights, if any, are those of one Keras layer. The model tracks it under `part`, its name in checkpoints.

    Args:
      config: The configuration of the model.
      action_width: Width of an action of the history, d.
    """

    part: ClassVar[str]
    """Name of the layer, and of its weights in a checkpoint."""
    reads_trigger: ClassVar[bool] = False
    """Whether the output depends on the scenario view. The contrastive loss compares the views of such an encoder."""
    reads_candidate: ClassVar[bool] = True
    """Whether the output depends on the candidate; if not, serving computes it once per request."""
    has_product: ClassVar[bool] = False
    """Whether the backbone reads output ⊙ candidate whatever `history.product` is."""
    layer: keras.layers.Layer | None = None
    """Layer that holds the weights."""

    def __init__(self, config: Config, action_width: int):
        self.width = action_width
        """Width of the output; that of an action where the product with the candidate is read."""

    @abc.abstractmethod
    def encode(self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, trigger: tf.Tensor | None) -> tf.Tensor:
        """Encoded histories of B rows, each a request of its own.

        Args:
          item: `[B, d]`, the candidates as a history would hold them.
          history: `[B, L, d]`, newest last.
          mask: bool `[B, L]`, True where an action is real.
          trigger: `[B, V, t]`, one per scenario view; None where no part of the model reads it.

        Returns:
          `[B, V, width]`; `[B, 1, width]` without `reads_trigger`. Zeros for an empty history.
        """

    def serve(self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, trigger: tf.Tensor | None) -> tf.Tensor:
        """Encoded histories of the N candidates of one request in one view.

        `encode` of N copies of the request. Override it to compute the request's part once.

        Args:
          item: `[N, d]`.
          history: `[1, L, d]`; L may be 0.
          mask: bool `[1, L]`.
          trigger: `[1, 1, t]`, or None.

        Returns:
          `[N, width]`; `[1, width]` without `reads_candidate`.
        """
        rows = tf.shape(item)[0]
        copies = [None if part is None else tf.repeat(part, rows, axis=0) for part in (history, mask, trigger)]
        return tf.squeeze(self.encode(item, *copies), axis=1)

    def attention(
        self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, trigger: tf.Tensor | None
    ) -> tf.Tensor | None:
        """Attention `[B, V, H, L]` over the history by view and head, for explanations; None without attention."""
        return None
