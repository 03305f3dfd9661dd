"""Request contract: what each input of a scenario's signature on raw features is, by the schema.

It names an input, its type and shape, what a value stands for and how a missing one is spelt. The export takes its
signatures from it, and `docs/request.md` its tables. Needs no TensorFlow.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from usr_tf.schema import CANDIDATE_GROUPS, ITEM, PAST_QUERIES_AGE, USER, Feature, Schema, history_column

Side = Literal["user", "query", "context", "item", "candidate", "counters", "history", "past queries"]
"""Part of a request that an input belongs to: a feature group, or what is computed from logs."""
DType = Literal["string", "float32", "int64"]


class RequestInput(NamedTuple):
    """Input of a scenario's signature."""

    name: str
    side: Side
    dtype: DType
    shape: tuple[int | None, ...]
    """`[1, …]` once a request, `[N, …]` with a value for each candidate; None is any size."""
    meaning: str
    missing: str
    """How a missing value is spelt in a request document."""


def request_contract(schema: Schema, counters: bool = False) -> dict[str, RequestInput]:
    """Inputs of a scenario's signature by name: features, then counts, past queries and history.

    Args:
      counters: whether the raw counts of counters, `[N]`, are inputs too.
    """
    inputs = [*_features(schema)]
    if counters:
        inputs += _counts(schema)
    inputs += [*_past_queries(schema), *_history(schema)]
    return {each.name: each for each in inputs}


def _features(schema: Schema) -> Iterator[RequestInput]:
    for name, feature in schema.features.items():
        leading = None if feature.group in CANDIDATE_GROUPS else 1
        inner = {"strings": (None,), "numbers": (feature.width,)}.get(feature.kind.value, ())
        dtype: DType = "string" if feature.has_ids else "float32"
        kind, missing = _of_feature(name, feature)
        meaning = "; ".join(filter(None, (schema.descriptions.get(name), kind)))
        yield RequestInput(name, feature.group, dtype, (leading, *inner), meaning, missing)
        if feature.weights:
            meaning = schema.descriptions.get(feature.weights) or f"weight of each value of `{name}`, in its order"
            yield RequestInput(feature.weights, feature.group, "float32", (leading, *inner), meaning, "`0`")


def _of_feature(name: str, feature: Feature) -> tuple[str, str]:
    """What kind of value it is, and how a missing one is spelt."""
    if name in (USER, ITEM):
        return f"id of the {feature.group}", '`""` or `null`'
    match feature.kind.value:
        case "number":
            return "a number, in the unit of the logs", "`null`"
        case "numbers":
            return f"{feature.width} numbers", "all `0`"
        case "strings":
            return f"categories; the first {feature.length} are read", "`[]`"
    if feature.kind.tokenize:
        return f"text; its first {feature.length} {feature.unit}s are read", '`""` or `null`'
    return "a category", '`""` or `null`'


def _counts(schema: Schema) -> Iterator[RequestInput]:
    for name, counter in schema.counters.items():
        spelt = counter.model_dump(mode="json")
        key = " and ".join(f"`{column}`" for column in counter.key_columns)
        until = f"{spelt['delay']} before the request" if counter.delay else "the request"
        events = ((window, event) for window in spelt["windows"] for event in counter.events)
        for column, (window, event) in zip(counter.columns(name), events, strict=True):
            back = f"until {until}" if window == "all" else f"in the {window} until {until}"
            meaning = f"number of events `{event}` with this {key}, {back}"
            yield RequestInput(column, "counters", "float32", (None,), meaning, "`0`")


def _past_queries(schema: Schema) -> Iterator[RequestInput]:
    if schema.history.queries is None:
        return
    for name in schema.query_columns:
        is_age = name == PAST_QUERIES_AGE
        meaning = "milliseconds from that query to this request" if is_age else "text of an earlier query of this user"
        yield RequestInput(name, "past queries", "int64" if is_age else "string", (1, None), meaning, "never missing")


def _history(schema: Schema) -> Iterator[RequestInput]:
    described = {
        "action": "the action: " + ", ".join(f"`{action}`" for action in schema.history.actions),
        "scenario": 'where: a scenario, or `""` for an action outside them',
        "age": "milliseconds from the action to this request",
    }
    for name in schema.history_columns:
        what = name.removeprefix(history_column(""))
        width = schema.history_width(name)
        meaning = described.get(what, f"`{what}` of the item")
        missing = "never missing" if what == "age" else "`[]`" if width else '`""` or `null`'
        dtype: DType = "int64" if what == "age" else "string"
        yield RequestInput(name, "history", dtype, (1, None, None) if width else (1, None), meaning, missing)
