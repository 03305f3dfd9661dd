"""Tokens of raw values, and fingerprints of strings, as TensorFlow ops."""

import tensorflow as tf

from usr_tf.schema import Feature

Values = tf.Tensor | tf.SparseTensor

_FINGERPRINTS = 2**62


def fingerprint(strings: tf.Tensor) -> tf.Tensor:
    """int64 hashes above 0 of strings of any shape; 0 of the empty string."""
    hashes = 1 + tf.strings.to_hash_bucket_fast(strings, _FINGERPRINTS)
    return tf.where(tf.equal(strings, ""), tf.zeros_like(hashes), hashes)


def tokens(values: Values, feature: Feature) -> Values:
    """What is looked up: the `[B]` strings of a feature with one id; else the sparse, non-empty values of a list
    or tokens of a text, the first `length` of each row.
    """
    if not feature.is_list:
        return values
    if feature.kind.tokenize:
        ragged = feature.kind.tokenize(values, feature)
    else:
        ragged = tf.RaggedTensor.from_sparse(values)
        ragged = tf.ragged.boolean_mask(ragged, tf.not_equal(ragged, ""))
    return ragged[:, : feature.length].to_sparse()
