"""Spellings of one text: composed or not, in capital letters, with blanks and invisible characters of many kinds."""

import unicodedata

import numpy as np

KINDS = {"tea": "thé ạ", "cake": "crêpe ヷ", "soap": "한국 mở"}
"""Words of the toy shop in words that have several spellings."""
TEXTS, IDS = ("query", "title", "history_queries"), ("tags", "history_tags")


def spelled(name: str, value, draw: np.random.Generator):
    """Another spelling of a value of a row or a request: of a text, or of an id whose normal form is NFKC."""
    if isinstance(value, list):
        return [spelled(name, each, draw) for each in value]
    if not isinstance(value, str) or name not in (*TEXTS, *IDS):
        return value
    for word, other in KINDS.items():
        value = value.replace(word, other).replace(word.title(), other)
    value = unicodedata.normalize(["NFC", "NFD"][draw.integers(2)], value)
    if name in IDS:
        return value.replace("ạ", draw.choice(["ạ", "a\u0323"])).replace("tag", draw.choice(["tag", "ｔａｇ"]))
    value = value.upper() if draw.integers(2) else value
    blank = draw.choice([" ", "\u00a0", "\u3000", "\u2009 ", "\t", "\u200b"])
    return draw.choice(["", " ", "\ufeff", "\u00a0"]) + value.replace(" ", blank) + draw.choice(["", "\u3000"])


def words(text: str | None, form: str = "NFC") -> list[str]:
    """The words of a text, in plain Python."""
    text = (text or "").replace("\u200b", " ").replace("\ufeff", "")
    return unicodedata.normalize(form, text.lower()).split()
