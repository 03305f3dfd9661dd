"""HTML page and terminal table of a hyperparameter search."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table
from rich.text import Text

from usr_tf.evaluation.report.html import Section, card, code, grid, page, table
from usr_tf.evaluation.report.plots import BLUE, FAINT, plain_log, shorten, svg

_SHOWN = 10

Values = Mapping[int, Mapping[str, Any]]
"""Trial → key → what it set."""


def tune_page(study: optuna.Study, best: Sequence[FrozenTrial], values: Values, objective: str, command: str) -> str:
    """HTML page; `best` are the finished trials, best first."""
    counts = {state.name.lower(): 0 for state in TrialState}
    for trial in study.get_trials(deepcopy=False):
        counts[trial.state.name.lower()] += 1
    summary = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    columns, rows = _rows(best, values, objective)
    plots = [card(_history(best, study, objective), "Trial by trial")]
    plots += [card(_scatter(best, values, key, objective), key) for key in values[best[0].number]]
    sections = [
        Section("The best", card(table(columns, rows, groups=False)), "config.yaml holds the first of them, whole."),
        Section("What was tried", grid(plots, least=320), "Each dot is a trial that ended."),
        Section("The command", card(code(command))),
    ]
    return page(f"Search for the best {objective}", f"{summary} trials.", sections, kicker="tuning")


def format_table(best: Sequence[FrozenTrial], values: Values, objective: str) -> Table:
    """Table of the best trials for the terminal."""
    columns, rows = _rows(best, values, objective)
    table = Table(title=f"The best {len(rows)} of {len(best)} trials that ended")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _rows(best: Sequence[FrozenTrial], values: Values, objective: str) -> tuple[list[str], list[list[str]]]:
    """Columns, and a row per best trial: number, objective and values."""
    shown = best[:_SHOWN]
    keys = list(values[shown[0].number]) if shown else []
    rows = [
        [str(trial.number), f"{trial.value:.5f}", *(_told(values[trial.number].get(key)) for key in keys)]
        for trial in shown
    ]
    return ["trial", objective, *keys], rows


def _history(best: Sequence[FrozenTrial], study: optuna.Study, objective: str) -> str:
    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        ended = sorted(best, key=lambda trial: trial.number)
        better = max if study.direction == optuna.study.StudyDirection.MAXIMIZE else min
        so_far = [better(trial.value for trial in ended[: end + 1]) for end in range(len(ended))]
        numbers = [trial.number for trial in ended]
        axes.plot(numbers, [trial.value for trial in ended], "o", color=FAINT)
        axes.plot(numbers, so_far, drawstyle="steps-post", color=BLUE)
        axes.set(xlabel="trial", ylabel=objective)

    return svg(draw, 330, 220, "the objective of each trial and the best so far")


def _scatter(best: Sequence[FrozenTrial], values: Values, key: str, objective: str) -> str:
    """The objective over a number, or beside the name of each choice."""
    taken = [values[trial.number].get(key) for trial in best]
    reached = [trial.value for trial in best]

    def draw_numbers(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot(taken, reached, "o", color=BLUE)
        axes.set(ylabel=objective)
        if min(taken) > 0 and max(taken) > 8 * min(taken):
            plain_log(axes, "x")

    def draw_choices(figure: Figure) -> None:
        axes = figure.add_subplot()
        names = [_told(value) for value in taken]
        choices = list(dict.fromkeys(names))
        axes.plot(reached, [choices.index(name) for name in names], "o", color=BLUE)
        axes.set_yticks(range(len(choices)), [shorten(choice) for choice in choices])
        axes.set(xlabel=objective, ylim=(len(choices) - 0.5, -0.5))
        axes.xaxis.set_major_locator(MaxNLocator(4))

    numeric = all(isinstance(value, int | float) for value in taken)
    return svg(draw_numbers if numeric else draw_choices, 330, 220, f"{objective} by {key}")


def _told(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
