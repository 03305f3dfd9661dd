"""Item catalogue collected from events."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any


class Catalogue:
    """What is told of each item, and how often. Grows with the items and what is said of them, not with the events.

    So an item's features are those of the whole time that is imported, as of a catalogue of today.

    Args:
      features: Their names, in the order of a row.
    """

    def __init__(self, *features: str):
        self._features = features
        self._told: dict[str, tuple[Counter[Any], ...]] = defaultdict(lambda: tuple(Counter() for _ in features))

    def add(self, item: str, *values: Any) -> None:
        """Notes what one event says of an item: a value a feature, `""` or None where it says nothing."""
        for counts, value in zip(self._told[item], values, strict=True):
            counts[value] += 1

    def told(self, item: str, feature: str) -> Counter[Any]:
        """How often each value of a feature was told of an item."""
        return self._told[item][self._features.index(feature)]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each item's most frequent values that say something, the smallest of equals; None where there is none."""
        for item, told in sorted(self._told.items()):
            yield {"item_id": item, **dict(zip(self._features, map(_most_frequent, told), strict=True))}


def _most_frequent(counts: Counter[Any]) -> Any:
    says_something = (value for value in counts if value not in ("", None))
    return min(says_something, key=lambda value: (-counts[value], value), default=None)
