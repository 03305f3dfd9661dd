"""Report verdict: summary sentences, a tile per scenario and task, AUC beside its baselines."""

from collections.abc import Mapping, Sequence
from typing import Any

from usr_tf.evaluation.report import html, model_baselines
from usr_tf.evaluation.report.html import Section
from usr_tf.evaluation.report.plots import Dot, dot_plot
from usr_tf.evaluation.report.task_results import (
    FEW,
    HEADLINE,
    LOSSES,
    TaskResult,
    cells,
    count,
    figure,
    headline,
    interval,
    losses,
    share,
)
from usr_tf.metrics import METRICS
from usr_tf.metrics.documents import BASELINES

_MOODS = {"above": "good", "level with": "level", "below": "bad"}
_RANKS = {"above": "better", "level with": "about as well", "below": "worse"}
_THAN = {"above": "than", "level with": "as", "below": "than"}
_NAMED = 3
"""So many are named in a sentence; of more, it says how many they are."""
_BESIDE = ("gauc", "ndcg@10")
"""Figures beside AUC on a tile."""
_CALIBRATED = 0.1
"""Predicted rates this close to the observed ones are called right."""


def verdict(document: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """Sentences and tiles below the page's heading."""
    shown = list(cells(document, details, overall=False))
    names = (*document.get("baselines", {}), *reversed(BASELINES))
    ranking = ", and ".join(filter(None, (_against(name, shown) for name in names)))
    if not any(cell.figures["auc"] is not None for cell in shown):
        ranking = "No ranking to judge: no scenario and task has rows with the action and rows without it."
    else:
        ranking = f"Ranks {ranking}." if ranking else "There is no baseline to hold these figures against."
    rest = " ".join(filter(None, (_towards_oracle(shown), _calibration(shown))))
    more = html.paragraph(rest, "lead") if rest else ""
    more += model_baselines.summary(document, details)
    return html.paragraph(ranking, "verdict") + more + html.grid(map(_tile, shown), least=220)


def section(document: Mapping[str, Any], details: Mapping[str, Any]) -> Section:
    """AUC beside baselines and oracle, then the losses, then every metric."""
    shown = list(cells(document, details))
    dots = [
        Dot(
            cell.name,
            cell.figures["auc"],
            cell.detail["intervals"].get("auc"),
            {
                **{name: cell.baseline(name) for name in BASELINES},
                "oracle": cell.figures.get("oracle_auc"),
                **{name: cell.baseline(name) for name in document.get("baselines", {})},
            },
            cell.scenario,
            cell.few,
        )
        for cell in shown
    ]
    label = "AUC of the model, the baselines and the oracle, per scenario and task"
    known = any(dot.value is not None for dot in dots)
    picture = dot_plot(dots, "AUC", reference=0.5, width=560, label=label) if known else ""
    level = f"{details['level']:.0%} interval"
    columns = ["scenario", "task", *(level if name == "interval" else name for name in HEADLINE)]
    ranking = html.table(columns, map(_ranking_row, shown), names=2, main=4)
    few = f" Grey: fewer than {FEW} positives." if any(cell.few for cell in shown) else ""
    note = f"The band is the {level}, from {count(details['replicates'])} resamples of the users.{few}"
    logloss = html.table(["scenario", "task", *LOSSES], map(_losses_row, shown), names=2, main=2)
    content = html.card(picture + ranking, "AUC", note=note) + model_baselines.card(document, details)
    content += html.card(logloss, "Probabilities", note=few.strip())
    return Section(
        "Against the baselines",
        content + html.details("Every figure with its interval", _every_figure(shown)),
        "Position is the order in which rows were shown, popularity the item's click rate in training: what is "
        "reached without a model. The oracle ranks by the true probabilities, which only simulated logs have.",
    )


def _ranking_row(cell: TaskResult) -> list[str]:
    """Scenario, task and the values of `HEADLINE`."""
    rows, positives, *figures = headline(cell)
    return [cell.scenario, cell.task, rows, positives, *_strength(cell, figures)]


def _losses_row(cell: TaskResult) -> list[str]:
    """Scenario, task and the values of `LOSSES`."""
    return [cell.scenario, cell.task, *_strength(cell, losses(cell))]


def _strength(cell: TaskResult, figures: Sequence[str]) -> Sequence[str]:
    """The figures, grey where they rest on few positives."""
    return [html.weak(text) for text in figures] if cell.few else figures


def _against(baseline: str, shown: Sequence[TaskResult]) -> str | None:
    standings = [(cell, cell.standing(baseline)) for cell in shown]
    standings = [(cell, standing) for cell, standing in standings if standing]
    if not standings:
        return None
    if len(standings) == 1:
        return f"{_RANKS[standings[0][1]]} {_THAN[standings[0][1]]} {baseline}"
    groups = {kind: [cell.name for cell, standing in standings if standing == kind] for kind in _RANKS}
    first = max(groups, key=lambda kind: len(groups[kind]))
    rest = [f"{_RANKS[kind]} in {_listed(names)}" for kind, names in groups.items() if names and kind != first]
    if not rest:
        every = "every scenario and task" if len(standings) == len(shown) else f"all {len(standings)} that can be told"
        return f"{_RANKS[first]} {_THAN[first]} {baseline} in {every}"
    whole = f"{len(groups[first])} of {len(standings)} scenarios and tasks"
    return f"{_RANKS[first]} {_THAN[first]} {baseline} in {whole} ({', '.join(rest)})"


def _towards_oracle(shown: Sequence[TaskResult]) -> str | None:
    """Share of the distance from chance to the oracle that the model covers."""
    known = [(cell.figures["auc"], cell.figures.get("oracle_auc")) for cell in shown]
    ways = [(auc - 0.5) / (oracle - 0.5) for auc, oracle in known if auc is not None and (oracle or 0) > 0.5]
    if not ways:
        return None
    low, high = min(ways), max(ways)
    span = f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"
    return f"Its AUC covers {span} of the way from guessing to the oracle."


def _calibration(shown: Sequence[TaskResult]) -> str | None:
    known = [(cell.name, cell.figures["calibration"]) for cell in shown if cell.figures["calibration"] is not None]
    if not known:
        return None
    off = [(name, value) for name, value in known if abs(value - 1) > _CALIBRATED]
    if not off:
        return f"Predicted rates are within {_CALIBRATED:.0%} of the observed ones."
    if len(off) > _NAMED:
        values = [value for _, value in off]
        span = f"from {_too(min(values))} to {_too(max(values))}"
        return f"Predicted rates are off by more than {_CALIBRATED:.0%} in {len(off)} of {len(known)}, {span}."
    told = [f"{_too(value)} in {name}" for name, value in off]
    others = f", and within {_CALIBRATED:.0%} elsewhere" if len(off) < len(known) else ""
    return f"Predicted rates are {_listed(told)}{others}."


def _too(calibration: float) -> str:
    return f"{abs(calibration - 1):.0%} too {'high' if calibration > 1 else 'low'}"


def _listed(names: Sequence[str]) -> str:
    """`a, b and c`; for many only their number."""
    if len(names) > _NAMED:
        return f"{len(names)} of them"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _tile(cell: TaskResult) -> str:
    figures, chips = cell.figures, []
    for name in cell.detail["baselines"]:
        standing = cell.standing(name)
        if standing:
            chips.append(html.chip(f"{standing} {name} {figure(cell.baseline(name), 3)}", _MOODS[standing]))
    if figures.get("oracle_auc") is not None:
        chips.append(html.chip(f"oracle {figure(figures['oracle_auc'], 3)}", "mark"))
    ends = {name: cell.detail["intervals"].get(name) for name in ("auc", *_BESIDE)}
    notes = [f"AUC, {interval(ends['auc'], 3)}" if ends["auc"] else "AUC"]
    notes.append(f"{count(figures['positives'])} positives of {count(figures['n'])}")
    beside = [
        (METRICS[name].label, figure(figures.get(name), 3), interval(ends[name], 3) if ends[name] else "")
        for name in _BESIDE
    ]
    return html.tile(cell.name, figure(figures["auc"], 3), notes, "".join(chips), beside, cell.few)


def _every_figure(shown: Sequence[TaskResult]) -> str:
    """A table for each scenario, a row for each figure."""
    tables = []
    for scenario in dict.fromkeys(cell.scenario for cell in shown):
        mine = [cell for cell in shown if cell.scenario == scenario]
        rows = [
            ["rows", *(count(cell.figures["n"]) for cell in mine)],
            ["positives", *(count(cell.figures["positives"]) for cell in mine)],
            ["positive rate", *(share(cell.figures["positives"], cell.figures["n"]) for cell in mine)],
        ]
        for name, metric in METRICS.items():
            if any(name in cell.figures for cell in mine):
                rows.append([metric.label, *(_with_interval(cell, name) for cell in mine)])
        tables.append(html.card(html.table(["figure", *(cell.task for cell in mine)], rows), scenario))
    return html.grid(tables, least=400)


def _with_interval(cell: TaskResult, name: str) -> str:
    if name not in cell.figures:
        return ""
    ends = cell.detail["intervals"].get(name)
    text = figure(cell.figures[name]) + (f"\n{interval(ends)}" if ends else "")
    return html.weak(text) if cell.few else text
