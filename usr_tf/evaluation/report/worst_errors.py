"""Report section on the worst errors: most confident wrong rows, and requests with the lowest positive."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from usr_tf.evaluation.report import html
from usr_tf.evaluation.report.html import Section
from usr_tf.evaluation.report.task_results import count, figure
from usr_tf.metrics import Predictions
from usr_tf.schema import Schema

_SHOWN = 5


class RowText(NamedTuple):
    """The words of a row; empty where the schema has none."""

    query: str
    title: str


TextsOf = Callable[[Sequence[int]], Mapping[int, RowText]]
"""Texts of rows, by their numbers in the predictions."""


class WorstRequest(NamedTuple):
    """A request by the best placed of its positives."""

    row: int
    """Number of that positive's row."""
    place: float
    """From 1; equal scores share the mean of their places."""
    rows: int


class WorstErrors(NamedTuple):
    """Those of one scenario and task: numbers of rows, the worst first."""

    scenario: str
    task: str
    without_label: Sequence[int]
    with_label: Sequence[int]
    requests: Sequence[WorstRequest]


def find_worst(predictions: Predictions, schema: Schema) -> list[WorstErrors]:
    """The worst errors of each scenario and task that has rows."""
    numbers = [np.flatnonzero(predictions.scenario == index) for index in range(len(schema.scenarios))]
    return [
        _worst(predictions, rows, scenario, task)
        for scenario, rows in zip(schema.scenarios, numbers, strict=True)
        for task in schema.task_names
        if len(rows)
    ]


def section(predictions: Predictions, schema: Schema, texts_of: TextsOf | None = None) -> Section:
    """Tables per scenario and task: high without the label, low with it, and the requests ranked worst.

    Args:
      texts_of: called once, with all rows that are shown.
    """
    worst = find_worst(predictions, schema)
    shown = {row for errors in worst for row in (*errors.without_label, *errors.with_label)}
    shown |= {request.row for errors in worst for request in errors.requests}
    texts = texts_of(sorted(shown)) if texts_of else {}
    parts = []
    for errors in worst:
        heading = html.heading(f"{errors.scenario} · {errors.task}")
        parts.append(heading + html.grid(_cards(errors, predictions, texts), least=310))
    return Section(
        "Worst errors",
        "".join(parts) or html.card(html.paragraph("No rows.")),
        "The rows that the model was surest of and wrong, and the requests whose first positive it places lowest. "
        "Where the oracle agrees with the model, the user surprised both; where it does not, there is something to "
        "learn.",
    )


def _worst(predictions: Predictions, rows: np.ndarray, scenario: str, task: str) -> WorstErrors:
    labels, probabilities = predictions.labels[task][rows], predictions.probabilities[task][rows]
    frame = pd.DataFrame({"request": predictions.request[rows], "p": probabilities, "label": labels}, rows)
    rising, falling = np.argsort(probabilities, kind="stable"), np.argsort(-probabilities, kind="stable")
    return WorstErrors(
        scenario,
        task,
        rows[falling[labels[falling] == 0][:_SHOWN]].tolist(),
        rows[rising[labels[rising] == 1][:_SHOWN]].tolist(),
        _worst_requests(frame),
    )


def _worst_requests(frame: pd.DataFrame) -> list[WorstRequest]:
    """Of rows by their numbers: columns `request`, `p` and `label`."""
    requests = frame.groupby("request", sort=False)
    frame = frame.assign(place=requests["p"].rank(ascending=False), rows=requests["p"].transform("size"))
    positive = frame[frame["label"] == 1].sort_values(["place", "rows"], kind="stable")
    first = positive.drop_duplicates("request").sort_values(["place", "rows"], ascending=[False, True], kind="stable")
    return [WorstRequest(row.Index, row.place, row.rows) for row in first.head(_SHOWN).itertuples()]


def _cards(errors: WorstErrors, predictions: Predictions, texts: Mapping[int, RowText]) -> list[str]:
    tables = {
        "Highest without the label": errors.without_label,
        "Lowest with the label": errors.with_label,
    }
    cards = [
        html.card(_rows_table(predictions, errors.task, rows, texts), title) for title, rows in tables.items() if rows
    ]
    if errors.requests:
        cards.append(html.card(_requests_table(predictions, errors.requests, texts), "Requests ranked worst"))
    return cards


def _rows_table(predictions: Predictions, task: str, rows: Sequence[int], texts: Mapping[int, RowText]) -> str:
    oracle = predictions.oracle.get(task)
    table = []
    for row in rows:
        words = texts.get(row, RowText("", ""))
        keys = f"{text(predictions.user[row])}, {text(predictions.request[row])}{_place(predictions.position[row])}"
        name = _lines(text(predictions.item[row]), words.title, _quoted(words.query), keys)
        true = None if oracle is None else oracle[row]
        table.append([name, _probability(predictions.probabilities[task][row]), _probability(true)])
    return html.table(["item", "p", "oracle"], table)


def _requests_table(predictions: Predictions, requests: Sequence[WorstRequest], texts: Mapping[int, RowText]) -> str:
    table = []
    for row, place, rows in requests:
        words = texts.get(row, RowText("", ""))
        positive = f"positive: {text(predictions.item[row])} {words.title}".rstrip()
        name = _lines(text(predictions.request[row]), _quoted(words.query), positive, text(predictions.user[row]))
        table.append([name, figure(place, 0 if place.is_integer() else 1), count(rows)])
    return html.table(["request", "first positive at", "of"], table)


def text(key: object) -> str:
    """A raw id: bytes as TensorFlow has them, or text."""
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)


def _lines(*texts: str) -> str:
    """Those that are not empty, each on a line of its own."""
    return "\n".join(" ".join(each.split()) for each in texts if each)


def _quoted(query: str) -> str:
    return f"query “{query}”" if query else ""


def _place(position: int) -> str:
    return f", position {position}" if position > 0 else ""


def _probability(value: float | None) -> str:
    """Probability with two significant digits."""
    return html.UNDEFINED if value is None or np.isnan(value) else f"{value:.2g}"
