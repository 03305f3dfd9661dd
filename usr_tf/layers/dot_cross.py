"""Dot products between the request's and the candidate's feature vectors, as in DLRM (Naumov et al., 2019)."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.layers.configured_layer import ConfiguredLayer


@keras.saving.register_keras_serializable(package="usr_tf")
class DotCross(ConfiguredLayer):
    """Dot products of every request feature with every candidate feature of the same width.

    A network approximates a product of two vectors poorly from their concatenation; a dot product says at once how far
    a user's and an item's vectors agree. There are no weights. TFRS's `DotInteraction` takes every pair of one batch;
    this one leaves out pairs of one side, and takes one request beside N candidates.

    Args:
      size: Width of the vectors.
      request: First column of each vector in `request`.
      candidate: First column of each vector in `candidate`.

    Call arguments:
      request: `[R, dr]`. R is B in training, and 1 where all candidates have one request.
      candidate: `[B, dc]`.

    Returns:
      `[B, r * c]`, of r request and c candidate vectors.
    """

    def __init__(self, size: int, request: Sequence[int], candidate: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        self.size, self.request, self.candidate = size, list(request), list(candidate)

    def call(self, request: tf.Tensor, candidate: tf.Tensor) -> tf.Tensor:
        left = tf.stack([request[:, start : start + self.size] for start in self.request], axis=1)
        right = tf.stack([candidate[:, start : start + self.size] for start in self.candidate], axis=1)
        products = tf.matmul(right, left, transpose_b=True)  # [B, c, r]
        return tf.reshape(products, [-1, len(self.request) * len(self.candidate)])


def starts(columns: Sequence[str], sizes: Mapping[str, int], size: int) -> list[int]:
    """First column of each feature that is `size` wide, among columns that name their feature."""
    places = dict.fromkeys(columns)
    return [columns.index(name) for name in places if sizes[name] == size]
