"""Terminal text of explanations."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from usr_tf.evaluation.explain.explanation import Difference, Explanation
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

_BAR = 8
"""Characters of the longest bar, to either side."""
_ROWS = 10
"""Of a table; the others are added up in one."""


def format_explanation(explanation: Explanation, task: str) -> Group:
    """Summary, balance, and tables of features and actions, largest effect on `task` first."""
    notes = ("gate", f"gate {task}") if explanation.gates else ()
    parts = [
        Text(headline(explanation, task), "bold"),
        Text(f"log-odds: {balance(explanation, task)}", "dim"),
        _table(("feature", "value"), feature_rows(explanation, task), task, notes),
    ]
    if explanation.history:
        attended = ("attention",) if explanation.history[0].attention is not None else ()
        rows = history_rows(explanation.history, explanation.tasks)
        parts.append(_table(("action of the history", "", "", "age"), rows, task, attended))
    return Group(*parts)


def format_difference(one: Explanation, other: Explanation, found: Mapping[str, Difference], task: str) -> Group:
    """The same for the difference of `one` and `other`."""
    parts = [
        Text(difference_headline(one, other, found, task), "bold"),
        _table(("feature", one.item, other.item), difference_rows(one, other, found), task),
    ]
    if one.history:
        rows = [row._replace(notes=()) for row in history_rows(one.history, found)]
        parts.append(_table(("action of the history", "", "", "age"), rows, task))
    return Group(*parts)


def _table(names: Sequence[str], rows: Sequence[Row], task: str, notes: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in names:  # a narrow terminal breaks these into lines, and no figure
        table.add_column(Text(name))
    tasks = [task, *(name for name in rows[0].moved if name != task)]
    for name in tasks:
        table.add_column(Text(name), justify="right", no_wrap=True)
        if name == task:
            table.add_column("", no_wrap=True)
    for name in notes:
        table.add_column(Text(name), justify="right", no_wrap=True)
    shown = strongest(rows, task, _ROWS)
    longest = max(abs(row.moved[task]) for row in shown) or 1.0
    for row in shown:
        figures = [Text(f"{row.moved[name]:+.3f}") for name in tasks]
        figures.insert(1, _bar(row.moved[task] / longest))
        table.add_row(*map(Text, row.cells), *figures, *map(Text, row.notes))
    return table


def _bar(share: float) -> Text:
    """Bar to the left for a negative effect, to the right for a positive one."""
    length = round(abs(share) * _BAR)
    left, right = (0, length) if share > 0 else (length, 0)
    bar = Text(" " * (_BAR - left))
    bar.append("█" * left, "red")
    bar.append("│", "dim")
    bar.append("█" * right + " " * (_BAR - right), "green")
    return bar
