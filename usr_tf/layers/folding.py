"""Constant folding at export of expressions that depend on weights alone."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import TypeVar

import tensorflow as tf

Tensors = TypeVar("Tensors")

_FOLDING = contextvars.ContextVar("folding", default=False)


@contextlib.contextmanager
def folding() -> Iterator[None]:
    """Context in which traces embed the results of `fold` as constants."""
    token = _FOLDING.set(True)
    try:
        yield
    finally:
        _FOLDING.reset(token)


def fold(compute: Callable[[], Tensors], *weights: tf.Variable | tf.Tensor) -> Tensors:
    """`compute()`, as a constant inside `folding`.

    Args:
      weights: all that it depends on. Where one of them is already a constant of the graph, TensorFlow's own
        constant folding does the rest.
    """
    if not _FOLDING.get() or not all(isinstance(weight, tf.Variable) for weight in weights):
        return compute()
    with tf.init_scope():
        values = tf.nest.map_structure(lambda tensor: tf.convert_to_tensor(tensor).numpy(), compute())
    return tf.nest.map_structure(tf.constant, values)
