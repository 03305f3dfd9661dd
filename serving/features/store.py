"""Feature store: the states of users, items and counters in a backend, under one schema."""

from __future__ import annotations

import functools
from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence
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

_ABOUT = "about"
_CHUNK = 5_000
_REDIS = ("redis://", "rediss://", "unix://")


class FeatureStore:
    """Feature store under one schema.

    Args:
      backend: where it keeps its values.
      schema: of the events; the one that the store was made with when absent.
      limits: of what is kept; those that the store was made with, or the defaults of a new one.
      place: name of the store in errors.

    Raises:
      InputError: an empty store without a schema, or one that was made with another schema or other limits.
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
            document = {"schema": schema.to_yaml(), "limits": limits.model_dump(mode="json")}
            backend.transact(lambda transaction: transaction.write({_ABOUT: Stored(orjson.dumps(document))}))
        else:
            document = orjson.loads(about)
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

    def fill(self, values: Iterable[tuple[str, Stored]]) -> int:
        """Writes values of a bulk load in transactions of thousands; returns how many."""
        written, chunk = 0, dict[str, Stored | None]()

        def flush() -> None:
            self.backend.transact(lambda transaction: transaction.write(chunk))

        for key, value in values:
            chunk[key] = value
            if len(chunk) == _CHUNK:
                flush()
                written, chunk = written + len(chunk), {}
        flush()
        return written + len(chunk)

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
    if str(url).startswith(_REDIS):
        return FeatureStore(RedisBackend(str(url)), schema, limits, url)
    if schema is None and not Path(url).is_file():
        raise InputError(url, "no such file", "a feature store that `usr-tf features load` made")
    return FeatureStore(SQLiteBackend(url), schema, limits, url)


def _offset_key(source: str) -> str:
    return f"offset:{source}"
