"""Counter signals: smoothed rates of the raw counts that the join has written, as TensorFlow ops."""

import tensorflow as tf
import tensorflow_transform as tft

from usr_tf.schema import IMPRESSION, Schema, counter_column
from usr_tf.tokens import Values

_MOST = 1e15
"""No count is larger. Rates of larger numbers would not be finite."""


def counter_signals(inputs: dict[str, Values], schema: Schema) -> dict[str, tf.Tensor]:
    """`[B]` of each `counter_<name>_<window>_…` of the schema. To be called while TensorFlow Transform traces.

    Of impressions `log(1 + n)`; of each action the log of its smoothed rate over the average one,
    `log((a + prior · m) / (n + prior) / m)`, where m is the rate over all rows of training: 0 for an unknown key.
    """
    if not schema.counters:
        return {}
    columns = schema.counter_columns
    counts = tf.stack([inputs[name] for name in columns], axis=1)
    counts = tf.where(tf.math.is_finite(counts), tf.clip_by_value(counts, 0.0, _MOST), 0.0)  # a request may bring any
    totals = tft.sum(counts, reduce_instance_dims=False)
    windows = [(name, counter, window) for name, counter in schema.counters.items() for window in counter.windows]
    rates = [
        (counter_column(name, window, action), counter_column(name, window, IMPRESSION), counter.prior)
        for name, counter, window in windows
        for action in counter.actions
    ]
    actions, impressions = ([columns.index(rate[side]) for rate in rates] for side in (0, 1))
    priors = [prior for *_, prior in rates]
    means = tf.math.divide_no_nan(tf.gather(totals, actions), tf.gather(totals, impressions))
    known, means = means > 0, tf.where(means > 0, means, 1.0)
    smoothed = (tf.gather(counts, actions, axis=1) + priors * means) / (tf.gather(counts, impressions, axis=1) + priors)
    lifts = tf.where(known, tf.math.log(smoothed / means), 0.0)
    of_impressions = [counter_column(name, window, IMPRESSION) for name, _, window in windows]
    logs = tf.math.log1p(tf.gather(counts, [columns.index(column) for column in of_impressions], axis=1))
    names = [f"{column}s" for column in of_impressions] + [f"{action}_rate" for action, *_ in rates]
    return dict(zip(names, tf.unstack(tf.concat([logs, lifts], axis=1), axis=1), strict=True))
