"""The simulated shop held against its own equations, on log files and by the pipeline's own labels.

`python -m benchmarks.simulator --out DIR` prints the tables of docs/simulator.md, writes them to `DIR/simulator.json`,
and draws its pictures, `DIR/simulator-*.png`. `--only NAME …` runs some of the parts, `--impressions N` a smaller shop.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.json as pa_json
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss, roc_auc_score

from pipelines.join import label
from pipelines.simulate import simulate
from pipelines.simulator.people import Users
from pipelines.simulator.scenarios import IMPORTANCE, SCENARIOS
from pipelines.simulator.world import World
from usr_tf.schema import Schema, load_schema

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
BOTH = ("search", "recommendation")
DECAY = {scenario.name: scenario.decay for scenario in SCENARIOS}

Row = dict[str, Any]


@dataclass(frozen=True)
class Logs:
    """Log tables as data frames. Impressions carry the pipeline's labels and stand in the order of time."""

    schema: Schema
    impressions: pd.DataFrame
    actions: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame

    @classmethod
    def simulated(cls, **flags: Any) -> "Logs":
        with tempfile.TemporaryDirectory() as folder:
            simulate(Path(folder) / "logs", progress=False, workers=1, **flags)
            return cls.read(Path(folder) / "logs")

    @classmethod
    def read(cls, logs: Path) -> "Logs":
        schema = load_schema(logs / "schema.yaml")
        tables = {table: _table(logs, table) for table in ("impressions", "actions", "items", "users")}
        labels, _ = label(tables["impressions"], tables["actions"], schema)
        frames = {table: rows.to_pandas() for table, rows in tables.items()}
        impressions = frames["impressions"].assign(**labels)
        frames["impressions"] = impressions.sort_values("timestamp", kind="stable", ignore_index=True)
        return cls(schema, **frames)

    def with_items(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Impressions or actions with the columns of their items."""
        return rows.merge(self.items, on="item_id", how="left", validate="many_to_one")


def _table(logs: Path, table: str) -> pa.Table:
    paths = sorted(logs.glob(f"{table}-*"))
    return pa.concat_tables([pa_json.read_json(path) for path in paths], promote_options="default")


# Rates.


def rates(logs: Logs) -> list[Row]:
    """What each scenario's labels come to, beside the oracle."""
    result = []
    for scenario in logs.schema.scenarios:
        rows = logs.impressions[logs.impressions.scenario == scenario]
        figures = {name: float(rows[name].mean()) for name in ("ctr", "ctcvr", "global_ctr", "global_ctcvr")}
        figures |= {f"oracle_{task}": float(rows[f"oracle_{task}"].mean()) for task in ("ctr", "ctcvr")}
        figures |= {f"{task} oracle AUC": oracle_auc(rows, task) for task in ("ctr", "ctcvr")}
        losses = {f"{task} oracle logloss": _oracle_logloss(rows, task) for task in ("ctr", "ctcvr")}
        result.append({"scenario": scenario, "share": len(rows) / len(logs.impressions), **figures, **losses})
    return result


def oracle_auc(rows: pd.DataFrame, task: str = "ctr") -> float:
    return float(roc_auc_score(rows[task], rows[f"oracle_{task}"])) if rows[task].nunique() == 2 else float("nan")


def _oracle_logloss(rows: pd.DataFrame, task: str) -> float:
    return float(log_loss(rows[task], rows[f"oracle_{task}"].clip(1e-9, 1 - 1e-9), labels=[0, 1]))


def rates_by_size(sizes: Sequence[int], seeds: Sequence[int]) -> list[Row]:
    """Median and range over the seeds of what comes out."""
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


def cost(sizes: Sequence[int], workers: int) -> list[Row]:
    """Seconds of `usr-tf simulate`, and the memory of its largest process."""
    result = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            flags = [f"--out={folder}/logs", f"--impressions={size}", f"--workers={workers}"]
            start = time.perf_counter()
            command = subprocess.Popen([sys.executable, "-m", "usr_tf.cli", "simulate", *flags])
            _, status, usage = os.wait4(command.pid, 0)  # of the command and its workers
            if status:
                raise RuntimeError(f"usr-tf simulate {' '.join(flags)} ended with status {status}")
            seconds = time.perf_counter() - start
            mebibytes = sum(path.stat().st_size for path in Path(folder).rglob("*.gz")) / 2**20
        result.append(
            {
                "impressions": size,
                "workers": workers,
                "seconds": round(seconds, 1),
                "impressions/s": round(size / seconds),
                "largest process, MiB": round(usage.ru_maxrss / 1024),
                "on disk, MiB": round(mebibytes),
            }
        )
    return result


# Positions.


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


def global_sources(logs: Logs) -> list[Row]:
    """Where the global clicks come from that are no scenario clicks, and what they tell of the relevance.

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


HISTORY_FEATURES = ("category", "brand", "price_band")


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


def with_history(logs: Logs, names: Sequence[str], length: int) -> tuple[pd.DataFrame, dict[str, NDArray]]:
    """Impressions with their items' columns and codes of `names`, and of the user's latest actions strictly before.

    Returns:
      The impressions, with `NAME_code`, and `{name: [n, length]}` codes, newest first, -1 where there is none;
      also of `item_id`, `scenario` and `age` (hours).
    """
    shown = logs.with_items(logs.impressions)
    done = logs.with_items(logs.actions).sort_values(["user_id", "timestamp"], kind="stable")
    users = pd.Index(logs.users.user_id)
    done_user, shown_user = users.get_indexer(done.user_id), users.get_indexer(shown.user_id)
    done_at, shown_at = done.timestamp.to_numpy(), shown.timestamp.to_numpy()
    first = shown_at.min()
    span = 10 * (done_at.max() - first)
    key = done_user * span + done_at - first
    end = np.searchsorted(key, shown_user * span + shown_at - first)
    begin = np.searchsorted(key, shown_user * span)
    index = end[:, None] - 1 - np.arange(length)
    none = index < begin[:, None]
    index = np.where(none, 0, index)
    history: dict[str, NDArray] = {}
    for name in (*names, "item_id"):
        values = pd.Index(sorted(logs.items[name].unique()))
        shown[f"{name}_code"] = values.get_indexer(shown[name])
        history[name] = np.where(none, -1, values.get_indexer(done[name])[index])
    of_scenario = pd.Index(logs.schema.scenarios).get_indexer(done.scenario)
    history["scenario"] = np.where(none, -1, of_scenario[index])
    history["age"] = np.where(none, np.inf, (shown_at[:, None] - done_at[index]) / HOUR_MS)
    return shown, history


PARTS = ("category", "kind", "brand", "price_band")


def learnable(logs: Logs, length: int = 20) -> list[Row]:
    """Click AUC of gradient-boosted trees on hand-made features of what the logs show, on the last tenth.

    The features grow from column to column: of the item, the query and the context; of the history in the same
    scenario; of all of the history, told apart by scenario. Then the oracle with the positions unknown to it, as they
    are to a model, and the oracle.
    """
    shown, history = with_history(logs, PARTS, length)
    n = len(shown)
    train, test = np.arange(n) < 0.9 * n, np.arange(n) >= 0.9 * n
    plain = _plain_features(logs, shown)
    result = []
    for v, scenario in enumerate(logs.schema.scenarios):
        of = (shown.scenario == scenario).to_numpy()
        popularity = _rate_of(shown, "item_id", of & (np.arange(n) < 0.4 * n))
        base = plain.assign(item_rate=popularity)
        own = _history_features(shown, history, history["scenario"] == v)
        every = _history_features(shown, history, history["age"] < np.inf)
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


def _plain_features(logs: Logs, shown: pd.DataFrame) -> pd.DataFrame:
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
    """The smoothed click rate of each impression's `key` among `rows`."""
    prior = shown.ctr[rows].mean()
    seen = shown[rows].groupby(key).ctr.agg(["sum", "size"]).reindex(shown[key]).fillna(0)
    return ((seen["sum"] + strength * prior) / (seen["size"] + strength)).to_numpy()


def _history_features(shown: pd.DataFrame, history: Mapping[str, NDArray], counts: NDArray) -> pd.DataFrame:
    """How much of the history that `counts` is like the item, and how long ago that was."""
    features: dict[str, NDArray] = {"actions": counts.sum(axis=1)}
    for name in (*PARTS, "item_id"):
        same = (history[name] == shown[f"{name}_code"].to_numpy()[:, None]) & counts
        features[f"same {name}"] = same.sum(axis=1)
        features[f"hours since {name}"] = np.where(same, history["age"], np.inf).min(axis=1).clip(max=1e6)
        features[f"last {name}"] = same[:, 0]
    return pd.DataFrame(features)


# Pictures.

_COLOURS = ("#1f5fbf", "#d9730d", "#2e8b57", "#8a4fbf", "#c23b5a", "#8a8f98")
_STYLE = {
    "axes.axisbelow": True, "axes.edgecolor": "#c4c9d1", "axes.grid": True, "axes.labelcolor": "#3c434d",
    "axes.labelsize": 9, "axes.spines.right": False, "axes.spines.top": False, "axes.titlecolor": "#1c2430",
    "axes.titlelocation": "left", "axes.titlesize": 10, "axes.titleweight": "bold", "font.family": "DejaVu Sans",
    "grid.color": "#eceff3", "legend.fontsize": 8, "legend.frameon": False, "xtick.color": "#6b7280",
    "xtick.labelsize": 8, "ytick.color": "#6b7280", "ytick.labelsize": 8,
}  # fmt: skip


def draw_positions(rows: Sequence[Row], path: Path) -> None:
    frame = pd.DataFrame(rows)
    figure, (left, right) = _figure(2)
    for colour, scenario in zip(_COLOURS, BOTH, strict=False):
        of = frame[frame.scenario == scenario]
        for axes, found, true in ((left, "ctr", "oracle"), (right, "examined", "equation")):
            error = 1.96 * of["ctr error" if found == "ctr" else "examined error"]
            axes.plot(of.position, of[true], color=colour, linewidth=1.2)
            style = {"color": colour, "fmt": "o", "markersize": 4, "linewidth": 1, "label": scenario}
            axes.errorbar(of.position, of[found], error, **style)
    left.set(title="Click rate by position", xlabel="position", ylabel="clicks / impressions")
    right.set(title="… with relevance divided out", xlabel="position", ylabel="chance of being examined")
    for axes, line in ((left, "line: mean oracle"), (right, "line: k$^{-η}$")):
        axes.set_ylim(bottom=0)
        axes.set_xticks(range(1, 11))
        axes.plot([], [], color="#3c434d", linewidth=1.2, label=line)
        axes.legend()
    _save(figure, path)


def draw_similarity(sweep: Sequence[Row], noise: Sequence[Row], path: Path) -> None:
    frame = pd.DataFrame(sweep)
    figure, (alike, auc, lifts, noisy) = _figure(4)
    fine = np.linspace(0, 1, 50)
    alike.plot(fine, fine**2, color="#8a8f98", linewidth=1.2, label="ρ²")
    alike.plot(frame.similarity, frame["taste correlation"], "o", color=_COLOURS[0], markersize=5, label="tastes")
    alike.plot(
        frame.similarity, frame["importance correlation"], "D", color=_COLOURS[1], markersize=4, label="importances"
    )
    alike.set(title="Two scenarios alike", ylabel="correlation")
    for colour, scenario in zip(_COLOURS, BOTH, strict=False):
        for task, style in (("ctr", "-o"), ("ctcvr", "--s")):
            auc.plot(
                frame.similarity, frame[f"{scenario} {task} oracle AUC"], style, color=colour, markersize=4,
                linewidth=1.2, label=f"{scenario}, {task}",
            )  # fmt: skip
        equal = pd.DataFrame([row for row in noise if row["label_noise"] == row["global_label_noise"]])
        noisy.plot(
            equal.label_noise, equal[f"{scenario} oracle AUC"], "-o", color=colour, markersize=4, linewidth=1.2,
            label=f"{scenario}, ctr",
        )  # fmt: skip
    for colour, feature in zip(_COLOURS[2:], HISTORY_FEATURES, strict=False):
        search, feed = (frame[f"{scenario} lift of {feature}"] for scenario in BOTH)
        style = {"color": colour, "markersize": 4, "linewidth": 1.2, "label": feature.replace("_", " ")}
        lifts.plot(frame.similarity, search / feed, "-o", **style)
    lifts.axhline(1, color="#8a8f98", linewidth=1)
    auc.set(title="The oracle's AUC", ylabel="AUC", ylim=(None, 1))
    lifts.set(title="What history tells", ylabel="lift in search / lift in recommendation", ylim=(0, None))
    noisy.set(title="Label noise", xlabel="label noise λ", ylabel="the oracle's AUC", ylim=(0.48, None))
    for axes in (alike, auc, lifts):
        axes.set_xlabel("similarity ρ")
    for axes in (alike, auc, lifts, noisy):
        axes.legend()
    _save(figure, path)


def draw_lift(worlds: Mapping[str, Logs], path: Path) -> None:
    """Click rate after a click in the other scenario on the same category or item, over the time since."""
    figure, panels = _figure(2)
    all_edges = ([0, 1, 12, 24, 48, 96, 192, 384], [0, 24, 96, 384])  # an item is seldom met again
    keys = ("category", "item_id")
    for axes, (source, target), key, edges in zip(panels, (BOTH, BOTH[::-1]), keys, all_edges, strict=True):
        what, middle = key.removesuffix("_id"), np.arange(len(edges) - 1)
        for colour, (name, logs) in zip(_COLOURS, worlds.items(), strict=False):
            bucket = np.digitize(since_click(logs, source, target, key) / HOUR_MS, edges) - 1
            clicks = logs.impressions[logs.impressions.scenario == target].ctr.to_numpy()
            of = [clicks[bucket == index] for index in middle]
            error = [1.96 * values.std() / np.sqrt(len(values)) / clicks.mean() for values in of]
            lifts = [values.mean() / clicks.mean() for values in of]
            style = {"fmt": "-o", "color": colour, "markersize": 4, "linewidth": 1.2, "label": name}
            axes.errorbar(middle, lifts, error, **style)
        axes.axhline(1, color="#8a8f98", linewidth=1)
        axes.set_xticks([*middle - 0.5, middle[-1] + 0.5], edges)
        axes.set(
            title=f"{source} → {target}, same {what}",
            xlabel=f"hours since a click in {source} on the {what}",
            ylabel=f"lift of the click rate in {target}",
        )
        axes.set_ylim(bottom=0)
        axes.legend()
    _save(figure, path)


def _figure(panels: int) -> tuple[Figure, Sequence[Any]]:
    rows = 1 if panels < 4 else 2
    figure = Figure(figsize=(9, 3.4 * rows), layout="constrained")
    return figure, figure.subplots(rows, panels // rows).ravel()


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})


# The program.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory of the tables and pictures")
    parser.add_argument("--impressions", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--only", nargs="+", choices=tuple(PROGRAM), default=list(PROGRAM))
    parser.add_argument("--cost", type=int, nargs="+", default=[200_000, 1_000_000, 5_000_000], help="sizes to time")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes to time")
    values = parser.parse_args()
    values.out.mkdir(parents=True, exist_ok=True)
    report = values.out / "simulator.json"
    tables = json.loads(report.read_text()) if report.exists() else {}
    with rc_context(_STYLE):
        for name in values.only:
            for title, rows in PROGRAM[name](values).items():
                tables[title] = rows
                _print(title, rows)
            report.write_text(json.dumps(tables, indent=2, default=float) + "\n")


def _run_rates(values: argparse.Namespace) -> dict[str, list[Row]]:
    sizes = [values.impressions // 10, values.impressions // 3, values.impressions]
    return {
        "rates by size": rates_by_size(sizes, range(10, 18)),
        "all scenarios": rates(
            Logs.simulated(impressions=values.impressions, seed=values.seeds[0], scenarios=len(SCENARIOS))
        ),
    }


def _run_positions(values: argparse.Namespace) -> dict[str, list[Row]]:
    rows = positions(Logs.simulated(impressions=3 * values.impressions, seed=values.seeds[0]))
    draw_positions(rows, values.out / "simulator-position.png")
    return {"positions": rows}


def _run_crossing(values: argparse.Namespace) -> dict[str, list[Row]]:
    flags = {"impressions": values.impressions, "seed": values.seeds[0]}
    worlds = {
        "needs 0.8": Logs.simulated(**flags),
        "needs 0": Logs.simulated(**flags, needs=0.0),
        "needs 0, ρ 0": Logs.simulated(**flags, needs=0.0, similarity=0.0),
    }
    draw_lift(worlds, values.out / "simulator-lift.png")
    sources = [{"needs": needs, **row} for needs in (0.8, 0.0) for row in global_sources(worlds[f"needs {needs:g}"])]
    return {"lift within a day": needs_switch(**flags), "global labels": sources}


def _run_sweeps(values: argparse.Namespace) -> dict[str, list[Row]]:
    sweep = similarity_sweep(values.impressions, values.seeds, (0.0, 0.3, 0.6, 0.8, 1.0))
    noise = noise_sweep(values.impressions, values.seeds[0], (0.0, 0.1, 0.2, 0.4, 0.8))
    draw_similarity(sweep, noise, values.out / "simulator-similarity.png")
    return {"similarity": sweep, "noise": noise}


def _run_learnable(values: argparse.Namespace) -> dict[str, list[Row]]:
    rows = [
        {"similarity": similarity, "seed": seed, **row}
        for similarity, seeds in ((0.3, values.seeds), (1.0, values.seeds[:1]))
        for seed in seeds
        for row in learnable(Logs.simulated(impressions=values.impressions, seed=seed, similarity=similarity))
    ]
    return {"learnable": rows}


def _run_cost(values: argparse.Namespace) -> dict[str, list[Row]]:
    return {"cost": [row for workers in values.workers for row in cost(sorted(values.cost), workers)]}


PROGRAM = {
    "cost": _run_cost,
    "rates": _run_rates,
    "positions": _run_positions,
    "crossing": _run_crossing,
    "sweeps": _run_sweeps,
    "learnable": _run_learnable,
}


def _print(title: str, rows: Sequence[Row]) -> None:
    table = Table(*map(str, rows[0]), title=title)
    for row in rows:
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
