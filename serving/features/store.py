"""Feature store: the states of users, items and counters in a backend, under one schema."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from serving.features.backend import Backend, Stored, Transaction
from serving.features.event import Event
from serving.features.redis import RedisBackend
from serving.features.sqlite import SQLiteBackend
from serving.features.update import Update
from usr_tf.errors import InputError
from usr_tf.feature_states import KeyPlan, Limits
from usr_tf.schema import Schema, parse_schema

Values = list[tuple[str, bytes, int | None]]
"""Keys with their values and lifetimes (ms; None for ever)."""

_ABOUT, _LOADING = "about", "loading"
_REDIS = ("redis://", "rediss://", "unix://")


class FeatureStore:
    """Feature store under one schema.

    Args:
      backend: where it keeps its values.
      schema: of the events; the one that the store was made with when absent.
      limits: of what is kept; those that the store was made with, or the defaults of a new one.
      place: name of the store in errors.

    Raises:
      InputError: an empty store without a schema, one that was made with another schema or other limits, or one whose
        bulk load has not ended.
    """

    def __init__(
        self, backend: Backend, schema: Schema | None = None, limits: Limits | None = None, place: Any = "feature store"
    ):
        self.backend, self.place = backend, place
        [about] = backend.read([_ABOUT])
        if about is None:
            if schema is None:
                raise InputError(place, "no feature store", "one that `usr-tf features load` filled, or a schema")
            limits = limits or Limits()
            _describe(backend, schema, limits)
        else:
            document = orjson.loads(about)
            if document.get(_LOADING):
                raise InputError(place, "a store whose load has not ended", "a whole one: run the load again")
            known, known_limits = parse_schema(document["schema"], place), Limits(**document["limits"])
            if schema is not None and schema != known:
                raise InputError(place, "a store of another schema", "the same, or a new store")
            if limits is not None and limits != known_limits:
                raise InputError(place, f"limits {known_limits}", f"{limits}, or a new store")
            schema, limits = known, known_limits
        self.schema, self.limits = schema, limits

    @functools.cached_property
    def plan(self) -> KeyPlan:
        """Key columns of the schema's counters."""
        return KeyPlan(self.schema)

    def read(self, keys: Sequence[str]) -> list[Any]:
        """Documents of keys in one round trip, None for unknown ones."""
        return [None if value is None else orjson.loads(value) for value in self.backend.read(keys)]

    def offsets(self, sources: Sequence[str]) -> list[int]:
        """Where the ingest of each source goes on; 0 at its start."""
        return [offset or 0 for offset in self.read([_offset_key(source) for source in sources])]

    def apply(self, events: Iterable[Event], offsets: Mapping[str, tuple[int, int]] | None = None) -> Tally[str]:
        """Applies events, all of them or none.

        Args:
          offsets: source → offset of the first of these events and of the one after them, stored together with what the
            events change.

        Returns:
          Events by their outcome: `written`, `duplicate`, `late` or `unknown_item`.

        Raises:
          InputError: another ingest has moved the offset of a source.
        """
        events, offsets = list(events), offsets or {}

        def work(transaction: Transaction) -> Tally[str]:
            stored = [_offset_key(source) for source in offsets]
            found = [orjson.loads(value) if value else 0 for value in transaction.read(stored)]
            for source, (first, _), at in zip(offsets, offsets.values(), found, strict=True):
                if at != first:
                    raise InputError(
                        f"{self.place}: offset of {source}", str(at), f"{first}: does another ingest follow it?"
                    )
            update = Update(self.schema, self.plan, self.limits)
            values = update.run(events, transaction)
            for key, (_, following) in zip(stored, offsets.values(), strict=True):
                values[key] = Stored(orjson.dumps(following))
            transaction.write(values)
            return update.outcomes

        return self.backend.transact(work)

    def close(self) -> None:
        """Closes the backend."""
        self.backend.close()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_store(url: str | Path, schema: Schema | None = None, limits: Limits | None = None) -> FeatureStore:
    """Feature store at a URL of Redis, else in a SQLite file at a path.

    Args:
      schema: makes a new store, or is checked against the store's own.

    Raises:
      InputError: no store is there and no schema is given, or it cannot be opened.
    """
    if schema is None and not reaches_other_machines(url) and not Path(url).is_file():
        raise InputError(url, "no such file", "a feature store that `usr-tf features load` made")
    return FeatureStore(_open_backend(url), schema, limits, url)


@contextlib.contextmanager
def bulk_load(url: str | Path, schema: Schema, limits: Limits) -> Iterator[Callable[[Values], None]]:
    """Function that writes values to a new store at a URL, which is usable once the context has ended without an error.

    The function may be pickled and called in other processes.

    Raises:
      InputError: a store is there already, other than what a load left that did not end.
    """
    backend = _open_backend(url)
    [about] = backend.read([_ABOUT])
    if about is not None and not orjson.loads(about).get(_LOADING):
        raise InputError(url, "a feature store", "a new one to load")
    _describe(backend, schema, limits, loading=True)
    yield functools.partial(_write_values, str(url))
    _describe(backend, schema, limits)
    backend.close()


def reaches_other_machines(url: str | Path) -> bool:
    """Whether workers of other machines may write to the store at a URL."""
    return str(url).startswith(_REDIS)


def _open_backend(url: str | Path) -> Backend:
    return RedisBackend(str(url)) if reaches_other_machines(url) else SQLiteBackend(url)


def _write_values(url: str, values: Values) -> None:
    stored = {key: Stored(value, lifetime) for key, value, lifetime in values}
    _backend_of_process(url).transact(lambda transaction: transaction.write(stored))


@functools.cache
def _backend_of_process(url: str) -> Backend:
    return _open_backend(url)


def _describe(backend: Backend, schema: Schema, limits: Limits, loading: bool = False) -> None:
    about = {"schema": schema.to_yaml(), "limits": limits.model_dump(mode="json"), _LOADING: loading}
    backend.transact(lambda transaction: transaction.write({_ABOUT: Stored(orjson.dumps(about))}))


def _offset_key(source: str) -> str:
    return f"offset:{source}"
