"""Tensor specification of a scenario's signature on raw features."""

import tensorflow as tf

from usr_tf.schema import Schema, history_column


def request_spec(schema: Schema) -> dict[str, tf.TensorSpec]:
    """Inputs of a scenario's signature: user, query and context `[1]`, items `[N]`, histories `[1, L]`.

    A list feature has one more axis; "" pads it. An unknown number is NaN. `history_age` is in ms.
    """
    spec = {}
    for name, feature in schema.features.items():
        shape = [None] if feature.group == "item" else [1]
        shape += [None] if feature.type == "categorical_list" else []
        spec[name] = tf.TensorSpec(shape, tf.float32 if feature.type == "numeric" else tf.string, name=name)
    for name in schema.history_columns:
        shape = [1, None, None] if schema.history_width(name) else [1, None]
        spec[name] = tf.TensorSpec(shape, tf.int64 if name == history_column("age") else tf.string, name=name)
    return spec
