"""Slices by a feature of the rows: most frequent values, quantiles of numbers, lengths of lists and texts."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pandas as pd

FEATURE = "feature:"
"""Prefix of the slices' names in `details.json`: a feature may be called like one of `slices.slices_of`."""
OTHER, UNKNOWN, MISSING = "(other)", "(unknown)", "(missing)"
"""Values beyond the most frequent ones, values that the vocabulary lacks, and no value."""
MOST_VALUES = 10
QUANTILES = 4
LENGTHS = ("0", "1", "2", "3-4", "5-8", "9+")

_DIGITS = range(3, 10)
"""Digits of a bound: as few as tell all bounds apart. A float32 has no more than nine."""


def value_slice(ids: np.ndarray, name_of: Callable[[int], str], most: int = MOST_VALUES) -> pd.Categorical:
    """One part for each of the `most` frequent values, the most frequent first, then other, unknown and missing ones.

    Args:
      ids: `[N]`, 0 where a row has no value.
      name_of: text of an id above 0; `UNKNOWN` for a value that the vocabulary lacks. Ids of one text are one value.
    """
    codes, distinct = pd.factorize(ids)
    names = [name_of(value) if value else MISSING for value in distinct.tolist()]
    rows: Counter[str] = Counter()
    for name, count in zip(names, np.bincount(codes, minlength=len(names)).tolist(), strict=True):
        rows[name] += count
    known = sorted(rows.keys() - {UNKNOWN, MISSING}, key=lambda name: (-rows[name], name))
    shown = {*known[:most], UNKNOWN, MISSING}
    parts = [name if name in shown else OTHER for name in names]
    order = [*known[:most], OTHER, UNKNOWN, MISSING]
    return _categorical(np.array(parts, object)[codes], [part for part in dict.fromkeys(order) if part in parts])


def number_slice(
    numbers: np.ndarray, missing: np.ndarray, raw: Callable[[np.ndarray], np.ndarray], missing_name: str = MISSING
) -> pd.Categorical:
    """Four parts of about equally many rows, cut at the quartiles, and one of the rows without a number.

    Equal numbers stay together, so fewer distinct numbers make fewer or uneven parts. A part is named by the lowest
    and highest of its numbers.

    Args:
      numbers: `[N]`, in the scale of the model.
      missing: bool `[N]`.
      raw: raw numbers of those in the scale of the model, `[n]` to `[n]`, not falling.
    """
    known = np.unique(numbers[~missing])
    names = np.full(len(numbers), missing_name, object)
    order: list[str] = []
    if len(known):
        ends = np.quantile(numbers[~missing], np.arange(1, QUANTILES) / QUANTILES, method="inverted_cdf")
        ends = np.where(ends == known[-1], known[-2:][0], ends)  # a most frequent maximum is a part of its own
        ends = np.unique([*ends, known[-1]])
        starts = known[np.append(0, np.searchsorted(known, ends[:-1]) + 1)]
        order = _spans(*np.split(raw(np.concatenate([starts, ends])), 2))
        names[~missing] = np.array(order, object)[np.searchsorted(ends, numbers[~missing])]
    order += [missing_name] if missing.any() else []
    return _categorical(names, list(dict.fromkeys(order)))


def length_slice(lengths: np.ndarray) -> pd.Categorical:
    """Of values of a list or words of a text `[N]`, as the model sees them."""
    return pd.Categorical.from_codes(np.digitize(lengths, [1, 2, 3, 5, 9]), LENGTHS)


def _categorical(parts: np.ndarray, order: list[str]) -> pd.Categorical:
    return pd.Categorical(parts, categories=order)


def _spans(starts: np.ndarray, ends: np.ndarray) -> list[str]:
    """Names of spans of raw numbers `[parts]`, with as few digits as tell all bounds apart."""
    bounds = np.unique([*starts, *ends]).tolist()
    digits = next((each for each in _DIGITS if len({number_text(bound, each) for bound in bounds}) == len(bounds)), 9)
    texts = ((number_text(start, digits), number_text(end, digits)) for start, end in zip(starts, ends, strict=True))
    return [start if start == end else f"{start} to {end}" for start, end in texts]


def number_text(value: float, digits: int = 3) -> str:
    """Rounded to significant digits: `1,234`, `0.05`, `1.5e+20`; of a column of one value, NaN, that is not known."""
    if np.isnan(value):
        return "any number"
    return f"{float(f'{value:.{digits - 1}e}'):,.15g}".replace("-", "\N{MINUS SIGN}", 1)
