"""Learning-rate schedules: linear warm-up, then cosine or step decay."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.config import Schedule


def learning_rate_schedule(
    learning_rate: float, schedule: Schedule, steps: int | None
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Learning-rate schedule of a configuration: warm-up, then decay.

    Args:
      steps: What the decay counts in: the length of a cosine's half wave, the steps between two drops.
    """
    after: keras.optimizers.schedules.LearningRateSchedule | None = None
    if schedule.decay == "cosine":
        after = keras.optimizers.schedules.CosineDecay(learning_rate, steps, alpha=schedule.decay_rate)
    elif schedule.decay == "step":
        after = keras.optimizers.schedules.ExponentialDecay(learning_rate, steps, schedule.decay_rate, staircase=True)
    return Warmup(learning_rate, schedule.warmup_steps, after) if schedule.warmup_steps else after


@keras.saving.register_keras_serializable(package="usr_tf")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then another schedule or a constant rate.

    Step s of n warm-up steps, from 0, has the rate `learning_rate · (s + 1) / n`, so that no step is lost at rate 0.
    The schedule after it counts from the end of the warm-up.

    Args:
      learning_rate: The rate that the warm-up ends with.
      steps: Steps of the warm-up.
      after: The schedule that follows; None keeps the rate.

    Example::

        Warmup(1e-3, 100, keras.optimizers.schedules.CosineDecay(1e-3, 10_000))
    """

    def __init__(
        self, learning_rate: float, steps: int, after: keras.optimizers.schedules.LearningRateSchedule | None = None
    ):
        if steps < 1:
            raise ValueError(f"`steps` must be at least 1. Received: {steps}")
        self.learning_rate = learning_rate
        self.steps = steps
        self.after = after

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        rising = self.learning_rate * (step + 1) / self.steps
        after = self.learning_rate if self.after is None else self.after(tf.maximum(step - self.steps, 0))
        return tf.where(step < self.steps, rising, after)

    def get_config(self) -> dict[str, Any]:
        after = self.after and keras.optimizers.schedules.serialize(self.after)
        return {"learning_rate": self.learning_rate, "steps": self.steps, "after": after}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Warmup":
        after = config["after"] and keras.optimizers.schedules.deserialize(config["after"])
        return cls(**{**config, "after": after})
