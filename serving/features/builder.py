"""Request builder: a request document from a user id, a query and item ids."""

import bisect
import time
from collections.abc import Mapping, Sequence
from typing import Any

from serving.features.store import FeatureStore
from usr_tf.errors import InputError
from usr_tf.feature_states import CountSeries, item_key, user_keys, valid_row
from usr_tf.feature_states.keys import counter_key
from usr_tf.feature_states.row_versions import rounded
from usr_tf.log_rows import LogColumn, RejectedRow, coerce, feature_columns
from usr_tf.schema import (
    CANDIDATE_GROUPS,
    ITEM,
    PAST_QUERIES,
    PAST_QUERIES_AGE,
    SCENARIO,
    USER,
    Group,
    Schema,
    history_column,
)

_QUERY = "query"


class RequestBuilder:
    """Builds request documents from a feature store, as of a moment.

    Each input is what `usr-tf preprocess` computes of the same events for an impression of that moment: rows that are
    valid then, the actions and queries strictly before it, the counts strictly before it less their delay. Unknown
    users and items, and values that nobody gives, are as training saw them: "" or null, empty histories, counts of 0.

    It makes one round trip to the store, and a second one if the model has counters, whose keys take the rows of user
    and items.

    Args:
      store: the feature store.
      counters: whether requests bring counts; a model that holds a snapshot of its counters ignores them.

    Attributes:
      store: the feature store.
      schema: of the store.
    """

    def __init__(self, store: FeatureStore, counters: bool = True):
        self.store, self.schema = store, store.schema
        self._columns: dict[Group, dict[str, LogColumn]] = {
            group: feature_columns(self.schema.features_of(group))
            for group in ("user", "item", "query", "context", "candidate")
        }
        self._given = self._columns["query"] | self._columns["context"]
        self._counters = self.schema.counters if counters else {}

    def build(
        self,
        scenario: str,
        user_id: str | None,
        query: str | None,
        item_ids: Sequence[str],
        context: Mapping[str, Any] | None = None,
        *,
        candidates: Mapping[str, Sequence[Any]] | None = None,
        moment: int | None = None,
        request_id: str | None = None,
    ) -> dict[str, Any]:
        """A request document (`serving.formats.request.load_request`).

        Args:
          scenario: a scenario of the schema.
          user_id: None for a user without an id.
          query: what the user typed; None where there is no query.
          item_ids: the candidates.
          context: features of the groups context and query by name, such as `{"device": "ios"}`; weights too.
          candidates: features of the group candidate by name, one value an item.
          moment: ms since the epoch; now when absent. One further back than the store's lateness may miss what has
            been dropped since.
          request_id: of this request, whose own query is no past query.

        Raises:
          InputError: an unknown scenario or feature, no item, or a value that the feature cannot have.
        """
        schema = self.schema
        if scenario not in schema.scenarios:
            raise InputError("scenario", repr(scenario), f"one of {', '.join(schema.scenarios)}")
        if not item_ids:
            raise InputError("item_ids", "nothing", "at least one item")
        moment = int(time.time() * 1000) if moment is None else moment
        user_id = user_id or ""
        given = self._request_values(query, context or {})
        columns = self._candidate_values(candidates or {}, len(item_ids))

        keys = user_keys(user_id)
        row, history, *versions = self.store.read([keys.row, keys.history, *map(item_key, item_ids)])
        user = {**valid_row(row, moment), USER: user_id}
        items = [{**valid_row(each, moment), ITEM: item} for item, each in zip(item_ids, versions, strict=True)]

        inputs: dict[str, Any] = {}
        for columns_of_group, rows in ((self._columns["user"], user), (self._given, given)):
            for name, column in columns_of_group.items():
                inputs[name] = _or_missing(rows.get(name), column)
        for name, column in self._columns["item"].items():
            missing = _or_missing(None, column)
            inputs[name] = [row.get(name, missing) for row in items]
        for name, column in self._columns["candidate"].items():
            inputs[name] = columns.get(name) or [_or_missing(None, column)] * len(items)
        inputs |= self._counts(scenario, {**given, **user}, items, columns, moment)
        inputs |= _history(schema, history, moment)
        inputs |= _past_queries(schema, history, moment, request_id)
        document = {SCENARIO: scenario, "inputs": inputs}
        return {"request_id": request_id, **document} if request_id is not None else document

    def _request_values(self, query: str | None, context: Mapping[str, Any]) -> dict[str, Any]:
        values = {**context}
        if _QUERY in self._columns["query"]:
            values[_QUERY] = query
        elif query is not None:
            raise InputError("query", repr(query), "none, as the schema has no feature of this name")
        for name in values:
            if name not in self._given:
                raise InputError(f"context.{name}", "an unknown feature", f"one of {', '.join(self._given)}")
        return {name: _read(value, self._given[name], f"context.{name}") for name, value in values.items()}

    def _candidate_values(self, candidates: Mapping[str, Sequence[Any]], count: int) -> dict[str, list[Any]]:
        known = self._columns["candidate"]
        read = {}
        for name, values in candidates.items():
            if name not in known:
                expected = f"one of {', '.join(known)}" if known else "none, as the schema has no candidate feature"
                raise InputError(f"candidates.{name}", "an unknown feature", expected)
            if len(values) != count:
                raise InputError(f"candidates.{name}", f"{len(values)} values", f"{count}, one an item")
            missing = _or_missing(None, known[name])
            read[name] = [
                missing if value is None else _read(value, known[name], f"candidates.{name}[{row}]")
                for row, value in enumerate(values)
            ]
        return read

    def _counts(
        self,
        scenario: str,
        request: Mapping[str, Any],
        items: Sequence[Mapping[str, Any]],
        columns: Mapping[str, Sequence[Any]],
        moment: int,
    ) -> dict[str, list[float]]:
        """Counts of each item, `[N]`, by `Schema.counter_columns`."""
        plan = self.store.plan
        keys_of: dict[str, list[str | None]] = {}
        for name, counter in self._counters.items():
            parts: list[Sequence[Any]] = []
            for column in counter.key:
                if column in request or not any(column in self._columns[group] for group in CANDIDATE_GROUPS):
                    parts.append([plan.value(request.get(column), column)] * len(items))
                else:
                    values = columns.get(column) or [item.get(column) for item in items]
                    parts.append([plan.value(value, column) for value in values])
            if counter.by_scenario:
                parts.append([scenario] * len(items))
            rows = [*zip(*parts, strict=True)]
            key_of = {values: counter_key(name, values) for values in set(rows) if all(values)}
            keys_of[name] = [key_of.get(values) for values in rows]
        distinct = [*dict.fromkeys(key for keys in keys_of.values() for key in keys if key)]
        documents = dict(zip(distinct, self.store.read(distinct), strict=True)) if distinct else {}
        counts: dict[str, list[float]] = {}
        for name, keys in keys_of.items():
            counter = self._counters[name]
            nothing = [0.0] * (len(counter.windows) * len(counter.events))
            found = {
                key: CountSeries(counter, self.store.limits, documents[key]).before(moment)
                for key in set(keys)
                if key and documents[key]
            }
            of_items = [found.get(key, nothing) if key else nothing for key in keys]
            for place, column in enumerate(counter.columns(name)):
                counts[column] = [each[place] for each in of_items]
        return counts


def _read(value: Any, column: LogColumn, place: str) -> Any:
    """A given value in the type of its column."""
    try:
        value = coerce(value, column, "value")
    except RejectedRow as error:
        expected = f"a {column.kind}" if column.width is None else f"{column.width} {column.kind}"
        raise InputError(place, repr(value)[:100], expected) from error
    return rounded(value) if value is not None and column.kind in ("number", "numbers") else value


def _or_missing(value: Any, column: LogColumn) -> Any:
    """A value, or what stands for none of this column."""
    if value is not None:
        return value
    if column.kind == "string":
        return ""
    if column.kind == "number":
        return None
    return [0.0] * column.width if column.width else []


def _history(schema: Schema, document: Mapping[str, Any] | None, moment: int) -> dict[str, list[Any]]:
    if not schema.history.actions:
        return {}
    actions = document["actions"] if document else []
    end = bisect.bisect_left(actions, moment, key=lambda entry: entry[0])
    actions = actions[max(0, end - schema.history.max_length) : end]
    columns: dict[str, list[Any]] = {
        history_column(name): [entry[5][place] for entry in actions]
        for place, name in enumerate(schema.history_features)
    }
    columns[history_column("action")] = [entry[1] for entry in actions]
    columns[history_column("scenario")] = [entry[3] for entry in actions]
    columns[history_column("age")] = [moment - entry[0] for entry in actions]
    return columns


def _past_queries(
    schema: Schema, document: Mapping[str, Any] | None, moment: int, request_id: str | None
) -> dict[str, list[Any]]:
    if not schema.history.queries:
        return {}
    queries = document["queries"] if document else []
    end = bisect.bisect_left(queries, moment, key=lambda entry: entry[0])
    past = [entry for entry in queries[:end] if entry[1] != request_id][-schema.history.queries.max_length :]
    return {PAST_QUERIES: [entry[2] for entry in past], PAST_QUERIES_AGE: [moment - entry[0] for entry in past]}
