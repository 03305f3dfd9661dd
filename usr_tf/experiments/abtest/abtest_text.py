"""Terminal tables of an A/B test."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group

from usr_tf.evaluation.report.evaluation_text import grouped_table
from usr_tf.experiments.abtest.result_tables import ESTIMATORS, NAMES, TEST, TWINS, estimate, lifts, test_row, twins_row


def format_table(document: Mapping[str, Any]) -> Group:
    """Tables of the twins, the test, and the off-policy estimates of clicks."""
    split = document["sample_ratio"]
    sound = "sound" if split["sound"] else "MISMATCH"
    test = f"Test: {split['a']} users see A, {split['b']} see B ({sound}, p = {split['p_value']:.3g})"
    return Group(
        grouped_table(
            f"Twins: the same {document['users']} users in both arms",
            ("scenario", "figure", *TWINS),
            [(scope, NAMES[metric], *twins_row(metric, found)) for scope, metric, found in lifts(document, "twins")],
        ),
        grouped_table(
            test,
            ("scenario", "figure", *TEST),
            [(scope, NAMES[metric], *test_row(metric, found)) for scope, metric, found in lifts(document, "test")],
        ),
        grouped_table(
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
