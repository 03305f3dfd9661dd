"""Rows of Google's BigQuery exports: JSON, Parquet, Avro or the table itself, in the shapes that tools give them."""

import datetime
from typing import Annotated, Any, Self, TypeVar

import orjson
import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

Item = TypeVar("Item")

MISSING = (
    "",
    "(not set)",
    "(not provided)",
    "(data deleted)",
    "<other>",
    "<obfuscated>",
    "not available in demo dataset",
)
"""What Analytics and its public samples write for a missing value, in lower case. `(none)` is a value: no medium."""

_WRAPPERS = ("list", "bag", "array", "key_value")
_ELEMENTS = ("element", "item", "array", "array_element")
"""Names that writers of Parquet give to the two levels of a repeated field."""

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_YEAR_2000, _YEAR_2100 = 946_684_800, 4_102_444_800


class BadRow(Exception):
    """Carries the reason for which a row cannot be read."""


class ExportRow(BaseModel):
    """Row, or record in it; unnamed fields are not read. Integers may be numbers or text."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    @classmethod
    def parse(cls, value: bytes | dict[str, Any]) -> Self:
        """Row from a JSON line or a dictionary.

        Raises:
          BadRow: it is no such row.
        """
        try:
            return cls.model_validate_json(value) if isinstance(value, bytes) else cls.model_validate(value)
        except pydantic.ValidationError as error:
            raise BadRow(_reason(error)) from error


def parse_text(value: Any) -> Any:
    """Value of a text that is a JSON object or array; anything else as it is."""
    if isinstance(value, str | bytes) and value.strip()[:1] in ("{", "[", b"{", b"["):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


def plain_list(value: Any) -> Any:
    """Repeated field as a list: writers of Parquet mark it as `{"list": [{"element": …}, …]}` and in other ways."""
    value = parse_text(value)
    if value is None:
        return []
    if isinstance(value, dict) and len(value) == 1:
        (name, rows), *_ = value.items()
        value = rows or [] if name in _WRAPPERS and (rows is None or isinstance(rows, list)) else value
    if isinstance(value, list):
        return [_element(row) for row in value]
    return value


def _element(row: Any) -> Any:
    if isinstance(row, dict) and len(row) == 1:
        (name, value), *_ = row.items()
        return value if name in _ELEMENTS else row
    return row


def _reason(error: pydantic.ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return "no JSON"
    key = ".".join(part for part in first["loc"] if isinstance(part, str))
    message = "Input should be an object" if first["type"] == "model_type" else first["msg"]
    return f"{key}: {message}" if key else message


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return "" if value is None or (isinstance(value, str) and value.strip().lower() in MISSING) else value


def _moment(ticks: int) -> Any:
    """Function to `ticks` a second since 1970 from a date and time, also as text; anything else stays as it is."""

    def convert(value: Any) -> Any:
        if isinstance(value, str) and not value.strip().lstrip("-").isdecimal():
            try:
                value = datetime.datetime.fromisoformat(value.strip().replace(" UTC", "+00:00"))
            except ValueError:
                return value
        if not isinstance(value, datetime.datetime):
            return value
        known = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        return (known - _EPOCH) // datetime.timedelta(microseconds=1_000_000 // ticks)

    return convert


def _between(ticks: int, unit: str) -> Any:
    def check(value: int) -> int:
        if not _YEAR_2000 * ticks <= value < _YEAR_2100 * ticks:
            raise PydanticCustomError("moment", f"Input should be {unit} of a time from 2000 to 2099")
        return value

    return check


Text = Annotated[str, BeforeValidator(_text)]
"""BigQuery leaves out what is null, and Analytics writes `(not set)` and the other words of `MISSING`."""

Repeated = Annotated[list[Item], BeforeValidator(plain_list)]

Record = Annotated[Item | None, BeforeValidator(parse_text)]
"""Record, which may be JSON text."""

Microseconds = Annotated[int, BeforeValidator(_moment(1_000_000)), AfterValidator(_between(1_000_000, "microseconds"))]
Seconds = Annotated[int, BeforeValidator(_moment(1)), AfterValidator(_between(1, "seconds"))]
"""Moments UTC, as numbers, as text, or as dates and times."""
