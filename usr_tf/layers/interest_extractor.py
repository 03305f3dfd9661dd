"""The S&R Views User Interest Extractor (IE, DESIGN §4.2; our reading of arXiv 2405.10835)."""

import math
from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.layers.dense import glorot_uniform
from usr_tf.layers.folding import fold


@keras.saving.register_keras_serializable(package="usr_tf")
class InterestExtractor(keras.layers.Layer):
    """Target attention over the history whose projections are generated from a scenario trigger.

    Each projection is `W(t) = U · S(t) · V` with `U [d, r]` and `V [r, d]` of its own for query, key and value, and
    `S(t) = I + reshape(MLP(t))`, `[r, r]`::

        score_l = (e W_q(t)) · (h_l W_k(t)) / √d,   a = softmax over the real history,   i = (Σ_l a_l h_l) W_v(t)

    All of it is linear, so the query is projected back, `p = e W_q W_kᵀ`, compared with the history as it is, and the
    history is pooled before it is projected. The history is thus read twice, an example and view costs
    `O(L·d + d·r + r²)`, and no example gets a `d × d` or `d × r` matrix. An empty history gives the zero vector.

    Args:
      rank: Rank of the projections, r.
      hidden: Width of the hidden layer that generates the `S(t)`.

    Call arguments:
      item: `[B, d]`, the candidates.
      history: `[B, L, d]`.
      mask: bool `[B, L]`, True where an action is real.
      trigger: `[B, V, t]`, one for each view.

    Returns:
      `[B, V, d]`, the interest in each view.
    """

    def __init__(self, rank: int, hidden: int, **kwargs: Any):
        super().__init__(**kwargs)
        if min(rank, hidden) < 1:
            raise ValueError(f"`rank` and `hidden` must be at least 1. Received: {rank}, {hidden}")
        self.rank = rank
        self.hidden = hidden
        self._generator = [
            keras.layers.Dense(hidden, activation="relu"),
            # Small but not zero: the views differ a little from the start, around the same projections.
            keras.layers.Dense(3 * rank * rank, kernel_initializer=keras.initializers.RandomNormal(stddev=0.02)),
        ]

    def build(self, input_shape: tf.TensorShape) -> None:
        width = input_shape[-1]

        def add(name: str, *shape: int) -> tf.Variable:
            return self.add_weight(name=name, shape=shape, initializer=glorot_uniform(*shape))

        self.query_down, self.query_up = add("query_down", width, self.rank), add("query_up", self.rank, width)
        self.key_down, self.key_up = add("key_down", width, self.rank), add("key_up", self.rank, width)
        self.value_down, self.value_up = add("value_down", width, self.rank), add("value_up", self.rank, width)
        super().build(input_shape)

    def call(self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, trigger: tf.Tensor) -> tf.Tensor:
        query, key, value = self._generate(trigger)  # each [B, V, r, r]
        # e U_q S_q (V_q V_kᵀ) S_kᵀ U_kᵀ, from the left
        compressed = tf.linalg.matvec(query, tf.matmul(item, self.query_down)[:, tf.newaxis], transpose_a=True)
        compressed = tf.linalg.matvec(key, tf.tensordot(compressed, self._query_key, axes=1))
        projected_back = tf.tensordot(compressed, tf.transpose(self.key_down), axes=1)  # [B, V, d]
        scores = tf.matmul(projected_back, history, transpose_b=True)  # [B, V, L]
        pooled = tf.matmul(_attention(scores, mask[:, tf.newaxis], self.query_down.shape[0]), history)  # [B, V, d]
        compressed = tf.linalg.matvec(value, tf.tensordot(pooled, self.value_down, axes=1), transpose_a=True)
        return tf.tensordot(compressed, self.value_up, axes=1)

    def serve(self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, trigger: tf.Tensor) -> tf.Tensor:
        """The same interests for one request's candidates in one view, once the layer is built.

        What depends on the request alone is computed once: the history compared through all four projections
        (`[d, L]`) and its projected values (`[L, d]`). A candidate then costs `O(L·d)`.

        Args:
          item: `[N, d]`, the candidates.
          history: `[1, L, d]`. L may be 0.
          mask: bool `[1, L]`.
          trigger: `[1, 1, t]`.

        Returns:
          `[N, d]`.
        """
        query, key, value = (matrix[0, 0] for matrix in self._generate(trigger))  # each [r, r]
        history = history[0]
        # U_q S_q (V_q V_kᵀ) S_kᵀ U_kᵀ hᵀ, from the right
        keys = tf.matmul(key, tf.matmul(self.key_down, history, transpose_a=True, transpose_b=True), transpose_a=True)
        keys = tf.matmul(self.query_down, tf.matmul(query, tf.matmul(self._query_key, keys)))
        values = tf.matmul(tf.matmul(tf.matmul(history, self.value_down), value), self.value_up)
        return tf.matmul(_attention(tf.matmul(item, keys), mask, self.query_down.shape[0]), values)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rank": self.rank, "hidden": self.hidden}

    @property
    def _query_key(self) -> tf.Tensor:
        """`V_q V_kᵀ`, `[r, r]`: of weights alone."""
        return fold(lambda: tf.matmul(self.query_up, self.key_up, transpose_b=True), self.query_up, self.key_up)

    def _generate(self, trigger: tf.Tensor) -> list[tf.Tensor]:
        """`S_q`, `S_k` and `S_v`, each `[B, V, r, r]`."""
        generated = trigger
        for dense in self._generator:
            generated = dense(generated)
        shape = tf.shape(trigger)
        generated = tf.reshape(generated, [shape[0], shape[1], 3, self.rank, self.rank])
        return tf.unstack(generated + tf.eye(self.rank, dtype=generated.dtype), axis=2)


def _attention(scores: tf.Tensor, mask: tf.Tensor, width: int) -> tf.Tensor:
    """Softmax of `scores / √width` over the last axis where `mask` is True; zeros where it nowhere is."""
    scores = tf.where(mask, scores / math.sqrt(width), scores.dtype.min / 2)
    # A row without real history has equal scores, hence finite weights, which the product then sets to zero.
    return tf.nn.softmax(scores) * tf.cast(mask, scores.dtype)
