"""Normal forms and tokens of raw values, and fingerprints of strings, as TensorFlow ops."""

from collections.abc import Callable

import tensorflow as tf

from usr_tf.feature_types import NormalForm
from usr_tf.schema import Feature, Schema
from usr_tf.unicode.normalization import normalize, normalize_text

Values = tf.Tensor | tf.SparseTensor

_FINGERPRINTS = 2**62


def fingerprint(strings: tf.Tensor) -> tf.Tensor:
    """int64 hashes above 0 of strings of any shape; 0 of the empty string."""
    hashes = 1 + tf.strings.to_hash_bucket_fast(strings, _FINGERPRINTS)
    return tf.where(tf.equal(strings, ""), tf.zeros_like(hashes), hashes)


def map_values(function: Callable[[tf.Tensor], tf.Tensor], values: Values) -> Values:
    """A function of every value, `[n]` to `[n]`."""
    return values.with_values(function(values.values)) if isinstance(values, tf.SparseTensor) else function(values)


def normalized(values: Values, name: str, schema: Schema) -> Values:
    """Raw strings of a feature in its normal form; texts in lower case too."""
    form = schema.normal_form(name)
    if schema.features[name].kind.text:
        return map_values(lambda texts: text_form(texts, form), values)
    return values if form == "none" else map_values(lambda ids: normalize(ids, form), values)


def text_form(texts: tf.Tensor, form: NormalForm) -> tf.Tensor:
    """Texts `[B]` as their words are compared: in lower case and a normal form. By `none` all that is no ASCII blank
    belongs to a word.
    """
    return tf.strings.lower(texts, encoding="utf-8") if form == "none" else normalize_text(texts, form)


def counter_keys(strings: tf.Tensor, name: str, schema: Schema) -> tf.Tensor:
    """Raw strings `[B]` of a feature as counters compare them: ids in their normal form, queries word by word.

    By `none` a query is compared in lower case, without ASCII blanks at its ends.
    """
    if name not in schema.features_of("query"):
        return normalized(strings, name, schema)
    form = schema.normal_form(name)
    texts = text_form(strings, form)
    if form == "none":
        return tf.strings.strip(texts)
    return tf.strings.reduce_join(tf.strings.split(texts), axis=-1, separator=" ")


def tokens(values: Values, feature: Feature) -> Values:
    """What is looked up, of values in their normal form: the `[B]` strings of a feature with one id; else the sparse,
    non-empty values of a list or tokens of a text, the first `length` of each row.
    """
    if not feature.is_list:
        return values
    if feature.kind.tokenize:
        ragged = feature.kind.tokenize(values, feature)
    else:
        ragged = tf.RaggedTensor.from_sparse(values)
        ragged = tf.ragged.boolean_mask(ragged, tf.not_equal(ragged, ""))
    return ragged[:, : feature.length].to_sparse()
