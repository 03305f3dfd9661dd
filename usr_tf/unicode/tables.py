"""Unicode tables of a normal form, from Python's `unicodedata`: decompositions, combining classes, compositions, case.

Needs no TensorFlow.
"""

import functools
import sys
import unicodedata
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np

Form = Literal["nfc", "nfkc"]

BLANKS = (
    *range(0x09, 0x0E),
    0x20,
    0x85,
    0xA0,
    0x1680,
    *range(0x2000, 0x200B),
    0x2028,
    0x2029,
    0x202F,
    0x205F,
    0x3000,
    0x200B,
)
"""Code points that end a word: Unicode's White_Space, and the zero width space, which marks the end of a word too."""
INVISIBLE = (0xAD, 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), 0x2060, *range(0x2066, 0x206A), 0xFEFF)
"""Code points that texts lose: soft hyphen, word joiner, byte order mark and direction marks, which no reader sees.
Zero width joiner and non-joiner stay, for they tell words of Persian and Indic scripts, and emojis, apart."""

L_FIRST, V_FIRST, T_BEFORE, S_FIRST = 0x1100, 0x1161, 0x11A7, 0xAC00
L_COUNT, V_COUNT, T_COUNT = 19, 21, 28
S_COUNT = L_COUNT * V_COUNT * T_COUNT
"""Hangul: leading consonants, vowels and trailing consonants compose to syllables by arithmetic (Unicode, 3.12). The
code before the first trailing consonant stands for none."""

PAGE = 256
SIGMA, FINAL_SIGMA = 0x3A3, 0x3C2
_UNASSIGNED = ("Cn", "Co", "Cs")
_LITHUANIAN = (0xCC, 0xCD, 0x128, 0x12E)
"""Capital letters whose lower-case letter in Lithuanian has a dot more."""
_LATEST_CAPITAL = 0x2000
"""Capital letters below it are in every Unicode version that a TensorFlow has."""
_SURROGATES = range(0xD800, 0xE000)


class Tables(NamedTuple):
    """Properties of code points. Each has a record, found by its page; records hold what code points share."""

    pages: np.ndarray
    """int32 `[pages]`: where the page of each code point's upper bits starts in `records`."""
    records: np.ndarray
    """int32: the record of each code point of the distinct pages."""
    starts: np.ndarray
    """int32 `[R]`: where the decomposition starts in `decompositions`."""
    sizes: np.ndarray
    """int32 `[R]`: its code points; -1 for one that stands for itself."""
    decompositions: np.ndarray
    """int32."""
    classes: np.ndarray
    """int32 `[R]`: canonical combining class."""
    composes: np.ndarray
    """bool `[R]`: whether a code point before it may compose with it."""
    lower: np.ndarray
    """int32 `[R]`: what to add for the lower-case letter."""
    cased: np.ndarray
    """bool `[R]`: whether a sigma beside it is inside a word."""
    case_ignorable: np.ndarray
    """bool `[R]`: whether the letters before and after it are looked at instead."""
    pairs: np.ndarray
    """int64 `[P]`, rising: `first << 21 | second` of the code points that compose."""
    composites: np.ndarray
    """int32 `[P]`: what they compose to."""
    unchanged: str
    """RE2 pattern of UTF-8 strings that the form leaves as they are. It misses some of them, and never matches any
    other."""
    capitals: str
    """RE2 pattern of UTF-8 strings of which it only lower-cases letters that every locale lower-cases alike."""


class _Record(NamedTuple):
    decomposition: tuple[int, ...] | None = None
    is_alone_stable: bool = True
    combining_class: int = 0
    composes: bool = False
    lower: int = 0
    cased: bool = False
    case_ignorable: bool = False

    @property
    def is_changed(self) -> bool:
        """Whether a string with it may have to be changed, alone or with its neighbours."""
        return not self.is_alone_stable or self.composes or self.lower != 0

    @property
    def is_stable(self) -> bool:
        """Whether strings of such code points are in the normal form, apart from case."""
        return self.is_alone_stable and not self.composes and not self.combining_class


@functools.cache
def tables(form: Form, *, text: bool) -> Tables:
    """Tables of a normal form: of texts, which are lower-cased, and whose blanks become U+0020, or of ids."""
    composites = dict(_composites())
    seconds = {second for _, second in composites}
    seconds |= {*range(V_FIRST, V_FIRST + V_COUNT), *range(T_BEFORE + 1, T_BEFORE + T_COUNT)}
    decompose: Callable[[str], str] = functools.partial(unicodedata.normalize, "NFKD" if form == "nfkc" else "NFD")
    numbers: dict[_Record, int] = {_Record(): 0}
    record_of = np.zeros(sys.maxunicode + 1, np.int32)
    for code in _assigned():
        letter = chr(code)
        decomposition: tuple[int, ...] | None = None
        if text and code in _REPLACED:
            decomposition = _REPLACED[code]
        elif unicodedata.decomposition(letter):  # Hangul has none: its syllables stay whole
            parts = decompose(letter)
            decomposition = tuple(map(ord, parts)) if parts != letter else None
        is_stable = unicodedata.normalize(form.upper(), letter) == letter
        if text and (code in _REPLACED or len(letter.lower()) > 1):
            is_stable = False
        case = _case(letter) if text else (0, False, False)
        record = _Record(decomposition, is_stable, unicodedata.combining(letter), code in seconds, *case)
        record_of[code] = numbers.setdefault(record, len(numbers))
    records = list(numbers)
    pages, starts = np.unique(record_of.reshape(-1, PAGE), axis=0, return_inverse=True)
    decompositions = [record.decomposition or () for record in records]
    codes = np.arange(len(record_of))
    plain, marks, capitals = (mask[record_of] for mask in _masks(records))
    plain[_SURROGATES] = False
    plain[ord("A") : ord("Z") + 1] = True  # lower-cased beforehand, or an id's
    capitals &= (codes < _LATEST_CAPITAL) & ~np.isin(codes, _LITHUANIAN)
    pairs = sorted((first << 21 | second, composite) for (first, second), composite in composites.items())
    return Tables(
        pages=(starts.ravel() * PAGE).astype(np.int32),
        records=pages.ravel(),
        starts=np.cumsum([0, *map(len, decompositions[:-1])]).astype(np.int32),
        sizes=np.array([-1 if each.decomposition is None else len(each.decomposition) for each in records], np.int32),
        decompositions=np.array([code for codes in decompositions for code in codes], np.int32),
        classes=np.array([record.combining_class for record in records], np.int32),
        composes=np.array([record.composes for record in records]),
        lower=np.array([record.lower for record in records], np.int32),
        cased=np.array([record.cased for record in records]),
        case_ignorable=np.array([record.case_ignorable for record in records]),
        pairs=np.array([pair for pair, _ in pairs], np.int64),
        composites=np.array([composite for _, composite in pairs], np.int32),
        unchanged=_pattern(plain, marks),
        capitals=_pattern((plain | capitals) & (codes > 0), marks),  # TensorFlow's lower-casing ends at a NUL
    )


_REPLACED = {code: (0x20,) for code in BLANKS if code != 0x20} | dict.fromkeys(INVISIBLE, ())


@functools.cache
def _assigned() -> tuple[int, ...]:
    """Code points that Unicode has a character for; no other has a property."""
    return tuple(code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) not in _UNASSIGNED)


def _composites() -> Iterator[tuple[tuple[int, int], int]]:
    """Pairs of code points and what they compose to, other than Hangul."""
    for code in _assigned():
        parts = unicodedata.decomposition(chr(code)).split()
        excluded = len(parts) != 2 or parts[0].startswith("<") or unicodedata.normalize("NFC", chr(code)) != chr(code)
        if not excluded:
            yield (int(parts[0], 16), int(parts[1], 16)), code


def _case(letter: str) -> tuple[int, bool, bool]:
    """`lower`, `cased` and `case_ignorable`, which `str.lower` tells by what it does."""
    lowered = letter.lower()
    shift = ord(lowered) - ord(letter) if len(lowered) == 1 else 0  # U+0130 alone has two, and a decomposition
    inside = f"aΣ{letter}".lower()[1] == "σ"
    ignorable = not inside and f"a{letter}Σ".lower()[-1] == "ς"
    return shift, inside, ignorable


def _masks(records: list[_Record]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """bool `[R]` each: what no form changes, marks that do not compose, and capital letters with no other change."""
    changed = np.array([record.is_changed for record in records])
    marks = np.array([record.combining_class > 0 for record in records]) & ~changed
    return ~changed & ~marks, marks, np.array([record.is_stable and record.lower != 0 for record in records])


def _pattern(plain: np.ndarray, marks: np.ndarray) -> str:
    """Pattern of strings of plain code points, and of marks that stand one by one."""
    mark, other = _character_class(marks), _character_class(plain)
    return f"(?:{mark}?{other})*{mark}?"


def _character_class(mask: np.ndarray) -> str:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return "[" + "".join(rf"\x{{{first:x}}}-\x{{{after - 1:x}}}" for first, after in edges.reshape(-1, 2)) + "]"
