"""Plots of docs/simulator.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.simulator.crossing import since_click
from benchmarks.simulator.logs import BOTH, HOUR_MS, Logs, Row
from benchmarks.simulator.sweeps import HISTORY_FEATURES

_COLOURS = ("#1f5fbf", "#d9730d", "#2e8b57", "#8a4fbf", "#c23b5a", "#8a8f98")
STYLE = {
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
