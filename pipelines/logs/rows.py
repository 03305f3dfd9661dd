"""Validation of log rows one by one: each bad row is rejected for a reason, the others become an Arrow batch."""

import contextlib
import datetime
import decimal
import json
import math
import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from pipelines.logs.columns import (
    FLOAT,
    INTEGER,
    NUMBERS,
    PLACE,
    STRING,
    STRINGS,
    Column,
    Layout,
    is_optional_key,
)
from pipelines.logs.files import MAX_LINE_BYTES
from pipelines.logs.timestamps import LAST_MOMENT, moment_of, parse_moment, to_milliseconds
from usr_tf.schema import ACTION, POSITION, SCENARIO, TIMESTAMP

NUMBER_TEXT = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
WHOLE_TEXT = r"[+-]?\d{1,38}"
MISSING_TEXT = r"|(?i:nan|[+-]?inf(?:inity)?)"
NUMBER = re.compile(NUMBER_TEXT, re.ASCII)
_MISSING_TEXT = re.compile(MISSING_TEXT, re.ASCII)
WHOLE_NUMBER = re.compile(WHOLE_TEXT, re.ASCII)
BOOLEANS = {"true": 1, "false": 0}
"""Texts that stand for numbers, whatever their case."""
EXACT = 2**53
"""Whole floats below it are integers without doubt."""
_QUOTED_CHARACTERS = 1_000


def convert_row_by_row(
    rows: Iterable[Any], places: Iterable[int], layout: Layout, constants: dict[str, str | None]
) -> tuple[pa.RecordBatch, list[dict]]:
    """Sound rows, and rejected ones as `{place, reason, row}`.

    Args:
      rows: dictionaries, or lines of JSON as bytes, of which blank ones count for nothing.
      places: the place of each row.
      constants: values of columns that the rows do not have, such as those in the file's path.
    """
    sound, rejected = [], []
    for row, place in zip(rows, places, strict=True):
        try:
            if isinstance(row, bytes):
                if not row.strip():
                    continue
                row = _parse_line(row)
            if not isinstance(row, dict):
                raise _Reject("not_an_object")
            values = {
                name: _coerce(_value(row, layout.sources[name], constants), column, name)
                for name, column in layout.columns.items()
            }
            _check_values(values, layout.allowed)
        except _Reject as reason:
            if isinstance(row, bytes):
                row = row[: 4 * _QUOTED_CHARACTERS].decode("utf-8", "replace")[:_QUOTED_CHARACTERS]
            rejected.append({"place": place, "reason": str(reason), "row": row})
            continue
        sound.append({**values, PLACE: place})
    return pa.RecordBatch.from_pylist(sound, schema=layout.arrow), rejected


class _Reject(Exception):
    """Exception that carries the reason for rejecting a row."""


def _parse_line(line: bytes) -> Any:
    if len(line) > MAX_LINE_BYTES:
        raise _Reject("line_too_long")
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _Reject("broken_json") from error


def _value(row: dict, sources: tuple[str, ...], constants: dict[str, str | None]) -> Any:
    """The first of these columns that the row has a value of, or what the file's path says."""
    return next((value for value in (*map(row.get, sources), *map(constants.get, sources)) if value is not None), None)


def _coerce(value: Any, column: Column, name: str) -> Any:
    """`value` as the column's type, without loss; docs/logs.md lists what is taken for what."""
    value = _simplify(value, name)
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    if isinstance(value, str) and column.type in (INTEGER, FLOAT):
        value = _number(value, column, name)
    if value is None or (value == "" and (column.required or is_optional_key(name, column))):
        if column.required:
            raise _Reject(f"missing_{name}")
        return None
    if column.type == STRING:
        return _text(value, name)
    if column.type == INTEGER:
        return _integer(value, column, name)
    if column.type == FLOAT:
        return _float(value, name)
    if isinstance(value, str):
        value = _list(value, column, name)
    if value is None:
        return None
    if column.type == STRINGS and isinstance(value, list):
        return [_text(_simplify(item, name), name) for item in value if item is not None]
    if column.type == NUMBERS and isinstance(value, list):
        if column.width and len(value) != column.width:
            raise _Reject(f"wrong_width_{name}")
        numbers = [_float(_simplify(item, name), name) for item in value]
        if all(map(math.isfinite, numbers)):
            return numbers
    raise _Reject(f"wrong_type_{name}")


def _simplify(value: Any, name: str) -> Any:
    """Bytes as text, decimals as the integer or float that they are."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _Reject(f"broken_text_{name}") from error
    if isinstance(value, decimal.Decimal):
        if not value.is_finite():
            return None
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def _number(text: str, column: Column, name: str) -> int | float | None:
    """The number, or the moment in ms, that a text spells; None if it spells a missing one."""
    if _MISSING_TEXT.fullmatch(text):
        return None
    if column.type == FLOAT and text.lower() in BOOLEANS:
        return BOOLEANS[text.lower()]
    if NUMBER.fullmatch(text):
        if column.type == INTEGER and WHOLE_NUMBER.fullmatch(text):
            return int(text)
        number = float(text)
        return number if math.isfinite(number) else None
    moment = parse_moment(text, column.dates) if column.moment else None
    if moment is None:
        raise _Reject(f"wrong_type_{name}")
    return moment if column.unit == "ms" else _Moment(moment)


class _Moment(int):
    """Milliseconds, whatever the unit of the column's numbers."""


def _integer(value: Any, column: Column, name: str) -> int:
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
    raise _Reject(f"wrong_type_{name}")


def _float(value: Any, name: str) -> float:
    if isinstance(value, str):
        number = _number(value, Column(FLOAT), name)
        if number is not None:
            return float(number)
    elif isinstance(value, int | float):
        with contextlib.suppress(OverflowError):
            return float(value)
    raise _Reject(f"wrong_type_{name}")


def _list(text: str, column: Column, name: str) -> list | None:
    """The list that a text spells, in JSON or by a separator; None if it is empty."""
    if not text:
        return None
    if text.startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text)
    elif column.separator:
        return text.split(column.separator)
    raise _Reject(f"wrong_type_{name}")


def _text(value: Any, name: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return str(int(value))
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value.isoformat()
    if not isinstance(value, str | int):
        raise _Reject(f"wrong_type_{name}")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair, which JSON's \u can spell
        raise _Reject(f"broken_text_{name}") from error
    return text


def _check_values(values: dict[str, Any], allowed: dict[str, tuple[str, ...]]) -> None:
    scenario = values.get(SCENARIO)
    if scenario is not None and scenario not in allowed[SCENARIO]:
        raise _Reject("unknown_scenario")
    if ACTION in values and values[ACTION] not in allowed[ACTION]:
        raise _Reject("action_not_in_schema")
    moment = values.get(TIMESTAMP) or 0
    if moment < 0:
        raise _Reject("negative_timestamp")
    if moment > LAST_MOMENT:
        raise _Reject("timestamp_beyond_year_9999")
    if values.get(POSITION) is not None and values[POSITION] < 1:
        raise _Reject("position_below_1")
