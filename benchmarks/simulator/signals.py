"""Benchmark: AUC gain of each signal of `simulate --signals`."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from benchmarks.simulator.learnable import PARTS, history_features, plain_features
from benchmarks.simulator.logs import BOTH, DAY_MS, HOUR_MS, Logs, Row, with_history
from pipelines.simulator.signals import DEFAULT_STRENGTH, SIGNALS

TASKS = ("ctr", "ctcvr")


def signals(impressions: int, seeds: Sequence[int], strength: float = DEFAULT_STRENGTH) -> list[Row]:
    """AUC without and with each signal, in a shop that has this one alone: mean over seeds, on the last fifth.

    "alone" is the AUC of the signal's own number. "without" and "with" are gradient-boosted trees on what else the logs
    show, which includes the rates of item and kind over all time as of the impression, and on that and the signal.
    "least" is the smallest gain of a seed.
    """
    result = []
    for name in SIGNALS:
        found = [
            _worth(name, Logs.simulated(impressions=impressions, seed=seed, signals={name: strength})) for seed in seeds
        ]
        for scenario, task in ((scenario, task) for scenario in BOTH for task in TASKS):
            figures = np.array([of[scenario, task] for of in found])
            alone, without, with_it, oracle = figures.mean(axis=0).tolist()
            result.append(
                {
                    "signal": name, "strength": strength, "scenario": scenario, "task": task, "alone": alone,
                    "without": without, "with": with_it, "gain": with_it - without,
                    "least": float((figures[:, 2] - figures[:, 1]).min()), "oracle": oracle,
                }
            )  # fmt: skip
    return result


def _worth(signal: str, logs: Logs) -> dict[tuple[str, str], tuple[float, ...]]:
    """AUC of the signal alone, without it, with it, and of the oracle, by scenario and task."""
    shown, history = with_history(logs, PARTS, length=20)
    n = len(shown)
    every = history_features(shown, history, history["age"] < np.inf)
    without = pd.concat([plain_features(logs, shown), every, rates_as_of(shown, None)], axis=1)
    own = _COLUMNS[signal](logs, shown)
    fit, test = (np.arange(n) >= 0.2 * n) & (np.arange(n) < 0.8 * n), np.arange(n) >= 0.8 * n
    result = {}
    for scenario in BOTH:
        of = (shown.scenario == scenario).to_numpy()
        for task in TASKS:
            y = shown[task].to_numpy()

            def trees(features: pd.DataFrame, y: NDArray = y, of: NDArray = of) -> NDArray:
                model = HistGradientBoostingClassifier(
                    max_iter=40, learning_rate=0.15, min_samples_leaf=60, l2_regularization=2, random_state=0
                )
                with threadpool_limits(1):  # threads that share a processor wait for each other
                    model.fit(features[of & fit], y[of & fit])
                return model.predict_proba(features[of & test])[:, 1]

            scores = (
                own[of & test].sum(axis=1),
                trees(without),
                trees(pd.concat([without, own], axis=1)),
                shown[f"oracle_{task}"][of & test],
            )
            result[scenario, task] = tuple(float(roc_auc_score(y[of & test], score)) for score in scores)
    return result


def rates_as_of(shown: pd.DataFrame, window: int | None, prior: float = 20.0) -> pd.DataFrame:
    """Click rates of the item and its kind, smoothed, all scenarios, over a window that ends an hour before.

    Args:
      window: ms; None for all time.
    """
    at = shown.timestamp.to_numpy() - shown.timestamp.min()
    span = 4 * (int(at.max()) + 1)
    now = span // 2 + at - HOUR_MS
    rates = {}
    for name in ("item_id", "kind"):
        first = pd.factorize(shown[name])[0].astype(np.int64) * span
        order = np.lexsort((at, first))
        key = (first + span // 2 + at)[order]
        clicks = np.concatenate([[0], np.cumsum(shown.ctr.to_numpy()[order])])
        end, begin = np.searchsorted(key, first + now), np.searchsorted(key, first + (now - window if window else 0))
        rates[f"{name}, {window or 'all'}"] = (clicks[end] - clicks[begin] + prior * shown.ctr.mean()) / (
            end - begin + prior
        )
    return pd.DataFrame(rates)


def _cosines(logs: Logs, shown: pd.DataFrame) -> pd.DataFrame:
    """Dot products of vectors of length 1, 0 where a row has none."""
    user = dict(zip(logs.users.user_id, logs.users.user_vector, strict=True))
    none = np.zeros(len(shown.item_vector.iloc[0]))
    item, user_vector, query = (
        np.stack([none if vector is None else vector for vector in vectors])
        for vectors in (shown.item_vector, shown.user_id.map(user), shown.query_vector)
    )
    return pd.DataFrame({"user": (user_vector * item).sum(axis=1), "query": (query * item).sum(axis=1)})


_COLUMNS: dict[str, Callable[[Logs, pd.DataFrame], pd.DataFrame]] = {
    "price": lambda _, shown: shown[["discount"]],
    "stock": lambda _, shown: shown[["in_stock"]].eq("yes").astype(float),
    "retrieval": lambda _, shown: shown[["retrieval_score"]],
    "zero_results": lambda _, shown: shown[["zero_results"]].eq("no").astype(float),
    "vectors": _cosines,
    "drift": lambda _, shown: pd.concat([rates_as_of(shown, days * DAY_MS) for days in (3, 7)], axis=1),
}
