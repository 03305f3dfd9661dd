"""Results per scenario and task, read from the documents, and number formats."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from usr_tf.evaluation.report.html import UNDEFINED
from usr_tf.metrics.cells import OVERALL

FEW = 10
"""Figures of fewer positives than this are shown in grey: chance decides them."""


class TaskResult(NamedTuple):
    """Result of one scenario (or all) and one task."""

    scenario: str
    task: str
    figures: Mapping[str, Any]
    """Of `metrics.json`."""
    detail: Mapping[str, Any]
    """Of `details.json`."""

    @property
    def name(self) -> str:
        """Name with non-breaking spaces."""
        return f"{self.scenario}\N{NO-BREAK SPACE}·\N{NO-BREAK SPACE}{self.task}"

    @property
    def few(self) -> bool:
        """Whether its figures rest on fewer than `FEW` positives."""
        return self.figures["positives"] < FEW

    def baseline(self, name: str) -> float | None:
        """AUC of `position` or `popularity`."""
        return (self.detail["baselines"][name] or {}).get("auc")

    def standing(self, name: str) -> str | None:
        """`above`, `level with` or `below` the baseline, by the interval of the difference; None if unknown."""
        gain = (self.detail["baselines"][name] or {}).get("auc_gain")
        if gain is None:
            return None
        return "above" if gain[0] > 0 else "below" if gain[1] < 0 else "level with"


def cells(document: Mapping[str, Any], details: Mapping[str, Any], overall: bool = True) -> Iterator[TaskResult]:
    """Results in document order, all rows together last."""
    for scenario, tasks in document["scenarios"].items():
        for task, figures in tasks.items():
            yield TaskResult(scenario, task, figures, details["scenarios"][scenario][task])
    if overall:
        for task, figures in document[OVERALL].items():
            yield TaskResult(OVERALL, task, figures, details[OVERALL][task])


HEADLINE = ("rows", "positives", "AUC", "interval", "position", "popularity", "oracle")
LOSSES = ("logloss", "oracle", "NE", "oracle", "calibration")


def headline(cell: TaskResult) -> list[str]:
    """Values of `HEADLINE`."""
    return [
        count(cell.figures["n"]),
        count(cell.figures["positives"]),
        figure(cell.figures["auc"]),
        interval(cell.detail["intervals"].get("auc")),
        figure(cell.baseline("position")),
        figure(cell.baseline("popularity")),
        figure(cell.figures.get("oracle_auc")),
    ]


def losses(cell: TaskResult) -> list[str]:
    """Values of `LOSSES`."""
    figures, oracle = cell.figures, cell.detail["oracle"] or {}
    values = (figures["logloss"], oracle.get("logloss"), figures["ne"], oracle.get("ne"), figures["calibration"])
    return [figure(value) for value in values]


def figure(value: float | None, digits: int = 4) -> str:
    return UNDEFINED if value is None else f"{value:.{digits}f}"


def interval(ends: Sequence[float] | None, digits: int = 4) -> str:
    return UNDEFINED if ends is None else f"{ends[0]:.{digits}f}–{ends[1]:.{digits}f}"


def count(value: int) -> str:
    return f"{value:,}"


def share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else UNDEFINED


def counted(number: int, name: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"
