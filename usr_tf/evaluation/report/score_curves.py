"""Report section on scores: ROC, calibration by decile, and score histograms per scenario and task."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest

from usr_tf.evaluation.report import html
from usr_tf.evaluation.report.html import Section
from usr_tf.evaluation.report.plots import BLUE, FAINT, ORANGE, SURFACE, plain_log, svg
from usr_tf.evaluation.report.task_results import TaskResult, cells, count, figure

_WIDTH, _HEIGHT = 330, 280
_MOST_BARS = 48
"""Of a histogram; neighbours are put together until there are no more."""


def section(document: Mapping[str, Any], details: Mapping[str, Any]) -> Section | None:
    """A card of three plots for each scenario and task; None where the details hold none of them."""
    shown = [cell for cell in cells(document, details, overall=False) if "roc" in cell.detail]
    if not shown:
        return None
    return Section(
        "Ranking and probabilities",
        "".join(map(_card, shown)),
        "Left, how well positives are told from negatives. Middle, whether the probabilities hold, in ten bins of "
        "equally many rows, each with its 95% interval. Right, how they are spread.",
    )


def _card(cell: TaskResult) -> str:
    if not cell.figures["n"]:
        return html.card(html.paragraph("No rows of this scenario."), cell.name)
    aside = f"{count(cell.figures['n'])} rows, {count(cell.figures['positives'])} positives"
    draws = {"ROC": _draw_roc, "Calibration": _draw_calibration, "Scores": _draw_scores}
    pictures = [_plot(draw, cell, title) for title, draw in draws.items()]
    return html.card(html.grid(pictures, least=270), cell.name, aside)


def _plot(draw: Callable[[Axes, TaskResult], None], cell: TaskResult, title: str) -> str:
    def on(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.set_title(title, pad=24)  # above the legend
        draw(axes, cell)
        if axes.get_legend_handles_labels()[0]:
            style = {"borderaxespad": 0.2, "borderpad": 0.2, "columnspacing": 1.0, "handletextpad": 0.4}
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=10, **style)

    return svg(on, _WIDTH, _HEIGHT, f"{title} of {cell.name}")


def _draw_roc(axes: Axes, cell: TaskResult) -> None:
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    if cell.detail["roc"] is None:
        _say(axes, "not defined: one class only")
        return
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (3, 3)))
    oracle = cell.detail.get("oracle_roc")
    if oracle:
        label = f"oracle {figure(cell.figures.get('oracle_auc'))}"
        axes.plot(oracle["false_positive"], oracle["true_positive"], color=ORANGE, linestyle=(0, (1, 1)), label=label)
    roc = cell.detail["roc"]
    axes.plot(roc["false_positive"], roc["true_positive"], color=BLUE, label=f"model {figure(cell.figures['auc'])}")


def _draw_calibration(axes: Axes, cell: TaskResult) -> None:
    """Observed rate over predicted on logarithmic axes; a bin without positives is marked at the lower end."""
    bins = [decile for decile in cell.detail["deciles"] if decile["rows"]]
    predicted = np.maximum([decile["predicted"] for decile in bins], 1e-12)
    observed = np.array([decile["observed"] for decile in bins])
    low, high = np.array([_rate_interval(decile) for decile in bins]).T
    some = observed > 0
    floor = min(predicted.min(), *observed[some], 1.0) / 1.6
    ceiling = min(1.0, max(predicted.max(), high.max()) * 1.4)
    axes.plot([floor, ceiling], [floor, ceiling], color=FAINT, linewidth=1, linestyle=(0, (3, 3)), label="perfect")
    axes.vlines(predicted, np.maximum(low, floor), high, color=BLUE, linewidth=4, alpha=0.28)
    axes.plot(predicted[some], observed[some], "o-", color=BLUE, linewidth=1.2, label="observed, 95%")
    if not some.all():
        empty = predicted[~some]
        style = {"markerfacecolor": SURFACE, "clip_on": False, "label": "no positives"}
        axes.plot(empty, np.full(len(empty), floor), "v", color=BLUE, markersize=6, **style)
    axes.set(xlabel="predicted rate", ylabel="observed rate", xlim=(floor, ceiling), ylim=(floor, ceiling))
    plain_log(axes, "x", "y")


def _rate_interval(decile: Mapping[str, Any]) -> tuple[float, float]:
    """Wilson's 95% interval of a bin's rate."""
    interval = binomtest(decile["positives"], decile["rows"]).proportion_ci(0.95, method="wilson")
    return interval.low, interval.high


def _draw_scores(axes: Axes, cell: TaskResult) -> None:
    """The share of each class's rows in each bin, each class adding up to 1."""
    scores = cell.detail["scores"]
    starts = np.arange(0, len(scores["negatives"]), -(-len(scores["negatives"]) // _MOST_BARS))
    edges = 10.0 ** np.array(scores["edges"])[[*starts, -1]]
    for name, colour in (("negatives", FAINT), ("positives", ORANGE)):
        counts = np.add.reduceat(scores[name], starts)
        if rows := int(counts.sum()):
            axes.stairs(counts / rows, edges, fill=True, color=colour, alpha=0.25)
            axes.stairs(counts / rows, edges, color=colour, linewidth=1.4, label=f"{name} ({count(rows)})")
    axes.set(xlabel="predicted probability", ylabel="share of the class", xlim=edges[[0, -1]])
    plain_log(axes, "x")
    axes.set_ylim(bottom=0)


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", color=FAINT)
