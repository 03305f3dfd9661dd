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
    # Weights `[R, figures, L]` of the actions: a figure is the sum over the matching ones, or the largest.
    counted = {f"{name}_count": mask for name, mask in [*of_action.items(), *of_scenario.items()]}
    summed = {
        "share": tf.math.divide_no_nan(real, length),
        "last": tf.one_hot(tf.cast(length[:, 0], tf.int32) - 1, tf.shape(real)[1]),
    }
    largest = {f"{name}_recency": mask * recencies for name, mask in of_action.items()}
    weights = [tf.stack([*figures.values()], axis=1) for figures in (counted, summed, largest)]

    features = sorted(schema.history_match, key=lambda name: schema.features[name].is_list)
    single = [name for name in features if not schema.features[name].is_list]
    figures = []
    if single:  # all are hashed and compared at once
        history = fingerprint(tf.stack([tf.sparse.to_dense(inputs[history_column(name)]) for name in single]))
        candidate = fingerprint(tf.stack([inputs[name] for name in single]))
        requests, actions_of_each = tf.unstack(tf.shape(history)[1:])
        figures.append(
            tf.cond(
                tf.equal(requests, 1) & (actions_of_each <= tf.shape(candidate)[1]),
                lambda: _figures_of_one_request(history[:, 0], candidate, [weight[0] for weight in weights]),
                lambda: _figures_of_rows(_matches(history, candidate), weights),
            )
        )
    for name in features[len(single) :]:
        column = history_column(name)
        matches = _list_match(inputs[column], inputs[name], schema.history_width(column))
        figures.append(_figures_of_rows(tf.cast(matches[:, tf.newaxis], tf.float32), weights))
    names = [f"history_match_{feature}_{figure}" for feature in features for figure in (*counted, *summed, *largest)]
    rows = tf.reshape(tf.concat(figures, axis=0), [len(names), -1])
    return dict(zip(names, tf.unstack(rows), strict=True))


def recency(ages: tf.Tensor) -> tf.Tensor:
    """1 for an age of 0 ms, falling with the age's log to 0.001 at a year."""
    seconds = tf.cast(tf.maximum(ages, 0), tf.float32) / 1000.0
    return tf.maximum(1.0 - tf.math.log1p(seconds) / math.log1p(_YEAR), 1e-3)


def _matches(history: tf.Tensor, candidate: tf.Tensor) -> tf.Tensor:
    """float32 `[N, F, L]`: 1 where an action of the history `[F, R, L]` has the candidate's value `[F, N]`."""
    candidate = candidate[:, :, tf.newaxis]
    return tf.cast(tf.transpose(tf.equal(history, candidate) & (candidate > 0), [1, 0, 2]), tf.float32)


def _figures(matches: tf.Tensor, weights: Sequence[tf.Tensor]) -> tf.Tensor:
    """`[..., F, figures]` of matches `[..., F, L]`: counts, sums and maxima by weights `[..., figures, L]` of each."""
    counts, sums = (tf.matmul(matches, weight, transpose_b=True) for weight in weights[:2])
    maxima = tf.reduce_max(tf.expand_dims(matches, -2) * tf.expand_dims(weights[2], -3), axis=-1)
    # The largest of no action is the least number.
    return tf.concat([tf.math.log1p(counts), sums, tf.maximum(maxima, 0.0)], axis=-1)


def _figures_of_rows(matches: tf.Tensor, weights: Sequence[tf.Tensor]) -> tf.Tensor:
    """`[F, figures, N]` of matches `[N, F, L]`, by weights of each row or of one request."""
    return tf.transpose(_figures(matches, weights), [1, 2, 0])


def _figures_of_one_request(history: tf.Tensor, candidate: tf.Tensor, weights: Sequence[tf.Tensor]) -> tf.Tensor:
    """`[F, figures, N]` of candidates `[F, N]` and one history `[F, L]`, with `L <= N`.

    The figures of the history's own values are computed. A product picks each candidate's: its factor has a value's
    figures at the newest action with that value, and zeros at all other actions.
    """
    count, length = history.shape[0], tf.shape(history)[1]
    same = tf.equal(history[:, :, tf.newaxis], history[:, tf.newaxis]) & (history > 0)[:, tf.newaxis]  # [F, L, L]
    same = tf.cast(same, tf.float32)
    figures = _figures(tf.reshape(same, [count * length, length]), weights)
    is_newest = tf.equal(tf.reduce_sum(tf.linalg.band_part(same, 0, -1), axis=2), 1.0)
    figures = tf.reshape(figures, [count, length, figures.shape[-1]]) * tf.cast(is_newest, tf.float32)[:, :, tf.newaxis]
    sides = zip(*(tf.unstack(side, count) for side in (figures, history, candidate)), strict=True)
    return tf.stack(  # a product of a feature each: one of all of them takes longer
        [
            tf.matmul(own, tf.cast(tf.equal(past[:, tf.newaxis], values), tf.float32), transpose_a=True)
            for own, past, values in sides
        ]
    )


def _list_match(history: tf.SparseTensor, candidate: tf.SparseTensor, width: int) -> tf.Tensor:
    """bool `[N, L]`: whether a list of the candidate and one of an action, `width` places each, share a value."""
    history, candidate = (fingerprint(tf.sparse.to_dense(values)) for values in (history, candidate))
    same = tf.equal(history[:, :, tf.newaxis], candidate[:, tf.newaxis, :]) & (candidate[:, tf.newaxis, :] > 0)
    shape = tf.shape(same)
    return tf.reduce_any(tf.reshape(same, [shape[0], shape[1] // width, width * shape[2]]), axis=2)
