"""Learnable signal of the simulated logs, measured with gradient-boosted trees."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from benchmarks.simulator.logs import DAY_MS, DECAY, Logs, Row, with_history

PARTS = ("category", "kind", "brand", "price_band")


def learnable(logs: Logs, length: int = 20) -> list[Row]:
    """Click AUC of gradient-boosted trees with hand-made features, on the last tenth of the rows.

    The features grow from column to column: of the item, the query and the context; of the history in the same
    scenario; of all of the history, told apart by scenario. Then the oracle with the positions unknown to it, as they
    are to a model, and the oracle.
    """
    shown, history = with_history(logs, PARTS, length)
    n = len(shown)
    train, test = np.arange(n) < 0.9 * n, np.arange(n) >= 0.9 * n
    plain = plain_features(logs, shown)
    result = []
    for v, scenario in enumerate(logs.schema.scenarios):
        of = (shown.scenario == scenario).to_numpy()
        popularity = _rate_of(shown, "item_id", of & (np.arange(n) < 0.4 * n))
        base = plain.assign(item_rate=popularity)
        own = history_features(shown, history, history["scenario"] == v)
        every = history_features(shown, history, history["age"] < np.inf)
        columns = {
            "item, query, context": base,
            "+ history here": pd.concat([base, own], axis=1),
            "+ all history": pd.concat([base, own.add_suffix(" here"), every], axis=1),
        }
        y, oracle = shown.ctr.to_numpy(), shown.oracle_ctr.to_numpy()
        row: Row = {"scenario": scenario}
        for name, features in columns.items():
            fit = of & train & (np.arange(n) >= 0.4 * n)  # the first part gave the items' rates
            trees = HistGradientBoostingClassifier(
                max_iter=60, learning_rate=0.1, min_samples_leaf=60, l2_regularization=2, random_state=0
            )
            trees.fit(features[fit], y[fit])
            row[name] = float(roc_auc_score(y[of & test], trees.predict_proba(features[of & test])[:, 1]))
        relevance = oracle * shown.position.to_numpy() ** DECAY[scenario]
        row["oracle without position"] = float(roc_auc_score(y[of & test], relevance[of & test]))
        row["oracle"] = float(roc_auc_score(y[of & test], oracle[of & test]))
        row["learned share"] = (row["+ all history"] - 0.5) / (row["oracle"] - 0.5)
        result.append(row)
    return result


def plain_features(logs: Logs, shown: pd.DataFrame) -> pd.DataFrame:
    user = shown[["user_id"]].merge(logs.users, on="user_id", how="left", validate="many_to_one")
    asked = shown["query"].str.split()
    named = {
        f"asks for {name}": [value in terms for value, terms in zip(shown[name], asked, strict=True)]
        for name in ("kind", "category", "brand")
    }
    words = [len({*own} & {*terms}) for own, terms in zip(shown.words, asked, strict=True)]
    return pd.DataFrame(
        {
            **{name: shown[f"{name}_code"] for name in PARTS},
            "department": pd.factorize(shown.department, sort=True)[0],
            "price": shown.price,
            "popularity": shown.popularity,
            "age": shown.timestamp / DAY_MS - shown.launch_day,
            "hour": shown.hour.astype(int),
            "phone": shown.device == "phone",
            "age_band": pd.factorize(user.age_band, sort=True)[0],
            "city": pd.factorize(user.city, sort=True)[0],
            **named,
            "asks for words": words,
            "terms": asked.str.len(),
        }
    )


def _rate_of(shown: pd.DataFrame, key: str, rows: NDArray, strength: float = 40.0) -> NDArray:
    """Smoothed click rate of each impression's `key` among `rows`."""
    prior = shown.ctr[rows].mean()
    seen = shown[rows].groupby(key).ctr.agg(["sum", "size"]).reindex(shown[key]).fillna(0)
    return ((seen["sum"] + strength * prior) / (seen["size"] + strength)).to_numpy()


def history_features(shown: pd.DataFrame, history: Mapping[str, NDArray], counts: NDArray) -> pd.DataFrame:
    """How much of the history that `counts` is like the item, and how long ago that was."""
    features: dict[str, NDArray] = {"actions": counts.sum(axis=1)}
    for name in (*PARTS, "item_id"):
        same = (history[name] == shown[f"{name}_code"].to_numpy()[:, None]) & counts
        features[f"same {name}"] = same.sum(axis=1)
        features[f"hours since {name}"] = np.where(same, history["age"], np.inf).min(axis=1).clip(max=1e6)
        features[f"last {name}"] = same[:, 0]
    return pd.DataFrame(features)


# Pictures.
