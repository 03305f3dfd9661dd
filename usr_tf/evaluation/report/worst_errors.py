"""Report section on the worst errors: most confident wrong rows, and requests with the lowest positive."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from usr_tf.evaluation.report import html
from usr_tf.evaluation.report.html import Section
from usr_tf.evaluation.report.task_results import count, figure
from usr_tf.metrics import Predictions
from usr_tf.schema import Schema

_SHOWN = 5


def section(predictions: Predictions, schema: Schema) -> Section:
    """Tables per scenario and task: high without the label, low with it, and the requests ranked worst."""
    parts = []
    for index, scenario in enumerate(schema.scenarios):
        rows = predictions.only(predictions.scenario == index)
        for task in schema.task_names:
            cards = list(_cards(rows, task))
            parts += [html.heading(f"{scenario} · {task}") + html.grid(cards, least=310)] if cards else []
    return Section(
        "Worst errors",
        "".join(parts) or html.card(html.paragraph("No rows.")),
        "The rows that the model was surest of and wrong, and the requests whose first positive it places lowest. "
        "Where the oracle agrees with the model, the user surprised both; where it does not, there is something to "
        "learn.",
    )


def _cards(rows: Predictions, task: str) -> Iterator[str]:
    labels, probabilities = rows.labels[task], rows.probabilities[task]
    sure_no, sure_yes = np.argsort(probabilities, kind="stable"), np.argsort(-probabilities, kind="stable")
    without, with_label = sure_yes[labels[sure_yes] == 0][:_SHOWN], sure_no[labels[sure_no] == 1][:_SHOWN]
    if len(without):
        yield html.card(_rows_table(rows, task, without), "Highest without the label")
    if len(with_label):
        yield html.card(_rows_table(rows, task, with_label), "Lowest with the label")
        yield html.card(_requests_table(rows, task), "Requests ranked worst")


def _rows_table(rows: Predictions, task: str, chosen: Sequence[int]) -> str:
    oracle = rows.oracle.get(task)
    table = [
        [
            f"{text(rows.item[row])}\n{text(rows.user[row])}, {text(rows.request[row])}{_place(rows.position[row])}",
            _probability(rows.probabilities[task][row]),
            _probability(None if oracle is None else oracle[row]),
        ]
        for row in chosen
    ]
    return html.table(["item", "p", "oracle"], table)


def _requests_table(rows: Predictions, task: str) -> str:
    """Requests by the position of their best positive, from 1; ties share the mean position."""
    frame = pd.DataFrame(
        {"request": rows.request, "user": rows.user, "p": rows.probabilities[task], "label": rows.labels[task]}
    )
    requests = frame.groupby("request", sort=False)
    frame["place"] = requests["p"].rank(ascending=False)
    frame["rows"] = requests["p"].transform("size")
    positive = frame[frame["label"] == 1].sort_values(["place", "rows"], kind="stable")
    first = positive.drop_duplicates("request").sort_values(["place", "rows"], ascending=[False, True], kind="stable")
    table = [
        [
            f"{text(row.request)}\n{text(row.user)}",
            figure(row.place, 0 if row.place.is_integer() else 1),
            count(row.rows),
        ]
        for row in first.head(_SHOWN).itertuples()
    ]
    return html.table(["request", "first positive at", "of"], table)


def text(key: object) -> str:
    """A raw id: bytes as TensorFlow has them, or text."""
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)


def _place(position: int) -> str:
    return f", position {position}" if position > 0 else ""


def _probability(value: float | None) -> str:
    """Probability with two significant digits."""
    return html.UNDEFINED if value is None or np.isnan(value) else f"{value:.2g}"
