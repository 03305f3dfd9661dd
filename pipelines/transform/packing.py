"""Packing of transformed rows into few columns; `usr_tf.data.parsing` unpacks them."""

import numpy as np
import pyarrow as pa

from usr_tf.schema import HISTORY, IDS, NUMBERS, QUERIES, Schema, bounds_column


def pack(batch: pa.RecordBatch, schema: Schema) -> pa.RecordBatch:
    """Packs one column per feature into `IDS`, `NUMBERS` and `HISTORY`; keeps the other columns except bounds.

    A group without features gets no column.
    """
    packed = {*schema.id_columns, *schema.number_columns, *schema.history_columns, *schema.query_columns}
    packed |= {bounds_column(name) for name in schema.clamped_features}
    columns = {name: batch.column(name) for name in batch.schema.names if name not in packed}
    if schema.id_columns:
        columns[IDS] = _side_by_side(batch, schema.id_columns)
    if schema.number_columns:
        columns[NUMBERS] = _side_by_side(batch, tuple(schema.number_columns), tuple(schema.number_columns.values()))
    if schema.history_columns:
        columns[HISTORY] = _side_by_side(batch, schema.history_columns, schema.history_places)
    if schema.query_columns:
        columns[QUERIES] = _side_by_side(batch, schema.query_columns, schema.query_places)
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _side_by_side(batch: pa.RecordBatch, names: tuple[str, ...], places: tuple[int, ...] | None = None) -> pa.ListArray:
    """Concatenates columns entry by entry, so that each entry has all of them in `places` values."""
    places = places or (1,) * len(names)
    entries = [
        batch.column(name).flatten().to_numpy().reshape(-1, width) for name, width in zip(names, places, strict=True)
    ]
    offsets = batch.column(names[0]).offsets.to_numpy()
    offsets = (offsets - offsets[0]) // places[0] * sum(places)
    values = pa.array(np.concatenate(entries, axis=1).ravel())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
