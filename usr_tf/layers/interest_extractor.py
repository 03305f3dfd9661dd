"""Interest extractor (IE) of USR (DESIGN §4.2; our reading of arXiv 2405.10835)."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.layers.configured_layer import ConfiguredLayer
from usr_tf.layers.dense import glorot_uniform
from usr_tf.layers.shapes import check_mask, check_shapes


@keras.saving.register_keras_serializable(package="usr_tf")
class InterestExtractor(ConfiguredLayer):
    """Target attention over the history, with projections generated from a scenario trigger.

    Each projection is the identity and a correction of low rank, `W(t) = I + U · S(t) · V`, with `U [d, r]` and
    `V [r, d]` of its own for query, key and value, and `S(t) = I + reshape(MLP(t))`, `[r, r]`::

        score_l = (e W_q(t)) · (h_l W_k(t)),   a = softmax over the real history,   i = (Σ_l a_l h_l) W_v(t)

    An item and an action share their embeddings, so with the identity in it the attention starts as likeness, and the
    interest keeps all that the history holds. By `U · S · V` alone, as our first reading of the paper had it, both
    pass through r numbers. The scores are not divided by √d: the tables start so wide that likeness tells.

    With H heads, the columns of the projections are dealt out in order, `d / H` to each, as in Vaswani et al. (2017):
    a head compares and pools with its own columns, and the heads' interests stand side by side. `U` and `S(t)` serve
    all heads, so more of them need no further weights.

    The projections are linear, so the query is projected back, `p = e W_q W_kᵀ`, and compared with the raw history, and
    the history is pooled before it is projected. The history is thus read twice, the cost per example and view is
    `O(H·(L·d + d·r + r²))`, and no example needs a `d × d` or `d × r` matrix. An empty history gives the zero vector.

    Args:
      rank: Rank of the projections, r.
      hidden: Width of the hidden layer that generates the `S(t)`.
      heads: Number of heads, H, which divides d.

    Call arguments:
      item: `[B, d]`, the candidates.
      history: `[B, L, d]`.
      mask: bool `[B, L]`, True where an action is real.
      trigger: `[B, V, t]`, one for each view.

    Returns:
      `[B, V, d]`, the interest in each view.

    Raises:
      ValueError: the heads do not divide d, or another shape.
    """

    def __init__(self, rank: int, hidden: int, heads: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        if min(rank, hidden, heads) < 1:
            raise ValueError(f"`rank`, `hidden` and `heads` must be at least 1. Received: {rank}, {hidden}, {heads}")
        self.rank = rank
        self.hidden = hidden
        self.heads = heads
        self._generator = [
            keras.layers.Dense(hidden, activation="relu"),
            # Small but not zero: the views differ a little from the start, around the same projections.
            keras.layers.Dense(3 * rank * rank, kernel_initializer=keras.initializers.RandomNormal(stddev=0.02)),
        ]

    def build(self, input_shape: tf.TensorShape) -> None:
        width = input_shape[-1]
        if width % self.heads:
            raise ValueError(f"`heads` must divide the width of the history, {width}. Received: {self.heads}")
        self._head_width = width // self.heads

        def add(name: str, *shape: int) -> tf.Variable:
            return self.add_weight(name=name, shape=shape, initializer=glorot_uniform(*shape))

        self.query_down, self.query_up = add("query_down", width, self.rank), add("query_up", self.rank, width)
        self.key_down, self.key_up = add("key_down", width, self.rank), add("key_up", self.rank, width)
        self.value_down, self.value_up = add("value_down", width, self.rank), add("value_up", self.rank, width)
        super().build(input_shape)

    def call(self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, trigger: tf.Tensor) -> tf.Tensor:
        check_shapes(item=(item, "B d"), history=(history, "B L d"), mask=(mask, "B L"), trigger=(trigger, "T V t"))
        check_mask(mask)
        query, key, value = self._generate(trigger)  # each [B, V, r, r]
        weights, shape = self._weigh(item, history, mask, query, key)
        pooled = tf.reshape(tf.matmul(weights, history), shape)
        return tf.reduce_sum(_project(pooled, self.value_down, value, self.value_up) * self._columns, axis=2)

    def attention(self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, trigger: tf.Tensor) -> tf.Tensor:
        """Attention `[B, V, H, L]` by view and head, once the layer is built."""
        query, key, _ = self._generate(trigger)
        weights, shape = self._weigh(item, history, mask, query, key)
        return tf.reshape(weights, [*tf.unstack(shape[:3]), tf.shape(history)[1]])

    def serve(self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, trigger: tf.Tensor) -> tf.Tensor:
        """Interests of one request's candidates in one view, once the layer is built.

        What depends on the request alone is computed once: the history compared through all four projections
        (`[d, L]`, for each head) and its projected values (`[L, d]`). A candidate then costs
        `O(H·L·d)`.

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
        keys = _project(history, self.key_down, key, self.key_up) * self._columns[:, tf.newaxis]  # [H, L, d]
        keys = _project(keys, tf.transpose(self.query_up), _transpose(query), tf.transpose(self.query_down))
        values = _project(history, self.value_down, value, self.value_up) * self._columns[:, tf.newaxis]
        return tf.reduce_sum(tf.matmul(_attention(tf.matmul(item, keys, transpose_b=True), mask), values), axis=0)

    def _weigh(
        self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, query: tf.Tensor, key: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attention `[B, V·H, L]`, with views and heads on one axis, and the shape `[B, V, H, d]`."""
        queries = _project(item[:, tf.newaxis, tf.newaxis], self.query_down, query, self.query_up) * self._columns
        back = _project(queries, tf.transpose(self.key_up), _transpose(key), tf.transpose(self.key_down))
        shape = tf.shape(back)
        flat = tf.reshape(back, [shape[0], shape[1] * shape[2], shape[3]])
        scores = tf.matmul(flat, history, transpose_b=True)
        return _attention(scores, mask[:, tf.newaxis]), shape

    @property
    def _columns(self) -> tf.Tensor:
        """Head mask `[H, d]`: 1 for the columns of each head."""
        return tf.repeat(tf.eye(self.heads, dtype=self.compute_dtype), self._head_width, axis=1)

    def _generate(self, trigger: tf.Tensor) -> list[tf.Tensor]:
        """Generated cores `S_q`, `S_k` and `S_v`, each `[B, V, r, r]`."""
        generated = trigger
        for dense in self._generator:
            generated = dense(generated)
        shape = tf.shape(trigger)
        generated = tf.reshape(generated, [shape[0], shape[1], 3, self.rank, self.rank])
        return tf.unstack(generated + tf.eye(self.rank, dtype=generated.dtype), axis=2)


def _project(x: tf.Tensor, down: tf.Tensor, core: tf.Tensor, up: tf.Tensor) -> tf.Tensor:
    """Low-rank projection `x (I + U S V)`: `x [..., N, d]`, `U [d, r]`, `S [..., r, r]`, `V [r, d]`."""
    # tensordot makes one product of all rows where matmul would make one a row
    return x + tf.tensordot(tf.matmul(tf.tensordot(x, down, axes=1), core), up, axes=1)


def _transpose(matrix: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matrix_transpose(matrix)


def _attention(scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Masked softmax of `scores` over the last axis; zeros where nothing is unmasked."""
    scores = tf.where(mask, scores, scores.dtype.min / 2)
    # A row without real history has equal scores, hence finite weights, which the product then sets to zero.
    return tf.nn.softmax(scores) * tf.cast(mask, scores.dtype)
