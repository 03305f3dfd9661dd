"""Label rates and position curves of the simulated shop, beside the oracle."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.simulator.logs import BOTH, DECAY, Logs, Row


def rates(logs: Logs) -> list[Row]:
    """Label rates of each scenario, beside the oracle."""
    result = []
    for scenario in logs.schema.scenarios:
        rows = logs.impressions[logs.impressions.scenario == scenario]
        figures = {name: float(rows[name].mean()) for name in ("ctr", "ctcvr", "global_ctr", "global_ctcvr")}
        figures |= {f"oracle_{task}": float(rows[f"oracle_{task}"].mean()) for task in ("ctr", "ctcvr")}
        figures |= {f"{task} oracle AUC": oracle_auc(rows, task) for task in ("ctr", "ctcvr")}
        losses = {f"{task} oracle logloss": _oracle_logloss(rows, task) for task in ("ctr", "ctcvr")}
        result.append({"scenario": scenario, "share": len(rows) / len(logs.impressions), **figures, **losses})
    return result


def rates_by_size(sizes: Sequence[int], seeds: Sequence[int]) -> list[Row]:
    """Median and range of the rates over the seeds, by size."""
    result = []
    for size in sizes:
        worlds = [Logs.simulated(impressions=size, seed=seed) for seed in seeds]
        for scenario in BOTH:
            found = [next(row for row in rates(logs) if row["scenario"] == scenario) for logs in worlds]
            row = {"impressions": size, "users": len(worlds[0].users), "items": len(worlds[0].items)}
            row["scenario"] = scenario
            for name in ("ctr", "ctcvr", "global_ctr", "global_ctcvr", "ctr oracle AUC", "ctcvr oracle AUC"):
                values = [figures[name] for figures in found]
                row[name] = f"{np.median(values):.4f} ({min(values):.4f}–{max(values):.4f})"
            result.append(row)
    return result


def positions(logs: Logs) -> list[Row]:
    """Click rate at each position, and what is left of it once relevance is divided out, beside k^−η.

    An impression's relevance is its oracle over its chance of being examined, so this needs logs without noise.
    """
    result = []
    for (scenario, position), rows in logs.impressions.groupby(["scenario", "position"]):
        theta = position ** -DECAY[scenario]
        relevance, p = rows.oracle_ctr / theta, rows.oracle_ctr
        result.append(
            {
                "scenario": scenario,
                "position": int(position),
                "ctr": rows.ctr.mean(),
                "oracle": p.mean(),
                "ctr error": np.sqrt((p * (1 - p)).sum()) / len(rows),
                "examined": rows.ctr.sum() / relevance.sum(),
                "equation": theta,
                "examined error": np.sqrt((p * (1 - p)).sum()) / relevance.sum(),
            }
        )
    return result


# What passes between scenarios.


def oracle_auc(rows: pd.DataFrame, task: str = "ctr") -> float:
    return float(roc_auc_score(rows[task], rows[f"oracle_{task}"])) if rows[task].nunique() == 2 else float("nan")


def _oracle_logloss(rows: pd.DataFrame, task: str) -> float:
    return float(log_loss(rows[task], rows[f"oracle_{task}"].clip(1e-9, 1 - 1e-9), labels=[0, 1]))
