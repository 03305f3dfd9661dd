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
    counts = {name: tf.maximum(tf.cast(inputs[name], tf.float32), 0.0) for name in schema.counter_columns}
    if not counts:
        return {}
    sums = tft.sum(tf.stack(list(counts.values()), axis=1), reduce_instance_dims=False)
    totals = dict(zip(counts, tf.unstack(sums, len(counts)), strict=True))
    signals = {}
    for name, counter in schema.counters.items():
        for window in counter.windows:
            impressions = counter_column(name, window, IMPRESSION)
            signals[f"{impressions}s"] = tf.math.log1p(counts[impressions])
            for action in counter.actions:
                column = counter_column(name, window, action)
                mean = tf.math.divide_no_nan(totals[column], totals[impressions])
                mean = tf.where(mean > 0, mean, 1.0)
                rate = (counts[column] + counter.prior * mean) / (counts[impressions] + counter.prior)
                signals[f"{column}_rate"] = tf.where(totals[column] > 0, tf.math.log(rate / mean), 0.0 * rate)
    return signals
