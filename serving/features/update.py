"""Update: what a batch of events changes of the states in a store, computed within one transaction."""

from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from serving.features.backend import Stored, Transaction
from serving.features.event import Event
from usr_tf.feature_states import (
    Change,
    CountSeries,
    KeyPlan,
    Limits,
    Outcome,
    UserState,
    add_version,
    history_values,
    item_key,
    lifetime,
    user_keys,
    valid_row,
)
from usr_tf.schema import ITEM, TIMESTAMP, USER, Schema

UNKNOWN_ITEM = "unknown_item"
"""Outcome of an event whose item has no row. Training leaves such rows out too."""


class Update:
    """One batch of events.

    Attributes:
      outcomes: events by their outcome.
    """

    def __init__(self, schema: Schema, plan: KeyPlan, limits: Limits):
        self._schema, self._plan, self._limits = schema, plan, limits
        self.outcomes: Tally[str] = Tally()

    def run(self, events: Sequence[Event], transaction: Transaction) -> dict[str, Stored | None]:
        """What to write. The result of a sequence of events does not depend on how it is cut into batches."""
        self.outcomes.clear()
        self._documents = _read(transaction, _keys_of(events))
        self._users: dict[str, UserState] = {}
        self._written: dict[str, Stored | None] = {}
        changes: list[Change] = []
        for event in events:
            if event.table in ("items", "users"):
                self._add_row(event)
            else:
                changes += self._add_user_event(event)
        for user, state in self._users.items():
            keys = user_keys(user)
            self._write(keys.history, state.history, self._limits.idle)
            self._write(keys.recent, state.recent, self._limits.idle)
            if self._limits.idle and keys.row in self._documents:  # an event of the user keeps the row, too
                self._write(keys.row, self._documents[keys.row], self._limits.idle)
        self._count(changes, transaction)
        return self._written

    def _add_row(self, event: Event) -> None:
        of_item = event.table == "items"
        key = item_key(event.row[ITEM]) if of_item else user_keys(event.row[USER]).row
        versions = self._documents[key] = self._documents.get(key) or []
        if add_version(versions, event.row[TIMESTAMP], event.features, self._limits.versions):
            self._write(key, versions, None if of_item else self._limits.idle)
            self._tell(Outcome.WRITTEN)
        else:
            self._tell(Outcome.DUPLICATE)

    def _add_user_event(self, event: Event) -> list[Change]:
        row, moment = event.row, event.row[TIMESTAMP]
        keys = user_keys(row[USER])
        versions = self._documents.get(item_key(row[ITEM]))
        if not versions:
            self.outcomes[UNKNOWN_ITEM] += 1
            return []
        state = self._users.get(row[USER])
        if state is None:
            documents = (self._documents.get(keys.history), self._documents.get(keys.recent))
            state = UserState(self._schema, self._plan, self._limits, *documents)
            self._users[row[USER]] = state
        item = valid_row(versions, moment)
        of_key = self._plan.values(
            {
                **event.features,
                **valid_row(self._documents.get(keys.row), moment),
                **item,
                USER: row[USER],
                ITEM: row[ITEM],
            }
        )
        if event.table == "impressions":
            outcome, changes = state.add_impression(row, of_key)
        else:
            outcome, changes = state.add_action(row, history_values(self._schema, {**item, ITEM: row[ITEM]}), of_key)
        self._tell(outcome)
        return changes

    def _count(self, changes: Iterable[Change], transaction: Transaction) -> None:
        of_key: dict[str, list[Change]] = {}
        for change in changes:
            of_key.setdefault(change.key, []).append(change)
        documents = _read(transaction, [*of_key])
        for key, its in of_key.items():
            counter = self._schema.counters[its[0].counter]
            series = CountSeries(counter, self._limits, documents.get(key))
            for change in its:
                series.add(change.event, change.time, change.number)
            self._write(key, series.document, lifetime(counter, self._limits))

    def _write(self, key: str, document: Any, lifetime_ms: int | None) -> None:
        self._written[key] = None if document is None else Stored(orjson.dumps(document), lifetime_ms)

    def _tell(self, outcome: Outcome) -> None:
        self.outcomes[outcome.value] += 1


def _keys_of(events: Iterable[Event]) -> list[str]:
    keys: dict[str, None] = {}
    for event in events:
        if event.table != "users":
            keys[item_key(event.row[ITEM])] = None
        if event.table != "items":
            of_user = user_keys(event.row[USER])
            keys.update(dict.fromkeys([of_user.row] if event.table == "users" else of_user))
    return [*keys]


def _read(transaction: Transaction, keys: Sequence[str]) -> dict[str, Any]:
    found = zip(keys, transaction.read(keys), strict=True)
    return {key: orjson.loads(value) for key, value in found if value is not None}
