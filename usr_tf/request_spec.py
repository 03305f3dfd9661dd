"""Tensor specification of a scenario's signature on raw features."""

import tensorflow as tf

from usr_tf.schema import CANDIDATE_GROUPS, PAST_QUERIES_AGE, Schema, history_column


def request_spec(schema: Schema, counters: bool = False) -> dict[str, tf.TensorSpec]:
    """Inputs of a scenario's signature: user, query and context `[1]`, items and candidates `[N]`, histories `[1, L]`.

    A list feature has one more axis; "" pads it, and 0 pads its weights. A vector has an axis of its width. An unknown
    number is NaN. Ages are in ms.

    Args:
      counters: whether the raw counts of counters, `[N]`, are inputs too.
    """
    spec = {}
    for name, feature in schema.features.items():
        shape: list[int | None] = [None] if feature.group in CANDIDATE_GROUPS else [1]
        shape += {"strings": [None], "numbers": [feature.width]}.get(feature.kind.value, [])
        spec[name] = tf.TensorSpec(shape, tf.string if feature.has_ids else tf.float32, name=name)
        if feature.weights:
            spec[feature.weights] = tf.TensorSpec(shape, tf.float32, name=feature.weights)
    if counters:
        spec |= {name: tf.TensorSpec([None], tf.float32, name=name) for name in schema.counter_columns}
    for name in schema.query_columns:
        spec[name] = tf.TensorSpec([1, None], tf.int64 if name == PAST_QUERIES_AGE else tf.string, name=name)
    for name in schema.history_columns:
        shape = [1, None, None] if schema.history_width(name) else [1, None]
        spec[name] = tf.TensorSpec(shape, tf.int64 if name == history_column("age") else tf.string, name=name)
    return spec
