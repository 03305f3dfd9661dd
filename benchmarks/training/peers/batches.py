"""Common parts of the TensorFlow peers: batches from memory, and the clock of `fit`."""

import numpy as np
import tensorflow as tf

from benchmarks.training.measure import BATCH, TASKS, Clock
from benchmarks.training.peers.arrays import Split


def from_memory(split: Split) -> tf.data.Dataset:
    """`(features, labels)` dataset sliced by batch, which is faster than slicing and batching rows."""
    features = {name: tf.constant(np.ascontiguousarray(values)) for name, values in split.columns().items()}
    labels = {task: tf.constant(split.labels[:, place]) for place, task in enumerate(TASKS)}

    def batch(start: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        return tf.nest.map_structure(lambda values: values[start : start + BATCH], (features, labels))

    starts = tf.data.Dataset.range(0, len(split.labels), BATCH)
    return starts.map(batch, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


class StepClock:
    """Counts the steps of `fit`; to be mixed with the `Callback` of the Keras at hand."""

    _supports_tf_logs = True  # as Keras's own callbacks do: else every metric would be fetched in every step

    def __init__(self, clock: Clock, rows: int):
        super().__init__()
        self._clock, self._rows = clock, rows

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._clock.count(min(BATCH, self._rows - batch * BATCH))
        if self._clock.finished:
            self.model.stop_training = True
