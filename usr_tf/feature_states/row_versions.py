"""Row versions of an item or a user: which row is valid at which moment.

A document is `[[valid from (ms), {column: value}], …]`, rising by time. The first row is whole; a later one has what
differs from the row before it, null for a column that it lacks.
"""

import array
from collections.abc import Mapping
from typing import Any

from usr_tf.log_rows import LogColumn
from usr_tf.schema import Schema, history_column

_EVER = -1
"""Valid from before all times, for a row without `timestamp`."""

Versions = list[list[Any]]


def add_version(versions: Versions, since: int | None, row: Mapping[str, Any], limit: int) -> bool:
    """Adds a row that is valid from a time on, or from ever; returns whether anything changed.

    Of two rows of one time the first holds, as in training. A row without a time replaces the one without a time.
    """
    since = _EVER if since is None else since
    rows = {time: valid_row(versions, time) for time, _ in versions}
    if since in rows and (since != _EVER or rows[since] == row):
        return False
    rows[since] = row
    kept: Versions = []
    before: Mapping[str, Any] = {}
    for time in sorted(rows)[-limit:]:
        changes = {name: value for name, value in rows[time].items() if name not in before or before[name] != value}
        kept.append([time, changes | dict.fromkeys(before.keys() - rows[time].keys())])
        before = rows[time]
    versions[:] = kept
    return True


def valid_row(versions: Versions | None, moment: int) -> Mapping[str, Any]:
    """The row that is valid at a moment (ms); empty where none is."""
    if not versions or versions[0][0] > moment:
        return {}
    row = versions[0][1]
    if len(versions) > 1:
        row = dict(row)
        for since, changes in versions[1:]:
            if since > moment:
                break
            row |= changes
        row = {name: value for name, value in row.items() if value is not None}
    return row


def stored_row(values: Mapping[str, Any], columns: Mapping[str, LogColumn]) -> dict[str, Any]:
    """Values of these columns as a request has them, without nulls: numbers in float32 precision, as training rows."""
    row = {}
    for name, column in columns.items():
        value = values.get(name)
        if value is not None:
            row[name] = rounded(value) if column.kind in ("number", "numbers") else value
    return row


def rounded(value: Any) -> Any:
    """A number or list of numbers in float32 precision."""
    if isinstance(value, list):
        return array.array("f", value).tolist()
    return array.array("f", (value,))[0]


def history_values(schema: Schema, item: Mapping[str, Any]) -> list[Any]:
    """Values of `Schema.history_features` of an item: lists in their fixed width, "" for what is unknown."""
    values: list[Any] = []
    for name in schema.history_features:
        width = schema.history_width(history_column(name))
        if width:
            values.append([*item.get(name, [])[:width], *[""] * width][:width])
        else:
            values.append(item.get(name) or "")
    return values
