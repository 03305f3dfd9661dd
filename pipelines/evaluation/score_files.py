"""Score files: Parquet schema of scored rows, as `score_logs` writes and `evaluate_scores` reads them.

An impression a row: its keys, each task's probability under the task's name, and what figures need beside it.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.beam.hashing import hash_strings
from usr_tf.errors import InputError
from usr_tf.schema import (
    ACTION,
    ITEM,
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

SCHEMA_KEY = b"usr_tf.schema"
"""Of the file's metadata: the `schema.yaml` that its rows were scored by."""
HISTORY_LENGTH, QUERY_KEY = "history_length", "query_key"

_KEYS = {REQUEST: REQUEST, USER: RAW_USER, ITEM: RAW_ITEM, SCENARIO: SCENARIO, TIMESTAMP: TIMESTAMP}
"""Column of a score → column of the joined row that it is taken from."""


def label_column(task: str) -> str:
    """Column of a task's label: `ctr` → `label_ctr`."""
    return f"label_{task}"


def required_columns(schema: Schema) -> dict[str, pa.DataType]:
    """Columns that every score file must have."""
    keys = {name: pa.int64() if name == TIMESTAMP else pa.string() for name in _KEYS}
    probabilities = {task: pa.float32() for task in schema.task_names}
    return keys | probabilities | {label_column(task): pa.int64() for task in schema.task_names}


def optional_columns(schema: Schema) -> dict[str, pa.DataType]:
    """Columns of a score file that some baselines, slices and oracle metrics need.

    A position of 0, a query key of 0 and a true probability of NaN stand for none, and so does null.
    """
    oracle = {oracle_column(task): pa.float32() for task in schema.task_names}
    return {POSITION: pa.int64(), HISTORY_LENGTH: pa.int64(), QUERY_KEY: pa.uint64()} | oracle


def scored_schema(schema: Schema) -> pa.Schema:
    """Arrow schema of the score files of `score_logs`."""
    columns = required_columns(schema) | optional_columns(schema)
    if not schema.history_columns:
        del columns[HISTORY_LENGTH]
    if not schema.features_of("query"):
        del columns[QUERY_KEY]
    return pa.schema(columns, {SCHEMA_KEY: schema.to_yaml().encode("utf-8")})


def layout_of(found: pa.Schema, schema: Schema, place: str) -> pa.Schema:
    """Columns and types to read from score files with the schema `found`.

    Those are the declared types, except for float64 probabilities.

    Raises:
      InputError: a required column is missing; it names `place`.
    """
    required, optional = required_columns(schema), optional_columns(schema)
    for name, kind in required.items():
        if name not in found.names:
            raise InputError(place, f"no column {name}", f"it, of type {kind}")

    def kind_of(name: str, declared: pa.DataType) -> pa.DataType:
        wide = pa.types.is_floating(declared) and pa.types.is_float64(found.field(name).type)
        return pa.float64() if wide else declared

    present = required | {name: kind for name, kind in optional.items() if name in found.names}
    return pa.schema([(name, kind_of(name, kind)) for name, kind in present.items()])


def conform(rows: pa.RecordBatch, layout: pa.Schema, place: str) -> pa.RecordBatch:
    """Rows of a score file, cast to the layout of `layout_of`.

    Raises:
      InputError: a column is of another kind, or null where it must be known; it names `place`.
    """
    return pa.RecordBatch.from_arrays([_conforming(rows, field, place) for field in layout], schema=layout)


def scored_rows(rows: pa.RecordBatch, probabilities: dict[str, np.ndarray], schema: Schema) -> pa.RecordBatch:
    """Score-file rows from joined rows and each task's probabilities `[rows]`."""
    columns = {name: rows.column(source).flatten() for name, source in _KEYS.items()}
    columns |= {task: pa.array(values) for task, values in probabilities.items()}
    columns |= {label_column(task): rows.column(task).flatten() for task in schema.task_names}
    columns |= {name: rows.column(name).flatten() for name in (POSITION, *map(oracle_column, schema.task_names))}
    columns[QUERY_KEY] = pa.array(_query_keys(rows, schema))
    if schema.history_columns:
        columns[HISTORY_LENGTH] = pc.list_value_length(rows.column(history_column(ACTION))).cast(pa.int64())
    layout = scored_schema(schema)
    return pa.RecordBatch.from_arrays([columns[name] for name in layout.names], schema=layout)


def _conforming(rows: pa.RecordBatch, field: pa.Field, place: str) -> pa.Array:
    column = rows.column(field.name)
    try:
        if pa.types.is_temporal(column.type):  # whose unit may be any
            raise pa.ArrowInvalid("a date or time")
        column = column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        found = f"{rows.column(field.name).type} that is no {field.type} ({error})"
        raise InputError(f"{place}: {field.name}", found, str(field.type)) from error
    if field.name in (POSITION, QUERY_KEY):
        return column.fill_null(0)
    if column.null_count and not pa.types.is_floating(field.type):
        raise InputError(f"{place}: {field.name}", f"{column.null_count} null", "a value in every row")
    return column


def _query_keys(rows: pa.RecordBatch, schema: Schema) -> np.ndarray:
    """uint64 `[rows]` hashes of the raw query; 0 for a row without one."""
    keys, empty = np.zeros(rows.num_rows, np.uint64), np.ones(rows.num_rows, bool)
    for name, feature in schema.features_of("query").items():
        if feature.has_ids:
            text = pc.binary_join(rows.column(name), "\x1f")
            keys = keys * np.uint64(31) + hash_strings(text)
            empty &= pc.equal(text, "").to_numpy(zero_copy_only=False)
    return np.where(empty, np.uint64(0), keys | np.uint64(1))
