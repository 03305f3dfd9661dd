"""The page of an evaluation: which sections it has, in which order."""

from collections.abc import Mapping
from typing import Any

from usr_tf.metrics import Predictions
from usr_tf.report import curves, errors, facts, headline, html, learning, making, slices, views
from usr_tf.report.background import Background
from usr_tf.report.cells import OVERALL, counted
from usr_tf.schema import Schema


def evaluation_page(
    document: Mapping[str, Any],
    details: Mapping[str, Any],
    schema: Schema,
    title: str,
    predictions: Predictions | None = None,
    background: Background | None = None,
) -> str:
    """The whole page, from the documents alone or, with rows and background, with their sections too."""
    sections = [
        headline.section(document, details),
        curves.section(document, details),
        slices.section(document, details),
    ]
    if background:
        monitor = background.config.train.monitor
        sections.append(learning.section(background.history, monitor, schema.scenarios, schema.task_names))
    if background and background.views:
        groups = {name: feature.group for name, feature in schema.features.items()}
        sections.append(views.section(background.views, groups, background.beside))
    if predictions is not None:
        sections.append(errors.section(predictions, schema))
    if background:
        days = _days(details, schema)
        sections.append(facts.section(background.stats, schema, background.vocabulary_sizes, background.split, days))
        sections.append(making.section(background.config, background.command, background.trained))
    sections.append(making.how_to_read())
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
    """Those that rows were shown on."""
    slices = details[OVERALL][schema.task_names[0]].get("slices", {})
    return [slice["value"] for slice in slices.get("day", []) if slice["n"]]
