"""Raw feature values as text, and their out-of-vocabulary parts."""

import numpy as np
import tensorflow as tf

from usr_tf.schema import Schema
from usr_tf.tokens import normalized, tokens


def text_of(value: object) -> str:
    """Text of a raw value: bytes, an array of them, or a number; "" without a value."""
    if isinstance(value, np.ndarray):
        return " ".join(filter(None, map(text_of, value)))
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if isinstance(value, float | np.floating) and np.isnan(value) else f"{value:g}"


def unknown_of(value: object, ids: np.ndarray, name: str, schema: Schema) -> tuple[str, ...]:
    """Out-of-vocabulary values or tokens of a feature; undefined for hashed ids.

    Args:
      value: a raw value of it, bytes or an array `[n]` of them.
      ids: what the transform made of it, a number or `[n]`, 0 pads.
    """
    owner = schema.features[schema.owner(name)]
    if not owner.has_vocabulary:
        return ()
    ids = np.ravel(ids)
    looked_up = zip(_looked_up(value, name, schema), ids[ids > 0], strict=True)
    return tuple(text_of(part) for part, number in looked_up if number <= owner.oov_buckets)


def _looked_up(value: object, name: str, schema: Schema) -> list[bytes]:
    """Parts of a raw value that have an id each."""
    feature = schema.features[name]
    if feature.kind.tokenize:
        return tokens(normalized(tf.constant([value]), name, schema), feature).values.numpy().tolist()
    parts = value.tolist() if isinstance(value, np.ndarray) else [value]
    return [part for part in parts if part][: feature.length]
