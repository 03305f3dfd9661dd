"""Learning curves: the terms of the loss and the AUC per scenario, epoch by epoch, from a run's `history.jsonl`."""

import math
from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from usr_tf.evaluation.report import html
from usr_tf.evaluation.report.html import Section
from usr_tf.evaluation.report.plots import BLUE, GREEN, MARKERS, ORANGE, SERIES, series_legend, svg
from usr_tf.evaluation.report.task_results import counted

Epoch = Mapping[str, float]
Series = tuple[str, str, str, str | tuple]
"""Name in the history, colour, marker and dashes."""


def section(history: Sequence[Epoch], monitor: str, scenarios: Sequence[str], tasks: Sequence[str]) -> Section | None:
    """A small plot for each term of the loss and each task's AUC; None without an epoch.

    Args:
      history: the lines of `history.jsonl`.
      monitor: what the best epoch goes by, as `train.monitor` has it.
      scenarios, tasks: in their order.
    """
    if not history:
        return None
    best = best_epoch(history, monitor)
    names = dict.fromkeys(name.removeprefix("val_") for epoch in history for name in epoch)
    terms = sorted((name for name in names if "auc" not in name and name != "epoch"), key=_order(tasks))
    aucs = [_auc(history, task, scenarios, best) for task in tasks]
    mark = [("best epoch", "┆", "green")]
    curves = [("training", "●", "blue"), ("validation", "■", "orange")]
    told = f"The best by {monitor} is epoch {best}, which is the one evaluated here. " if best is not None else ""
    return Section(
        "Learning",
        html.card(html.legend(curves + mark) + html.grid([_term(history, name, best) for name in terms], 280), "Loss")
        + html.card(
            html.legend(series_legend(scenarios) + mark) + html.grid(aucs, 280), "AUC", "validation; dashed: training"
        ),
        f"{counted(len(history), 'epoch')}. {told}Where training goes on falling and validation rises, "
        "the model learns its rows by heart.",
    )


def best_epoch(history: Sequence[Epoch], monitor: str) -> int | None:
    """The first epoch with the best value, as training chose it; None where none has a number."""
    if not any(monitor in epoch for epoch in history):
        monitor = monitor.removeprefix("val_")  # there was no validation split
    sign = 1 if monitor.endswith("auc") else -1
    known = [(sign * epoch[monitor], epoch["epoch"]) for epoch in history if _is_number(epoch.get(monitor))]
    return int(max(known, key=lambda pair: pair[0])[1]) if known else None


def _order(tasks: Sequence[str]) -> Callable[[str], tuple[int, str]]:
    """The whole first, then each task's term, then its global label's, then the rest."""
    first = ["loss", "nll", *(f"{task}_loss" for task in tasks), *(f"global_{task}_loss" for task in tasks)]
    return lambda name: (first.index(name) if name in first else len(first), name)


def _term(history: Sequence[Epoch], name: str, best: int | None) -> str:
    return _plot(history, name.replace("_", " "), [(name, BLUE, "o", "-"), (f"val_{name}", ORANGE, "s", "-")], best)


def _auc(history: Sequence[Epoch], task: str, scenarios: Sequence[str], best: int | None) -> str:
    series: list[Series] = []
    for index, scenario in enumerate(scenarios):
        colour, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
        series.append((f"{scenario}/{task}_auc", colour, marker, (0, (3, 2))))
        series.append((f"val_{scenario}/{task}_auc", colour, marker, "-"))
    return _plot(history, task, series, best)


def _plot(history: Sequence[Epoch], title: str, series: Sequence[Series], best: int | None) -> str:
    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.set_title(title)
        if best is not None:
            axes.axvline(best, color=GREEN, linewidth=1.4, linestyle=(0, (2, 2)))
        for name, colour, marker, dashes in series:
            points = [(epoch["epoch"], epoch[name]) for epoch in history if _is_number(epoch.get(name))]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, linestyle=dashes, marker=marker, markersize=4)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        axes.set_xlabel("epoch")
        axes.margins(x=0.08, y=0.12)

    return svg(draw, 320, 220, title)


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
