"""Transfer between scenarios: clicks after clicks in another scenario, and global labels from there."""

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.simulator.logs import BOTH, DAY_MS, Logs, Row
from pipelines.join.as_of import label


def needs_switch(impressions: int, seed: int) -> list[Row]:
    result = []
    for similarity, needs in itertools.product((0.0, 0.3), (0.8, 0.0)):
        logs = Logs.simulated(impressions=impressions, seed=seed, similarity=similarity, needs=needs)
        row: Row = {"similarity": similarity, "needs": needs}
        for source, target in (BOTH, BOTH[::-1]):
            of, error = lift(logs, source, target)
            row[f"{source} → {target}"] = f"{of:.2f} ± {1.96 * error:.2f}"
            of, error = lift(logs, source, target, "item_id")
            row[f"{source} → {target}, same item"] = f"{of:.2f} ± {1.96 * error:.2f}"
        result.append(row)
    return result


# Similarity and noise.


def global_sources(logs: Logs) -> list[Row]:
    """Origin of global clicks that are no scenario clicks, and their information about relevance.

    Shares are of the impressions with a global click and none of their own: those that another scenario's actions
    alone would give, and those that actions credited to no impression alone would.
    """
    impressions, actions = (pa.Table.from_pandas(x, preserve_index=False) for x in (logs.impressions, logs.actions))
    outside = logs.actions.scenario.isna().to_numpy()
    from_outside = label(impressions, actions.filter(pa.array(outside)), logs.schema)[0]["global_ctr"]
    result = []
    for scenario in logs.schema.scenarios:
        elsewhere = (~outside & (logs.actions.scenario != scenario)).to_numpy(bool)
        from_elsewhere = label(impressions, actions.filter(pa.array(elsewhere)), logs.schema)[0]["global_ctr"]
        of = ((logs.impressions.scenario == scenario) & (logs.impressions.ctr == 0)).to_numpy()
        only = of & (logs.impressions.global_ctr == 1).to_numpy()
        neither = of & ~only
        oracle = logs.impressions.oracle_ctr.to_numpy()
        result.append(
            {
                "scenario": scenario,
                "global only, of impressions": only.sum() / (logs.impressions.scenario == scenario).sum(),
                "other scenario": from_elsewhere[only].mean(),
                "uncredited": from_outside[only].mean(),
                "oracle CTR, global only / neither": oracle[only].mean() / oracle[neither].mean(),
            }
        )
    return result


def lift(logs: Logs, source: str, target: str, key: str = "category", within: int = DAY_MS) -> tuple[float, float]:
    """P(click in target | clicked the same `key` in source within the time) / P(click in target), and its error."""
    since = since_click(logs, source, target, key)
    clicks = logs.impressions[logs.impressions.scenario == target].ctr.to_numpy()
    after = clicks[since <= within]
    base = clicks.mean()
    return after.mean() / base, np.sqrt(after.mean() * (1 - after.mean()) / len(after)) / base


def since_click(logs: Logs, source: str, target: str, key: str = "category") -> NDArray:
    """ms since the user's latest click on the same `key` in `source`, for each impression in `target`; inf if none."""
    shown = logs.with_items(logs.impressions[logs.impressions.scenario == target])
    clicks = logs.with_items(logs.actions.query("action == 'click' and scenario == @source"))
    clicks = clicks[["user_id", key, "timestamp"]].assign(at=clicks.timestamp).sort_values("timestamp", kind="stable")
    joined = pd.merge_asof(
        shown[["user_id", key, "timestamp"]], clicks, on="timestamp", by=["user_id", key], allow_exact_matches=False
    )
    return (joined.timestamp - joined["at"]).fillna(np.inf).to_numpy(np.float64)
