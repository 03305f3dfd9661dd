"""Parsing of rows to model features: stored rows, and rows that a serving graph has just transformed."""

import tensorflow as tf

from usr_tf.schema import HISTORY, IDS, NUMBERS, SCENARIO, Schema, bounds_column

Features = dict[str, tf.Tensor]
Spec = dict[str, tf.io.FixedLenFeature | tf.io.FixedLenSequenceFeature]


def row_spec(schema: Schema) -> Spec:
    """Parsing specification of a row: features, scenario and labels."""
    spec: Spec = {SCENARIO: tf.io.FixedLenFeature([], tf.string)}
    spec |= {name: tf.io.FixedLenFeature([], tf.int64) for name in schema.label_names}
    if schema.id_features:
        spec[IDS] = tf.io.FixedLenFeature([len(schema.id_features)], tf.int64)
    if schema.number_features:
        spec[NUMBERS] = tf.io.FixedLenFeature([len(schema.number_features)], tf.float32)
    if schema.history_columns:
        spec[HISTORY] = _padded([sum(schema.history_places)])
    return spec | {name: _padded([]) for name in schema.list_features}


def parse(records: tf.Tensor, spec: Spec, schema: Schema) -> Features:
    """Parses `[B]` serialized rows of `pipelines.transform.packing` by `row_spec` and optional keys.

    Ids and numbers are `[B]`, lists `[B, n]`, histories `[B, L]` and histories of lists `[B, L, n]`, 0 where they are
    shorter. The scenario is its number, int32 `[B]`.

    Raises:
      tf.errors.InvalidArgumentError: a scenario that the schema lacks; it names one.
    """
    row = tf.io.parse_example(records, spec)
    for column, names in ((IDS, schema.id_features), (NUMBERS, schema.number_features)):
        if names:
            row |= zip(names, tf.unstack(row.pop(column), axis=1), strict=True)
    if schema.history_columns:
        row |= _apart(row.pop(HISTORY), schema)
    row[SCENARIO] = _numbers(row[SCENARIO], schema)
    return row


def densify(transformed: Features, schema: Schema) -> Features:
    """Dense, padded features from the output of the transform's graph, as `parse` gives them."""
    dense: Features = {}
    bounds = {bounds_column(name) for name in schema.number_features}  # which no model reads
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
    return dense


def _numbers(scenarios: tf.Tensor, schema: Schema) -> tf.Tensor:
    """int32 `[B]` scenario indices of scenario names `[B]`."""
    found = scenarios[:, tf.newaxis] == tf.constant(schema.scenarios)
    known = tf.reduce_any(found, axis=1)
    expected = f"Scenarios must be among {', '.join(schema.scenarios)}. Received:"
    check = tf.debugging.Assert(tf.reduce_all(known), [expected, tf.boolean_mask(scenarios, ~known)[:1]])
    with tf.control_dependencies([check] if check is not None else []):  # None: eager, and already checked
        return tf.argmax(found, 1, tf.int32)


def _padded(shape: list[int]) -> tf.io.FixedLenSequenceFeature:
    """Specification of a ragged column that the parser pads, which is faster than padding afterwards."""
    return tf.io.FixedLenSequenceFeature(shape, tf.int64, allow_missing=True)


def _apart(history: tf.Tensor, schema: Schema) -> Features:
    """Columns of packed histories `[B, L, places]`."""
    parts = tf.split(history, schema.history_places, axis=2)
    columns = dict(zip(schema.history_columns, parts, strict=True))
    return {name: part if schema.history_width(name) else tf.squeeze(part, axis=2) for name, part in columns.items()}
