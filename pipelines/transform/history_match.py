"""History-match signals: counts, recency and share of past actions that match the candidate, as TensorFlow ops.

In the pipeline B rows have a history and a candidate each; in serving one history meets N candidates. Values are
compared as raw strings, so values out of vocabulary match too, and ages count in milliseconds.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

from usr_tf.schema import Schema, history_column
from usr_tf.tokens import Values, fingerprint

_YEAR = 365 * 86_400.0


def history_match_signals(inputs: dict[str, Values], schema: Schema) -> dict[str, tf.Tensor]:
    """`[B]` of each `history_match_<feature>_<figure>` of the schema, all within about 0 to 5.

    | figure | value |
    | --- | --- |
    | `<action>_count` | log(1 + actions of that name on items with the candidate's value) |
    | `<action>_recency` | 1 for just now, falling with the log of the newest one's age to 0 at a year; 0 without any |
    | `<scenario>_count` | log(1 + matching actions in that scenario) |
    | `share` | matching actions per action of the history |
    | `last` | 1 where the newest action matches |
    """
    if not schema.history_match:
        return {}
    actions, scenarios = (tf.sparse.to_dense(inputs[history_column(name)]) for name in ("action", "scenario"))
    ages = inputs[history_column("age")]
    real = tf.sparse.to_dense(tf.sparse.map_values(lambda age: tf.ones_like(age, tf.float32), ages))
    length = tf.reduce_sum(real, axis=1, keepdims=True)
    recencies = tf.sparse.to_dense(tf.sparse.map_values(recency, ages))
    of_action = {name: tf.cast(tf.equal(actions, name), tf.float32) for name in schema.history.actions}
    of_scenario = {name: tf.cast(tf.equal(scenarios, name), tf.float32) for name in schema.scenarios}
    # Weights `[R, L]` of the actions in each figure: figures are sums over the matching ones, or the largest.
    counted = {f"{name}_count": mask for name, mask in [*of_action.items(), *of_scenario.items()]}
    summed = {
        "share": tf.math.divide_no_nan(real, length),
        "last": tf.one_hot(tf.cast(length[:, 0], tf.int32) - 1, tf.shape(real)[1]),
    }
    largest = {f"{name}_recency": mask * recencies for name, mask in of_action.items()}
    features = sorted(schema.history_match, key=lambda name: schema.features[name].is_list)
    matches = _matches(features, inputs, schema)
    counts = tf.matmul(matches, tf.stack([*counted.values()], axis=2))
    sums = tf.matmul(matches, tf.stack([*summed.values()], axis=2))
    maxima = tf.reduce_max(matches[:, :, tf.newaxis] * tf.stack([*largest.values()], axis=1)[:, tf.newaxis], axis=3)
    maxima = tf.maximum(maxima, 0.0)  # the largest of no action is the least number
    figures = tf.concat([tf.math.log1p(counts), sums, maxima], axis=2)
    names = [f"history_match_{feature}_{figure}" for feature in features for figure in (*counted, *summed, *largest)]
    return dict(zip(names, tf.unstack(tf.reshape(figures, [-1, len(names)]), axis=1), strict=True))


def recency(ages: tf.Tensor) -> tf.Tensor:
    """1 for an age of 0 ms, falling with the age's log to 0.001 at a year."""
    seconds = tf.cast(tf.maximum(ages, 0), tf.float32) / 1000.0
    return tf.maximum(1.0 - tf.math.log1p(seconds) / math.log1p(_YEAR), 1e-3)


def _matches(features: Sequence[str], inputs: dict[str, Values], schema: Schema) -> tf.Tensor:
    """float32 `[N, F, L]`: 1 where an action's item has the candidate's value of a feature, or one of a list's.

    Lists are the last of the features.
    """
    single = [name for name in features if not schema.features[name].is_list]
    parts = []
    if single:  # all are hashed and compared at once
        history = tf.stack([tf.sparse.to_dense(inputs[history_column(name)]) for name in single], axis=1)
        candidate = fingerprint(tf.stack([inputs[name] for name in single], axis=1))[:, :, tf.newaxis]
        parts.append(tf.equal(fingerprint(history), candidate) & (candidate > 0))
    for name in features[len(single) :]:
        column = history_column(name)
        parts.append(_list_match(inputs[column], inputs[name], schema.history_width(column))[:, tf.newaxis])
    return tf.cast(tf.concat(parts, axis=1), tf.float32)


def _list_match(history: tf.SparseTensor, candidate: tf.SparseTensor, width: int) -> tf.Tensor:
    """bool `[N, L]`: whether a list of the candidate and one of an action, `width` places each, share a value."""
    history, candidate = (fingerprint(tf.sparse.to_dense(values)) for values in (history, candidate))
    same = tf.equal(history[:, :, tf.newaxis], candidate[:, tf.newaxis, :]) & (candidate[:, tf.newaxis, :] > 0)
    shape = tf.shape(same)
    return tf.reduce_any(tf.reshape(same, [shape[0], shape[1] // width, width * shape[2]]), axis=2)
