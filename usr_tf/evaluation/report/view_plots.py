"""Report section on the views: FG's gates, IE's attention, and projections of both outputs.

Drawn from the document of `usr_tf.evaluation.view_diagnostics`. With a second run's document, such as one without the
contrastive loss, the two stand side by side.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from usr_tf.evaluation.report import html
from usr_tf.evaluation.report.html import Section
from usr_tf.evaluation.report.plots import MARKERS, SERIES, series_legend, svg
from usr_tf.evaluation.report.task_results import counted, figure

Views = Mapping[str, Any]

_PARTS = {"interests": "Interests (IE)", "features": "Rescaled features (FG)"}
_SHOWN_ACTIONS = 8


def section(views: Views, groups: Mapping[str, str], beside: Views | None = None) -> Section:
    """The three parts; each says if the model has no such part.

    Args:
      views: of `usr_tf.evaluation.view_diagnostics.views_document`.
      groups: the group of each feature.
      beside: another run's.
    """
    runs = [views, beside] if beside else [views]
    parts = [
        html.heading("What each view makes of the features", "FG's gates"),
        html.grid((_gates(run, groups, run["name"] if beside else "") for run in runs), least=440),
        html.heading("What each view sees in the history", "IE's attention"),
        _attention(views),
        html.heading("How far the views stand apart", "two principal components"),
        html.grid((_picture(run, part, bool(beside)) for part in _PARTS for run in runs), least=380),
    ]
    return Section(
        "What the views learned",
        "".join(parts),
        f"Of {counted(views['rows'], 'row')} of the split, each looked at in the view of every scenario; a score "
        "takes the view of the row's own scenario.",
    )


def _gates(views: Views, groups: Mapping[str, str], title: str) -> str:
    if views["gates"] is None:
        return html.card(html.paragraph("This run has no feature generator: every view has the features as they are."))
    scenarios = views["scenarios"]
    rows = []
    for feature, means in views["gates"].items():
        cells = [html.heat(figure(mean, 2), mean - 1) for mean in means]
        if len(means) > 1:
            apart = max(means) - min(means)
            cells.append(html.heat(figure(apart, 2), apart))
        rows.append((feature, groups.get(feature, ""), *cells))
    rows.sort(key=lambda row: list(groups).index(row[0]) if row[0] in groups else len(groups))
    columns = ["feature", "group", *scenarios, *(["apart"] if len(scenarios) > 1 else [])]
    note = (
        "Mean over the rows and the feature's columns. 1 passes a feature on as it is, 0 shuts it out, 2 doubles it; "
        "a strong colour is far from 1. Apart: the highest view less the lowest."
    )
    return html.card(html.table(columns, rows, names=2, groups=False), title, note=note)


def _attention(views: Views) -> str:
    attention = views["attention"]
    if attention is None:
        return html.card(html.paragraph("This run has no interest extractor: its views do not differ in the history."))
    if attention["difference"] is None:
        return html.card(html.paragraph("None of the rows has a history."))
    told = ""
    if len(views["scenarios"]) > 1:
        told = html.paragraph(
            f"Of a row's attention, {attention['difference']:.1%} lies on other actions in another view (mean over the "
            "rows, the two views that differ most). The examples are those where the views differ most."
        )
    return told + html.grid((_example(example, views["scenarios"]) for example in attention["examples"]), least=440)


def _example(example: Mapping[str, Any], scenarios: Sequence[str]) -> str:
    """A candidate, and the actions with the largest weight in any view."""
    own = scenarios.index(example["scenario"])
    ranked = sorted(example["history"], key=lambda action: max(action["weights"]), reverse=True)
    rows = []
    for action in sorted(ranked[:_SHOWN_ACTIONS], key=lambda action: -action["weights"][own]):
        item, attributes = _described(action["item"])
        where = f" in {action['scenario']}" if action["scenario"] else ""
        did = f"{action['action'] or 'action'}{where}, {_ago(action['age'])}"
        weights = (html.bar(f"{weight:.0%}", weight) for weight in action["weights"])
        rows.append(("\n".join(filter(None, (item, attributes, did))), *weights))
    rest = ranked[_SHOWN_ACTIONS:]
    note = f"and {counted(len(rest), 'other action')} of less weight in every view" if rest else ""
    did = f", then {' and '.join(example['labels'])}" if example["labels"] else ""
    title = f"{example['item']} for {example['user']}"
    above = html.paragraph(f"{_described(example['candidate'])[1]}; request {example['request']}{did}")
    table = html.table(["action of the history", *scenarios], rows)
    return html.card(above + table, title, f"in {example['scenario']}", note)


def _described(item: Mapping[str, str]) -> tuple[str, str]:
    """Item as text: its first feature, usually the id, and the others."""
    first, *others = item.values()
    return first, " · ".join(others)


def _ago(bucket: int) -> str:
    """Age as text from its bucket 1 + ⌊log2(1 + seconds)⌋, by the bucket's lower end."""
    seconds = 2 ** (bucket - 1) - 1
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"over {seconds // length} {unit} ago"
    return "a moment ago"


def _picture(views: Views, part: str, named: bool) -> str:
    title = _PARTS[part] + (f" of {views['name']}" if named else "")
    drawn = views[part]
    if drawn is None:
        return html.card(html.paragraph("This run has none, or too few rows to draw."), title)
    told = f"The axes hold {' and '.join(f'{share:.0%}' for share in drawn['explained'])} of the variance."
    if drawn["silhouette"] is not None:
        told += (
            f" In all dimensions: silhouette of the views {drawn['silhouette']:.3f} (0: they lie within each other, "
            f"1: far apart); mean cosine of a row's views {drawn['cosine_of_views']:.3f}, "
            f"of different rows in one view {drawn['cosine_of_rows']:.3f}."
        )
    legend = html.legend(series_legend(views["scenarios"]))
    aside = f"contrastive loss {'on' if views['contrastive'] else 'off'}"
    return html.card(legend + _scatter(drawn["points"], views["scenarios"], title), title, aside, told)


def _scatter(points: Sequence[Sequence[Sequence[float]]], scenarios: Sequence[str], label: str) -> str:
    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for index, (scenario, places) in enumerate(zip(scenarios, points, strict=True)):
            x, y = zip(*places, strict=True)
            style = {"color": SERIES[index % len(SERIES)], "alpha": 0.6, "markersize": 4, "markeredgewidth": 0}
            axes.plot(x, y, MARKERS[index % len(MARKERS)], label=scenario, **style)
        axes.set(xticks=[], yticks=[], aspect="auto")

    return svg(draw, 400, 300, label)
