"""Rows of log tables as plain values: columns, value types and checks. Needs neither Arrow nor TensorFlow.

The log reader of the pipeline and the feature store check rows by the same rules (docs/logs.md).
"""

import contextlib
import dataclasses
import datetime
import decimal
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

from usr_tf.feature_types.base import Value
from usr_tf.log_timestamps import LAST_MOMENT, moment_of, parse_moment, to_milliseconds
from usr_tf.schema import ACTION, ITEM, POSITION, REQUEST, SCENARIO, TIMESTAMP, USER, Feature, Schema, oracle_column

NUMBER_TEXT = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
WHOLE_TEXT = r"[+-]?\d{1,38}"
MISSING_TEXT = r"|(?i:nan|[+-]?inf(?:inity)?)"
_NUMBER_TEXT = re.compile(NUMBER_TEXT, re.ASCII)
_MISSING_TEXT = re.compile(MISSING_TEXT, re.ASCII)
_WHOLE_TEXT = re.compile(WHOLE_TEXT, re.ASCII)
EXACT = 2**53
"""Whole floats below it are integers without doubt."""

ValueKind = Value | Literal["integer"]
_DESCRIPTIONS: dict[ValueKind, str] = {
    "string": "a text or a whole number",
    "integer": "a whole number",
    "number": "a number",
    "strings": "a list of texts or whole numbers",
    "numbers": "a list of numbers",
}


@dataclasses.dataclass(frozen=True)
class LogColumn:
    """Type of a log column. A row without a required value is rejected."""

    kind: ValueKind
    required: bool = False
    width: int | None = None
    """Numbers of a vector."""
    moment: bool = False
    """Whether it holds moments, ms UTC."""
    unit: str = "ms"
    """Unit of moments that are logged as numbers."""
    separator: str | None = None
    """Between the values of a list that is a text but no JSON."""
    dates: bool = False
    """Whether a date without a time of day is a moment, its midnight."""

    @property
    def description(self) -> str:
        """What a value is, for errors."""
        if self.moment:
            day = ", a date" if self.dates else ""
            return (
                f"a moment: a whole number of {self.unit} since 1970, a timestamp or an ISO 8601 text with a time{day}"
            )
        return f"a list of {self.width} numbers" if self.width else _DESCRIPTIONS[self.kind]


class RejectedRow(Exception):
    """Exception that carries the reason for rejecting a row."""


def log_columns(schema: Schema, table: str) -> dict[str, LogColumn]:
    """Columns of a table that the schema needs, by name; other columns are not read."""
    key = LogColumn("string", required=True)
    moment = LogColumn("integer", required=True, moment=True, unit=schema.timestamp_unit)
    if table == "impressions":
        keys = {REQUEST: key, SCENARIO: key, USER: key, ITEM: key, TIMESTAMP: moment, POSITION: LogColumn("integer")}
        keys |= {oracle_column(task): LogColumn("number") for task in schema.task_names}
        features = schema.features_of("query", "context", "candidate")
    elif table == "actions":
        keys = {USER: key, ITEM: key, TIMESTAMP: moment, ACTION: key}
        keys |= {REQUEST: LogColumn("string"), SCENARIO: LogColumn("string")}
        features = {}
    else:
        valid_from = dataclasses.replace(moment, required=False, dates=True)
        keys = {USER if table == "users" else ITEM: key, TIMESTAMP: valid_from}
        features = schema.features_of("user" if table == "users" else "item")
    return {**feature_columns(features), **keys}


def feature_columns(features: Mapping[str, Feature]) -> dict[str, LogColumn]:
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
    check_values(values, allowed)
    return values


def is_optional_key(name: str, column: LogColumn) -> bool:
    """Whether an empty string in this column means a missing key."""
    return name in (REQUEST, SCENARIO) and not column.required


def coerce(value: Any, column: LogColumn, name: str) -> Any:
    """`value` as the column's type, without loss; docs/logs.md lists what is taken for what.

    Raises:
      RejectedRow: it is no such value.
    """
    value = _simplify(value, name)
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    if isinstance(value, str) and column.kind in ("integer", "number"):
        value = _number(value, column, name)
    if value is None or (value == "" and (column.required or is_optional_key(name, column))):
        if column.required:
            raise RejectedRow(f"missing_{name}")
        return None
    if column.kind == "string":
        return _text(value, name)
    if column.kind == "integer":
        return _integer(value, column, name)
    if column.kind == "number":
        return _float(value, name)
    if isinstance(value, str):
        value = _list(value, column, name)
    if value is None:
        return None
    if column.kind == "strings" and isinstance(value, list):
        return [_text(_simplify(item, name), name) for item in value if item is not None]
    if column.kind == "numbers" and isinstance(value, list):
        if column.width and len(value) != column.width:
            raise RejectedRow(f"wrong_width_{name}")
        numbers = [_float(_simplify(item, name), name) for item in value]
        if all(map(math.isfinite, numbers)):
            return numbers
    raise RejectedRow(f"wrong_type_{name}")


def _simplify(value: Any, name: str) -> Any:
    """Bytes as text, decimals as the integer or float that they are."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RejectedRow(f"broken_text_{name}") from error
    if isinstance(value, decimal.Decimal):
        if not value.is_finite():
            return None
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def _number(text: str, column: LogColumn, name: str) -> int | float | None:
    """The number, or the moment in ms, that a text spells; None if it spells a missing one."""
    if _MISSING_TEXT.fullmatch(text):
        return None
    if _NUMBER_TEXT.fullmatch(text):
        if column.kind == "integer" and _WHOLE_TEXT.fullmatch(text):
            return int(text)
        number = float(text)
        return number if math.isfinite(number) else None
    moment = parse_moment(text, column.dates) if column.moment else None
    if moment is None:
        raise RejectedRow(f"wrong_type_{name}")
    return moment if column.unit == "ms" else _Moment(moment)


class _Moment(int):
    """Milliseconds, whatever the unit of the column's numbers."""


def _integer(value: Any, column: LogColumn, name: str) -> int:
    if column.moment and isinstance(value, datetime.datetime | datetime.date):
        if isinstance(value, datetime.datetime) or column.dates:
            return moment_of(value)
    elif isinstance(value, _Moment):
        return int(value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        if column.moment and column.unit != "ms":
            milliseconds = to_milliseconds(value, column.unit)
            if -(2**63) <= milliseconds < 2**63:
                return milliseconds
        elif value == int(value):
            return int(value)
    raise RejectedRow(f"wrong_type_{name}")


def _float(value: Any, name: str) -> float:
    if isinstance(value, str):
        number = _number(value, LogColumn("number"), name)
        if number is not None:
            return float(number)
    elif isinstance(value, int | float):
        with contextlib.suppress(OverflowError):
            return float(value)
    raise RejectedRow(f"wrong_type_{name}")


def _list(text: str, column: LogColumn, name: str) -> list | None:
    """The list that a text spells, in JSON or by a separator; None if it is empty."""
    if not text:
        return None
    if text.startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text)
    elif column.separator:
        return text.split(column.separator)
    raise RejectedRow(f"wrong_type_{name}")


def _text(value: Any, name: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return str(int(value))
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value.isoformat()
    if not isinstance(value, str | int):
        raise RejectedRow(f"wrong_type_{name}")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair, which JSON's \u can spell
        raise RejectedRow(f"broken_text_{name}") from error
    return text


def check_values(values: Mapping[str, Any], allowed: Mapping[str, tuple[str, ...]]) -> None:
    """Refuses values of the right types that no row may have.

    Raises:
      RejectedRow: the reason.
    """
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
