"""Predictions for metric tests: hand-made or random."""

import dataclasses

import numpy as np

from usr_tf.metrics import Predictions, metrics_document
from usr_tf.schema import Schema

SCHEMA = Schema.model_validate(
    {
        "scenarios": ["search", "recommendation"],
        "tasks": [{"name": "ctr", "action": "click"}, {"name": "ctcvr", "action": "purchase"}],
        "features": {"item_id": {"group": "item", "type": "categorical"}},
    }
)

CTR = SCHEMA.model_copy(update={"tasks": SCHEMA.tasks[:1]})
"""With its first task alone."""


def predictions_of(labels, probabilities, users=None, requests=None, *, items=None, position=None, scenario=None):
    """Predictions of one task, `ctr`, with defaults for the other fields."""
    n = len(labels)
    users = ["u"] * n if users is None else users
    return Predictions(
        scenario=np.zeros(n, np.int64) if scenario is None else np.array(scenario),
        user=np.array(users, object),
        request=np.array(users if requests is None else requests, object),
        item=np.array(["i"] * n if items is None else items, object),
        position=np.zeros(n, np.int64) if position is None else np.array(position),
        labels={"ctr": np.array(labels, np.float64)},
        probabilities={"ctr": np.array(probabilities, np.float64)},
    )


def scored(rows, probabilities):
    """The same rows as another model scores them."""
    return dataclasses.replace(rows, probabilities=probabilities)


def metrics_of_rows(labels, probabilities, users, requests, oracle=None):
    """What `metrics.json` holds of one task's rows."""
    rows = predictions_of(labels, probabilities, users, requests)
    rows = dataclasses.replace(rows, oracle={} if oracle is None else {"ctr": np.asarray(oracle)})
    rows = scored(rows, {"ctr": np.asarray(probabilities)})
    return metrics_document(rows, CTR)["overall"]["ctr"]


def drawn_predictions(seed=0, n=3_000, users=150, oracle=True):
    """Rows of many users, with both tasks, tied scores, and one purchase in five clicks."""
    generator = np.random.default_rng(seed)
    true = 1 / (1 + np.exp(-generator.normal(-2, 1, n)))
    click = (generator.uniform(size=n) < true).astype(np.float64)
    purchase = click * (generator.uniform(size=n) < 0.2)
    model = np.clip(np.round(true * np.exp(generator.normal(0, 0.3, n)), 2), 0, 1)
    request = np.sort(generator.integers(0, n // 10, n))
    return Predictions(
        scenario=request % 2,
        user=np.char.add("u", (request % users).astype(str)).astype(object),
        request=np.char.add("r", request.astype(str)).astype(object),
        item=np.char.add("i", generator.integers(0, 50, n).astype(str)).astype(object),
        position=generator.integers(1, 11, n),
        labels={"ctr": click, "ctcvr": purchase},
        probabilities={"ctr": model, "ctcvr": model * 0.2},
        oracle={"ctr": true, "ctcvr": true * 0.2} if oracle else {},
    )
