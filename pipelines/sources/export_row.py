"""What the rows of Google's BigQuery exports have in common, from JSON Lines, Parquet or the table itself."""

from typing import Annotated, Any, Self, TypeVar

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict

Item = TypeVar("Item")


class BadRow(Exception):
    """Carries the reason for which a row cannot be read."""


class ExportRow(BaseModel):
    """A row, or a record in it; fields that are not named are left unread. Integers may be numbers or text."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    @classmethod
    def parse(cls, value: bytes | dict[str, Any]) -> Self:
        """The row of a line of JSON, or of a dictionary.

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
    """`bq extract` writes a repeated field to Parquet as `{"list": [{"element": …}, …]}`, with no mark of a list."""
    if value is None:
        return []
    if isinstance(value, dict) and set(value) == {"list"}:
        return [entry["element"] for entry in value["list"] or ()]
    return value


Text = Annotated[str, BeforeValidator(lambda value: "" if value is None or value == "(not set)" else value)]
"""BigQuery leaves out what is null, and Analytics writes `(not set)`."""

Repeated = Annotated[list[Item], BeforeValidator(_plain_list)]
