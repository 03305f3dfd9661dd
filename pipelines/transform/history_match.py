"""History-match signals: how a candidate meets the user's history, as TensorFlow ops.

In the pipeline B rows have a history and a candidate each; in serving one history meets N candidates. Values are
compared as raw strings, so values out of vocabulary match too, and ages count in milliseconds.
"""

import math

import tensorflow as tf

from usr_tf.schema import Schema, history_column
from usr_tf.tokens import Values

_YEAR = 365 * 86_400.0
_FINGERPRINTS = 2**62


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
    recencies_of_all = tf.sparse.to_dense(tf.sparse.map_values(recency, ages))
    lengths = tf.cast(tf.reduce_sum(real, axis=1), tf.int32)
    newest = tf.one_hot(lengths - 1, tf.shape(real)[1])
    of_action = [tf.cast(tf.equal(actions, name), tf.float32) for name in schema.history.actions]
    of_scenario = [tf.cast(tf.equal(scenarios, name), tf.float32) for name in schema.scenarios]
    share = tf.math.divide_no_nan(real, tf.reduce_sum(real, axis=1, keepdims=True))
    sums = tf.stack([*of_action, *of_scenario, share, newest], axis=2)
    recencies = tf.stack([mask * recencies_of_all for mask in of_action], axis=2)
    signals = {}
    for name in schema.history_match:
        match = _matches(inputs[history_column(name)], inputs[name], schema.history_width(history_column(name)))
        totals = tf.squeeze(tf.matmul(match[:, tf.newaxis, :], sums), axis=1)
        latest = tf.reduce_max(match[:, :, tf.newaxis] * recencies, axis=1, keepdims=False)
        latest = tf.maximum(latest, 0.0)  # the largest of no action is the least number
        counts = len(of_action) + len(of_scenario)
        totals = tf.concat([tf.math.log1p(totals[:, :counts]), totals[:, counts:]], axis=1)
        columns = [
            *(
                column
                for pair in zip(_columns(totals, 0, len(of_action)), _columns(latest, 0, len(of_action)), strict=True)
                for column in pair
            ),
            *_columns(totals, len(of_action), counts + 2),
        ]
        for figure, column in zip(schema.history_match_figures, columns, strict=True):
            signals[f"history_match_{name}_{figure}"] = column
    return signals


def _columns(values: tf.Tensor, start: int, stop: int) -> list[tf.Tensor]:
    return [values[:, place] for place in range(start, stop)]


def recency(ages: tf.Tensor) -> tf.Tensor:
    """1 for an age of 0 ms, falling with the age's log to 0.001 at a year."""
    seconds = tf.cast(tf.maximum(ages, 0), tf.float32) / 1000.0
    return tf.maximum(1.0 - tf.math.log1p(seconds) / math.log1p(_YEAR), 1e-3)


def _matches(history: tf.SparseTensor, candidate: Values, width: int | None) -> tf.Tensor:
    """float32 `[B, L]`: 1 where an action's item has the candidate's value, or one of a list's values."""
    history = tf.sparse.to_dense(tf.sparse.map_values(_fingerprint, history))
    if isinstance(candidate, tf.SparseTensor):
        candidate = tf.sparse.to_dense(tf.sparse.map_values(_fingerprint, candidate))
    else:
        candidate = _fingerprint(candidate)[:, tf.newaxis]
    same = tf.equal(history[:, :, tf.newaxis], candidate[:, tf.newaxis, :]) & (candidate[:, tf.newaxis, :] > 0)
    match = tf.reduce_any(same, axis=2)
    if width:
        shape = tf.shape(match)
        match = tf.reduce_any(tf.reshape(match, [shape[0], shape[1] // width, width]), axis=2)
    return tf.cast(match, tf.float32)


def _fingerprint(strings: tf.Tensor) -> tf.Tensor:
    """int64 hashes above 0 of strings; 0 of the empty one."""
    hashes = 1 + tf.strings.to_hash_bucket_fast(strings, _FINGERPRINTS)
    return tf.where(tf.equal(strings, ""), tf.zeros_like(hashes), hashes)
