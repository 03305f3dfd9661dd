"""AUC beside baselines that are models, such as LightGBM, with the paired interval of the difference."""

from collections.abc import Mapping, Sequence
from typing import Any

from usr_tf.evaluation.report import html
from usr_tf.evaluation.report.html import UNDEFINED
from usr_tf.evaluation.report.task_results import TaskResult, cells, figure

_RESULTS = {"above": "better", "level with": "level", "below": "worse"}
_NAMED = 6
"""So many scenarios and tasks stand in a sentence; the tables have all."""


def summary(document: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """A paragraph for each baseline: the difference of AUC with its interval, in each scenario and task."""
    paragraphs = []
    for name in document.get("baselines", {}):
        known = [cell for cell in cells(document, details, overall=False) if cell.standing(name)]
        gains = ", ".join(f"{cell.name} {_difference(cell, name)} ({_ends(cell, name)})" for cell in known[:_NAMED])
        if known:
            more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
            text = f"AUC less that of {name}, with the {details['level']:.0%} interval over users: {gains}{more}."
            paragraphs.append(html.paragraph(text, "lead"))
    return "".join(paragraphs)


def card(document: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """A table for each baseline."""
    note = "The interval is of the difference, on the same resampled users. It decides between better, level and worse."
    return "".join(
        html.card(
            html.table(["scenario", "task", *columns(details)], rows, names=2, main=3),
            f"AUC against {name}",
            note=note,
        )
        for name, rows in tables(document, details).items()
    )


def columns(details: Mapping[str, Any]) -> list[str]:
    """Names of the columns of `tables` after scenario and task."""
    return ["baseline", "difference", f"{details['level']:.0%} interval", "result"]


def tables(document: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, list[Sequence[str]]]:
    """Baseline → rows of scenario, task and `columns`."""
    return {
        name: [
            (
                cell.scenario,
                cell.task,
                figure(cell.baseline(name)),
                _difference(cell, name),
                _ends(cell, name),
                _RESULTS.get(cell.standing(name) or "", UNDEFINED),
            )
            for cell in cells(document, details)
        ]
        for name in document.get("baselines", {})
    }


def _difference(cell: TaskResult, name: str) -> str:
    model, baseline = cell.figures["auc"], cell.baseline(name)
    return UNDEFINED if model is None or baseline is None else f"{model - baseline:+.4f}"


def _ends(cell: TaskResult, name: str) -> str:
    ends = cell.detail["baselines"][name]["auc_gain"]
    return UNDEFINED if ends is None else f"{ends[0]:+.4f}…{ends[1]:+.4f}"
