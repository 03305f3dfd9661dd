"""TensorFlow functions of strings on Arrow arrays."""

from collections.abc import Callable

import pyarrow as pa
import tensorflow as tf


def map_strings(function: Callable[[tf.Tensor], tf.Tensor], strings: pa.Array) -> pa.Array:
    """A function of string tensors `[n]` to `[n]`, applied to each distinct string; null stays null."""
    codes = strings.dictionary_encode()
    distinct = codes.dictionary.cast(pa.binary()).to_numpy(zero_copy_only=False)
    if not len(distinct):
        return strings
    return (
        pa.array(function(tf.constant(distinct, tf.string)).numpy(), pa.binary()).cast(pa.string()).take(codes.indices)
    )
