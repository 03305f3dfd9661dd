"""Terminal tables of an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table

from usr_tf.evaluation.report import model_baselines
from usr_tf.evaluation.report.task_results import HEADLINE, LOSSES, cells, headline, losses


def format_table(document: Mapping[str, Any], details: Mapping[str, Any]) -> Group:
    """Tables for the terminal, per scenario and task.

    AUC has its interval, the baselines' and the oracle's; each baseline that is a model has a table of its own. Logloss
    has NE, calibration and the oracle's figures.
    """
    shown = list(cells(document, details))
    ranking = [(cell.scenario, cell.task, *headline(cell)[2:]) for cell in shown]
    columns = [f"{details['level']:.0%} interval" if name == "interval" else name for name in HEADLINE[2:]]
    names = ("scenario", "task")
    return Group(  # rows and positives are too wide for 80 columns
        grouped_table("AUC", (*names, *columns), ranking),
        *(
            grouped_table(f"AUC against {name}", (*names, *model_baselines.columns(details)), rows)
            for name, rows in model_baselines.tables(document, details).items()
        ),
        grouped_table("Logloss", (*names, *LOSSES), [(cell.scenario, cell.task, *losses(cell)) for cell in shown]),
    )


def grouped_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Table whose first two columns are names; repeated names in the first column are blank."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < 2 else "right", no_wrap=True)
    previous = None
    for group, *row in rows:
        if group != previous and previous is not None:
            table.add_section()
        table.add_row(group if group != previous else "", *row)
        previous = group
    return table
