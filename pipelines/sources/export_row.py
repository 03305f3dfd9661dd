"""Rows of Google's BigQuery exports, from JSON Lines, Parquet or the table itself."""

from typing import Annotated, Any, Self, TypeVar

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict

Item = TypeVar("Item")


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


def _reason(error: pydantic.ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return "no JSON"
    key = ".".join(part for part in first["loc"] if isinstance(part, str))
    message = "Input should be an object" if first["type"] == "model_type" else first["msg"]
    return f"{key}: {message}" if key else message


def _plain_list(value: Any) -> Any:
    """Repeated field as a list: `bq extract` writes `{"list": [{"element": …}, …]}` to Parquet."""
    if value is None:
        return []
    if isinstance(value, dict) and set(value) == {"list"}:
        return [entry["element"] for entry in value["list"] or ()]
    return value


Text = Annotated[str, BeforeValidator(lambda value: "" if value is None or value == "(not set)" else value)]
"""BigQuery leaves out what is null, and Analytics writes `(not set)`."""

Repeated = Annotated[list[Item], BeforeValidator(_plain_list)]
