"""Mean pooling of the history."""

import tensorflow as tf

from usr_tf.history_encoders.base import HistoryEncoder


class MeanEncoder(HistoryEncoder):
    """`history.pooling=mean` without `usr.ie`: the mean of the real actions. It has no weights."""

    part = "mean"
    reads_candidate = False

    def encode(self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, trigger: tf.Tensor | None) -> tf.Tensor:
        return tf.expand_dims(_mean(history, mask), 1)

    def serve(self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, trigger: tf.Tensor | None) -> tf.Tensor:
        return _mean(history, mask)


def _mean(history: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """`[R, d]`."""
    real = tf.cast(mask, history.dtype)
    share = tf.math.divide_no_nan(real, tf.reduce_sum(real, axis=1, keepdims=True))
    return tf.linalg.matvec(history, share, transpose_a=True)
