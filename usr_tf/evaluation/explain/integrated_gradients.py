"""Integrated gradients (Sundararajan et al., ICML 2017) of a function of several tensors.

From a baseline to the real input a straight path leads. A part's gradient along it, times the way that the part goes,
is what the part moves; by the chain rule that of all parts adds up to the difference between the two ends. With more
baselines than one, the mean over their paths ("expected gradients", Erion et al., Nature Machine Intelligence 2021).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

Parts = Mapping[str, tf.Tensor]

_PASSING = "UsrTfExplainPassing"
_NUMBERS = 2**25
"""So many of a path's points are held at a time."""


class Integral(NamedTuple):
    """Attributions of a function's T outputs."""

    moved: np.ndarray
    """`[T, P]`, of each of P places."""
    steps: int
    """Points that were needed on each path."""


class Paths:
    """Integration paths of one function, which is traced once.

    Args:
      function: from parts `[B, ...]`, and what it reads besides them, to `[B, T]`, each row by itself.
      places: of each part the matrix `[D, P]` that adds its last axis up, P the same for all; or None, and each
        position of its second axis is a place, after the P.
    """

    def __init__(self, function: Callable[..., tf.Tensor], places: Mapping[str, np.ndarray | None]):
        self._places = places
        self._function = function
        self._moved: Callable[..., tf.Tensor] | None = None  # until the parts' widths are known

    def integrate(
        self, start: Parts, end: Parts, given: Parts, difference: np.ndarray, steps: int, tolerance: np.ndarray
    ) -> Integral:
        """Attribution of each entry between `start` and `end`.

        The points stand in the middle of equal steps. A network of ReLUs bends the path's gradient in many places, so
        a rule of higher order gains nothing; their number is doubled, four times at the most, until the sum is near
        enough.

        Args:
          start: parts `[M, ...]`, a row a path.
          end: the same parts, `[1, ...]`.
          given: what the function reads besides, `[1, ...]`.
          difference: `[T]`, what the sum should be.
          steps: points on each path, to begin with.
          tolerance: `[T]`, how far from `difference` the sum may lie.
        """
        if self._moved is None:
            specs = (*tf.nest.map_structure(_spec, (start, end, given)), tf.TensorSpec([None]))
            self._moved = tf.function(self._trace, input_signature=specs)
        for points in (steps, 2 * steps, 4 * steps, 8 * steps, 16 * steps):
            moved = self._mean(start, end, given, points)
            if np.all(np.abs(moved.sum(axis=1) - difference) <= tolerance):
                break
        return Integral(moved, points)

    def _mean(self, start: Parts, end: Parts, given: Parts, points: int) -> np.ndarray:
        rows = len(next(iter(start.values())))
        size = sum(tf.size(part).numpy() for part in start.values())
        shares = (np.arange(points, dtype=np.float32) + 0.5) / points
        parts = np.array_split(shares, min(points, -(-points * size // _NUMBERS)))
        total = sum(self._moved(start, end, given, tf.constant(part)).numpy().astype(np.float64) for part in parts)
        return total / (points * rows)

    def _trace(self, start: Parts, end: Parts, given: Parts, shares: tf.Tensor) -> tf.Tensor:
        """`[T, P]` attributions, summed over all points of all paths."""
        rows = tf.shape(next(iter(start.values())))[0] * tf.size(shares)
        ways = {name: end[name] - start[name] for name in end}

        def points(name: str) -> tf.Tensor:
            way = ways[name][:, tf.newaxis]
            share = tf.reshape(shares, [1, -1, *[1] * (way.shape.rank - 2)])
            return tf.reshape(start[name][:, tf.newaxis] + share * way, tf.concat([[rows], tf.shape(way)[2:]], axis=0))

        reached = {name: points(name) for name in end}
        # What a gate reads of the features, it reads without their gradient; the score depends on it nevertheless.
        with tf.compat.v1.get_default_graph().gradient_override_map({"StopGradient": _PASSING}):
            value = self._function(reached, {name: tf.repeat(part, rows, axis=0) for name, part in given.items()})
        return tf.stack([self._placed(output, reached, ways) for output in tf.unstack(value, axis=1)])

    def _placed(self, output: tf.Tensor, reached: Parts, ways: Parts) -> tf.Tensor:
        """`[P]` attributions of one output."""
        names = list(reached)
        gradients = tf.gradients(
            output, [reached[name] for name in names], unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        columns, positions = [], []
        for name, gradient in zip(names, gradients, strict=True):
            way = ways[name]
            paths = tf.shape(way)[0]
            shape = tf.concat([[paths, tf.shape(gradient)[0] // paths], tf.shape(way)[1:]], axis=0)
            moved = tf.reduce_sum(tf.reduce_sum(tf.reshape(gradient, shape), axis=1) * way, axis=0)
            if self._places[name] is None:
                positions.append(tf.reduce_sum(moved, axis=-1))
            else:
                columns.append(tf.linalg.matvec(self._places[name], moved, transpose_a=True))
        return tf.concat([tf.add_n(columns), *positions], axis=0)


def _spec(part: tf.Tensor) -> tf.TensorSpec:
    """Tensor specification with free numbers of rows and positions, so that no history causes a retrace."""
    width = part.shape[-1] if part.shape.rank > 1 and part.dtype.is_floating else None
    return tf.TensorSpec([*[None] * (part.shape.rank - 1), width], part.dtype)


@tf.RegisterGradient(_PASSING)
def _pass(_: tf.Operation, upstream: tf.Tensor) -> tf.Tensor:
    return upstream
