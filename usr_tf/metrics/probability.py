"""Metrics of predicted probabilities: logloss, normalized entropy, calibration and expected calibration error."""

import numpy as np

from usr_tf.metrics.metric import Metric, Sums, ratio


def losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """−ln of the probability given to what happened, float64 `[N]`.

    Probabilities are clipped to [ε, 1 − ε], ε the machine epsilon of their type.
    """
    epsilon = np.finfo(probabilities.dtype).eps
    clipped = np.clip(probabilities, epsilon, 1 - epsilon).astype(np.float64)
    return -np.where(labels == 1, np.log(clipped), np.log1p(-clipped))


def _logloss(sums: Sums) -> np.ndarray:
    return ratio(sums["loss"], sums["rows"])


def _entropy(rate: np.ndarray) -> np.ndarray:
    """Entropy of a coin, in nats; 0 where it is certain."""
    mixed = np.where((rate > 0) & (rate < 1), rate, 0.5)
    return np.where((rate > 0) & (rate < 1), -mixed * np.log(mixed) - (1 - mixed) * np.log1p(-mixed), 0)


LOGLOSS = Metric(
    name="logloss",
    label="logloss",
    sample=_logloss,
    per_row={"loss": losses},
    higher_is_better=False,
    in_slices=True,
)
"""Mean of `losses`. Needs a row."""

NE = Metric(
    name="ne",
    label="NE",
    sample=lambda sums: ratio(_logloss(sums), _entropy(ratio(sums["positives"], sums["rows"]))),
    higher_is_better=False,
    in_slices=True,
)
"""Normalized entropy: logloss over the entropy of the base rate. Below 1 is better than the base rate for every row.

Needs both classes.
"""

CALIBRATION = Metric(
    name="calibration",
    label="calibration",
    sample=lambda sums: ratio(sums["predicted"], sums["positives"]),
    per_row={"predicted": lambda labels, probabilities: probabilities},
    in_slices=True,
)
"""Mean probability over mean label: 1 is right, above 1 the model predicts too much. Needs a positive."""

ECE = Metric(
    name="ece",
    label="ECE",
    sample=lambda sums: ratio(np.abs(sums["bin_excess"]).sum(axis=0), sums["rows"]),
    higher_is_better=False,
)
"""Expected calibration error: |mean probability − mean label| in each decile of the probability, mean over the deciles
weighted by rows. Needs a row.
"""
