"""Normal forms of Python strings: what `usr_tf.unicode.normalization` gives in a graph. Needs no TensorFlow."""

import unicodedata

from usr_tf.feature_types import NormalForm
from usr_tf.schema import Schema
from usr_tf.unicode.tables import BLANKS, INVISIBLE

_TEXT = dict.fromkeys(BLANKS, " ") | dict.fromkeys(INVISIBLE)
_ASCII_BLANKS = " \t\n\v\f\r"


def normalize_string(string: str, form: NormalForm) -> str:
    """A string in a normal form."""
    return string if form == "none" else unicodedata.normalize(form.upper(), string)


def normalize_text_string(text: str, form: NormalForm) -> str:
    """A text in a normal form and lower case, a space for every blank, without invisible characters."""
    if form == "none":
        return text.lower()
    text = text.translate(_TEXT)
    if form == "nfkc":
        text = unicodedata.normalize("NFKC", text)
    return unicodedata.normalize("NFC", text.lower())


def counter_key_string(string: str, name: str, schema: Schema) -> str:
    """A raw string of a feature as counters compare it, as `usr_tf.tokens.counter_keys` has it."""
    form = schema.normal_form(name)
    if name in schema.features_of("query"):
        text = normalize_text_string(string, form)
        return text.strip(_ASCII_BLANKS) if form == "none" else " ".join(filter(None, text.split(" ")))
    if schema.features[name].kind.text:
        return normalize_text_string(string, form)
    return normalize_string(string, form)
