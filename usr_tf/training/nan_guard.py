"""NaN guard: detects NaN and infinity in losses and weights at low cost."""

import math
import re
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

_CHECK_STEPS = 20


class NotFiniteError(ArithmeticError):
    """A loss or weight is NaN or infinite.

    Attributes:
      epoch: from 0.
      batch: of the epoch, from 0: the first bad one.
      names: of terms of the loss, or of weights.
    """

    def __init__(self, epoch: int, batch: int, names: list[str]):
        super().__init__(f"epoch {epoch + 1}, batch {batch + 1}: {', '.join(names)} not finite")
        self.epoch, self.batch, self.names = epoch, batch, names


class FiniteLosses:
    """Delayed check of the losses of every step.

    The figures of a step are means of the epoch so far, so once one is NaN it stays NaN: one scalar, read every
    `_CHECK_STEPS` steps, tells of all of them, and nobody waits for the device in between.
    """

    def __init__(self) -> None:
        self._unchecked: list[tuple[int, int, dict[str, Any]]] = []

    def add(self, epoch: int, batch: int, logs: dict[str, Any]) -> None:
        """Adds the losses of a step, as tensors.

        Raises:
          NotFiniteError: that of this step or of one before it.
        """
        self._unchecked.append((epoch, batch, logs))
        if len(self._unchecked) >= _CHECK_STEPS:
            self.check()

    def check(self) -> None:
        """Checks all pending steps.

        Raises:
          NotFiniteError: for the first bad one.
        """
        unchecked, self._unchecked = self._unchecked, []
        if unchecked and _bad_terms(unchecked[-1][2]):
            raise next(
                NotFiniteError(epoch, batch, terms) for epoch, batch, logs in unchecked if (terms := _bad_terms(logs))
            )


def bad_weights(weights: Iterable[tf.Variable]) -> list[str]:
    """Names of weights with NaN or infinity. Reads all of them: call it before they are written."""
    return [weight.name for weight in weights if not _is_finite(tf.reduce_sum(weight))]


def _bad_terms(logs: dict[str, Any]) -> list[str]:
    """Non-finite terms of the loss; `loss` itself if all terms are finite."""
    if all(_is_finite(logs[name]) for name in ("loss", "regularization_loss") if name in logs):
        return []
    terms = [name for name in logs if name.endswith(("_loss", "_contrastive")) and not _is_finite(logs[name])]
    return terms or ["loss"]


def _is_finite(value: Any) -> bool:
    return math.isfinite(float(value))


def assertion_message(error: tf.errors.InvalidArgumentError) -> str | None:
    """Message of a `tf.debugging.Assert` error without the operation's name; None for other errors."""
    found = re.search(r"assertion failed: (.*?)(?:\n|$)", error.message)
    return re.sub(r"\[(?:b')?(.*?)'?\](?= |$)", r"\1", found[1]).strip() if found else None
