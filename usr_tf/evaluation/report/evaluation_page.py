"""HTML page of an evaluation: its sections and their order."""

from collections.abc import Mapping
from typing import Any

from usr_tf.config import Config
from usr_tf.evaluation.report import (
    data_summary,
    headline,
    html,
    importances,
    learning_curves,
    provenance,
    score_curves,
    slices,
    view_plots,
    worst_errors,
)
from usr_tf.evaluation.report.run_summary import RunSummary
from usr_tf.evaluation.report.task_results import OVERALL, counted
from usr_tf.metrics import Predictions
from usr_tf.schema import Schema


def evaluation_page(
    document: Mapping[str, Any],
    details: Mapping[str, Any],
    schema: Schema,
    title: str,
    predictions: Predictions | None = None,
    run_summary: RunSummary | None = None,
    texts_of: worst_errors.TextsOf | None = None,
) -> str:
    """HTML page from the documents alone or, with rows and run_summary, with their sections too."""
    sections = [
        headline.section(document, details),
        score_curves.section(document, details),
        slices.section(document, details),
    ]
    if run_summary and isinstance(run_summary.config, Config):
        monitor = run_summary.config.train.monitor
        sections.append(learning_curves.section(run_summary.history, monitor, schema.scenarios, schema.task_names))
    if run_summary and run_summary.importances:
        sections.append(importances.section(run_summary.importances))
    if run_summary and run_summary.views:
        groups = {name: feature.group for name, feature in schema.features.items()}
        sections.append(view_plots.section(run_summary.views, groups, run_summary.beside))
    if predictions is not None:
        sections.append(worst_errors.section(predictions, schema, texts_of))
    if run_summary:
        days = _days(details, schema)
        sections.append(
            data_summary.section(run_summary.stats, schema, run_summary.vocabulary_sizes, run_summary.split, days)
        )
        sections.append(provenance.section(run_summary.config, run_summary.command, run_summary.trained))
    sections.append(provenance.how_to_read())
    return html.page(
        title,
        _lead(document, schema, predictions),
        [section for section in sections if section],
        content=headline.verdict(document, details),
        kicker="USR evaluation",
    )


def _lead(document: Mapping[str, Any], schema: Schema, predictions: Predictions | None) -> str:
    counts = [counted(document[OVERALL][schema.task_names[0]]["n"], "row")]
    if predictions is not None:
        columns = {"request": predictions.request, "user": predictions.user, "item": predictions.item}
        counts += [counted(len(set(column)), name) for name, column in columns.items()]
    return ", ".join([*counts, counted(len(schema.scenarios), "scenario")])


def _days(details: Mapping[str, Any], schema: Schema) -> list[str]:
    """Days (UTC) with impressions."""
    slices = details[OVERALL][schema.task_names[0]].get("slices", {})
    return [slice["value"] for slice in slices.get("day", []) if slice["n"]]
