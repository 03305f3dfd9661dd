"""Events: rows of the log tables, one JSON object each, as they happen."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from usr_tf.feature_states.row_versions import stored_row
from usr_tf.log_rows import LogColumn, RejectedRow, allowed_values, checked_row, feature_columns, log_columns
from usr_tf.schema import ACTION, ITEM, TABLES, USER, Schema


class Event(NamedTuple):
    """A checked row of a log table."""

    table: str
    row: Mapping[str, Any]
    """Values of the table's columns."""
    features: Mapping[str, Any]
    """Values of its features, as a request has them."""


class EventReader:
    """Reader of events by a schema.

    The columns of a row say its table: `action` is one of actions; `user_id` and `item_id`, of impressions; one of the
    two, of users or items. Rows are checked as those of log tables are (docs/logs.md).
    """

    def __init__(self, schema: Schema):
        groups: dict[str, tuple[Any, ...]] = {
            "impressions": ("query", "context", "candidate"),
            "actions": (),
            "items": ("item",),
            "users": ("user",),
        }
        self._columns = {table: log_columns(schema, table) for table in TABLES}
        self._features: dict[str, dict[str, LogColumn]] = {
            table: feature_columns(schema.features_of(*groups[table])) for table in TABLES
        }
        self._allowed = allowed_values(schema)

    def parse(self, line: bytes) -> Event:
        """The event of a line of JSON.

        Raises:
          RejectedRow: the reason, such as `broken_json` or `missing_item_id`.
        """
        try:
            row = orjson.loads(line)
        except ValueError as error:
            raise RejectedRow("broken_json") from error
        if not isinstance(row, dict):
            raise RejectedRow("not_an_object")
        return self.check(_table_of(row), row)

    def check(self, table: str, row: Mapping[str, Any]) -> Event:
        """The event of a row of a table.

        Raises:
          RejectedRow: the reason.
        """
        values = checked_row(row, self._columns[table], self._allowed)
        return Event(table, values, stored_row(values, self._features[table]))


def _table_of(row: Mapping[str, Any]) -> str:
    if ACTION in row:
        return "actions"
    if ITEM in row:
        return "impressions" if USER in row else "items"
    if USER in row:
        return "users"
    raise RejectedRow("no_table")
