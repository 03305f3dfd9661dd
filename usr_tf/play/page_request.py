"""Page request: what the browser asks to be ranked, with the edits of its user."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from usr_tf.errors import InputError
from usr_tf.log_rows import LogColumn, feature_columns
from usr_tf.schema import CANDIDATE_GROUPS, ITEM, USER, Schema


class Edits(BaseModel):
    """Changes of a built request, before it is scored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    inputs: dict[str, str] = Field(default_factory=dict)
    """Feature of the request's side → text of its value."""
    items: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Item → feature → text of its value."""
    history: list[int] = Field(default_factory=list)
    """Places of actions to leave out."""


class PageRequest(BaseModel):
    """A page: a logged request, a query, or a feed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: str
    scenario: str
    task: str
    query: str | None = None
    request_id: str | None = None
    """Of a logged request, whose items, query and context it has."""
    moment: int | None = Field(default=None, ge=0, lt=2**53)
    """ms UTC; that of the logged request, or the end of the logs, when absent."""
    items: list[str] | None = Field(default=None, min_length=1, max_length=1_000)
    """Candidates; those of the logged request or of a retrieval when absent."""
    edits: Edits = Edits()


def edited(inputs: Mapping[str, Any], edits: Edits, items: list[str], schema: Schema) -> dict[str, Any]:
    """Inputs of a request document with the edits applied. Counts stay those of the unedited request.

    Raises:
      InputError: an unknown feature, item or action, or a text that the feature cannot be read from.
    """
    changed = dict(inputs)
    of_request = feature_columns(schema.features_of("user", "query", "context"))
    for name, text in edits.inputs.items():
        changed[name] = _value(text, _column(name, of_request, (USER,)), f"edits.inputs.{name}")
    of_item = feature_columns(schema.features_of(*CANDIDATE_GROUPS))
    for item, values in edits.items.items():
        if item not in items:
            raise InputError("edits.items", repr(item), "an item of the page")
        for name, text in values.items():
            value = _value(text, _column(name, of_item, (ITEM,)), f"edits.items.{name}")
            changed[name] = [value if item == other else old for other, old in zip(items, changed[name], strict=True)]
    length = max((len(inputs[name]) for name in schema.history_columns), default=0)
    if any(not 0 <= place < length for place in edits.history):
        raise InputError("edits.history", f"{edits.history}", f"places in a history of {length}")
    for name in schema.history_columns:
        changed[name] = [value for place, value in enumerate(inputs[name]) if place not in edits.history]
    return changed


def _column(name: str, columns: Mapping[str, LogColumn], fixed: tuple[str, ...]) -> LogColumn:
    if name not in columns or name in fixed:
        expected = ", ".join(column for column in columns if column not in fixed)
        raise InputError(f"edits: {name}", "no feature that can be edited", f"one of {expected}")
    return columns[name]


def _value(text: str, column: LogColumn, place: str) -> Any:
    """Value of a feature from its text: parts of a list between commas, an empty text for no value."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        if column.kind == "number":
            return float(text) if text.strip() else None
        if column.kind == "numbers":
            values = [float(part) for part in parts]
            if column.width and len(values) != column.width:
                raise InputError(place, f"{len(values)} numbers", f"{column.width}")
            return values
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(place, repr(text)[:100], f"a {column.kind}") from error
    return parts if column.kind == "strings" else text
