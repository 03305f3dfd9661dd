"""Parsing of rows to model features: stored rows, and rows that a serving graph has just transformed."""

import tensorflow as tf

from usr_tf.schema import (
    HISTORY,
    IDS,
    NUMBERS,
    PAST_QUERIES,
    QUERIES,
    SCENARIO,
    Schema,
    bounds_column,
)

Features = dict[str, tf.Tensor]
Spec = dict[str, tf.io.FixedLenFeature | tf.io.FixedLenSequenceFeature]


def row_spec(schema: Schema) -> Spec:
    """Parsing specification of a row: features, scenario and labels."""
    spec: Spec = {SCENARIO: tf.io.FixedLenFeature([], tf.string)}
    spec |= {name: tf.io.FixedLenFeature([], tf.int64) for name in schema.label_names}
    if schema.id_columns:
        spec[IDS] = tf.io.FixedLenFeature([len(schema.id_columns)], tf.int64)
    if schema.number_columns:
        spec[NUMBERS] = tf.io.FixedLenFeature([sum(schema.number_columns.values())], tf.float32)
    if schema.history_columns:
        spec[HISTORY] = _padded([sum(schema.history_places)])
    if schema.query_columns:
        spec[QUERIES] = _padded([sum(schema.query_places)])
    spec |= {name: _padded([], tf.float32) for name in schema.weight_columns}
    return spec | {name: _padded([]) for name in schema.list_features}


def parse(records: tf.Tensor, spec: Spec, schema: Schema) -> Features:
    """Parses `[B]` serialized rows of `pipelines.transform.packing` by `row_spec` and optional keys.

    Ids and numbers are `[B]`, lists `[B, n]`, histories `[B, L]` and histories of lists `[B, L, n]`, 0 where they are
    shorter. The scenario is its number, int32 `[B]`.

    Raises:
      tf.errors.InvalidArgumentError: a scenario that the schema lacks; it names one.
    """
    row = tf.io.parse_example(records, spec)
    if schema.id_columns:
        row |= zip(schema.id_columns, tf.unstack(row.pop(IDS), axis=1), strict=True)
    if schema.number_columns:
        row |= _numbers_of(row.pop(NUMBERS), schema)
    if schema.history_columns:
        row |= _apart(row.pop(HISTORY), schema.history_columns, schema.history_places, schema)
    if schema.query_columns:
        row |= _apart(row.pop(QUERIES), schema.query_columns, schema.query_places, schema)
    row[SCENARIO] = _numbers(row[SCENARIO], schema)
    return row


def densify(transformed: Features, schema: Schema) -> Features:
    """Dense, padded features from the output of the transform's graph, as `parse` gives them."""
    dense: Features = {}
    bounds = {bounds_column(name) for name in schema.clamped_features}  # which no model reads
    for name, values in transformed.items():
        if name in bounds:
            continue
        if isinstance(values, tf.SparseTensor):
            values = tf.sparse.to_dense(values)
        elif isinstance(values, tf.RaggedTensor):
            values = values.to_tensor()
        dense[name] = values
    for name in schema.history_columns:
        width = schema.history_width(name)
        if width:
            shape = tf.shape(dense[name])
            dense[name] = tf.reshape(dense[name], [shape[0], shape[1] // width, width])
    if PAST_QUERIES in dense and schema.history.queries:
        width, shape = schema.history.queries.tokens, tf.shape(dense[PAST_QUERIES])
        dense[PAST_QUERIES] = tf.reshape(dense[PAST_QUERIES], [shape[0], shape[1] // width, width])
    return dense


def _numbers(scenarios: tf.Tensor, schema: Schema) -> tf.Tensor:
    """int32 `[B]` scenario indices of scenario names `[B]`."""
    found = scenarios[:, tf.newaxis] == tf.constant(schema.scenarios)
    known = tf.reduce_any(found, axis=1)
    expected = f"Scenarios must be among {', '.join(schema.scenarios)}. Received:"
    check = tf.debugging.Assert(tf.reduce_all(known), [expected, tf.boolean_mask(scenarios, ~known)[:1]])
    with tf.control_dependencies([check] if check is not None else []):  # None: eager, and already checked
        return tf.argmax(found, 1, tf.int32)


def _padded(shape: list[int], dtype: tf.DType = tf.int64) -> tf.io.FixedLenSequenceFeature:
    """Specification of a ragged column that the parser pads, which is faster than padding afterwards."""
    return tf.io.FixedLenSequenceFeature(shape, dtype, allow_missing=True)


def _numbers_of(packed: tf.Tensor, schema: Schema) -> Features:
    """The numbers `[B]` and vectors `[B, w]` of rows `[B, n]`."""
    vectors = schema.vector_features
    numbers = [name for name in schema.number_columns if name not in vectors]
    widths = [len(numbers), *(schema.number_columns[name] for name in vectors)]
    first, *others = tf.split(packed, widths, axis=1)
    return dict(zip((*numbers, *vectors), (*tf.unstack(first, axis=1), *others), strict=True))


def _apart(packed: tf.Tensor, names: tuple[str, ...], places: tuple[int, ...], schema: Schema) -> Features:
    """Columns of packed histories `[B, L, places]`."""
    columns = dict(zip(names, tf.split(packed, places, axis=2), strict=True))
    lists = {name for name in names if name == PAST_QUERIES or schema.history_width(name)}
    return {name: part if name in lists else tf.squeeze(part, axis=2) for name, part in columns.items()}
