"""Joined rows: Arrow schema, TensorFlow Transform adapter, and columns that bypass the transform."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

from pipelines.join.as_of import Histories
from pipelines.join.past_queries import PastQueries
from pipelines.transform.preprocessing_fn import raw_feature_spec
from usr_tf.schema import (
    ITEM,
    PAST_QUERIES_AGE,
    POSITION,
    RAW_ITEM,
    RAW_USER,
    REQUEST,
    SCENARIO,
    TIMESTAMP,
    USER,
    Schema,
    history_column,
    oracle_column,
)

BATCH_ROWS = 16_384
_BATCH_VALUES = 4 << 20


def passthrough_columns(schema: Schema) -> dict[str, pa.DataType]:
    """Columns that bypass the transform and are no features: keys, labels, position, oracle.

    A position is 0 and a true probability NaN where the logs do not have it.
    """
    keys = {REQUEST: pa.string(), SCENARIO: pa.string(), RAW_USER: pa.string(), RAW_ITEM: pa.string()}
    numbers = {TIMESTAMP: pa.int64(), POSITION: pa.int64()} | {name: pa.int64() for name in schema.label_names}
    return keys | numbers | {oracle_column(task): pa.float32() for task in schema.task_names}


def row_schema(schema: Schema) -> pa.Schema:
    """Arrow schema of the batches of `make_batches`: every column is a list."""
    columns: dict[str, pa.DataType] = {}
    for name, feature in schema.features.items():
        columns[name] = pa.string() if feature.has_ids else pa.float32()
    columns |= dict.fromkeys([*schema.weight_columns, *schema.counter_columns], pa.float32())
    for name in (*schema.history_columns, *schema.query_columns):
        columns[name] = pa.int64() if name in (history_column("age"), PAST_QUERIES_AGE) else pa.string()
    columns |= passthrough_columns(schema)
    return pa.schema({name: pa.list_(kind) for name, kind in columns.items()})


def tensor_adapter_config(schema: Schema) -> TensorAdapterConfig:
    """TFXIO adapter configuration of joined rows: dense strings, or sparse values."""
    representations = {}
    for name, spec in raw_feature_spec(schema).items():
        representation = schema_pb2.TensorRepresentation()
        if isinstance(spec, tf.io.FixedLenFeature):
            representation.dense_tensor.column_name = name
            representation.dense_tensor.shape.SetInParent()
            for size in spec.shape:
                representation.dense_tensor.shape.dim.add(size=size)
        else:
            representation.varlen_sparse_tensor.column_name = name
        representations[name] = representation
    return TensorAdapterConfig(row_schema(schema), representations)


def batch_rows(schema: Schema) -> int:
    """Rows per batch: below `BATCH_ROWS` where a history column could hold over 4M values."""
    widths = [schema.history_width(column) or 1 for column in schema.history_columns]
    values = schema.history.max_length * max(widths, default=1)
    return max(1, min(BATCH_ROWS, _BATCH_VALUES // values))


def make_batches(
    impressions: pa.Table,
    labels: dict[str, np.ndarray],
    past: Sequence[Histories | PastQueries],
    schema: Schema,
    part: slice,
) -> Iterator[pa.RecordBatch]:
    """Batches of at most `batch_rows(schema)` joined rows of `part`, in the order of `impressions`.

    Counter columns are 0: a later stage knows them.

    Args:
      impressions: with the features of their items and users.
      past: what came before the same impressions: their histories and past queries, where the schema has them.
    """
    layout, size = row_schema(schema), batch_rows(schema)
    for start in range(part.start, part.stop, size):
        stop = min(start + size, part.stop)
        rows = impressions.slice(start, stop - start)
        columns = {name: values for source in past for name, values in source.columns(start, stop).items()}
        columns |= {name: _single(pa.array(np.zeros(stop - start, np.float32))) for name in schema.counter_columns}
        columns |= {name: _single(pa.array(values[start:stop])) for name, values in labels.items()}
        columns |= {
            name: _optional(_ages(_column(rows, feature.since), _column(rows, TIMESTAMP)))
            for name, feature in schema.features.items()
            if feature.since
        }
        columns |= {RAW_USER: _single(_column(rows, USER)), RAW_ITEM: _single(_column(rows, ITEM))}
        for field in layout:
            if field.name not in columns:
                columns[field.name] = _raw(_column(rows, field.name), field.type, schema, field.name)
        yield pa.RecordBatch.from_arrays(
            [columns[name].cast(layout.field(name).type) for name in layout.names], schema=layout
        )


def without_history(batch: pa.RecordBatch, schema: Schema) -> pa.RecordBatch:
    """Rows with empty histories, for the analysis: no statistic is computed from histories."""
    for name in schema.history_columns:
        at = batch.schema.get_field_index(name)
        kind = batch.schema.field(at).type
        nothing = pa.array(np.zeros(batch.num_rows + 1), pa.int32())
        batch = batch.set_column(at, name, pa.ListArray.from_arrays(nothing, pa.array([], kind.value_type)))
    return batch


def _column(rows: pa.Table, name: str) -> pa.Array:
    return rows.column(name).combine_chunks()


def _raw(values: pa.Array, kind: pa.ListType, schema: Schema, name: str) -> pa.Array:
    if name in schema.vector_features:
        return _vectors(values, schema.features[name].width or 1)
    if pa.types.is_list(values.type):
        return pc.fill_null(values, pa.scalar([], values.type))
    if name not in schema.features:
        unknown = {POSITION: 0, **{oracle_column(task): float("nan") for task in schema.task_names}}
        return _single(pc.fill_null(values, unknown[name]) if name in unknown else values)
    if schema.features[name].has_ids:
        return _single(pc.fill_null(values, ""))
    return _optional(values.cast(kind.value_type))


def _ages(moments: pa.Array, now: pa.Array) -> pa.Array:
    """float32 seconds since moments, ms; null where one is null or later than now."""
    ages = pc.subtract(now, moments)
    ages = pc.if_else(pc.less(ages, 0), pa.scalar(None, pa.int64()), ages)
    return pc.divide(ages.cast(pa.float64()), 1000.0).cast(pa.float32())


def _single(values: pa.Array) -> pa.ListArray:
    """Encodes one value per row."""
    return pa.ListArray.from_arrays(pa.array(np.arange(len(values) + 1), pa.int32()), values)


def _vectors(values: pa.Array, width: int) -> pa.ListArray:
    """`width` numbers a row: zeros where a row has none."""
    values = pc.fill_null(values, pa.scalar([0.0] * width, values.type))
    return pa.ListArray.from_arrays(pa.array(np.arange(len(values) + 1) * width, pa.int32()), values.flatten())


def _optional(values: pa.Array) -> pa.ListArray:
    """Encodes one value per row, none for null."""
    offsets = np.concatenate([[0], np.cumsum(values.is_valid().to_numpy(zero_copy_only=False))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.drop_null())
