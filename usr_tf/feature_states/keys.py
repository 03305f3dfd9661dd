"""Keys of a feature store, and the counter keys of an event."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from usr_tf.schema import IMPRESSION, Schema
from usr_tf.unicode.strings import counter_key_string


def item_key(item: str) -> str:
    """Key of the row versions of an item."""
    return f"item:{item}"


class UserKeys(NamedTuple):
    """Keys of what is kept of a user."""

    row: str
    """Row versions."""
    history: str
    """Actions and queries, as requests read them."""
    recent: str
    """Events within the lateness, as the ingest reads them."""


def user_keys(user: str) -> UserKeys:
    """Keys of what is kept of a user."""
    return UserKeys(f"user:{user}", f"history:{user}", f"recent:{user}")


def counter_key(name: str, values: Sequence[str | None]) -> str:
    """Key of a counter's counts: the values of `Counter.key_columns`, none of them empty."""
    return f"count:{orjson.dumps([name, *values]).decode()}"


class Change(NamedTuple):
    """Change of a count: events of a kind at a time (ms) that are to be counted, or no longer."""

    counter: str
    key: str
    event: int
    """Index in `Counter.events`."""
    time: int
    number: int
    """1, or -1."""


class KeyPlan:
    """Key columns of all counters of a schema, and the changes of counts that events make.

    Attributes:
      columns: features that are part of some key.
      of_row: bool for each: whether it is a feature of item or user, which an action has of its own.
    """

    def __init__(self, schema: Schema):
        self._schema = schema
        self.columns = tuple(dict.fromkeys(name for counter in schema.counters.values() for name in counter.key))
        rows = schema.features_of("user", "item")
        self.of_row = tuple(name in rows for name in self.columns)
        queries = schema.features_of("query")
        self._normalized = {name for name in self.columns if name in queries or schema.normal_form(name) != "none"}
        places = {name: place for place, name in enumerate(self.columns)}
        self._counters = [
            (name, counter, [places[column] for column in counter.key]) for name, counter in schema.counters.items()
        ]

    def values(self, row: Mapping[str, Any]) -> list[str | None]:
        """Values of `columns` in a row of features."""
        return [self.value(row.get(name), name) for name in self.columns]

    def value(self, value: str | None, name: str) -> str | None:
        """A value of a feature as counters compare it; None and "" as they are."""
        return counter_key_string(value, name, self._schema) if value and name in self._normalized else value

    def changes(
        self, event: str, time: int, values: Sequence[str | None], scenario: str | None, number: int = 1
    ) -> Iterator[Change]:
        """Changes of counts by an impression or action; none of the keys that lack a value."""
        for name, counter, places in self._counters:
            if event != IMPRESSION and event not in counter.actions:
                continue
            key = [values[place] for place in places]
            if counter.by_scenario:
                key.append(scenario)
            if all(key):
                yield Change(name, counter_key(name, key), counter.events.index(event), time, number)
