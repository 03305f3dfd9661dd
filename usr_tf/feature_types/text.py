"""Text: words or characters, an id each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from usr_tf.feature_types.base import ID_KEYS, FeatureType

if TYPE_CHECKING:
    from usr_tf.schema import Feature


def _text_tokens(strings: Any, feature: Feature) -> Any:
    """Words, or characters other than spaces."""
    import tensorflow as tf

    if feature.tokenizer != "character":
        return tf.strings.split(strings)
    ragged = tf.strings.unicode_split(strings, "UTF-8", errors="replace")
    return tf.ragged.boolean_mask(ragged, tf.not_equal(ragged, " "))


def _count_text_tokens(strings: Any, feature: Feature) -> Any:
    import pyarrow.compute as pc

    if feature.tokenizer == "character":
        return pc.utf8_length(pc.replace_substring(strings, " ", ""))
    trimmed = pc.ascii_trim_whitespace(strings)
    words = pc.list_value_length(pc.ascii_split_whitespace(trimmed))
    return pc.if_else(pc.equal(trimmed, ""), 0, words)


TEXT = FeatureType(
    name="text",
    value="string",
    input="ids",
    text=True,
    keys=ID_KEYS | {"max_length", "tokenizer"},
    length=16,
    unit="word",
    tokenize=_text_tokens,
    count_tokens=_count_text_tokens,
)
