"""Probabilities in log space: stable products, complements and cross-entropy."""

import math

import tensorflow as tf

_LARGEST = -1e-37
"""Stands for every log probability closer to 0: of those, float32 tells `1 - p` from 0 no more."""


def log1mexp(x: tf.Tensor) -> tf.Tensor:
    """`log(1 - exp(x))` of `x ≤ 0`: log of the complement of a probability.

    Two forms, each exact where the other loses its digits (Mächler, "Accurately computing log(1 - exp(-|a|))",
    2012). Values and gradients are finite for every `x ≤ 0`; above -1e-37 the value stays at log(1e-37) = -85.2.

    Raises:
      ValueError: a tensor of another dtype than floats.
    """
    x = tf.convert_to_tensor(x)
    if not x.dtype.is_floating:
        raise ValueError(f"`x` must be floats. Received: {x.dtype.name}")
    x = tf.minimum(x, tf.constant(_LARGEST, x.dtype))
    edge = tf.constant(-math.log(2.0), x.dtype)
    near = x > edge
    # Each form sees only arguments at which it and its gradient are finite: 0 · inf would be NaN.
    return tf.where(
        near,
        tf.math.log(-tf.math.expm1(tf.where(near, x, edge))),
        tf.math.log1p(-tf.exp(tf.where(near, edge, x))),
    )


def binary_cross_entropy(log_p: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
    """`-y log p - (1 - y) log(1 - p)`, elementwise.

    Args:
      log_p: Logs of probabilities, float32 of any shape.
      label: Labels from 0 to 1, of the same shape and type.

    Raises:
      ValueError: another shape or type, which would be broadcast: a `[B]` with a `[B, 1]` is a `[B, B]`.
    """
    log_p, label = tf.convert_to_tensor(log_p), tf.convert_to_tensor(label)
    if log_p.dtype != label.dtype or not log_p.shape.is_compatible_with(label.shape):
        found = " and ".join(f"{each.dtype.name} {each.shape}" for each in (log_p, label))
        raise ValueError(f"`log_p` and `label` must be of one shape and type. Received: {found}")
    return -(label * log_p + (1.0 - label) * log1mexp(log_p))
