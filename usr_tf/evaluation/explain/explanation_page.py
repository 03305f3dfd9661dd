"""HTML page of explanations: waterfall from the baseline to the score, and tables."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from usr_tf.evaluation.explain.explanation import Difference, Explanation, TaskExplanation, difference
from usr_tf.evaluation.explain.table_rows import (
    Row,
    balance,
    difference_headline,
    difference_rows,
    feature_rows,
    headline,
    history_rows,
    strongest,
)
from usr_tf.evaluation.report.html import Section, card, code, definitions, details, grid, page, paragraph, table
from usr_tf.evaluation.report.plots import BLUE, FAINT, INK, ROSE, SOFT, shorten, svg
from usr_tf.files import make_folder, replace_text, strict_json

_BARS = 12
"""Of a waterfall; the others are added up in one."""
_ACTION = ("item", "about it", "action", "age")
_READING = (
    ("Log-odds", "log(p / (1 − p)). What features and actions move adds up here: +0.69 doubles the odds, −0.69 halves "
     "them."),
    ("Baseline", "Where the paths to this candidate start: the mean over the candidates named above, each with its own "
     "user, query and features, but without a history."),
    ("History", "What each action of the user moved. Attention is its weight in the interest; an action of much "
     "attention may move little, and the other way round."),
    ("Gate", "What the feature generator multiplies the feature by in this scenario, the mean over its columns: 1 "
     "passes it on. Beside it, what this gate alone moves against 1, a part of what the feature moved."),
    ("Unknown", "The vocabulary lacks this value or word: training showed it too seldom or never. Such values share a "
     "vector, so what one moved is said of them all."),
    ("Left over", "By how much the sum misses the difference, because integrals are sums over points. More --steps, "
     "less of it."),
)  # fmt: skip


def write_page(
    out: str | Path,
    explanations: Sequence[Explanation],
    task: str,
    against: Explanation | None = None,
    command: str = "",
) -> None:
    """Writes `explanation.json` and `explanation.html` into a directory.

    Args:
      explanations: at least one, of the same request.
      task: what comes first.
      against: a candidate of that request that each of them is compared with.
      command: what made it.

    Raises:
      InputError: the directory cannot be written.
    """
    out = make_folder(out)
    document = {"explanations": [each.to_document() for each in explanations]}
    sections = [_section(each, task) for each in explanations]
    if against:
        found = [difference(each, against) for each in explanations]
        document["against"] = against.to_document()
        document["differences"] = [{name: vars(apart) for name, apart in tasks.items()} for tasks in found]
        pairs = zip(explanations, found, strict=True)
        compared = [_difference_section(each, against, tasks, task) for each, tasks in pairs]
        sections = [*compared, *sections, _section(against, task)]
    sections.append(Section("How to read this", card(definitions(_READING)) + (card(code(command)) if command else "")))
    names = ", ".join(each.item for each in explanations)
    title = f"Why {names}" + (f", and not {against.item}" if against else "")
    lead = f"Scenario {explanations[0].scenario}. The baseline is the mean over {explanations[0].baseline}."
    replace_text(out / "explanation.json", strict_json(document, indent=2, ensure_ascii=False) + "\n")
    replace_text(out / "explanation.html", page(title, lead, sections, kicker="Explanation of a score"))


def _section(explanation: Explanation, task: str) -> Section:
    tasks = _ordered(explanation.tasks, task)
    plots = [
        card(_waterfall(*_ends(found, explanation), feature_rows(explanation, name), name), name, _scores(found))
        for name, found in tasks.items()
    ]
    notes = ("gate", f"gate's {task}") if explanation.gates else ()
    rows = feature_rows(explanation, task)
    content = grid(plots, 420)
    content += card(_table(("feature", "value"), strongest(rows, task, len(rows)), task, notes), "Features")
    if explanation.history:
        attended = ("attention",) if explanation.history[0].attention is not None else ()
        actions = history_rows(explanation.history, explanation.tasks)
        shown = _table(_ACTION, strongest(actions, task, _BARS), task, attended)
        content += card(shown, "History", "the actions that move most")
        if len(actions) > _BARS + 1:
            every = _table(_ACTION, actions[::-1], task, attended)
            content += details(f"All {len(actions)} actions, newest first", card(every))
    sums = "; ".join(f"{name}: {balance(explanation, name)}" for name in tasks)
    content += paragraph(f"In log-odds, with {explanation.steps} points on each path: {sums}.")
    return Section(explanation.item, content, headline(explanation, task))


def _difference_section(one: Explanation, other: Explanation, found: Mapping[str, Difference], task: str) -> Section:
    rows = difference_rows(one, other, found)
    plots = []
    for name in _ordered(found, task):
        ends = [
            (f"{each.item}  {each.tasks[name].probability:.4f}", each.tasks[name].log_odds) for each in (other, one)
        ]
        plots.append(card(_waterfall(*ends, rows, name), name))
    content = grid(plots, 420)
    names = ("feature", one.item, other.item)
    content += card(_table(names, strongest(rows, task, len(rows)), task), "Features")
    if one.history:
        actions = [row._replace(notes=()) for row in history_rows(one.history, found)]
        shown = _table(_ACTION, strongest(actions, task, _BARS), task)
        content += card(shown, "History", "the actions that tell them apart most")
    return Section(f"{one.item} against {other.item}", content, difference_headline(one, other, found, task))


def _table(names: Sequence[str], rows: Sequence[Row], task: str, notes: Sequence[str] = ()) -> str:
    tasks = _ordered(rows[0].moved, task)
    lines = [(*row.cells, *(f"{row.moved[name]:+.3f}" for name in tasks), *row.notes) for row in rows]
    return table((*names, *tasks, *notes), lines, names=len(names), main=len(names), groups=False)


def _waterfall(start: tuple[str, float], end: tuple[str, float], rows: Sequence[Row], task: str) -> str:
    """Waterfall bars from the log-odds of `start` to those of `end`, each with name and position."""
    bars = strongest(rows, task, _BARS)
    edges = np.concatenate([[start[1]], start[1] + np.cumsum([row.moved[task] for row in bars])])
    names = [start[0], *(_label(row) for row in bars), end[0]]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.set_yticks(range(len(names)), [shorten(name, 34) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        for place, row in enumerate(bars, start=1):
            moved, left = row.moved[task], edges[place - 1]
            colour = BLUE if moved > 0 else ROSE
            axes.barh(place, moved, left=left, height=0.62, color=colour, alpha=0.9)
            side = 4 if moved > 0 else -4
            axes.annotate(
                f"{moved:+.2f}", (left + moved, place), (side, 0), textcoords="offset points",
                ha="left" if moved > 0 else "right", va="center", color=SOFT, fontsize=10,
            )  # fmt: skip
            axes.plot([edges[place]] * 2, [place, min(place + 1, len(names) - 1)], color=FAINT, linewidth=0.8)
        axes.plot([start[1]] * 2, [0, 1], color=FAINT, linewidth=0.8)
        axes.plot([start[1], end[1]], [0, len(names) - 1], "o", color=INK, markersize=6)
        low, high = min(edges.min(), end[1]), max(edges.max(), end[1])
        room = 0.25 * max(high - low, 0.2)  # for the numbers beside the bars
        axes.set_xlim(low - room, high + room)
        _probability_ticks(axes, low - room, high + room)
        axes.set_xlabel(f"{task}, on the scale of log-odds")
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)

    return svg(draw, 480, 60 + 25 * len(names), f"What moves {task} from {start[0]} to {end[0]}")


def _probability_ticks(axes, low: float, high: float) -> None:
    """Round probabilities as axis ticks at their log-odds, as many as fit."""
    round_ones = [digit * 10.0**power for power in range(-6, 0) for digit in (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)]
    both = sorted({*round_ones, *(1 - value for value in round_ones)})
    inside = [value for value in both if low <= math.log(value / (1 - value)) <= high]
    kept: list[float] = []
    for value in inside:
        place = math.log(value / (1 - value))
        if not kept or place - math.log(kept[-1] / (1 - kept[-1])) > 0.16 * (high - low):
            kept.append(value)
    axes.set_xticks([math.log(value / (1 - value)) for value in kept], [f"{value:g}" for value in kept])


def _ends(found: TaskExplanation, explanation: Explanation) -> tuple[tuple[str, float], tuple[str, float]]:
    return (
        (f"baseline  {found.baseline:.4f}", found.baseline_log_odds),
        (f"{explanation.item}  {found.probability:.4f}", found.log_odds),
    )


def _scores(found: TaskExplanation) -> str:
    return f"{found.probability:.4f}, baseline {found.baseline:.4f}"


def _label(row: Row) -> str:
    return f"{row.name}  {row.cells[1]}".strip() if len(row.cells) == 2 else row.name


def _ordered(tasks: dict, first: str) -> dict:
    return {first: tasks[first], **tasks}
