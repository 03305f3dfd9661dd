"""Tokenization of raw values: the strings of a feature that its vocabulary holds, as TensorFlow ops."""

import tensorflow as tf

from usr_tf.schema import Feature

Values = tf.Tensor | tf.SparseTensor


def tokens(values: Values, feature: Feature) -> Values:
    """What is looked up: the `[B]` strings of a categorical feature; else the sparse, non-empty values of a list
    or tokens of a text, the first `length` of each row.
    """
    if not feature.is_list:
        return values
    if feature.type == "text":
        lowered = tf.strings.lower(values, encoding="utf-8")
        if feature.tokenizer == "character":
            ragged = tf.strings.unicode_split(lowered, "UTF-8", errors="replace")
            ragged = tf.ragged.boolean_mask(ragged, tf.not_equal(ragged, " "))
        else:
            ragged = tf.strings.split(lowered)
    else:
        ragged = tf.RaggedTensor.from_sparse(values)
        ragged = tf.ragged.boolean_mask(ragged, tf.not_equal(ragged, ""))
    return ragged[:, : feature.length].to_sparse()
