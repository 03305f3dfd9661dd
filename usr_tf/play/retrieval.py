"""Retrieval: plain candidates of a typed query or a feed, for the page alone. A shop has its own."""

from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from typing import Any

from usr_tf.schema import ITEM, Schema

CANDIDATES = 20


class Retrieval:
    """Retrieval over a catalogue.

    Args:
      items: item → features.
      popularity: scenario → item → impressions.
    """

    def __init__(
        self, schema: Schema, items: Mapping[str, Mapping[str, Any]], popularity: Mapping[str, Mapping[str, int]]
    ):
        self._items, self._popularity = items, popularity
        self._shared = [name for name in schema.history_features if name != ITEM]
        self._words = {item: frozenset(_words(item, row)) for item, row in items.items()}

    def search(self, scenario: str, query: str) -> list[str]:
        """Items that share words with a query, those with the most of them first; empty where none does."""
        asked, shown = query.casefold().split(), self._popularity.get(scenario, {})
        found = {item: sum(word in words for word in asked) for item, words in self._words.items()}
        matching = [item for item, hits in found.items() if hits]
        return sorted(matching, key=lambda item: (-found[item], -shown.get(item, 0), item))[:CANDIDATES]

    def feed(self, scenario: str, history: Sequence[Mapping[str, Any]]) -> list[str]:
        """Items like those of a history (rows of its item features), then those that were displayed most often."""
        shown = self._popularity.get(scenario, {})
        popular = sorted(self._items, key=lambda item: (-shown.get(item, 0), item))
        taste = Tally((name, value) for row in history for name in self._shared for value in _values(row.get(name)))
        likeness = {
            item: sum(taste[name, value] for name in self._shared for value in _values(row.get(name)))
            for item, row in self._items.items()
        }
        alike = sorted((item for item in popular if likeness[item]), key=lambda item: -likeness[item])
        return [*dict.fromkeys([*alike[: CANDIDATES // 2], *popular[:CANDIDATES]])][:CANDIDATES]


def _words(item: str, row: Mapping[str, Any]) -> list[str]:
    texts = [item, *(text for value in row.values() for text in _values(value))]
    return [word for text in texts for word in text.casefold().split()]


def _values(value: Any) -> list[str]:
    """Texts of a feature's value; none of a number."""
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and text]
