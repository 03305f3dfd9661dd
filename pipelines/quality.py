"""Data quality of a split, per scenario and feature: what `stats.json` says of the rows before and after transform.

Every figure is a sum over batches (`pipelines.sketch`), so the order of rows and bundles changes nothing. A batch is
measured by whole columns: strings are told apart by Arrow, and each distinct one is hashed once.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.blocks import load
from pipelines.sketch import Distinct, Moments, Sample
from usr_tf.schema import RAW_ITEM, RAW_USER, REQUEST, SCENARIO, Feature, Schema, history_column

QUANTILES = {"p01": 0.01, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}
HISTORY = history_column("action")
"""The column that stands for the whole history, whose columns all describe the same actions."""

Figures = dict[str, dict[str, dict[str, Any]]]
"""By scenario and feature, the figures that `stats.json` holds; one that no row defines is None."""

Measured = dict[tuple[str, str], dict]
"""By kind (raw, ids) and split, the sums of `RawQuality` or `IdQuality`."""


class RawQuality(beam.CombineFn):
    """Batches of joined rows (`pipelines.rows.row_schema`) → `Figures` of every feature and of the history."""

    def __init__(self, schema: Schema):
        super().__init__()
        self._schema = schema

    def create_accumulator(self) -> dict:
        return {}

    def add_input(self, accumulator: dict, batch: pa.RecordBatch) -> dict:
        schema = self._schema
        scenario_of = _scenarios(batch, schema)
        rows = np.bincount(scenario_of, minlength=len(schema.scenarios))
        keys = _row_keys(batch) if any(feature.type == "numeric" for feature in schema.features.values()) else None
        for name, feature in schema.features.items():
            if feature.type == "numeric":
                measured = _measure_numbers(batch.column(name), scenario_of, rows, keys)
            else:
                measured = _measure_strings(batch.column(name), scenario_of, rows, feature)
            _add(accumulator, schema, name, measured)
        if schema.history_columns:
            _add(accumulator, schema, HISTORY, _measure_history(batch.column(HISTORY), scenario_of, rows))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[dict]) -> dict:
        return _merge(accumulators)

    def extract_output(self, accumulator: dict) -> Figures:
        schema = self._schema
        kinds = {name: _kind(feature) for name, feature in schema.features.items()}
        if schema.history_columns:
            kinds[HISTORY] = _History
        return _figures(accumulator, schema, kinds)


class IdQuality(beam.CombineFn):
    """Batches of transformed rows → `Figures` of the features that have a vocabulary.

    An id is 0 where a value is missing, then come the feature's out-of-vocabulary buckets, then its vocabulary.
    """

    def __init__(self, schema: Schema):
        super().__init__()
        self._schema = schema

    def create_accumulator(self) -> dict:
        return {}

    def add_input(self, accumulator: dict, batch: pa.RecordBatch | tuple) -> dict:
        schema = self._schema
        batch = batch[0] if isinstance(batch, tuple) else batch
        scenario_of = _scenarios(batch, schema)
        for name, feature in _with_vocabulary(schema).items():
            _add(accumulator, schema, name, _measure_ids(batch.column(name), scenario_of, schema, feature))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[dict]) -> dict:
        return _merge(accumulators)

    def extract_output(self, accumulator: dict) -> Figures:
        return _figures(accumulator, self._schema, dict.fromkeys(_with_vocabulary(self._schema), _Ids))


class MeasureQuality(beam.PTransform):
    """`{"raw SPLIT": handles of blocks of joined rows, "ids SPLIT": batches of them transformed}` → `Measured`.

    Every batch is measured where it passes, and the sums meet in one step: a stage for each kind and split would cost
    more than the measuring.
    """

    def __init__(self, schema: Schema):
        super().__init__()
        self._kinds = {"raw": RawQuality(schema), "ids": IdQuality(schema)}

    def expand(self, rows):  # Beam warns of hints that are dictionaries
        sums = [
            batches | f"Measure {key}" >> beam.Map(self._measure, tuple(key.split())) for key, batches in rows.items()
        ]
        return sums | beam.Flatten() | beam.CombinePerKey(_merge)

    def _measure(self, batch: Any, key: tuple[str, str]) -> tuple[tuple[str, str], dict]:
        combine = self._kinds[key[0]]
        batch = load(batch) if key[0] == "raw" else batch
        return key, combine.add_input(combine.create_accumulator(), batch)


def figures_of(measured: Measured, split: str, schema: Schema) -> Figures:
    """What was measured in one split."""
    raw, ids = (
        combine.extract_output(measured.get((kind, split), combine.create_accumulator()))
        for kind, combine in {"raw": RawQuality(schema), "ids": IdQuality(schema)}.items()
    )
    return merge_figures(raw, ids)


def merge_figures(raw: Figures, ids: Figures) -> Figures:
    """What `RawQuality` and `IdQuality` found in one split, side by side."""
    return {
        scenario: {name: figures | ids[scenario].get(name, {}) for name, figures in features.items()}
        for scenario, features in raw.items()
    }


@dataclasses.dataclass(frozen=True, eq=False)
class _Sums:
    """Figures of one feature in one scenario that add up; the default is that of no rows."""

    def __add__(self, other: "_Sums") -> "_Sums":
        names = [field.name for field in dataclasses.fields(self)]
        return type(self)(*(getattr(self, name) + getattr(other, name) for name in names))


@dataclasses.dataclass(frozen=True, eq=False)
class _Column(_Sums):
    rows: int = 0
    present: int = 0
    """Rows with a value."""

    def document(self) -> dict[str, Any]:
        return {"rows": self.rows, "coverage": _ratio(self.present, self.rows)}


@dataclasses.dataclass(frozen=True, eq=False)
class _History(_Column):
    length: int = 0
    """Values, tokens or actions in all rows."""

    def document(self) -> dict[str, Any]:
        return super().document() | {"mean_length": _ratio(self.length, self.present)}


@dataclasses.dataclass(frozen=True, eq=False)
class _Categorical(_Column):
    distinct: Distinct = dataclasses.field(default_factory=Distinct)

    def document(self) -> dict[str, Any]:
        return super().document() | {"cardinality": self.distinct.count}


@dataclasses.dataclass(frozen=True, eq=False)
class _List(_Categorical):
    length: int = 0

    def document(self) -> dict[str, Any]:
        return super().document() | {"mean_length": _ratio(self.length, self.present)}


@dataclasses.dataclass(frozen=True, eq=False)
class _Numeric(_Categorical):
    non_finite: int = 0
    moments: Moments = dataclasses.field(default_factory=Moments)
    sample: Sample = dataclasses.field(default_factory=Sample)

    def document(self) -> dict[str, Any]:
        return super().document() | {"non_finite": self.non_finite} | self._distribution()

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
class _Ids(_Sums):
    values: int = 0
    oov: int = 0

    def document(self) -> dict[str, Any]:
        return {"values": self.values, "oov": self.oov, "oov_share": _ratio(self.oov, self.values)}


def _kind(feature: Feature) -> type[_Column]:
    if feature.type == "numeric":
        return _Numeric
    return _List if feature.is_list else _Categorical


def _with_vocabulary(schema: Schema) -> dict[str, Feature]:
    return {name: feature for name, feature in schema.features.items() if feature.has_vocabulary}


def _add(accumulator: dict, schema: Schema, name: str, measured: list[_Sums]) -> None:
    """Adds the sums of a batch, one for each scenario, to those so far."""
    for scenario, sums in zip(schema.scenarios, measured, strict=True):
        key = scenario, name
        accumulator[key] = accumulator[key] + sums if key in accumulator else sums


def _merge(accumulators: Iterable[dict]) -> dict:
    merged: dict = {}
    for accumulator in accumulators:
        for key, sums in accumulator.items():
            merged[key] = merged[key] + sums if key in merged else sums
    return merged


def _figures(accumulator: dict, schema: Schema, kinds: dict[str, type[_Sums]]) -> Figures:
    return {
        scenario: {name: accumulator.get((scenario, name), kind()).document() for name, kind in kinds.items()}
        for scenario in schema.scenarios
    }


def _measure_strings(
    column: pa.ListArray, scenario_of: np.ndarray, rows: np.ndarray, feature: Feature
) -> list[_Categorical]:
    encoded = pc.fill_null(column.flatten(), "").dictionary_encode()
    codes, values = encoded.indices.to_numpy(), encoded.dictionary
    lengths, hashes = _lengths(values, feature), _hash(values)
    row_of = _row_of_value(column) if feature.type == "categorical_list" else None  # others have one value a row
    scenarios = scenario_of if row_of is None else scenario_of[row_of]
    counts = _count_pairs(scenarios, codes, (len(rows), len(values)))
    if row_of is None:
        present = counts @ (lengths > 0)
    else:
        filled = np.zeros(len(column), bool)
        filled[row_of[lengths[codes] > 0]] = True
        present = np.bincount(scenario_of[filled], minlength=len(rows))
    measured = []
    for scenario, count in enumerate(counts):
        distinct = Distinct.of(hashes[(count > 0) & (lengths > 0)])
        sums = (int(rows[scenario]), int(present[scenario]), distinct)
        measured.append(_List(*sums, int(count @ lengths)) if feature.is_list else _Categorical(*sums))
    return measured


def _measure_numbers(
    column: pa.ListArray, scenario_of: np.ndarray, rows: np.ndarray, keys: np.ndarray
) -> list[_Numeric]:
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
            _Numeric(
                rows=int(total),
                present=len(sound),  # a row has one number at most
                distinct=Distinct.of(hashes[kept]),
                non_finite=int(here.sum()) - len(sound),
                moments=Moments.of(sound),
                sample=Sample.of(keys[kept], sound),
            )
        )
    return measured


def _measure_history(column: pa.ListArray, scenario_of: np.ndarray, rows: np.ndarray) -> list[_History]:
    lengths = _values_a_row(column)
    present = np.bincount(scenario_of[lengths > 0], minlength=len(rows))
    length = np.bincount(scenario_of, lengths, minlength=len(rows))
    return [_History(*map(int, sums)) for sums in zip(rows, present, length, strict=True)]


def _measure_ids(column: pa.Array, scenario_of: np.ndarray, schema: Schema, feature: Feature) -> list[_Ids]:
    ids = column.flatten().to_numpy(zero_copy_only=False)
    scenarios = scenario_of[_row_of_value(column)]
    values = np.bincount(scenarios[ids > 0], minlength=len(schema.scenarios))
    known = np.bincount(scenarios[ids > feature.oov_buckets], minlength=len(schema.scenarios))
    return [_Ids(*sums) for sums in zip(values.tolist(), (values - known).tolist(), strict=True)]


def _scenarios(batch: pa.RecordBatch, schema: Schema) -> np.ndarray:
    """`[rows]`: the place of each row's scenario among those of the schema."""
    return pc.index_in(batch.column(SCENARIO).flatten(), pa.array(schema.scenarios)).to_numpy()


def _row_keys(batch: pa.RecordBatch) -> np.ndarray:
    """`[rows]` uint64: a hash of what identifies an impression."""
    keys = np.zeros(batch.num_rows, np.uint64)
    for name in (RAW_USER, REQUEST, RAW_ITEM):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + _hash(batch.column(name).flatten())
    return keys


def _hash(values: pa.Array) -> np.ndarray:
    """uint64 SipHash of strings: the same in every process. As bytes they need no decoding, sound UTF-8 or not."""
    data = values.cast(pa.binary()).to_numpy(zero_copy_only=False)
    return pd.util.hash_array(data, categorize=False)


def _lengths(values: pa.Array, feature: Feature) -> np.ndarray:
    """How many values each string is: its tokens for a text, which `max_length` does not cut here; 0 if missing."""
    if feature.type != "text":
        lengths = pc.not_equal(values, "").cast(pa.int64())
    elif feature.tokenizer == "character":
        lengths = pc.utf8_length(pc.replace_substring(values, " ", ""))
    else:
        trimmed = pc.ascii_trim_whitespace(values)
        words = pc.list_value_length(pc.ascii_split_whitespace(trimmed))
        lengths = pc.if_else(pc.equal(trimmed, ""), 0, words)
    return lengths.to_numpy().astype(np.int64)


def _count_pairs(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """`shape` table of how often each pair of indices occurs."""
    return np.bincount(rows * np.int64(shape[1]) + columns, minlength=shape[0] * shape[1]).reshape(shape)


def _row_of_value(column: pa.Array) -> np.ndarray:
    """`[values]`: the row that each value of a list column stands in."""
    return np.repeat(np.arange(len(column)), _values_a_row(column))


def _values_a_row(column: pa.Array) -> np.ndarray:
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy()


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _shortest(value: float) -> float:
    """A float32 as the shortest decimal that reads back to it: 0.1, not 0.10000000149011612."""
    return float(str(np.float32(value)))
