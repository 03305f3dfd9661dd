"""Mergeable sketches: distinct counts, uniform samples, moments; independent of row order.

Each is a value with `+`, its default is the zero, and a sum of summaries is the summary of all their values, so
workers can add them in any order. Two keep the `SIZE` smallest of 64-bit keys ("bottom-k"), 16 KB; the others are
exact.

Sources: Bar-Yossef et al., "Counting distinct elements in a data stream" (2002), for the estimate of a count;
Cohen and Kaplan, "Summarizing data using bottom-k sketches" (2007), for the sample.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa

SIZE = 2048

_VALUE_BITS = np.uint64(32)
_UNIT = 172  # the last bit of a float32's mantissa is worth 2**-172 or more, as `frexp` splits it


@dataclasses.dataclass(frozen=True, eq=False)
class Distinct:
    """Bottom-k distinct counter: exact below `SIZE`, then standard error 1/√(SIZE−2) = 2.2 %."""

    hashes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.uint64))
    """The smallest distinct hashes, rising; at most `SIZE`."""

    @classmethod
    def of(cls, hashes: np.ndarray) -> "Distinct":
        """Sketch of uniform uint64 value hashes, in any order, with repeats."""
        rising = np.sort(hashes)
        first = np.ones(len(rising), bool)
        np.not_equal(rising[1:], rising[:-1], out=first[1:])
        return cls(rising[first][:SIZE].copy())

    def __add__(self, other: "Distinct") -> "Distinct":
        return Distinct.of(_both(self.hashes, other.hashes))

    @property
    def count(self) -> int:
        """Distinct values: (SIZE−1) / u for a full sketch, with u the largest kept hash scaled to 0–1."""
        if len(self.hashes) < SIZE:
            return len(self.hashes)
        return round((SIZE - 1) * 2.0**64 / (float(self.hashes[-1]) + 1))


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """Bottom-k uniform sample of float32 values: all rows below `SIZE`, then the smallest row hashes.

    A key is the upper half of a row's hash and, below it, the bits of its value. Rows whose halves are equal go by
    their values, which the sample shows only from about 2**32 rows on.
    """

    keys: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.uint64))

    @classmethod
    def of(cls, hashes: np.ndarray, values: np.ndarray) -> "Sample":
        """Sketch of the rows' uniform uint64 hashes and float32 values, both `[rows]`."""
        return cls._smallest((hashes >> _VALUE_BITS << _VALUE_BITS) | values.view(np.uint32))

    def __add__(self, other: "Sample") -> "Sample":
        return Sample._smallest(_both(self.keys, other.keys))

    @classmethod
    def _smallest(cls, keys: np.ndarray) -> "Sample":
        return cls(np.sort(keys)[:SIZE].copy())

    @property
    def values(self) -> np.ndarray:
        """Sampled values, `[at most SIZE]` float32."""
        return self.keys.astype(np.uint32).view(np.float32)

    def quantiles(self, levels: tuple[float, ...]) -> np.ndarray:
        """`[levels]` float32 quantiles: the smallest value that a share q of the sample does not exceed.

        Exact below `SIZE` rows; then its rank is within √(q(1−q)/SIZE) of q (one standard error), 1.1 % at the median.
        """
        return np.quantile(self.values, levels, method="inverted_cdf")


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of finite float32 values, from exact integer sums."""

    count: int = 0
    total: int = 0
    """Sum, in units of 2**-172."""
    squares: int = 0
    """Sum of squares, in units of 2**-344."""
    minimum: float = math.inf
    maximum: float = -math.inf

    @classmethod
    def of(cls, values: np.ndarray) -> "Moments":
        """Moments of `[n]` finite float32 values, n below 2**28."""
        if not len(values):
            return cls()
        fractions, exponents = np.frexp(values.astype(np.float64))
        mantissas = (fractions * 2**24).astype(np.int64)
        squared = mantissas * mantissas
        lowest = int(exponents.min())
        # Sums of 24-bit numbers by exponent, which float64 holds exactly; a square's 48 bits go in two halves.
        parts = (mantissas, squared >> 24, squared & (2**24 - 1))
        sums = [np.bincount(exponents - lowest, part) for part in parts]
        total = squares = 0
        for place, (mantissa, upper, lower) in enumerate(zip(*sums, strict=True)):
            shift = lowest + place - 24 + _UNIT
            total += int(mantissa) << shift
            squares += (int(upper) << 24) + int(lower) << 2 * shift
        return cls(len(values), total, squares, float(values.min()), float(values.max()))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
        )

    @property
    def mean(self) -> float:
        """Mean, rounded once; ZeroDivisionError if there are no values."""
        return self.total / (self.count << _UNIT)

    @property
    def std(self) -> float:
        """Population standard deviation, √(Σx²/n − mean²)."""
        return math.sqrt((self.count * self.squares - self.total**2) / (self.count**2 << 2 * _UNIT))


@dataclasses.dataclass(frozen=True)
class Extent:
    """Least and greatest of numbers."""

    least: float | None = None
    greatest: float | None = None

    @classmethod
    def of(cls, numbers: np.ndarray) -> "Extent":
        return cls(numbers.min().item(), numbers.max().item()) if numbers.size else cls()

    def __add__(self, other: "Extent") -> "Extent":
        if self.least is None or self.greatest is None:
            return other
        if other.least is None or other.greatest is None:
            return self
        return Extent(min(self.least, other.least), max(self.greatest, other.greatest))


@dataclasses.dataclass(frozen=True)
class ValueCounts:
    """Counts of each of at most `MOST` values; of more values, that they are more."""

    MOST: ClassVar[int] = 1000

    counts: Mapping[bytes, int] | None = dataclasses.field(default_factory=dict)
    """None: there are more values."""

    @classmethod
    def of(cls, values: pa.Array, counts: np.ndarray) -> "ValueCounts":
        """Counts of distinct strings, `[n]` both; those of 0 are left out."""
        counted = np.flatnonzero(counts)
        if len(counted) > cls.MOST:
            return cls(None)
        kept = values.take(pa.array(counted)).cast(pa.binary()).to_pylist()
        return cls(dict(zip(kept, counts[counted].tolist(), strict=True)))

    def __add__(self, other: "ValueCounts") -> "ValueCounts":
        if self.counts is None or other.counts is None:
            return ValueCounts(None)
        counts = dict(self.counts)
        for value, count in other.counts.items():
            counts[value] = counts.get(value, 0) + count
        return ValueCounts(counts if len(counts) <= self.MOST else None)


def _both(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Union of the keys of two bottom-k sketches, cut to `SIZE`."""
    if len(left) == SIZE:
        right = right[right < left[-1]]
    if len(right) == SIZE:
        left = left[left < right[-1]]
    return np.concatenate([left, right])
