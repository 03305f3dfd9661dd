"""Robust standardisation of numeric features: clamped outliers do not affect mean and variance.

A finite outlier, such as 3e38 or -1e9 in place of a missing value, would otherwise make the variance so large that all
other values become one number. Data without outliers keep the plain mean and variance, to the bit.
"""

from collections.abc import Iterable
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
from tfx_bsl.sketches import QuantilesSketch

from usr_tf.schema import Feature

QUANTILES = 1_000
"""The distribution of the training split is read at every permille, from its least number to its largest."""
GAP = {"standard": 100.0, "none": 100.0, "log": 10.0, "vector": 100.0}
"""Outliers lie this many times as far from the median as the furthest number that is none. A long tail has no such gap,
and a logarithm has no long tail."""
SHARE = 0.2
"""The largest share of outliers: more numbers than that beyond a gap are a mode of the distribution."""
REACH = 2.0
"""The bounds lie beyond the range of training, outliers left out, by this many times its width."""
LIMIT = float(np.finfo(np.float32).max) / 2
"""The widest bounds: the difference of two numbers within them is a float32."""
_MOST_NUMBERS = 1 << 32
"""The sketch's error is `1 / QUANTILES` up to so many numbers."""


class Scaled(NamedTuple):
    """Scaled numbers of one batch, float32."""

    numbers: tf.Tensor
    """`[n]`, clamped, transformed and scaled."""
    bounds: tf.Tensor
    """`[n, 2]`: the lower bound where the raw number lay below it, the upper one where it lay above it, else NaN."""


class Scale(NamedTuple):
    """Clamping bounds, mean and variance of a column."""

    low: float
    """Bounds of raw numbers."""
    high: float
    mean: float
    """Moments of the transformed numbers of training, outliers left out, by their quantiles."""
    std: float
    exact: bool
    """Whether there are no outliers: the exact moments are to be taken."""


def scale(columns: dict[str, tf.Tensor], features: dict[str, Feature]) -> dict[str, Scaled]:
    """Clamps and standardises finite raw numbers `[n]` float32 per feature; `transform: none` only clamps.

    A vector's number is its size, the largest component without sign, which is clamped alone too. To be called while
    TensorFlow Transform traces, once for all features. The analysis reads the data once.
    """
    if not columns:
        return {}
    kinds = {name: _kind(features[name]) for name in columns}
    transformed = {name: _transform(numbers, kinds[name]) for name, numbers in columns.items()}
    scales = tft.experimental.ptransform_analyzer(
        inputs=list(transformed.values()),
        ptransform=_FindScales(tuple(kinds.values())),
        output_dtypes=[tf.float32] * len(kinds),
        output_shapes=[[len(Scale._fields)]] * len(kinds),
        name="scales",
    )
    scaled = {}
    for (name, numbers), found in zip(columns.items(), scales, strict=True):
        mean, variance = tft.mean(transformed[name]), tft.var(transformed[name])
        scaled[name] = standardise(numbers, kinds[name], Scale(*tf.unstack(found)), mean, variance)
    return scaled


def shorten(vectors: tf.Tensor, sizes: tf.Tensor, scaled: Scaled) -> tuple[tf.Tensor, tf.Tensor]:
    """Vectors `[B, w]` with their sizes `[B]` clamped from above, and bounds `[B, 2]`; directions stay.

    Components are not clamped one by one: a large one beside small ones is no outlier if every vector has it.
    """
    sizes, clamped = sizes[:, tf.newaxis], scaled.numbers[:, tf.newaxis]
    shortened = tf.math.divide_no_nan(vectors, sizes) * clamped  # their quotient may be too small for a float32
    low, high = tf.unstack(scaled.bounds, axis=1)
    bounds = tf.stack([tf.fill(tf.shape(low), float("nan")), high], axis=1)
    return tf.where(sizes > clamped, shortened, vectors), bounds


def find_scale(quantiles: np.ndarray, transform: str) -> Scale:
    """Scale of a column from its quantile sketch.

    Args:
      quantiles: `[QUANTILES + 1]` of the transformed numbers of training, rising; empty if there are none.
      transform: a key of `GAP`.
    """
    if not len(quantiles):
        return Scale(-LIMIT, LIMIT, 0.0, 0.0, True)
    median = quantiles[len(quantiles) // 2]
    distances = np.abs(quantiles - (0.0 if transform == "vector" else median))
    kept = quantiles[distances <= _furthest(distances, GAP[transform])]
    lowest, highest = 0.0 if transform == "vector" else kept[0], kept[-1]
    width = highest - lowest or max(abs(median), 1.0)  # of a constant column, the constant's size
    bounds = lowest - REACH * width, highest + REACH * width
    if transform == "log":
        with np.errstate(over="ignore"):
            bounds = np.sign(bounds) * np.expm1(np.abs(bounds))
    low, high = np.clip(bounds, -LIMIT, LIMIT)
    return Scale(low, high, kept.mean(), kept.std(), len(kept) == len(quantiles))


def _furthest(distances: np.ndarray, gap: float) -> float:
    """Largest distance from the median that is not an outlier's."""
    apart = np.sort(distances[distances > 0])  # a column of counts is mostly its median
    behind = np.arange(len(apart) - 1, 0, -1)
    gaps = (apart[1:] > gap * apart[:-1]) & (behind <= SHARE * len(distances))
    return np.concatenate([apart[:-1][gaps], apart[-1:], [0.0]])[0]


def standardise(numbers: tf.Tensor, kind: str, scale: Scale, mean: tf.Tensor, variance: tf.Tensor) -> Scaled:
    """Clamps and standardises with analysed `mean` and `variance`, which may have overflowed."""
    low, high = scale.low, scale.high
    bounds = tf.where(tf.stack([numbers < low, numbers > high], axis=1), tf.stack([low, high]), float("nan"))
    scaled = _transform(tf.clip_by_value(numbers, low, high), kind)
    if kind in ("standard", "log"):
        exact = (scale.exact > 0) & tf.math.is_finite(mean) & tf.math.is_finite(variance)
        mean, std = tf.where(exact, mean, scale.mean), tf.where(exact, tf.sqrt(variance), scale.std)
        scaled = tf.math.divide_no_nan(scaled - mean, std)
    return Scaled(scaled, bounds)


def _kind(feature: Feature) -> str:
    return "vector" if feature.kind.input == "vector" else feature.transform or "standard"


def _transform(numbers: tf.Tensor, kind: str) -> tf.Tensor:
    return tf.sign(numbers) * tf.math.log1p(tf.abs(numbers)) if kind == "log" else numbers


class _FindScales(beam.PTransform):
    """Combiner from batches of numbers `([n] float32, …)` to a `Scale`, `[5]` float32, per column."""

    def __init__(self, kinds: tuple[str, ...]):
        super().__init__()
        self._kinds = kinds

    def expand(self, batches):  # Beam warns of hints that are several outputs
        scales = batches | beam.CombineGlobally(_Sketches(self._kinds))
        return tuple(
            scales | f"Column[{place}]" >> beam.Map(lambda found, place=place: found[place])
            for place in range(len(self._kinds))
        )


class _Sketches(beam.CombineFn):
    """Quantile sketches of every column; their output is scales."""

    def __init__(self, kinds: tuple[str, ...]):
        self._kinds = kinds

    def create_accumulator(self) -> list[QuantilesSketch]:
        return [QuantilesSketch(1 / QUANTILES, _MOST_NUMBERS, 1) for _ in self._kinds]

    def add_input(self, accumulator: list[QuantilesSketch], batch: tuple[np.ndarray, ...]) -> list[QuantilesSketch]:
        for sketch, numbers in zip(accumulator, batch, strict=True):
            sketch.AddValues(pa.array(numbers))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[list[QuantilesSketch]]) -> list[QuantilesSketch]:
        first, *others = accumulators
        for other in others:
            for sketch, more in zip(first, other, strict=True):
                sketch.Merge(more)
        return first

    def compact(self, accumulator: list[QuantilesSketch]) -> list[QuantilesSketch]:
        for sketch in accumulator:
            sketch.Compact()
        return accumulator

    def extract_output(self, accumulator: list[QuantilesSketch]) -> list[np.ndarray]:
        found = (sketch.GetQuantiles(QUANTILES).to_pylist() for sketch in accumulator)
        columns = (np.array(quantiles[0] if quantiles else []) for quantiles in found)
        return [
            np.array(find_scale(quantiles, kind), np.float32)
            for quantiles, kind in zip(columns, self._kinds, strict=True)
        ]
