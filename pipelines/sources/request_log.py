"""Request log of our own clients and server (`serving.request_log`): what was served, joined with later actions.

What becomes what:

- *Impression*: a candidate of a logged request, with its context, query and candidate features as they were served.
  Its position is its place in the ranking, where the client logged one.
- *Items, users*: the values that requests carried, a row each time that they change, valid from that moment. So a
  row of training data has exactly what was served.
- *Actions*: tables of the shop's own (`--action_files`), in the form of the log contract.
- Histories, past queries and counters are not taken from the log: `preprocess` derives them from impressions and
  actions.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import numpy as np
import orjson

from pipelines.sources.base import Row, Source
from pipelines.sources.inputs import Inputs, find_inputs
from usr_tf.errors import InputError
from usr_tf.log_rows import RejectedRow, coerce, log_columns
from usr_tf.schema import (
    CANDIDATE_GROUPS,
    ITEM,
    POSITION,
    REQUEST,
    SCENARIO,
    TIMESTAMP,
    USER,
    Group,
    load_schema,
)

_KEYS = (REQUEST, SCENARIO, TIMESTAMP, "inputs")
_LONGEST = 1e11
"""Seconds of the longest age, over 3,000 years."""


class RequestLogSource(Source):
    """Source of request logs.

    Args:
      schema: Schema file of the served model.
      action_files: Files, patterns or directories of actions.
      on_request: Called with each record that is read.
    """

    name = "request_log"

    def __init__(
        self,
        schema: str | None = None,
        action_files: Sequence[str] = (),
        on_request: Callable[[dict[str, Any]], object] = lambda document: None,
    ):
        if schema is None:
            raise InputError("--schema", "nothing", "schema.yaml of the served model, for --source request_log")
        self._schema = load_schema(schema)
        for key in (USER, ITEM):
            if key not in self._schema.features:
                expected = "it, for a request has the model's features alone"
                raise InputError(f"{schema}: features.{key}", "nothing", expected)
        self._on_request = on_request
        self._actions = find_inputs(action_files) if action_files else []
        self._action_columns = log_columns(self._schema, "actions")
        self._read: Counter[str] = Counter()
        self._versions: Counter[str] = Counter()
        self._latest: dict[tuple[str, str], dict[str, Any]] = {}

    def schema(self) -> str:
        imported = {"columns": {}, "timestamp_unit": "ms"}  # what this source writes, whatever the shop's logs have
        return self._schema.model_copy(update=imported).to_yaml()

    def read(self, inputs: Inputs) -> Iterator[Row]:
        impressions = 0
        for record in inputs.records():
            try:
                document = orjson.loads(record.value) if isinstance(record.value, bytes) else record.value
                rows = list(self._rows(document))
            except _BadRecord as error:
                inputs.reject(record.path, record.number, str(error))
            except orjson.JSONDecodeError as error:
                inputs.reject(record.path, record.number, f"no JSON ({error})")
            else:
                self._read["requests"] += 1
                self._on_request(document)
                self._versions[str(document.get("version"))] += 1
                impressions += sum(table == "impressions" for table, _ in rows)
                yield from rows
        if not impressions:
            raise InputError("--input", "no logged request", "files that serving.request_log wrote")
        for record in Inputs(self._actions, on_reject=inputs.reject).records():
            try:
                row = self._action(record.value)
            except (RejectedRow, orjson.JSONDecodeError) as error:
                inputs.reject(record.path, record.number, f"no action ({error})")
                continue
            self._read["actions"] += 1
            yield "actions", row

    def _action(self, value: Any) -> dict[str, Any]:
        """Row of an action, read as `preprocess` reads the shop's logs.

        Raises:
          RejectedRow: it is no action.
        """
        row = orjson.loads(value) if isinstance(value, bytes) else value
        if not isinstance(row, dict):
            raise RejectedRow("not_an_object")
        row = row | {target: row[source] for source, target in self._schema.columns.items() if source in row}
        values = {name: coerce(row.get(name), column, name) for name, column in self._action_columns.items()}
        return {name: value for name, value in values.items() if value is not None}

    def report(self) -> dict[str, Any]:
        return {"read": dict(self._read), "versions": dict(self._versions)}

    def _rows(self, document: Any) -> Iterator[Row]:
        """Rows of one request; nothing is kept of a request that cannot be read."""
        schema = self._schema
        if not isinstance(document, dict) or any(document.get(key) is None for key in _KEYS):
            raise _BadRecord(f"no record with {', '.join(_KEYS)}")
        inputs, moment = document["inputs"], document[TIMESTAMP]
        if document[SCENARIO] not in schema.scenarios:
            raise _BadRecord(f"the scenario {document[SCENARIO]!r}, which the schema lacks")
        for name in schema.raw_columns_of(*get_args(Group)):
            if name not in inputs:
                raise _BadRecord(f"no input {name}")
        items = inputs[ITEM]
        of_item = schema.raw_columns_of(*CANDIDATE_GROUPS)
        if any(len(inputs[name]) != len(items) for name in of_item):
            raise _BadRecord("inputs of different numbers of candidates")
        for name in schema.moment_columns.values():
            for age in inputs[name] if name in of_item else [self._value(name, inputs)]:
                _check_age(name, age, moment)
        order = document.get("order")
        positions = {row: place for place, row in enumerate(order, start=1)} if order else {}
        shared = self._columns(("query", "context"), moment, inputs, None)
        user = self._value(USER, inputs)
        if not user:
            raise _BadRecord("no user_id")
        yield from self._attributes("users", USER, user, moment, inputs, None)
        for row, item in enumerate(items):
            yield from self._attributes("items", ITEM, item, moment, inputs, row)
            impression = {REQUEST: document[REQUEST], SCENARIO: document[SCENARIO], USER: user, ITEM: item}
            impression |= {TIMESTAMP: moment, **shared}
            impression |= self._columns(("candidate",), moment, inputs, row)
            yield "impressions", impression | ({POSITION: positions[row]} if row in positions else {})

    def _attributes(
        self, table: str, key: str, entity: str, moment: int, inputs: dict, row: int | None
    ) -> Iterator[Row]:
        """The entity's row, if it differs from the latest one."""
        latest = self._latest.get((table, entity))
        groups: tuple[Group, ...] = ("user",) if table == "users" else ("item",)
        values = self._columns(groups, moment, inputs, row, latest)
        values.pop(key)
        if not values and table == "users":
            return
        if latest != values:
            self._latest[table, entity] = values
            yield table, {key: entity, TIMESTAMP: moment, **values}

    def _columns(
        self, groups: Sequence[Group], moment: int, inputs: dict, row: int | None, latest: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Values of the log columns of these groups: a candidate's, or the request's where `row` is None.

        Args:
          latest: earlier values of the same user or item.
        """
        values: dict[str, Any] = {}
        for name in self._schema.raw_columns_of(*groups):
            value = self._value(name, inputs) if row is None else inputs[name][row]
            feature = self._schema.features.get(name)
            if feature and feature.since:
                values[feature.since] = _since(value, moment, (latest or {}).get(feature.since))
            else:
                values[name] = value
        return values

    def _value(self, name: str, inputs: dict) -> Any:
        """A value of the request side, also where the document spelt out the leading 1."""
        value = inputs[name]
        feature = self._schema.features.get(name)
        is_list = feature is None or feature.kind.several  # None: weights of a list
        spelt_out = isinstance(value, list) and len(value) == 1 and (not is_list or isinstance(value[0], list))
        return value[0] if spelt_out else value


def _check_age(name: str, age: Any, now: Any) -> None:
    is_number = isinstance(age, int | float) and not isinstance(age, bool)
    if age is not None and not (is_number and abs(age) <= _LONGEST):
        raise _BadRecord(f"no age in seconds in {name}")
    if not isinstance(now, int):
        raise _BadRecord("a timestamp that is no whole number")


def _since(age: float | None, now: int, latest: int | None) -> int | None:
    """The moment, ms, that an age counts from: the latest one, where the age as float32 says no other."""
    if age is None:
        return None
    if latest is not None and np.float32((now - latest) / 1000) == np.float32(age):
        return latest
    return now - round(age * 1000)


class _BadRecord(Exception):
    """What is wrong with a record."""
