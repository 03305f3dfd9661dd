"""Table rows of an explanation, for the terminal and the page."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from usr_tf.evaluation.explain.explanation import Action, Difference, Explanation, TaskExplanation
from usr_tf.evaluation.report.html import UNDEFINED


class Row(NamedTuple):
    """Row of an explanation: a feature, an action or a sum."""

    name: str
    cells: tuple[str, ...]
    """What it is."""
    moved: dict[str, float]
    """By task."""
    notes: tuple[str, ...] = ()


def feature_rows(explanation: Explanation, task: str) -> list[Row]:
    """One row per feature (value, gate, effect on `task`), and one for the history."""
    gates, by_gates = explanation.gates, explanation.tasks[task].gates

    def notes(name: str) -> tuple[str, ...]:
        if gates is None:
            return ()
        return (f"{gates[name]:.2f}", f"{by_gates[name]:+.3f}") if name in gates else ("", "")

    return _rows(explanation.tasks, [explanation], notes)


def difference_rows(one: Explanation, other: Explanation, found: Mapping[str, Difference]) -> list[Row]:
    """One row per feature with the values of both candidates, and one for the history."""
    return _rows(found, [one, other], lambda _: ())


def history_rows(history: Sequence[Action], tasks: Mapping[str, TaskExplanation | Difference]) -> list[Row]:
    """One row per action: item, action, scenario, age, and attention if any."""
    return [
        Row(
            action.item,
            (*_described(action), _joined(action.action, action.scenario), age(action.age_ms)),
            {name: task.history[place] for name, task in tasks.items()},
            () if action.attention is None else (f"{action.attention:.0%}",),
        )
        for place, action in enumerate(history)
    ]


def strongest(rows: Iterable[Row], task: str, count: int) -> list[Row]:
    """The `count` rows with the largest effect, and one for all others."""
    rows = sorted(rows, key=lambda row: -abs(row.moved[task]))
    if len(rows) <= count + 1:
        return rows
    others = rows[count:]
    name = f"{len(others)} others"
    moved = {each: sum(row.moved[each] for row in others) for each in others[0].moved}
    blank = ("",) * (len(others[0].cells) - 1)
    return [*rows[:count], Row(name, (name, *blank), moved, ("",) * len(others[0].notes))]


def headline(explanation: Explanation, task: str) -> str:
    """One-line summary: the score, its baseline, and the three largest effects."""
    main = explanation.tasks[task]
    reasons = _reasons(feature_rows(explanation, task), task)
    return (
        f"{explanation.item}: {task} {main.probability:.4f}, {odds(main.difference)} against the baseline's "
        f"{main.baseline:.4f}: {reasons}"
    )


def difference_headline(one: Explanation, other: Explanation, found: Mapping[str, Difference], task: str) -> str:
    """One-line summary of two candidates: which is higher, by how much, and the three largest effects."""
    apart = found[task].log_odds
    scores = " and ".join(f"{each.tasks[task].probability:.4f}" for each in (one, other))
    return (
        f"{one.item} {'above' if apart > 0 else 'below'} {other.item}: {task} {scores}, {odds(apart)}: "
        f"{_reasons(difference_rows(one, other, found), task)}"
    )


def balance(explanation: Explanation, task: str) -> str:
    """One-line sum of the log-odds."""
    main = explanation.tasks[task]
    terms = [f"{main.baseline_log_odds:.4f} baseline", f"{sum(main.features.values()):+.4f} features"]
    if explanation.history:
        terms.append(f"{sum(main.history):+.4f} history")
    return f"{' '.join(terms)} {main.residual:+.4f} left over = {main.log_odds:.4f}"


def odds(log_odds: float) -> str:
    """Difference in log-odds as a factor."""
    return f"odds × {math.exp(log_odds):.2f}"


def age(milliseconds: int) -> str:
    """Age as text: `3 min`, `5 h`, `2 d`."""
    minutes = milliseconds / 60_000
    for size, unit in ((1440, "d"), (60, "h")):
        if minutes >= size:
            return f"{minutes / size:.0f} {unit}"
    return f"{minutes:.0f} min"


def _described(action: Action) -> tuple[str, str]:
    own, others = ([value for value in action.unknown if (value == action.item) == is_own] for is_own in (True, False))
    return _marked(action.item, own), _marked(action.about, others)


def _marked(text: str, unknown: Sequence[str]) -> str:
    """Value with its out-of-vocabulary parts marked."""
    if not unknown:
        return text
    return f"{text} (unknown)" if text in unknown else f"{text} (unknown: {', '.join(unknown)})"


def _joined(*texts: str) -> str:
    return ", ".join(filter(None, texts))


def _rows(
    tasks: Mapping[str, TaskExplanation | Difference],
    explanations: Sequence[Explanation],
    notes: Callable[[str], tuple[str, ...]],
) -> list[Row]:
    features = [
        Row(
            name,
            (name, *(_marked(each.values[name] or UNDEFINED, each.unknown.get(name, ())) for each in explanations)),
            {task: found.features[name] for task, found in tasks.items()},
            notes(name),
        )
        for name in explanations[0].values
    ]
    history = explanations[0].history
    if not history:
        return features
    cells = ("history", f"{len(history)} actions", *[""] * (len(explanations) - 1))
    moved = {task: sum(found.history) for task, found in tasks.items()}
    return [*features, Row("history", cells, moved, ("",) * len(features[0].notes))]


def _reasons(rows: Iterable[Row], task: str) -> str:
    first = sorted(rows, key=lambda row: -abs(row.moved[task]))[:3]
    return ", ".join(f"{row.name} {row.moved[task]:+.2f}" for row in first)
