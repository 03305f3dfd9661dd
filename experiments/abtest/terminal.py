"""What a test found, as tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table

from experiments.abtest.cells import ESTIMATORS, NAMES, TEST, TWINS, estimate, lifts, test_row, twins_row


def format_table(document: Mapping[str, Any]) -> Group:
    """The twins, the test, and the off-policy estimates of clicks."""
    split = document["sample_ratio"]
    sound = "sound" if split["sound"] else "MISMATCH"
    test = f"Test: {split['a']} users see A, {split['b']} see B ({sound}, p = {split['p_value']:.3g})"
    return Group(
        _table(
            f"Twins: the same {document['users']} users in both arms",
            ("scenario", "figure", *TWINS),
            [(scope, NAMES[metric], *twins_row(metric, found)) for scope, metric, found in lifts(document, "twins")],
        ),
        _table(
            test,
            ("scenario", "figure", *TEST),
            [(scope, NAMES[metric], *test_row(metric, found)) for scope, metric, found in lifts(document, "test")],
        ),
        _table(
            "Off-policy: clicks per impression, from another policy's log",
            ("log → policy", "scenario", "replay", "one step", *ESTIMATORS.values()),
            [
                (
                    f"{row['logging']} → {row['target']}",
                    row["scenario"],
                    f"{row['replay']:.4f}",
                    f"{row['one_step']:.4f}",
                    *(estimate(row["estimates"][name]) for name in ESTIMATORS),
                )
                for row in document["off_policy"]
                if row["task"] == "ctr"
            ],
        ),
    )


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < 2 else "right", no_wrap=True)
    previous = None
    for scope, *row in rows:
        if scope != previous and previous is not None:
            table.add_section()
        table.add_row(scope if scope != previous else "", *row)
        previous = scope
    return table
