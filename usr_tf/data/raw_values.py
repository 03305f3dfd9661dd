"""Raw values of transformed features: words of ids, and numbers before their scaling."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from usr_tf.schema import Schema

UNKNOWN = "(unknown)"
"""What stands in a text for a value that the vocabulary lacks."""


class RawValues:
    """The inverse of a transform, as far as it has one.

    Args:
      transform: folder of what TensorFlow Transform wrote, such as `DATA/transform`.
    """

    def __init__(self, schema: Schema, transform: Path):
        self._schema = schema
        self._output = tft.TFTransformOutput(str(transform))

    def has_words(self, feature: str) -> bool:
        """Whether ids of a feature stand for values: not where they are hashes, nor for numbers."""
        return self._schema.features[self._schema.owner(feature)].has_vocabulary

    def word(self, feature: str, number: int) -> str | None:
        """The value of an id above 0: `#7` for a hash; None for one that the vocabulary lacks."""
        owner = self._schema.owner(feature)
        kind = self._schema.features[owner]
        if not kind.has_vocabulary:
            return f"#{number}"
        place = number - 1 - kind.oov_buckets
        return self._vocabulary(owner)[place].decode("utf-8", "replace") if place >= 0 else None

    def text(self, feature: str, ids: np.ndarray) -> str:
        """The values of ids, a number or `[n]` that 0 pads; empty where there is none."""
        joint = "" if self._schema.features[feature].unit == "character" else " "
        return joint.join(self.word(feature, number) or UNKNOWN for number in np.ravel(ids).tolist() if number > 0)

    def numbers(self, feature: str, scaled: np.ndarray) -> np.ndarray:
        """Raw numbers of a numeric feature's scaled ones, float64 `[n]`.

        The transform does not fall, so bisection finds the raw numbers that it takes to the scaled one. They lie within
        a few float32 of each other; the number is the one of them with the fewest decimals. For a clamped number it is
        the bound, for a column of one value NaN.
        """
        first = self._first(feature, scaled, np.greater_equal)
        after = np.maximum(self._first(feature, scaled, np.greater), first + 1)  # even where rounding reaches no number
        low, high = _number(first).astype(np.float64), _number(np.minimum(after, _BEYOND)).astype(np.float64)
        below, above = first == _LEAST, after >= _BEYOND  # which the transform clamps
        width = np.where(below | above, 1, high - low)
        decimals = np.floor(-np.log10(width)).astype(np.int64).tolist()
        inside = 0.0 + np.array([round(middle, each) for middle, each in zip((low + high) / 2, decimals, strict=True)])
        return np.select([below & above, below, above], [np.nan, _number(after - 1), low], inside)

    def _first(self, feature: str, scaled: np.ndarray, reached: Callable[..., np.ndarray]) -> np.ndarray:
        """Places of the least float32 whose scaled number has `reached` the given one, `[n]`; `_BEYOND` without any."""
        low, high = np.full(len(scaled), _LEAST), np.full(len(scaled), _BEYOND)
        while (low < high).any():
            middle = (low + high) // 2
            enough = reached(self._scaled(feature)(_number(middle)).numpy(), scaled)
            low, high = np.where(enough | (low == high), low, middle + 1), np.where(enough, middle, high)
        return low

    @functools.cache  # noqa: B019  (an object lives as long as an evaluation)
    def _vocabulary(self, owner: str) -> list[bytes]:
        return self._output.vocabulary_by_name(owner)

    @functools.cached_property
    def _layer(self) -> Callable[[dict[str, tf.SparseTensor]], dict[str, tf.Tensor]]:
        return self._output.transform_features_layer()

    @functools.cache  # noqa: B019
    def _scaled(self, feature: str) -> tf.types.experimental.PolymorphicFunction:
        """The transform of one feature, float32 `[n]` to `[n]`."""

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
        def transform(numbers: tf.Tensor) -> tf.Tensor:
            rows = tf.size(numbers, tf.int64)
            places = tf.stack([tf.range(rows), tf.zeros([rows], tf.int64)], axis=1)
            return self._layer({feature: tf.SparseTensor(places, numbers, [rows, 1])})[feature]

        return transform


_BEYOND = int(np.float32(np.inf).view(np.int32))
"""Place after that of the largest finite float32, by size; that of 0 is 0."""
_LEAST = 1 - _BEYOND


def _number(place: np.ndarray) -> np.ndarray:
    """The float32 at each place, `[n]`."""
    numbers = np.abs(place).astype(np.int32).view(np.float32)
    return np.where(place < 0, -numbers, numbers)
