"""Counter signals: smoothed rates of the raw counts that the join has written, as TensorFlow ops."""

import tensorflow as tf
import tensorflow_transform as tft

from usr_tf.schema import IMPRESSION, Schema, counter_column
from usr_tf.tokens import Values


def counter_signals(inputs: dict[str, Values], schema: Schema) -> dict[str, tf.Tensor]:
    """`[B]` of each `counter_<name>_<window>_…` of the schema. To be called while TensorFlow Transform traces.

    Of impressions `log(1 + n)`; of each action the log of its smoothed rate over the average one,
    `log((a + prior · m) / (n + prior) / m)`, where m is the rate over all rows of training: 0 for an unknown key.
    """
    if not schema.counters:
        return {}
    columns = schema.counter_columns
    counts = tf.maximum(tf.stack([inputs[name] for name in columns], axis=1), 0.0)
    totals = tft.sum(counts, reduce_instance_dims=False)
    actions, impressions, names, priors = [], [], [], []
    for name, counter in schema.counters.items():
        for window in counter.windows:
            for action in counter.actions:
                names.append(counter_column(name, window, action))
                actions.append(columns.index(names[-1]))
                impressions.append(columns.index(counter_column(name, window, IMPRESSION)))
                priors.append(counter.prior)
    means = tf.math.divide_no_nan(tf.gather(totals, actions), tf.gather(totals, impressions))
    known, means = means > 0, tf.where(means > 0, means, 1.0)
    rates = (tf.gather(counts, actions, axis=1) + priors * means) / (tf.gather(counts, impressions, axis=1) + priors)
    lifts = tf.where(known, tf.math.log(rates / means), 0.0)
    shown = sorted(set(impressions))
    logs = tf.math.log1p(tf.gather(counts, shown, axis=1))
    signals = {f"{columns[place]}s": column for place, column in zip(shown, tf.unstack(logs, axis=1), strict=True)}
    return signals | {f"{name}_rate": lift for name, lift in zip(names, tf.unstack(lifts, axis=1), strict=True)}
