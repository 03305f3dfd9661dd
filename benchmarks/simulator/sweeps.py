"""Parameter sweeps of the simulated shop: similarity and noise."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmarks.simulator.logs import BOTH, DECAY, Logs, Row, with_history
from benchmarks.simulator.rates import oracle_auc, rates
from pipelines.simulator.people import Users
from pipelines.simulator.scenarios import IMPORTANCE, SCENARIOS
from pipelines.simulator.world import World

HISTORY_FEATURES = ("category", "brand", "price_band")


def similarity_sweep(impressions: int, seeds: Sequence[int], similarities: Sequence[float]) -> list[Row]:
    result = []
    for similarity in similarities:
        row: Row = {"similarity": similarity, "squared": similarity**2}
        row["taste correlation"], row["importance correlation"] = correlations(similarity)
        worlds = [Logs.simulated(impressions=impressions, seed=seed, similarity=similarity) for seed in seeds]
        found = [{of["scenario"]: of for of in rates(logs)} for logs in worlds]
        lifts = [{(of["scenario"], of["same"]): of["lift"] for of in history_lifts(logs)} for logs in worlds]
        for scenario in BOTH:
            for name in ("ctr", "ctcvr", "ctr oracle AUC", "ctcvr oracle AUC"):
                row[f"{scenario} {name}"] = float(np.mean([of[scenario][name] for of in found]))
            for same in HISTORY_FEATURES:
                row[f"{scenario} lift of {same}"] = float(np.mean([of[scenario, same] for of in lifts]))
        result.append(row)
    return result


def noise_sweep(impressions: int, seed: int, shares: Sequence[float]) -> list[Row]:
    """Rates and the oracle's AUC under noise; how far labels agree with those of the same shop without noise."""
    clean = Logs.simulated(impressions=impressions, seed=seed).impressions
    result = []
    for credited, uncredited in [*((share, share) for share in shares), (shares[-1], 0.0), (0.0, shares[-1])]:
        logs = Logs.simulated(impressions=impressions, seed=seed, label_noise=credited, global_label_noise=uncredited)
        noisy = logs.impressions
        row: Row = {"label_noise": credited, "global_label_noise": uncredited}
        for name in ("ctr", "ctcvr", "global_ctr", "global_ctcvr"):
            row[name] = float(noisy[name].mean())
            row[f"{name} kept"] = float(noisy[name][clean[name] == 1].mean())
        for scenario in BOTH:
            row[f"{scenario} oracle AUC"] = oracle_auc(noisy[noisy.scenario == scenario])
        result.append(row)
    return result


# What can be learned.


def correlations(similarity: float, worlds: int = 400, users: int = 100) -> tuple[float, float]:
    """Correlation of tastes, and of what is drawn of the importances, between two scenarios, over many worlds."""
    tastes, importances = [], []
    leaning = np.array([scenario.leaning for scenario in SCENARIOS[:2]])
    for seed in range(worlds):
        rng = np.random.default_rng(seed)
        world = World.draw(rng, 100, SCENARIOS[:2], similarity, needs=0.0)
        tastes.append(Users.draw(rng, world, users).taste.reshape(2, -1))
        drawn = world.importance / IMPORTANCE - 1 - np.sqrt(1 - similarity**2) * leaning
        importances.append(drawn)
    tastes, importances = np.concatenate(tastes, axis=1), np.concatenate(importances, axis=1)
    return float(np.corrcoef(tastes)[0, 1]), float(np.corrcoef(importances)[0, 1])


def history_lifts(logs: Logs, length: int = 20) -> list[Row]:
    """Click rate on items that are as at least a third of the user's history is, over the click rate of others.

    Compared within a request, so that it is not the users or the queries that differ: each such item is held against
    the rest of its slate, and both sides are divided by the chance of being examined.
    """
    shown, history = with_history(logs, HISTORY_FEATURES, length)
    known = (history["category"] >= 0).sum(axis=1) >= 5
    weight = shown.position.to_numpy() ** shown.scenario.map(DECAY).to_numpy()
    result = []
    for scenario in logs.schema.scenarios:
        for name in HISTORY_FEATURES:
            own = shown[f"{name}_code"].to_numpy()
            like = (history[name] == own[:, None]).sum(axis=1) * 3 >= (history[name] >= 0).sum(axis=1)
            of = known & (shown.scenario == scenario).to_numpy()
            frame = pd.DataFrame({"r": shown.request_id, "like": like, "y": shown.ctr * weight})[of]
            slates = frame.groupby(["r", "like"]).y.agg(["mean", "size"]).unstack().dropna()
            weighted = slates["mean"].mul(slates["size"].min(axis=1), axis=0).sum()
            result.append({"scenario": scenario, "same": name, "lift": float(weighted[True] / weighted[False])})
    return result
