"""Row versions of an item or a user: which row is valid at which moment.

A document is `[[valid from (ms), {column: value}], …]`, rising by time.
"""

import array
import bisect
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
    place = bisect.bisect_left(versions, since, key=lambda version: version[0])
    if place < len(versions) and versions[place][0] == since:
        if since != _EVER or versions[place][1] == row:
            return False
        versions[place][1] = dict(row)
        return True
    versions.insert(place, [since, dict(row)])
    del versions[: max(0, len(versions) - limit)]
    return True


def valid_row(versions: Versions | None, moment: int) -> Mapping[str, Any]:
    """The row that is valid at a moment (ms); empty where none is."""
    if not versions:
        return {}
    if len(versions) == 1:
        since, row = versions[0]
        return row if since <= moment else {}
    place = bisect.bisect_right(versions, moment, key=lambda version: version[0])
    return versions[place - 1][1] if place else {}


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
    values = []
    for name in schema.history_features:
        width = schema.history_width(history_column(name))
        if width:
            values.append([*item.get(name, [])[:width], *[""] * width][:width])
        else:
            values.append(item.get(name) or "")
    return values
