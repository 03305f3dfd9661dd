"""Reward model: cross-fitted logistic regression of clicks on item, position and context."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit
from threadpoolctl import threadpool_limits

from usr_tf.experiments.off_policy.logged_policies import LoggedScenario, PolicyLog
from usr_tf.schema import ITEM, Schema

FOLDS = 5
STRENGTHS = (0.001, 0.03, 1.0)
"""Inverse penalties among which each fold chooses by logloss on parts of its own rows."""
_PARTS = 3
"""Parts of a fold's rows on which it chooses."""


@dataclass(frozen=True)
class RewardModel:
    """Click probabilities of a log's impressions, each by a model that did not see its row.

    They are `sigmoid(context_logit + item_logit)`: additive in item, position and context, without interactions.

    Attributes:
      context_logit: `[n]`, of position and context.
      item_logit: `[FOLDS, items]`.
      fold: `[n]`, the part that a row belongs to.
    """

    context_logit: NDArray
    item_logit: NDArray
    fold: NDArray

    def clicks(self, rows: slice = slice(None)) -> NDArray:
        """Click probability of every item in these rows, `[r, items]`."""
        return expit(self.context_logit[rows, None] + self.item_logit[self.fold[rows]])


def fit_reward_model(schema: Schema, scenario: LoggedScenario, log: PolicyLog, rng: np.random.Generator) -> RewardModel:
    """Model fitted to one log, on the categorical and numeric features of items and contexts.

    With fewer than 3 clicks among `n` rows of the other parts, the strongest penalty is taken; with none, the model
    predicts `1 / (n + 1)` everywhere.
    """
    items = _encoded(schema, scenario.items, [ITEM, *schema.features_of("item")])
    contexts = _encoded(schema, scenario.contexts, [*schema.features_of("query", "context")])
    places = np.eye(scenario.positions)
    n, width = log.item.size, items.shape[1]
    features = sparse.csr_array(np.hstack([items[log.item], contexts[log.context], places[log.position]]))
    fold = rng.permutation(np.arange(n) % FOLDS)
    context_logit, item_logit = np.empty(n), np.empty((FOLDS, len(items)))
    for number in range(FOLDS):
        others, own = fold != number, fold == number
        with threadpool_limits(1):  # vectors are short: threads cost several times what they save
            weights, base = _fit(features[others], log.click[others])
        context_logit[own] = features[own][:, width:] @ weights[width:] + base
        item_logit[number] = items @ weights[:width]
    return RewardModel(context_logit, item_logit, fold)


def _fit(features: sparse.csr_array, click: NDArray) -> tuple[NDArray, float]:
    """Weights `[width]` and intercept of a logistic regression, with the penalty of the best logloss."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    n, clicks = click.size, int(click.sum())
    if clicks in (0, n):
        rate = np.clip(clicks / n, 1 / (n + 1), n / (n + 1))
        return np.zeros(features.shape[1]), float(np.log(rate / (1 - rate)))
    model = LogisticRegression(C=STRENGTHS[0], max_iter=1000)
    if min(clicks, n - clicks) >= _PARTS:
        search = GridSearchCV(model, {"C": STRENGTHS}, scoring="neg_log_loss", cv=_PARTS, refit=False)
        model.set_params(**search.fit(features, click).best_params_)
    model.fit(features, click)
    return model.coef_[0], float(model.intercept_[0])


def _encoded(schema: Schema, rows: pd.DataFrame, names: list[str]) -> NDArray:
    """`[rows, features]`: categories as indicators, numbers standardised with 0 for a missing one."""
    parts = [np.zeros((len(rows), 0))]
    for name in dict.fromkeys(names):
        feature = schema.features.get(name)
        if name == ITEM or (feature and feature.kind.value == "string" and not feature.kind.tokenize):
            parts.append(pd.get_dummies(rows[name].fillna(""), dtype="float64").to_numpy())
        elif feature and feature.kind.value == "number":
            values = rows[name].to_numpy("float64")
            spread = np.nanstd(values) if np.isfinite(values).any() else 0.0
            centred = (values - np.nanmean(values)) / spread if spread > 0 else np.zeros(len(rows))
            parts.append(np.nan_to_num(centred)[:, None])
    return np.hstack(parts)
