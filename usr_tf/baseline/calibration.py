"""Platt scaling: probabilities from the scores of a ranking, in an order that stays the same."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from usr_tf.baseline.features import Rows


class Platt(NamedTuple):
    """The probability of a score: `1 / (1 + exp(-(slope * score + intercept)))`."""

    slope: float
    intercept: float

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        return expit(self.slope * scores + self.intercept)


def fit_platt(scores: np.ndarray, labels: np.ndarray) -> Platt:
    """The logistic regression of labels `[N]` on scores `[N]`.

    Where it would turn the order round, or there is one class alone, all rows get the same rate. The rate counts one
    positive and one negative more, so that it is never 0 or 1.
    """
    positives = float(labels.sum())
    if 0 < positives < len(labels):
        fitted = LogisticRegression(C=1e6).fit(scores[:, np.newaxis], labels)
        if fitted.coef_[0, 0] > 0:
            return Platt(float(fitted.coef_[0, 0]), float(fitted.intercept_[0]))
    rate = (positives + 1) / (len(labels) + 2)
    return Platt(0.0, float(np.log(rate / (1 - rate))))


def calibrate(scores: np.ndarray, rows: Rows, scenarios: Sequence[str]) -> Mapping[str, Mapping[str, Platt]]:
    """Scenario → task → Platt scaling of that scenario's rows."""
    return {
        scenario: {
            task: fit_platt(scores[rows.scenario == number], labels[rows.scenario == number])
            for task, labels in rows.labels.items()
        }
        for number, scenario in enumerate(scenarios)
    }
