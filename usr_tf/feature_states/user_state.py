"""User state: the history and past queries of one user, and the recent events that later ones may still change.

It follows `pipelines.join`: an action is credited to the impression of its request, or to the latest impression of its
item at or before it; the history of a moment is what came strictly before it. Events may come in any order within the
lateness: an impression that comes after its action changes whom the action is credited to, and with it the scenario in
the history and the keys that the action is counted by.
"""

import bisect
import enum
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from usr_tf.feature_states.keys import Change, KeyPlan
from usr_tf.feature_states.limits import Limits
from usr_tf.schema import ACTION, IMPRESSION, ITEM, REQUEST, SCENARIO, TIMESTAMP, Schema

_QUERY = "query"


class Outcome(enum.Enum):
    """What became of an event."""

    WRITTEN = "written"
    DUPLICATE = "duplicate"
    LATE = "late"


class _Shown(NamedTuple):
    time: int
    request: str
    item: str
    scenario: str
    keys: Sequence[str | None]


class _Done(NamedTuple):
    time: int
    action: str
    item: str
    request: str | None
    scenario: str | None
    features: Sequence[Any]
    keys: Sequence[str | None]
    credit: Sequence[Any] | None  # time, request, scenario and keys of the impression


class UserState:
    """What is kept of one user.

    Two documents: `history`, which requests read, `{"actions": [[time, action, item, scenario, request, features], …],
    "queries": [[time, request, query], …]}`, oldest first, and `recent`, the events within the lateness.

    Args:
      history, recent: documents of an earlier state; a new user by default.
    """

    def __init__(
        self,
        schema: Schema,
        plan: KeyPlan,
        limits: Limits,
        history: Mapping[str, Any] | None = None,
        recent: Mapping[str, Any] | None = None,
    ):
        self._schema, self._plan, self._limits = schema, plan, limits
        recent = recent or {"floor": 0, "shown": [], "done": []}
        history = history or {"actions": [], "queries": []}
        self._floor: int = recent["floor"]
        self._shown = [_Shown(*entry) for entry in recent["shown"]]
        self._done = [_Done(*entry) for entry in recent["done"]]
        self._past = [entry for entry in history["actions"] if entry[0] < self._floor]
        self._queries = {request: (time, query) for time, request, query in history["queries"]}
        self._of_slate = {(shown.request, shown.item): shown for shown in self._shown}

    def add_impression(self, row: Mapping[str, Any], keys: Sequence[str | None]) -> tuple[Outcome, list[Change]]:
        """Adds an impression.

        Args:
          row: of the table `impressions`.
          keys: `KeyPlan.values` of the row with the features of its item and user.

        Returns:
          Its outcome, and the counts that it changes.
        """
        shown = _Shown(row[TIMESTAMP], row[REQUEST], row[ITEM], row[SCENARIO], keys)
        if shown.time < self._floor:
            return Outcome.LATE, []
        changes: list[Change] = []
        earlier = self._of_slate.get((shown.request, shown.item))
        if earlier:
            if earlier.time <= shown.time:
                return Outcome.DUPLICATE, []
            changes += self._remove(earlier)
        self._insert(shown)
        changes += self._plan.changes(IMPRESSION, shown.time, keys, shown.scenario)
        for place, done in enumerate(self._done):
            if done.item == shown.item and self._is_credited(done, shown) and not _is_better(done.credit, shown):
                changes += self._credit(place, shown)
        query = row.get(_QUERY)
        if self._schema.history.queries and query and query.strip():
            asked = (shown.time, query)
            self._queries[shown.request] = min(asked, self._queries.get(shown.request, asked))
        self._advance(shown.time)
        return Outcome.WRITTEN, changes

    def add_action(
        self, row: Mapping[str, Any], features: Sequence[Any], keys: Sequence[str | None]
    ) -> tuple[Outcome, list[Change]]:
        """Adds an action.

        Args:
          row: of the table `actions`.
          features: values of `Schema.history_features` of the item as of the action, lists in their fixed width.
          keys: `KeyPlan.values` of the features of its item and user.

        Returns:
          Its outcome, and the counts that it changes.
        """
        done = _Done(
            row[TIMESTAMP], row[ACTION], row[ITEM], row.get(REQUEST), row.get(SCENARIO), features, keys, credit=None
        )
        if done.time < self._floor:
            return Outcome.LATE, []
        place = bisect.bisect_left(self._done, _identity(done), key=_identity)
        if place < len(self._done) and _identity(self._done[place]) == _identity(done):
            return Outcome.DUPLICATE, []
        done = done._replace(credit=self._find_credit(done))
        self._done.insert(place, done)
        changes = list(self._changes_of(done))
        self._advance(done.time)
        return Outcome.WRITTEN, changes

    @property
    def history(self) -> dict[str, Any]:
        """Actions and queries that a request of a moment within the lateness may have."""
        actions = self._past + self._entries(self._done)
        queries = sorted([time, request, query] for request, (time, query) in self._queries.items())
        return {"actions": actions, "queries": queries}

    @property
    def recent(self) -> dict[str, Any]:
        """Events that later ones may change."""
        shown, done = ([[*entry] for entry in entries] for entries in (self._shown, self._done))
        return {"floor": self._floor, "shown": shown, "done": done}

    def _is_credited(self, done: _Done, shown: _Shown) -> bool:
        """Whether an action may be credited to an impression of its item."""
        if not 0 <= done.time - shown.time <= self._schema.labels.attribution:
            return False
        if done.request:
            return done.request == shown.request
        return done.scenario in (None, shown.scenario)

    def _find_credit(self, done: _Done) -> Sequence[Any] | None:
        credit: Sequence[Any] | None = None
        for shown in self._shown:
            if shown.item == done.item and self._is_credited(done, shown) and not _is_better(credit, shown):
                credit = _credit_of(shown)
        return credit

    def _credit(self, place: int, shown: _Shown) -> Iterator[Change]:
        """Credits the action at a place to another impression."""
        yield from self._changes_of(self._done[place], -1)
        self._done[place] = self._done[place]._replace(credit=_credit_of(shown))
        yield from self._changes_of(self._done[place])

    def _changes_of(self, done: _Done, number: int = 1) -> Iterator[Change]:
        keys, scenario = done.keys, done.scenario
        if done.credit:
            _, _, scenario, shown_keys = done.credit
            keys = [
                own if of_row else its for own, its, of_row in zip(keys, shown_keys, self._plan.of_row, strict=True)
            ]
        else:
            keys = [own if of_row else None for own, of_row in zip(keys, self._plan.of_row, strict=True)]
        yield from self._plan.changes(done.action, done.time, keys, scenario, number)

    def _remove(self, shown: _Shown) -> Iterator[Change]:
        """Takes an impression out whose earlier duplicate came later."""
        self._shown.remove(shown)
        yield from self._plan.changes(IMPRESSION, shown.time, shown.keys, shown.scenario, -1)
        for place, done in enumerate(self._done):
            if done.item == shown.item and done.credit and done.credit[:2] == [shown.time, shown.request]:
                yield from self._changes_of(done, -1)
                self._done[place] = done = done._replace(credit=self._find_credit(done))
                yield from self._changes_of(done)

    def _insert(self, shown: _Shown) -> None:
        bisect.insort(self._shown, shown, key=lambda other: other[:3])
        self._of_slate[shown.request, shown.item] = shown

    def _advance(self, time: int) -> None:
        """Moves the floor after the newest event, and keeps what lies before it in its final form."""
        floor = max(self._floor, time - self._limits.lateness)
        for entries in (self._shown, self._done):
            if len(entries) > self._limits.events:
                floor = max(floor, entries[-1 - self._limits.events].time + 1)
        if floor == self._floor:
            return
        self._floor = floor
        place = bisect.bisect_left(self._done, floor, key=lambda done: done.time)
        self._past = (self._past + self._entries(self._done[:place]))[-self._schema.history.max_length :]
        del self._done[:place]
        first = floor - self._schema.labels.attribution
        place = bisect.bisect_left(self._shown, first, key=lambda shown: shown.time)
        place = max(place, len(self._shown) - self._limits.events)
        for shown in self._shown[:place]:
            del self._of_slate[shown.request, shown.item]
        del self._shown[:place]
        if self._schema.history.queries:
            past = sorted((time, request) for request, (time, _) in self._queries.items() if time < floor)
            for _, request in past[: -1 - self._schema.history.queries.max_length]:  # one more: a request's own
                del self._queries[request]

    def _entries(self, actions: Sequence[_Done]) -> list[list[Any]]:
        """Entries of the history, in its order."""
        kept = self._schema.history.actions
        entries = [
            [
                done.time,
                done.action,
                done.item,
                done.scenario or (done.credit[2] if done.credit else ""),
                done.request,
                done.features,
            ]
            for done in actions
            if done.action in kept
        ]
        return sorted(entries, key=lambda entry: (*entry[:4], entry[4] is None, entry[4] or ""))


def _identity(done: _Done) -> tuple[Any, ...]:
    """What two actions share only if they are one, by time."""
    return done.time, done.action, done.item, done.request or "", done.scenario or ""


def _credit_of(shown: _Shown) -> list[Any]:
    return [shown.time, shown.request, shown.scenario, shown.keys]


def _is_better(credit: Sequence[Any] | None, shown: _Shown) -> bool:
    """Whether what an action is credited to stands before another impression."""
    return credit is not None and (credit[0], credit[1]) >= (shown.time, shown.request)
