"""Target policies: probabilities of every item at every position, of a logged policy or of an exported model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from serving.client.formula import Formula
from usr_tf.errors import InputError
from usr_tf.experiments.abtest.arms import Ranking
from usr_tf.experiments.abtest.exported_model import Model
from usr_tf.experiments.abtest.policies import candidate_chances, ranking_logits
from usr_tf.experiments.off_policy.logged_policies import LoggedScenario, PolicyLog
from usr_tf.schema import Feature

HOURS = (None, 24.0, 12.0, 6.0, 3.0, 2.0, 1.0)
"""Lengths of the windows among which the data choose; None is the whole log."""
PRIORS = (1.0, 5.0, 20.0, 50.0, 200.0)
"""Impressions that the whole log's shares count for in each window."""
_FOLDS = 5
_HOUR_MS = 3_600_000


@dataclass(frozen=True)
class TargetPolicy:
    """Probabilities of a policy in the rows of another policy's log.

    Attributes:
      table: `[S, P, items]` probability of each item at each position, by state: a window of time or a context.
      state: `[n]` state of each row.
      origin: how the probabilities are known, in words.
    """

    table: NDArray
    state: NDArray
    origin: str

    def chances(self, log: PolicyLog, rows: slice = slice(None)) -> NDArray:
        """Probability of every item at the position of each row, `[r, items]`."""
        return self.table[self.state[rows], log.position[rows]]

    def displayed(self, log: PolicyLog) -> NDArray:
        """Probability of the displayed item at its position, `[n]`."""
        return self.table[self.state, log.position, log.item]


def logged_policy(own: PolicyLog, log: PolicyLog, items: int, positions: int, rng: np.random.Generator) -> TargetPolicy:
    """A logged policy in the rows of another log, from its own log. It must not depend on the context.

    A policy whose propensities are all `1 / items` is uniform, and known exactly. Of another one, the log has the
    propensities of what it displayed alone, and their mean is too high: an item is displayed when its probability is
    high. The share of the impressions at a position has no such bias. It is taken in windows of time, as a bandit
    changes, with a prior of the whole log's shares; length and prior are chosen by the likelihood of held-out
    impressions.

    Args:
      own: the policy's own log.
      log: whose rows it is to be evaluated in.
    """
    if np.allclose(own.propensity, 1 / items, rtol=1e-6):
        table = np.full((1, positions, items), 1 / items)
        return TargetPolicy(table, np.zeros(log.item.size, int), f"uniform over {items} items, exact")
    fold = rng.permutation(np.arange(own.item.size) % _FOLDS)
    start = min(int(own.timestamp.min()), int(log.timestamp.min()))

    def windows(hours: float | None, of: PolicyLog) -> NDArray:
        return (of.timestamp - start) // int(hours * _HOUR_MS) if hours else np.zeros(of.item.size, int)

    def table(hours: float | None, prior: float, rows: NDArray, states: int) -> NDArray:
        return _shares(windows(hours, own)[rows], own.position[rows], own.item[rows], prior, (states, positions, items))

    def states(hours: float | None) -> int:
        return int(max(windows(hours, own).max(), windows(hours, log).max())) + 1

    def likelihood(choice: tuple[float | None, float]) -> float:
        hours, prior = choice
        total = 0.0
        for number in range(_FOLDS):
            of = fold == number
            fitted = table(hours, prior, ~of, states(hours))
            total += float(np.log(fitted[windows(hours, own)[of], own.position[of], own.item[of]]).sum())
        return total

    hours, prior = max([(None, PRIORS[0]), *((h, p) for h in HOURS if h for p in PRIORS)], key=likelihood)
    made = table(hours, prior, np.ones(own.item.size, bool), states(hours))
    span = f" in windows of {hours:g} hours" if hours else ""
    return TargetPolicy(made, windows(hours, log), f"shares of its own log{span}")


def _shares(window: NDArray, position: NDArray, item: NDArray, prior: float, shape: tuple[int, int, int]) -> NDArray:
    """Shares of the items by window and position, drawn to those of the whole log; never 0."""
    count = np.zeros(shape)
    np.add.at(count, (window, position, item), 1)
    whole = count.sum(axis=0) + 1 / shape[2]
    whole /= whole.sum(axis=1, keepdims=True)
    return (count + prior * whole) / (count.sum(axis=2, keepdims=True) + prior)


def model_policy(
    model: Model, ranking: Ranking, scenario: LoggedScenario, log: PolicyLog, rng: np.random.Generator
) -> TargetPolicy:
    """An exported model's slates of all items, by `ranking`, in the contexts of a log.

    Raises:
      InputError: the model has not the scenario, or reads what a log of single impressions does not hold.
    """
    _check(model, scenario)
    item = {name: _values(scenario.items[name], feature) for name, feature in model.schema.features_of("item").items()}
    requests = model.schema.features_of("query", "context")
    formula = Formula(ranking.by, "--by")
    needed, state = np.unique(log.context, return_inverse=True)
    score = np.empty((needed.size, len(scenario.items)))
    for row, number in enumerate(needed.tolist()):
        context = scenario.contexts.iloc[[number]]
        inputs = {name: _values(context[name], feature) for name, feature in requests.items()}
        inputs |= {
            feature.weights: np.array([context[feature.weights].iloc[0]], np.float32).reshape(1, -1)
            for feature in requests.values()
            if feature.weights
        }
        score[row] = formula(model.score(scenario.name, inputs | item))
    free = np.ones(score.shape, bool)
    logits = ranking_logits(score, free, ranking.temperature)
    table = candidate_chances(rng, logits, free, ranking.explore, places=scenario.positions)
    return TargetPolicy(
        table.astype(np.float64), state, f"slates of {model.path.parent.name or model.path} by {ranking.by}"
    )


def _check(model: Model, scenario: LoggedScenario) -> None:
    schema = model.schema
    if scenario.name not in model.scenarios:
        raise InputError(f"{model.path}: scenarios", ", ".join(model.scenarios), f"one called {scenario.name}")
    if schema.history_columns or schema.query_columns:
        raise InputError(f"{model.path}: history", "a model of histories", "one without: the log has no histories")
    known: Mapping[str, Any] = {"item": scenario.items, "context": scenario.contexts, "query": scenario.contexts}
    for name, feature in schema.features.items():
        if feature.group not in known or name not in known[feature.group]:
            expected = "features of items and contexts: the log has no other for items that were not displayed"
            raise InputError(f"{model.path}: {name}", f"a feature of group {feature.group}", expected)


def _values(column: pd.Series, feature: Feature) -> NDArray:
    """`[n]` float32 or bytes; `[n, width]` for lists, padded with "", and for vectors."""
    value = feature.kind.value
    if value == "number":
        return column.to_numpy("float32")
    if value == "numbers":
        return np.array([each or [0.0] * (feature.width or 0) for each in column], np.float32)
    if value == "strings":
        width = max(map(len, column))
        rows = [[*map(str.encode, each), *[b""] * (width - len(each))] for each in column]
        return np.array(rows, object).reshape(len(column), width)
    return np.array([("" if pd.isna(each) else each).encode() for each in column], object)
