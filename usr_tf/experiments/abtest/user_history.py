"""User histories during a replay: the month's logs and the days of the test."""

import bisect
from collections.abc import Container, Sequence
from typing import NamedTuple

from pipelines.simulator.behaviour import Play
from pipelines.simulator.noise import Record
from pipelines.simulator.tables import actions_of


class Event(NamedTuple):
    """Action, sorted as the pipeline sorts a user's history."""

    time: int  # ms UTC
    action: str
    item: int
    scenario: str  # "" where it was done outside of any list


class Histories:
    """Actions of a chunk's users.

    Args:
      users: how many.
      scenarios: their names, by number.
    """

    def __init__(self, users: int, scenarios: Sequence[str]):
        self._scenarios = scenarios
        self._events: list[list[Event]] = [[] for _ in range(users)]

    def add(self, played: Play, recorded: Record) -> None:
        """Adds the actions of a play. `before` skips those later than a request."""
        for done in actions_of(played, recorded):
            scenario = "" if done.outside else self._scenarios[played.scenario[done.row]]
            event = Event(done.time, done.action, int(played.item[done.row]), scenario)
            bisect.insort(self._events[played.user[done.row]], event)

    def before(self, user: int, now: int, actions: Container[str], length: int) -> list[Event]:
        """The newest `length` actions of a user strictly before `now`, newest last."""
        events = self._events[user]
        past = events[: bisect.bisect_left(events, (now,))]
        return [event for event in past if event.action in actions][-length:]
