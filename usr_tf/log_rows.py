"""Rows of log tables as plain values: columns, value types and checks. Needs neither Arrow nor TensorFlow.

The log reader of the pipeline and the feature store check rows by the same rules.
"""

import contextlib
import dataclasses
import decimal
import math
from collections.abc import Mapping
from typing import Any, Literal

from usr_tf.feature_types.base import Value
from usr_tf.schema import ACTION, ITEM, POSITION, REQUEST, SCENARIO, TIMESTAMP, USER, Schema, oracle_column

LAST_MOMENT = 253_402_300_799_999  # the end of the year 9999: times in µs or ns lie beyond it

ValueKind = Value | Literal["integer"]


@dataclasses.dataclass(frozen=True)
class LogColumn:
    """Type of a log column. A row without a required value is rejected."""

    kind: ValueKind
    required: bool = False
    width: int | None = None
    """Numbers of a vector."""


class RejectedRow(Exception):
    """Exception that carries the reason for rejecting a row."""


def log_columns(schema: Schema, table: str) -> dict[str, LogColumn]:
    """Columns of a table that the schema needs, by name; other columns are not read."""
    key, moment = LogColumn("string", required=True), LogColumn("integer", required=True)
    if table == "impressions":
        keys = {REQUEST: key, SCENARIO: key, USER: key, ITEM: key, TIMESTAMP: moment, POSITION: LogColumn("integer")}
        keys |= {oracle_column(task): LogColumn("number") for task in schema.task_names}
        features = schema.features_of("query", "context", "candidate")
    elif table == "actions":
        keys = {USER: key, ITEM: key, TIMESTAMP: moment, ACTION: key}
        keys |= {REQUEST: LogColumn("string"), SCENARIO: LogColumn("string")}
        features = {}
    else:
        keys = {USER if table == "users" else ITEM: key, TIMESTAMP: LogColumn("integer")}
        features = schema.features_of("user" if table == "users" else "item")
    return {**feature_columns(features), **keys}


def feature_columns(features: Mapping[str, Any]) -> dict[str, LogColumn]:
    """Columns of these features: their own, and those of weights."""
    columns = {name: LogColumn(feature.kind.value, width=feature.width) for name, feature in features.items()}
    return columns | {feature.weights: LogColumn("numbers") for feature in features.values() if feature.weights}


def allowed_values(schema: Schema) -> dict[str, tuple[str, ...]]:
    """Scenarios and actions that a row may name."""
    counted = (action for counter in schema.counters.values() for action in counter.actions)
    used = {*schema.history.actions, *(task.action for task in schema.tasks), *counted}
    return {SCENARIO: schema.scenarios, ACTION: tuple(sorted(used))}


def checked_row(
    row: Mapping[str, Any], columns: Mapping[str, LogColumn], allowed: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    """Values of the columns of a row, each of its column's type.

    Raises:
      RejectedRow: the reason, such as `missing_item_id`.
    """
    values = {name: coerce(row.get(name), column, name) for name, column in columns.items()}
    scenario = values.get(SCENARIO)
    if scenario is not None and scenario not in allowed[SCENARIO]:
        raise RejectedRow("unknown_scenario")
    if ACTION in values and values[ACTION] not in allowed[ACTION]:
        raise RejectedRow("action_not_in_schema")
    moment = values.get(TIMESTAMP) or 0
    if moment < 0:
        raise RejectedRow("negative_timestamp")
    if moment > LAST_MOMENT:
        raise RejectedRow("timestamp_beyond_year_9999")
    if values.get(POSITION) is not None and values[POSITION] < 1:
        raise RejectedRow("position_below_1")
    return values


def is_optional_key(name: str, column: LogColumn) -> bool:
    """Whether an empty string in this column means a missing key."""
    return name in (REQUEST, SCENARIO) and not column.required


def coerce(value: Any, column: LogColumn, name: str) -> Any:
    """`value` as the column's type. Integers and booleans are accepted as strings: ids are often numbers.

    Raises:
      RejectedRow: it is no such value.
    """
    if isinstance(value, decimal.Decimal):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    if value is None or (value == "" and (column.required or is_optional_key(name, column))):
        if column.required:
            raise RejectedRow(f"missing_{name}")
        return None
    if column.kind == "string" and isinstance(value, str | int):
        return _text(value, name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if column.kind == "number" and is_number:
        with contextlib.suppress(OverflowError):
            return float(value)
    if column.kind == "integer" and is_number and value == int(value) and -(2**63) <= value < 2**63:
        return int(value)
    if column.kind == "strings" and isinstance(value, list):
        kept = [item for item in value if item is not None]
        if all(isinstance(item, str | int) for item in kept):
            return [_text(item, name) for item in kept]
    if column.kind == "numbers" and isinstance(value, list):
        if column.width and len(value) != column.width:
            raise RejectedRow(f"wrong_width_{name}")
        if all(isinstance(item, int | float) and not isinstance(item, bool) and abs(item) < math.inf for item in value):
            return [float(item) for item in value]
    raise RejectedRow(f"wrong_type_{name}")


def _text(value: str | int, name: str) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair, which JSON's \u can spell
        raise RejectedRow(f"broken_text_{name}") from error
    return text
