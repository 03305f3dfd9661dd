"""Raw features of simulated requests, as inputs of a model's signature."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator import catalogue, tables
from pipelines.simulator.month import START_MS
from pipelines.simulator.people import Users
from pipelines.simulator.world import World
from usr_tf.errors import InputError
from usr_tf.experiments.abtest.user_history import Event
from usr_tf.schema import PAST_QUERIES, PAST_QUERIES_AGE, Feature, Schema, history_column

_CONTEXT = ("query", "device", "hour")


class Requests:
    """Builder of one model's signature inputs.

    Args:
      schema: the model's.
      users: of one chunk, the first of whom has the number `first_user` in the shop.
      place: what an error names.

    Raises:
      InputError: the model takes a feature that the shop has not.
    """

    def __init__(self, schema: Schema, world: World, users: Users, first_user: int, place: Any):
        self._world = world
        every = np.arange(world.items.kind.size)
        items = _columns(tables.item_rows(world)) | self._as_of(every, START_MS)
        people = _columns(tables.user_rows(users, first_user))
        none = np.zeros(1, np.int64)
        logged = (*_CONTEXT, *tables.signal_columns(world, none, none, none, np.zeros((1, world.signals.width)), none))
        known = {"item": items, "user": people, "query": logged, "context": logged, "candidate": logged}
        for name, feature in schema.features.items():
            if name not in known[feature.group]:
                columns = ", ".join(known[feature.group])
                raise InputError(f"{place}: {name}", "a feature that the simulated shop has not", f"one of {columns}")
        self._item_features = schema.features_of("item")
        self._items = {name: _values(items[name], feature) for name, feature in self._item_features.items()}
        self._users = {name: _values(people[name], schema.features[name]) for name in schema.features_of("user")}
        self._request, self._candidate = schema.features_of("query", "context"), schema.features_of("candidate")
        self._history = schema.history_features
        self.has_history = bool(schema.history_columns)
        self._longest = schema.history.queries.max_length if schema.history.queries else 0
        self._queries: dict[int, dict[int, str]] = {}
        """User → time → query, of the requests so far. Those of the month before the test are not replayed."""

    def _past_queries(self, user: int, now: int, query: str) -> dict[str, np.ndarray]:
        """The user's queries before this request, newest last; this request's query is kept for the next ones."""
        queries = self._queries.setdefault(user, {})
        past = [(time, text) for time, text in sorted(queries.items()) if time < now][-self._longest :]
        if query.strip():
            queries[now] = query
        return {
            PAST_QUERIES: np.array([[text.encode() for _, text in past]], object).reshape(1, -1),
            PAST_QUERIES_AGE: np.array([[now - time for time, _ in past]], np.int64).reshape(1, -1),
        }

    def inputs(
        self,
        user: int,
        now: int,
        query: str,
        device: int,
        events: Sequence[Event],
        item: NDArray,
        zero_results: bool,
        query_vector: NDArray,
        retrieval_score: NDArray,
    ) -> dict[str, np.ndarray]:
        """Raw features by name, as in `usr_tf.request_spec.request_spec`.

        Args:
          user: counted within the chunk.
          now: ms UTC.
          events: the user's history, newest last.
          item: the candidates, `[N]`.
          zero_results: whether the search found nothing.
          query_vector: `[w]`.
          retrieval_score: `[N]`.
        """
        n = item.size
        said = {"query": query, "device": catalogue.DEVICES[device], "hour": f"{tables.hour_of(now):02}"}
        made = {name: values[user : user + 1] for name, values in self._users.items()}
        vectors = np.broadcast_to(query_vector, (n, query_vector.size))
        logged = {name: [value] * n for name, value in said.items()} | tables.signal_columns(
            self._world, item, np.full(n, now), np.full(n, zero_results), vectors, retrieval_score
        )
        made |= {name: _values(logged[name][:1], feature) for name, feature in self._request.items()}
        made |= {name: _values(logged[name], feature) for name, feature in self._candidate.items()}
        made |= {name: values[item] for name, values in self._items.items()}
        made |= {
            name: _values(column, self._item_features[name])
            for name, column in self._as_of(item, now).items()
            if name in self._items
        }
        if self._longest:
            made |= self._past_queries(user, now, query)
        if self.has_history:
            done = np.array([event.item for event in events], np.int64)
            past: Mapping[str, NDArray] = {name: self._items[name][done] for name in self._history} | {
                "action": np.array([event.action.encode() for event in events], object),
                "scenario": np.array([event.scenario.encode() for event in events], object),
                "age": np.array([now - event.time for event in events], np.int64),
            }
            made |= {history_column(name): values[np.newaxis] for name, values in past.items()}
        return made

    def _as_of(self, item: NDArray, now: int) -> dict[str, list[Any]]:
        """Those columns of items `[n]` that change, as they are now."""
        state = tables.price_and_stock(self._world, item, np.full(item.size, now))
        return {name: state[column].tolist() for name, column in tables.AS_OF.items() if column in state}


def _columns(rows: Iterable[tables.Row]) -> dict[str, list[Any]]:
    rows = list(rows)
    return {name: [row[name] for row in rows] for name in rows[0]}


def _values(column: Sequence[Any], feature: Feature) -> np.ndarray:
    """`[n]` float32 or bytes; `[n, width]` for lists, padded with ""."""
    value = feature.kind.value
    if value == "numbers":
        return np.array([[0.0] * (feature.width or 0) if vector is None else vector for vector in column], np.float32)
    if value == "number":
        return np.array(column, np.float32)
    if value == "strings":
        width = max(map(len, column))
        return np.array([[*map(str.encode, values), *[b""] * (width - len(values))] for values in column], object)
    return np.array([value.encode() for value in column], object)
