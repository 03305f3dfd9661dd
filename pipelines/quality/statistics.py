"""Feature statistics per split and scenario, before and after the transform.

Every figure is a sum over batches (`pipelines.quality.sketches`), so the order of rows and bundles changes
nothing. A batch is measured by whole columns: Arrow finds the distinct strings, and each one is hashed once.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.beam.blocks import load
from pipelines.beam.hashing import hash_rows, hash_strings
from pipelines.quality.sketches import Distinct, Extent, Moments, Sample, ValueCounts
from pipelines.transform.arrow_strings import map_strings
from usr_tf.schema import RAW_ITEM, RAW_USER, REQUEST, SCENARIO, Feature, Schema, bounds_column, history_column
from usr_tf.tokens import normalized

QUANTILES = {"p01": 0.01, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}
HISTORY = history_column("action")
"""The column that stands for the whole history, whose columns all describe the same actions."""

Figures = dict[str, dict[str, dict[str, Any]]]
"""By scenario and feature, the figures that `stats.json` holds; one that no row defines is None."""

Sums = dict[tuple[str, str], "FeatureSums"]
"""By scenario and feature, what adds up to the figures."""
Measured = dict[tuple[str, str], Sums]
"""By kind, `raw` or `transformed`, and split."""


class MeasureQuality(beam.PTransform):
    """Measures `{"raw SPLIT": block handles, "transformed SPLIT": transformed batches}` as `Measured`.

    Every batch is measured where it passes, and the sums meet in one step: a stage for each kind and split would cost
    more than the measuring.
    """

    def __init__(self, schema: Schema):
        super().__init__()
        self._schema = schema

    def expand(self, rows):  # Beam warns of hints that are dictionaries
        sums = [
            batches | f"Measure {key}" >> beam.Map(_measure, tuple(key.split()), self._schema)
            for key, batches in rows.items()
        ]
        return sums | beam.Flatten() | beam.CombinePerKey(merge)


def _measure(batch: Any, key: tuple[str, str], schema: Schema) -> tuple[tuple[str, str], dict]:
    return key, measure_raw(load(batch), schema) if key[0] == "raw" else measure_transformed(batch, schema)


def figures_of(measured: Measured, split: str, schema: Schema) -> Figures:
    """Statistics of one split, as `stats.json` has them."""
    raw, transformed = measured.get(("raw", split), {}), measured.get(("transformed", split), {})
    kinds = {name: _kind(feature) for name, feature in schema.features.items()}
    kinds_transformed = _kinds_transformed(schema)
    if schema.history_columns:
        kinds[HISTORY] = HistorySums

    def figures(scenario: str, name: str) -> dict[str, Any]:
        of_raw = raw.get((scenario, name), kinds[name]()).document()
        if name not in kinds_transformed:
            return of_raw
        return of_raw | transformed.get((scenario, name), kinds_transformed[name]()).document()

    return {scenario: {name: figures(scenario, name) for name in kinds} for scenario in schema.scenarios}


def measure_raw(batch: pa.RecordBatch, schema: Schema) -> Sums:
    """Sums over joined rows of every feature and of the history."""
    scenario_of = _scenarios(batch, schema)
    rows = np.bincount(scenario_of, minlength=len(schema.scenarios))
    keys = hash_rows(batch, (RAW_USER, REQUEST, RAW_ITEM)) if schema.number_features else np.zeros(0)
    measured: dict[str, list] = {}
    for name, feature in schema.features.items():
        if feature.kind.input == "number":
            measured[name] = _measure_numbers(batch.column(name), scenario_of, rows, keys)
        elif feature.kind.input == "vector":
            measured[name] = _measure_vectors(batch.column(name), scenario_of, rows)
        else:
            listed = lists_values(name, feature)
            measured[name] = _measure_strings(batch.column(name), scenario_of, rows, name, schema, listed)
    if schema.history_columns:
        measured[HISTORY] = _measure_history(batch.column(HISTORY), scenario_of, rows)
    return _by_scenario(measured, schema)


def measure_transformed(batch: pa.RecordBatch | tuple, schema: Schema) -> Sums:
    """Sums over transformed rows of features with numbers and of features with a vocabulary.

    An id is 0 where a value is missing, then come the feature's out-of-vocabulary buckets, then its vocabulary. A
    transform of an earlier version, which clamps no number, has no bounds.
    """
    batch = batch[0] if isinstance(batch, tuple) else batch
    scenario_of = _scenarios(batch, schema)
    measured = {
        name: _measure_ids(batch.column(name), scenario_of, schema, schema.features[schema.owner(name)])
        for name, kind in _kinds_transformed(schema).items()
        if kind is IdSums
    }
    for name in schema.clamped_features:
        if bounds_column(name) in batch.schema.names:
            measured[name] = _measure_clamped(batch.column(bounds_column(name)), scenario_of, schema)
    return _by_scenario(measured, schema)


def merge(parts: Iterable[Sums]) -> Sums:
    """Sum of the measurements of several batches."""
    merged: Sums = {}
    for part in parts:
        for key, sums in part.items():
            merged[key] = merged[key] + sums if key in merged else sums
    return merged


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureSums:
    """Additive statistics of one feature in one scenario; the default is that of no rows."""

    def __add__(self, other: "FeatureSums") -> "FeatureSums":
        names = [field.name for field in dataclasses.fields(self)]
        return type(self)(*(getattr(self, name) + getattr(other, name) for name in names))


@dataclasses.dataclass(frozen=True, eq=False)
class ColumnSums(FeatureSums):
    rows: int = 0
    present: int = 0
    """Rows with a value."""

    def document(self) -> dict[str, Any]:
        return {"rows": self.rows, "coverage": _ratio(self.present, self.rows)}


@dataclasses.dataclass(frozen=True, eq=False)
class HistorySums(ColumnSums):
    length: int = 0
    """Values, tokens or actions in all rows."""
    lengths: Extent = dataclasses.field(default_factory=Extent)
    """Actions of the rows that have some."""

    def document(self) -> dict[str, Any]:
        return super().document() | {"mean_length": _ratio(self.length, self.present)}


@dataclasses.dataclass(frozen=True, eq=False)
class CategoricalSums(ColumnSums):
    distinct: Distinct = dataclasses.field(default_factory=Distinct)
    values: int = 0
    """Strings that are not missing, in all rows."""
    value_bytes: int = 0
    """Their bytes in UTF-8."""
    lengths: Extent = dataclasses.field(default_factory=Extent)
    """Strings of the rows that have some."""
    counts: ValueCounts = dataclasses.field(default_factory=ValueCounts)
    """Of each string, for features whose values are no personal data (`lists_values`)."""

    def document(self) -> dict[str, Any]:
        return super().document() | {"cardinality": self.distinct.count}


@dataclasses.dataclass(frozen=True, eq=False)
class ListSums(CategoricalSums):
    length: int = 0

    def document(self) -> dict[str, Any]:
        return super().document() | {"mean_length": _ratio(self.length, self.present)}


@dataclasses.dataclass(frozen=True, eq=False)
class NumericSums(ColumnSums):
    distinct: Distinct = dataclasses.field(default_factory=Distinct)
    non_finite: int = 0
    zeros: int = 0
    moments: Moments = dataclasses.field(default_factory=Moments)
    sample: Sample = dataclasses.field(default_factory=Sample)

    def document(self) -> dict[str, Any]:
        counts = {"cardinality": self.distinct.count, "non_finite": self.non_finite}
        return super().document() | counts | self._distribution()

    def _distribution(self) -> dict[str, Any]:
        moments = self.moments
        if not moments.count:
            return dict.fromkeys(("min", "max", "mean", "std", "quantiles"))
        quantiles = map(_shortest, self.sample.quantiles(tuple(QUANTILES.values())))
        return {
            "min": _shortest(moments.minimum),
            "max": _shortest(moments.maximum),
            "mean": moments.mean,
            "std": moments.std,
            "quantiles": dict(zip(QUANTILES, quantiles, strict=True)),
        }


@dataclasses.dataclass(frozen=True, eq=False)
class VectorSums(ColumnSums):
    """Of the vectors that are not all zeros."""

    zeros: int = 0
    extent: Extent = dataclasses.field(default_factory=Extent)
    means: Moments = dataclasses.field(default_factory=Moments)
    """Of each vector's mean: all have one width, and exact sums of all numbers would take too long."""
    mean_squares: Moments = dataclasses.field(default_factory=Moments)


@dataclasses.dataclass(frozen=True, eq=False)
class ClampedSums(FeatureSums):
    below: int = 0
    above: int = 0
    low: frozenset[float] = frozenset()
    """The lower bound, once a number lay below it."""
    high: frozenset[float] = frozenset()

    def __add__(self, other: "ClampedSums") -> "ClampedSums":
        return ClampedSums(
            self.below + other.below, self.above + other.above, self.low | other.low, self.high | other.high
        )

    def document(self) -> dict[str, Any]:
        low, high = (_shortest(min(bound)) if bound else None for bound in (self.low, self.high))
        return {"clamped": {"below": self.below, "low": low, "above": self.above, "high": high}}


@dataclasses.dataclass(frozen=True, eq=False)
class IdSums(FeatureSums):
    values: int = 0
    oov: int = 0

    def document(self) -> dict[str, Any]:
        return {"values": self.values, "oov": self.oov, "oov_share": _ratio(self.oov, self.values)}


def lists_values(name: str, feature: Feature) -> bool:
    """Whether the values of a feature may stand in statistics: those of users and of queries are personal data."""
    return feature.has_ids and feature.group not in ("user", "query")


def _kind(feature: Feature) -> type[ColumnSums]:
    if not feature.has_ids:
        return NumericSums if feature.kind.input == "number" else VectorSums
    return ListSums if feature.is_list else CategoricalSums


def _kinds_transformed(schema: Schema) -> dict[str, type[FeatureSums]]:
    """Statistics that are measured after the transform, by feature."""
    kinds: dict[str, type[FeatureSums]] = {}
    for name in schema.features:
        if name in schema.clamped_features:
            kinds[name] = ClampedSums
        elif schema.features[schema.owner(name)].has_vocabulary:
            kinds[name] = IdSums
    return kinds


def _by_scenario(measured: dict[str, list], schema: Schema) -> Sums:
    """Measurements by scenario and feature, from each feature's list in scenario order."""
    return {
        (scenario, name): sums
        for name, of_scenarios in measured.items()
        for scenario, sums in zip(schema.scenarios, of_scenarios, strict=True)
    }


def _measure_vectors(column: pa.ListArray, scenario_of: np.ndarray, rows: np.ndarray) -> list[VectorSums]:
    """Rows whose vector is not all zeros."""
    vectors = column.flatten().to_numpy().reshape(len(column), -1) + np.float32(0)  # which turns -0 into 0
    filled = vectors.any(axis=1)
    measured = []
    for scenario, total in enumerate(rows):
        kept = vectors[filled & (scenario_of == scenario)]
        zeros = kept.size - np.count_nonzero(kept)
        means = [Moments.of((kept**power).mean(axis=1, dtype=np.float64).astype(np.float32)) for power in (1, 2)]
        measured.append(VectorSums(int(total), len(kept), zeros, Extent.of(kept), *means))
    return measured


def _measure_strings(
    column: pa.ListArray, scenario_of: np.ndarray, rows: np.ndarray, name: str, schema: Schema, listed: bool
) -> list[CategoricalSums]:
    feature = schema.features[name]
    encoded = pc.fill_null(column.flatten(), "").dictionary_encode()
    codes, values = encoded.indices.to_numpy(), encoded.dictionary
    texts = values
    if feature.kind.count_tokens:
        texts = map_strings(lambda distinct: normalized(distinct, name, schema), values)
    lengths, hashes = _lengths(texts, feature), hash_strings(values)
    row_of = _row_of_value(column) if feature.kind.several else None  # others have one value a row
    scenarios = scenario_of if row_of is None else scenario_of[row_of]
    counts = _count_pairs(scenarios, codes, (len(rows), len(values))) * (lengths > 0)
    filled = lengths[codes] > 0
    values_a_row = filled.astype(int) if row_of is None else np.bincount(row_of[filled], minlength=len(column))
    sizes = pc.binary_length(values).to_numpy()
    measured = []
    for scenario, count in enumerate(counts):
        of_rows = values_a_row[(scenario_of == scenario) & (values_a_row > 0)]
        sums = CategoricalSums(
            rows=int(rows[scenario]),
            present=len(of_rows),
            distinct=Distinct.of(hashes[count > 0]),
            values=int(count.sum()),
            value_bytes=int(count @ sizes),
            lengths=Extent.of(of_rows),
            counts=ValueCounts.of(values, count) if listed else ValueCounts(None),
        )
        measured.append(ListSums(**vars(sums), length=int(count @ lengths)) if feature.is_list else sums)
    return measured


def _measure_numbers(
    column: pa.ListArray, scenario_of: np.ndarray, rows: np.ndarray, keys: np.ndarray
) -> list[NumericSums]:
    numbers = column.flatten().to_numpy(zero_copy_only=False) + np.float32(0)  # which turns -0 into 0
    row_of = _row_of_value(column)
    finite, scenarios = np.isfinite(numbers), scenario_of[row_of]
    hashes, keys = pd.util.hash_array(numbers), keys[row_of]
    measured = []
    for scenario, total in enumerate(rows):
        here = scenarios == scenario
        kept = here & finite
        sound = numbers[kept]
        measured.append(
            NumericSums(
                rows=int(total),
                present=len(sound),  # a row has one number at most
                distinct=Distinct.of(hashes[kept]),
                non_finite=int(here.sum()) - len(sound),
                zeros=len(sound) - np.count_nonzero(sound),
                moments=Moments.of(sound),
                sample=Sample.of(keys[kept], sound),
            )
        )
    return measured


def _measure_history(column: pa.ListArray, scenario_of: np.ndarray, rows: np.ndarray) -> list[HistorySums]:
    lengths = _values_a_row(column)
    present = np.bincount(scenario_of[lengths > 0], minlength=len(rows))
    length = np.bincount(scenario_of, lengths, minlength=len(rows))
    extents = [Extent.of(lengths[(scenario_of == scenario) & (lengths > 0)]) for scenario in range(len(rows))]
    sums = zip(rows.tolist(), present.tolist(), length.astype(int).tolist(), extents, strict=True)
    return [HistorySums(*each) for each in sums]


def _measure_ids(column: pa.Array, scenario_of: np.ndarray, schema: Schema, feature: Feature) -> list[IdSums]:
    ids = column.flatten().to_numpy(zero_copy_only=False)
    scenarios = scenario_of[_row_of_value(column)]
    values = np.bincount(scenarios[ids > 0], minlength=len(schema.scenarios))
    known = np.bincount(scenarios[ids > feature.oov_buckets], minlength=len(schema.scenarios))
    return [IdSums(*sums) for sums in zip(values.tolist(), (values - known).tolist(), strict=True)]


def _measure_clamped(column: pa.Array, scenario_of: np.ndarray, schema: Schema) -> list[ClampedSums]:
    bounds, measured = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, 2), []
    for scenario in range(len(schema.scenarios)):
        low, high = (side[np.isfinite(side)] for side in bounds[scenario_of == scenario].T)
        measured.append(ClampedSums(len(low), len(high), frozenset(low[:1].tolist()), frozenset(high[:1].tolist())))
    return measured


def _scenarios(batch: pa.RecordBatch, schema: Schema) -> np.ndarray:
    """`[rows]` index of each row's scenario in the schema."""
    return pc.index_in(batch.column(SCENARIO).flatten(), pa.array(schema.scenarios)).to_numpy()


def _lengths(values: pa.Array, feature: Feature) -> np.ndarray:
    """Values per string in its normal form: tokens of a text before `max_length`, else 1; 0 if missing."""
    count = feature.kind.count_tokens
    lengths = count(values, feature) if count else pc.not_equal(values, "")
    return lengths.cast(pa.int64()).to_numpy().astype(np.int64)


def _count_pairs(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """`shape` table of counts of index pairs."""
    return np.bincount(rows * np.int64(shape[1]) + columns, minlength=shape[0] * shape[1]).reshape(shape)


def _row_of_value(column: pa.Array) -> np.ndarray:
    """`[values]` row index of each value of a list column."""
    return np.repeat(np.arange(len(column)), _values_a_row(column))


def _values_a_row(column: pa.Array) -> np.ndarray:
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy()


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _shortest(value: float) -> float:
    """Shortest decimal that reads back to the float32: 0.1, not 0.10000000149011612."""
    return float(str(np.float32(value)))
