"""Report section on slices: metrics by user, item, history, query, position and day."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from usr_tf.evaluation.report import html
from usr_tf.evaluation.report.html import Section
from usr_tf.evaluation.report.plots import FAINT, MARKERS, SERIES, SOFT, series_legend, shorten, svg
from usr_tf.evaluation.report.task_results import FEW, OVERALL, cells, count, figure, interval
from usr_tf.metrics import METRICS, Metric
from usr_tf.metrics.feature_slices import FEATURE

_TITLES = {
    "user": ("User", "whether training has seen the user"),
    "item": ("Item", "whether training has seen the item"),
    "history": ("History length", "actions of the user before the impression"),
    "query": ("Query", "by how often training has seen it"),
    "position": ("Position", "place in the shown slate"),
    "day": ("Day", "of the impression"),
}

Slice = Mapping[str, Any]


def section(document: Mapping[str, Any], details: Mapping[str, Any]) -> Section | None:
    """A card per slice and task with all scenarios; None if the details have no slices."""
    shown = list(cells(document, details, overall=False))
    parts = []
    for name in dict.fromkeys(name for cell in shown for name in cell.detail.get("slices", {})):
        title, meaning = _TITLES.get(name, (name.removeprefix(FEATURE), "feature"))
        pictures, tables = [], []
        for task, overall in details[OVERALL].items():
            series = {cell.scenario: _parts(cell.detail, name) for cell in shown if cell.task == task}
            values = [str(part["value"]) for part in _parts(overall, name)]
            if any(part["auc"] is not None for parts in series.values() for part in parts):
                pictures.append(_picture(series, values, task, title))
            tables.append(html.heading(task) + _table(series, title))
        figures = html.card(html.details("Figures", "".join(tables)))
        parts.append(html.heading(title, meaning) + html.grid(pictures, least=440) + figures)
    if not parts:
        return None
    return Section(
        "Slices",
        "".join(parts),
        "AUC with its interval on parts of the rows; the grey bar is the oracle. Beside each, its AUC and how many "
        f"positives it rests on. Parts with fewer than {FEW} positives are grey; one without both classes has no AUC.",
    )


def _parts(detail: Mapping[str, Any], name: str) -> list[Slice]:
    return [part for part in detail.get("slices", {}).get(name, []) if part["n"]]


def _table(series: Mapping[str, Sequence[Slice]], title: str) -> str:
    """A row for each part: `series` holds those of each scenario."""
    rows = [(scenario, str(part["value"]), *_figures(part)) for scenario, parts in series.items() for part in parts]
    columns = [
        "scenario",
        title.lower(),
        "rows",
        "positives",
        "AUC",
        "oracle",
        *(metric.label for metric in _metrics()),
    ]
    return html.table(columns, rows, names=2, main=4)


def _metrics() -> list[Metric]:
    return [metric for metric in METRICS.values() if metric.in_slices]


def _figures(part: Slice) -> list[str]:
    """Rows, positives, AUC, the oracle's AUC, and the metrics that slices have."""
    figures = [
        figure(part["auc"], 3) + (f"\n{interval(part['auc_interval'], 3)}" if part["auc_interval"] else ""),
        figure(part.get("oracle_auc"), 3),
        *(figure(part.get(metric.name), 3) for metric in _metrics()),
    ]
    weak = part["positives"] < FEW
    return [count(part["n"]), count(part["positives"]), *(html.weak(text) if weak else text for text in figures)]


def _picture(series: Mapping[str, Sequence[Slice]], values: Sequence[str], task: str, title: str) -> str:
    """Dot plot with a band per value and a row per scenario, with AUC and positives on the right.

    Each row has its AUC and positives at the right.
    """
    step = 0.8 / len(series)

    def draw(canvas: Figure) -> None:
        axes = canvas.add_subplot()
        _beside(axes, -0.55, ("AUC", "positives"), color=FAINT, va="bottom")
        axes.axvline(0.5, color=FAINT, linewidth=1, linestyle=(0, (3, 3)))
        for index, parts in enumerate(series.values()):
            colour, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
            for part in parts:
                y = values.index(str(part["value"])) + (index - (len(series) - 1) / 2) * step
                weak = part["positives"] < FEW
                own = FAINT if weak else colour
                if part["auc_interval"]:
                    axes.plot(part["auc_interval"], [y, y], color=own, linewidth=4, alpha=0.28)
                if part.get("oracle_auc") is not None:
                    axes.plot(part["oracle_auc"], y, "|", color=FAINT, markersize=9, markeredgewidth=2)
                if part["auc"] is not None:
                    axes.plot(part["auc"], y, marker, color=own, markersize=6)
                texts = figure(part["auc"], 3), count(part["positives"])
                _beside(axes, y, texts, color=FAINT if weak else SOFT, va="center")
        axes.set(ylim=(len(values) - 0.5, -0.5), xlabel="AUC", yticks=range(len(values)))
        axes.set_yticklabels([shorten(value) for value in values])
        axes.set_yticks([index + 0.5 for index in range(len(values) - 1)], minor=True)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="y", which="minor")
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.06)

    label = f"AUC of {task} by {title.lower()}"
    picture = svg(draw, 460, 54 + len(values) * max(24, 15 * len(series)), label)
    return html.card(html.legend(series_legend(list(series))) + picture, task)


def _beside(axes: Axes, y: float, texts: tuple[str, str], **style: Any) -> None:
    """Two columns right of the axes."""
    for text, right in zip(texts, (42, 92), strict=True):
        place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "xytext": (right, 0)}
        axes.annotate(text, (1, y), size=10, ha="right", annotation_clip=False, **place, **style)
