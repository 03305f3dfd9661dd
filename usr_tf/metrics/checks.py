"""Argument checks of public functions: ValueErrors that end with the received value.

They read every value once, so they stand at the door of public functions and in no loop.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np


def check_numbers(name: str, values: Any, least: float = -np.inf, most: float = np.inf) -> np.ndarray:
    """Checks finite numbers `[N]` between `least` and `most`; returns an array.

    Raises:
      ValueError: another shape, no numbers, or one that is NaN, infinite or out of the range.
    """
    numbers = _vector(name, values)
    if numbers.dtype.kind not in "biuf":
        raise ValueError(f"`{name}` must be numbers. Received: dtype {numbers.dtype}")
    bad = ~np.isfinite(numbers) | (numbers < least) | (numbers > most)
    if bad.any():
        span = "finite" if np.isinf([least, most]).all() else f"from {least:g} to {most:g}"
        raise ValueError(f"`{name}` must be {span}. Received: {_first(numbers, bad)}")
    return numbers


def check_probabilities(name: str, values: Any, optional: bool = False) -> np.ndarray:
    """Checks numbers `[N]` between 0 and 1; with `optional` also NaN. Returns an array.

    Raises:
      ValueError: another shape, or a number that is no probability.
    """
    numbers = _vector(name, values)
    known = numbers[~np.isnan(numbers)] if optional and numbers.dtype.kind == "f" else numbers
    check_numbers(name, known, 0, 1)
    return numbers


def check_labels(name: str, values: Any) -> np.ndarray:
    """Checks labels `[N]` of 0 or 1; returns an array.

    Raises:
      ValueError: another shape, or another value.
    """
    labels = _vector(name, values)
    bad = ~np.isin(labels, (0, 1))
    if bad.any():
        raise ValueError(f"`{name}` must be 0 or 1. Received: {_first(labels, bad)}")
    return labels


def check_lengths(**columns: Sequence[Any] | np.ndarray | None) -> None:
    """Checks that columns have equal lengths; None is skipped.

    Raises:
      ValueError: two lengths.
    """
    lengths = {name: len(column) for name, column in columns.items() if column is not None}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{', '.join(f'`{name}`' for name in lengths)} must be of one length. Received: {lengths}")


def check_share(name: str, value: float) -> None:
    """Checks a number between 0 and 1, exclusive.

    Raises:
      ValueError: another one, or NaN.
    """
    if not 0 < value < 1:
        raise ValueError(f"`{name}` must be above 0 and below 1. Received: {value}")


def _vector(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"`{name}` must be one value a row, [N]. Received: shape {list(array.shape)}")
    return array


def _first(values: np.ndarray, bad: np.ndarray) -> str:
    places = np.flatnonzero(bad)
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    return f"{values[places[0]]} in row {places[0]}{more}"
