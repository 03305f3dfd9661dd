"""Statistics and schema in the protos of tensorflow-metadata, which TensorFlow Data Validation and Facets read.

`DATA/statistics/<split>.pb` is a `DatasetFeatureStatisticsList` of the split as a whole, `All Examples`, and of each
scenario, `scenario_<name>`, as TFDV names slices. `DATA/statistics/schema.pbtxt` is a `Schema` that describes the
training split. Both describe the joined rows before the transform. The same rows give the same bytes.
"""

import math
from collections.abc import Mapping

import numpy as np
from apache_beam.io.filesystems import FileSystems
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from pipelines.join.split import SPLITS
from pipelines.quality.drift import DriftLimits
from pipelines.quality.sketches import Moments
from pipelines.quality.statistics import (
    HISTORY,
    CategoricalSums,
    ClampedSums,
    ColumnSums,
    HistorySums,
    Measured,
    NumericSums,
    VectorSums,
)
from usr_tf.schema import Schema

ALL, SCENARIO_SLICE = "All Examples", "scenario_{}"
"""Names of datasets: TFDV's own for all rows, and its form `<feature>_<value>` for a slice."""
TRAINING, SERVING = "TRAINING", "SERVING"
"""Environments of the schema: rows that are served have no labels."""
SCHEMA_FILE = "schema.pbtxt"
TOP_VALUES, DOMAIN_VALUES, BUCKETS = 20, 100, 10
"""As many values, values of a domain and histogram buckets as TFDV has by default."""

_Type = statistics_pb2.FeatureNameStatistics.Type
_Statistics = statistics_pb2.FeatureNameStatistics
Counts = Mapping[tuple[str, ...], int]
"""Counts of `stats.json` by path: `("splits", split, scenario, label)`."""


def write(counts: Counts, schema: Schema, measured: Measured, directory: str) -> None:
    """Writes the statistics of every split and the schema."""
    for split in SPLITS:
        document = statistics(counts, schema, measured, split).SerializeToString(deterministic=True)
        _write(FileSystems.join(directory, f"{split}.pb"), document)
    text = text_format.MessageToString(schema_proto(counts, schema, measured))
    _write(FileSystems.join(directory, SCHEMA_FILE), text.encode("utf-8"))


def statistics(
    counts: Counts, schema: Schema, measured: Measured, split: str
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Statistics of one split: all rows, then each scenario."""
    found = statistics_pb2.DatasetFeatureStatisticsList()
    slices = {SCENARIO_SLICE.format(scenario): (scenario,) for scenario in schema.scenarios}
    for name, scenarios in ({ALL: schema.scenarios} | slices).items():
        rows = sum(counts.get(("splits", split, scenario, "impressions"), 0) for scenario in scenarios)
        dataset = found.datasets.add(name=name, num_examples=rows)
        for feature, sums in _sums(measured, schema, split, scenarios).items():
            _fill(dataset.features.add(), feature, sums, _width(schema, feature))
        for label in schema.label_names:
            positives = sum(counts.get(("splits", split, scenario, label), 0) for scenario in scenarios)
            _fill_label(dataset.features.add(), label, rows, positives)
    return found


def schema_proto(counts: Counts, schema: Schema, measured: Measured) -> schema_pb2.Schema:
    """Schema of the training split: types, presence, lengths, ranges of numbers and domains of few values."""
    found = schema_pb2.Schema(default_environment=[TRAINING, SERVING])
    clamped = measured.get(("transformed", "train"), {})
    for name, sums in _sums(measured, schema, "train", schema.scenarios).items():
        feature = found.feature.add(name=name, type=_schema_type(sums))
        feature.presence.min_count = min(1, sums.present)
        always = 0 < sums.present == sums.rows
        if always:
            feature.presence.min_fraction = 1.0
        width = _width(schema, name)
        if name == HISTORY or schema.features[name].kind.value == "strings":
            feature.value_count.min = 1
        elif always:
            feature.shape.dim.add(size=width)
        else:
            feature.value_count.min = feature.value_count.max = width
        if isinstance(sums, NumericSums) and sums.moments.count:
            bounds = [clamped.get((scenario, name)) for scenario in schema.scenarios]
            low, high = _range(sums.moments, [each for each in bounds if isinstance(each, ClampedSums)])
            feature.float_domain.min, feature.float_domain.max = low, high
        if isinstance(sums, CategoricalSums) and (values := _values(sums)) and len(values) <= DOMAIN_VALUES:
            found.string_domain.add(name=name, value=sorted(value for value, _ in values))
            feature.domain = name
            feature.distribution_constraints.min_domain_mass = 1 - DriftLimits().new_tokens
    for label in schema.label_names:
        feature = found.feature.add(name=label, type=schema_pb2.INT, not_in_environment=[SERVING])
        feature.presence.min_fraction, feature.presence.min_count = 1.0, 1
        feature.shape.dim.add(size=1)
        feature.int_domain.min, feature.int_domain.max = 0, 1
    return found


def _sums(measured: Measured, schema: Schema, split: str, scenarios: tuple[str, ...]) -> dict[str, ColumnSums]:
    """Sums of each feature and of the history over some scenarios."""
    raw = measured.get(("raw", split), {})
    names = [*schema.features, *([HISTORY] if schema.history_columns else [])]
    found: dict[str, ColumnSums] = {}
    for name in names:
        for scenario in scenarios:
            sums = raw.get((scenario, name))
            if isinstance(sums, ColumnSums):
                found[name] = found[name] + sums if name in found else sums
    return found


def _width(schema: Schema, name: str) -> int:
    """Numbers of a vector; 1 for other columns."""
    return (schema.features[name].width or 1) if name in schema.features else 1


def _fill(proto: _Statistics, name: str, sums: ColumnSums, width: int) -> None:
    proto.path.step.append(name)
    if isinstance(sums, NumericSums):
        proto.type = _Type.FLOAT
        numbers = proto.num_stats
        _fill_common(numbers.common_stats, sums, 1, 1, sums.present)
        numbers.num_zeros = sums.zeros
        if sums.moments.count:
            numbers.mean, numbers.std_dev = sums.moments.mean, sums.moments.std
            numbers.min, numbers.max = sums.moments.minimum, sums.moments.maximum
            sample = np.sort(sums.sample.values.astype(np.float64))
            numbers.median = float(np.quantile(sample, 0.5, method="inverted_cdf"))
            _fill_histograms(numbers, sample, sums.moments)
    elif isinstance(sums, VectorSums):
        proto.type = _Type.FLOAT
        numbers = proto.num_stats
        _fill_common(numbers.common_stats, sums, width, width, sums.present * width)
        numbers.num_zeros = sums.zeros
        if sums.present:
            mean = sums.means.mean
            numbers.mean, numbers.std_dev = mean, math.sqrt(max(0.0, sums.mean_squares.mean - mean**2))
            numbers.min, numbers.max = sums.extent.least or 0.0, sums.extent.greatest or 0.0
    elif isinstance(sums, HistorySums):
        proto.type = _Type.STRING
        lengths = sums.lengths
        _fill_common(proto.string_stats.common_stats, sums, lengths.least, lengths.greatest, sums.length)
    elif isinstance(sums, CategoricalSums):
        proto.type = _Type.STRING
        strings = proto.string_stats
        _fill_common(strings.common_stats, sums, sums.lengths.least, sums.lengths.greatest, sums.values)
        strings.unique = sums.distinct.count
        strings.avg_length = sums.value_bytes / sums.values if sums.values else 0.0
        values = _values(sums)
        for value, count in values[:TOP_VALUES]:
            strings.top_values.add(value=value, frequency=count)
        for rank, (value, count) in enumerate(values):
            strings.rank_histogram.buckets.add(low_rank=rank, high_rank=rank, label=value, sample_count=count)


def _fill_common(
    common: statistics_pb2.CommonStatistics, sums: ColumnSums, least: float | None, greatest: float | None, values: int
) -> None:
    """Presence and lengths; TFDV writes 0 for lengths where no row has a value."""
    common.num_non_missing, common.num_missing = sums.present, sums.rows - sums.present
    common.tot_num_values = values
    if sums.present:
        common.min_num_values, common.max_num_values = int(least or 0), int(greatest or 0)
        common.avg_num_values = values / sums.present


def _fill_histograms(numbers: statistics_pb2.NumericStatistics, sample: np.ndarray, moments: Moments) -> None:
    """Ten buckets of equal width and ten of equal counts, from a sample whose counts are scaled to all rows."""
    scale = moments.count / len(sample)
    edges = np.linspace(moments.minimum, moments.maximum, BUCKETS + 1)
    standard = numbers.histograms.add(type=statistics_pb2.Histogram.STANDARD)
    places = np.clip(np.searchsorted(edges, sample, "right") - 1, 0, BUCKETS - 1)
    for place, count in enumerate(np.bincount(places, minlength=BUCKETS).tolist()):
        standard.buckets.add(low_value=edges[place], high_value=edges[place + 1], sample_count=count * scale)
    levels = np.quantile(sample, np.linspace(0, 1, BUCKETS + 1), method="inverted_cdf")
    levels[0], levels[-1] = moments.minimum, moments.maximum
    quantiles = numbers.histograms.add(type=statistics_pb2.Histogram.QUANTILES)
    for low, high in zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True):
        quantiles.buckets.add(low_value=low, high_value=high, sample_count=moments.count / BUCKETS)


def _fill_label(proto: _Statistics, name: str, rows: int, positives: int) -> None:
    proto.path.step.append(name)
    proto.type = _Type.INT
    numbers = proto.num_stats
    _fill_common(numbers.common_stats, ColumnSums(rows, rows), 1, 1, rows)
    numbers.num_zeros = rows - positives
    if rows:
        rate = positives / rows
        numbers.mean, numbers.std_dev = rate, math.sqrt(rate * (1 - rate))
        numbers.min, numbers.max = float(positives == rows), float(positives > 0)
        numbers.median = float(2 * positives > rows)
        histogram = numbers.histograms.add(type=statistics_pb2.Histogram.STANDARD)
        histogram.buckets.add(low_value=0.0, high_value=0.5, sample_count=rows - positives)
        histogram.buckets.add(low_value=0.5, high_value=1.0, sample_count=positives)


def _values(sums: CategoricalSums) -> list[tuple[str, int]]:
    """Values with their counts, the most frequent first; none if they are too many or personal data."""
    counts = sums.counts.counts or {}
    found = [(value.decode("utf-8", "replace"), count) for value, count in counts.items()]
    return sorted(found, key=lambda each: (-each[1], each[0]))


def _schema_type(sums: ColumnSums) -> schema_pb2.FeatureType:
    return schema_pb2.FLOAT if isinstance(sums, NumericSums | VectorSums) else schema_pb2.BYTES


def _range(moments: Moments, clamped: list[ClampedSums]) -> tuple[float, float]:
    """Range of valid numbers: the bounds of clamping, else that of training extended by twice its width."""
    width, limit = moments.maximum - moments.minimum, float(np.finfo(np.float32).max)
    low, high = (min(bounds, default=None) for bounds in _bounds(clamped))
    low = moments.minimum - 2 * width if low is None else low
    high = moments.maximum + 2 * width if high is None else high
    return max(low, -limit), min(high, limit)


def _bounds(clamped: list[ClampedSums]) -> tuple[frozenset[float], frozenset[float]]:
    return frozenset().union(*(each.low for each in clamped)), frozenset().union(*(each.high for each in clamped))


def _write(path: str, data: bytes) -> None:
    with FileSystems.create(path) as stream:
        stream.write(data)
