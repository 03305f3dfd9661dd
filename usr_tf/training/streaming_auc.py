"""Streaming AUC per scenario during training."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras


class ScenarioAUC(keras.layers.Layer):
    """Streaming AUC of one task, one metric per scenario, named `{scenario}/{task}_auc`.

    Each scenario's metric holds how many negatives and positives fell into each bin of the logit. Bins are
    equally wide there, so that probabilities of 0.001 are told apart as well as those of 0.5 (bins of equal
    width in the probability, as in `keras.metrics.AUC`, put most click rates into a handful of bins). One
    scatter of the batch serves all scenarios: O(B) whatever their number.

    A layer, so that a model that holds it as an attribute finds its metrics in `model.metrics`, and with that
    resets and shows them. It has no weights.

    An AUC that is undefined (one class only so far) is NaN and shows as `nan`, never as 0 or 0.5. Keras
    callbacks take NaN for no improvement: early stopping on such a metric spends its patience, it does not
    fail. The default monitor is `val_nll`, which is always defined.

    Args:
      scenarios: their names, in the order of their numbers.
      task: name of the task.
      bins: bins of the logit.
      limit: the outermost bins begin at logits ±limit; scores beyond count as tied.
    """

    def __init__(
        self, scenarios: Sequence[str], task: str, *, bins: int = 2048, limit: float = 14.0, name: str | None = None
    ):
        super().__init__(name=name or f"{task}_auc", trainable=False, dtype="float32", autocast=False)
        if not scenarios or len(set(scenarios)) < len(scenarios):
            raise ValueError(f"Scenarios must be distinct names. Received: {list(scenarios)}")
        if bins < 2:
            raise ValueError(f"There must be at least two bins. Received: {bins}")
        if limit <= 0:
            raise ValueError(f"The limit must be above zero. Received: {limit}")
        self.scenarios = tuple(scenarios)
        self.task = task
        self.bins = bins
        self.limit = limit
        self.metrics_by_scenario = [HistogramAUC(bins, name=f"{scenario}/{task}_auc") for scenario in scenarios]
        self.built = True

    def update_state(self, labels: tf.Tensor, probabilities: tf.Tensor, scenario: tf.Tensor) -> None:
        """Adds a batch, which may be empty or have one class.

        Args:
          labels: 0 or 1 `[B]`.
          probabilities: within [0, 1], `[B]`.
          scenario: int `[B]`, index into `scenarios`; a row with a negative one is left out.
        """
        count = len(self.scenarios)
        scenario = tf.cast(tf.reshape(scenario, [-1]), tf.int32)
        positive = tf.cast(tf.reshape(labels, [-1]) > 0, tf.int32)
        cell = (scenario * 2 + positive) * self.bins + self._bin(tf.reshape(probabilities, [-1]))
        cell = tf.where(scenario < 0, -1, cell)  # the sum drops what is negative
        counts = tf.math.unsorted_segment_sum(tf.ones_like(cell, tf.float32), cell, count * 2 * self.bins)
        counts = tf.reshape(counts, [count, 2, self.bins])
        for metric, histogram in zip(self.metrics_by_scenario, tf.unstack(counts), strict=True):
            metric.update_state(histogram)

    def get_config(self) -> dict[str, Any]:
        own = {"scenarios": self.scenarios, "task": self.task, "bins": self.bins, "limit": self.limit}
        return {"name": self.name} | own

    def _bin(self, probabilities: tf.Tensor) -> tf.Tensor:
        """Bin index of each probability, int32 `[B]`."""
        probabilities = tf.cast(probabilities, tf.float32)
        logits = tf.math.log(probabilities) - tf.math.log1p(-probabilities)  # ±inf at 1 and 0
        logits = tf.clip_by_value(logits, -self.limit, self.limit)
        place = (logits + self.limit) * (self.bins / (2 * self.limit))
        return tf.clip_by_value(tf.cast(place, tf.int32), 0, self.bins - 1)


class HistogramAUC(keras.metrics.Metric):
    """AUC from score histograms of negatives and positives; rows of one bin are ties.

    The histograms of the replicas of a `tf.distribute` strategy are summed when the result is read.

    Args:
      bins: bins of the score.
    """

    def __init__(self, bins: int, name: str | None = None):
        super().__init__(name=name, dtype="float32")
        self.bins = bins
        # float64 counts exactly to 2^53; float32 would stop at 2^24 rows in a bin.
        self.histogram = self.add_weight(
            name="histogram",
            shape=(2, bins),
            initializer="zeros",
            dtype="float64",
            aggregation=tf.VariableAggregation.SUM,
            synchronization=tf.VariableSynchronization.ON_READ,
        )

    def update_state(self, counts: tf.Tensor) -> None:
        """Adds a batch's counts `[2, bins]`: negatives, then positives, by rising score."""
        self.histogram.assign_add(tf.cast(counts, self.histogram.dtype))

    def result(self) -> tf.Tensor:
        """AUC, a scalar; NaN while a class is missing."""
        negatives, positives = tf.unstack(tf.convert_to_tensor(self.histogram))
        below = tf.cumsum(negatives, exclusive=True)
        won = tf.reduce_sum(positives * (below + negatives / 2))
        pairs = tf.reduce_sum(negatives) * tf.reduce_sum(positives)
        auc = tf.where(pairs > 0, tf.math.divide_no_nan(won, pairs), float("nan"))
        return tf.cast(auc, tf.float32)

    def reset_state(self) -> None:
        self.histogram.assign(tf.zeros([2, self.bins], self.histogram.dtype))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "bins": self.bins}
