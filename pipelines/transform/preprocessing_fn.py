"""Preprocessing function of TensorFlow Transform: raw features → ids and numbers.

The same graph runs in the pipeline and inside the served model, so the two cannot drift apart. Ids: 0 is a
missing value or padding, then come the out-of-vocabulary buckets, then the vocabulary: at the end, so that it
can grow and no id moves.
"""

from collections.abc import Callable

import tensorflow as tf
import tensorflow_transform as tft

from pipelines.transform.counter_rates import counter_signals
from pipelines.transform.history_match import history_match_signals
from pipelines.transform.match import finite, match_signals
from pipelines.transform.scaling import scale, shorten
from usr_tf.schema import (
    AGE_BUCKETS,
    PAST_QUERIES,
    PAST_QUERIES_AGE,
    Feature,
    Schema,
    bounds_column,
    bucket_column,
    history_column,
)
from usr_tf.tokens import Values, map_values, normalized, tokens


def raw_feature_spec(schema: Schema) -> dict[str, tf.io.FixedLenFeature | tf.io.VarLenFeature]:
    """Parsing specification of raw rows: one string, or lists and numbers of any length.

    A history column holds a value for every action (a list feature its `length` values), newest last.
    """
    spec: dict[str, tf.io.FixedLenFeature | tf.io.VarLenFeature] = {
        name: _raw_spec(feature) for name, feature in schema.features.items()
    }
    spec |= {name: tf.io.VarLenFeature(tf.float32) for name in schema.weight_columns}
    spec |= {name: tf.io.FixedLenFeature([], tf.float32) for name in schema.counter_columns}
    ages = (history_column("age"), PAST_QUERIES_AGE)
    for name in (*schema.history_columns, *schema.query_columns):
        spec[name] = tf.io.VarLenFeature(tf.int64 if name in ages else tf.string)
    return spec


def _raw_spec(feature: Feature) -> tf.io.FixedLenFeature | tf.io.VarLenFeature:
    specs = {
        "string": tf.io.FixedLenFeature([], tf.string),
        "strings": tf.io.VarLenFeature(tf.string),
        "number": tf.io.VarLenFeature(tf.float32),
        "numbers": tf.io.FixedLenFeature([feature.width], tf.float32),
    }
    return specs[feature.kind.value]


def preprocessing_fn(schema: Schema) -> Callable[[dict[str, Values]], dict[str, Values]]:
    """The function that TensorFlow Transform analyses on the training split and applies to all.

    Its vocabularies come from the candidates shown in training; a history shares its candidate's vocabulary.
    """

    def transform(inputs: dict[str, Values]) -> dict[str, Values]:
        inputs = normalized_strings(inputs, schema)
        outputs: dict[str, Values] = {}
        values: dict[str, Values] = {}
        for name, feature in schema.features.items():
            if feature.has_ids:
                values[name] = tokens(inputs[name], feature)
        present = {name: _finite(inputs[name]) for name in schema.number_features}
        vectors = {name: finite(inputs[name]) for name in schema.vector_features}
        sizes = {name: tf.reduce_max(tf.abs(vector), axis=1) for name, vector in vectors.items()}
        scaled = scale({name: numbers.values for name, numbers in present.items()} | sizes, schema.features)
        for name in present:
            outputs[name] = _dense(present[name], scaled[name].numbers, 0.0)
            sides = [_dense(present[name], bound, float("nan")) for bound in tf.unstack(scaled[name].bounds, axis=1)]
            outputs[bounds_column(name)] = tf.stack(sides, axis=1)
        for name in vectors:
            outputs[name], outputs[bounds_column(name)] = shorten(vectors[name], sizes[name], scaled[name])
        for name, feature in schema.features.items():
            if feature.buckets:
                outputs[bucket_column(name)] = _dense(present[name], _buckets(present[name].values, feature.buckets), 1)
            if feature.weights:
                outputs[feature.weights] = _weights(inputs[name], inputs[feature.weights], feature)
        lookups = {
            name: _lookup(name, values[name], schema.features[name]) for name in values if schema.owner(name) == name
        }
        for name in values:
            lookup = lookups[schema.owner(name)]
            outputs[name] = map_values(lookup, values[name])
            if name in schema.history_features:
                column = history_column(name)
                outputs[column] = map_values(lookup, inputs[column])
        if schema.history_columns:
            actions, scenarios, age = (history_column(name) for name in ("action", "scenario", "age"))
            outputs[actions] = map_values(_position_in(schema.history.actions), inputs[actions])
            outputs[scenarios] = map_values(_position_in(schema.scenarios), inputs[scenarios])
            outputs[age] = map_values(_age_bucket, inputs[age])
        if schema.history.queries:
            query = schema.features["query"].model_copy(update={"max_length": schema.history.queries.tokens})
            outputs[PAST_QUERIES] = _query_ids(inputs[PAST_QUERIES], query, lookups[schema.owner("query")])
            outputs[PAST_QUERIES_AGE] = map_values(_age_bucket, inputs[PAST_QUERIES_AGE])
        outputs |= match_signals(inputs, schema)
        outputs |= history_match_signals(inputs, schema)
        outputs |= counter_signals(inputs, schema)
        return outputs

    return transform


def normalized_strings(inputs: dict[str, Values], schema: Schema) -> dict[str, Values]:
    """Raw columns, those of strings in their features' normal forms: every id and signal is of these."""
    columns = {name: name for name, feature in schema.features.items() if feature.has_ids}
    columns |= {history_column(name): name for name in schema.history_features}
    if schema.history.queries:
        columns[PAST_QUERIES] = "query"
    return inputs | {column: normalized(inputs[column], name, schema) for column, name in columns.items()}


def vocabulary(values: Values, feature: Feature, name: str, size: int | None) -> tf.Tensor:
    """Vocabulary file: values with at least `min_count` occurrences, at most `size`, by falling count.

    An empty value, or one with a line break in it, is never among them.
    """
    return tft.vocabulary(
        values,
        top_k=size,
        frequency_threshold=feature.min_count if feature.min_count > 1 else None,
        vocab_filename=name,
        name=name,
    )


def _lookup(name: str, values: Values, feature: Feature) -> Callable[[tf.Tensor], tf.Tensor]:
    """Function from strings to ids; 0 for the empty string."""
    buckets = feature.hash_buckets or feature.oov_buckets
    file = vocabulary(values, feature, name, feature.vocabulary_size) if feature.has_vocabulary else None

    def ids(strings: tf.Tensor) -> tf.Tensor:
        found = 1 + tf.strings.to_hash_bucket_fast(strings, buckets)
        if file is not None:
            place = tft.apply_vocabulary(strings, file)
            found = tf.where(place < 0, found, 1 + buckets + place)
        return tf.where(tf.equal(strings, ""), tf.constant(0, tf.int64), found)

    return ids


def _position_in(names: tuple[str, ...]) -> Callable[[tf.Tensor], tf.Tensor]:
    """Function from strings to their index in `names`, from 1; 0 for any other."""
    places = tf.range(1, len(names) + 1, dtype=tf.int64)
    return lambda strings: tf.reduce_sum(
        tf.cast(tf.equal(strings[:, tf.newaxis], tf.constant(names)), tf.int64) * places, axis=1
    )


def _age_bucket(age: tf.Tensor) -> tf.Tensor:
    seconds = tf.cast(tf.maximum(age, 0), tf.float32) / 1000.0
    bucket = tf.cast(tf.math.floor(tf.math.log1p(seconds) / tf.math.log(2.0)), tf.int64)
    return 1 + tf.minimum(bucket, AGE_BUCKETS - 1)


def _finite(values: tf.SparseTensor) -> tf.SparseTensor:
    return tf.sparse.retain(values, tf.math.is_finite(values.values))


def _buckets(numbers: tf.Tensor, buckets: int) -> tf.Tensor:
    """Ids of finite numbers by quantiles of training, from 2: 1 is a missing number."""
    return 2 + tft.bucketize(numbers, buckets, epsilon=1.0 / (10 * buckets))


def _weights(values: tf.SparseTensor, weights: tf.SparseTensor, feature: Feature) -> tf.SparseTensor:
    """The weights of the values that `tokens` keeps."""
    strings, numbers = tf.sparse.to_dense(values), tf.sparse.to_dense(weights)
    numbers = tf.where(tf.math.is_finite(numbers), numbers, 0.0)
    places = tf.shape(strings)[1]
    numbers = tf.pad(numbers, [[0, 0], [0, tf.maximum(places - tf.shape(numbers)[1], 0)]])[:, :places]
    return tf.ragged.boolean_mask(numbers, tf.not_equal(strings, ""))[:, : feature.length].to_sparse()


def _query_ids(queries: tf.SparseTensor, query: Feature, lookup: Callable[[tf.Tensor], tf.Tensor]) -> tf.SparseTensor:
    """Ids of earlier queries' tokens: `query.length` places for each query, 0 where it has fewer."""
    ids = map_values(lookup, tokens(queries.values, query))
    dense = tf.sparse.to_dense(ids)
    dense = tf.pad(dense, [[0, 0], [0, query.length - tf.shape(dense)[1]]])
    lengths = tf.RaggedTensor.from_sparse(queries).row_lengths()
    return tf.RaggedTensor.from_row_lengths(tf.reshape(dense, [-1]), lengths * query.length).to_sparse()


def _dense(places: tf.SparseTensor, numbers: tf.Tensor, missing: float) -> tf.Tensor:
    """`[B]` first number of each row."""
    dense = tf.sparse.to_dense(tf.sparse.reorder(places.with_values(numbers)), missing, validate_indices=False)
    rows = places.dense_shape[0]
    return tf.reshape(
        tf.concat([dense, tf.fill([rows, 1], tf.constant(missing, numbers.dtype))], axis=1)[:, :1], [rows]
    )
