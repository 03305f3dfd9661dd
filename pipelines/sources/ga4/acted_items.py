"""Items that an action means, where its event carries several.

`select_item` and `add_to_cart` have one item by Google's rules. Where a tag manager merges the item acted on into the
list that the page pushed before, the event carries the whole list: the item acted on has replaced the first one. Such
an item stands out: it alone has a quantity, it is there twice, it has no place among the others, as its index is
missing or above the number of items, or it alone is in another list.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

from pipelines.sources.ga4.event import Item
from usr_tf.errors import InputError

ALL, FIRST, EXTRA, NONE = "all", "first", "extra", "none"
RULES = (EXTRA, FIRST, ALL, NONE)

_BOUGHT = "purchase"
"""The action that means every item of its event."""
_FILLED = "cart"
"""The action in which several items with a quantity are several items in the cart."""


class ActedItems:
    """Rule for the items that an action means.

    Args:
      rules: Tried in this order, where an event carries several items: `extra`, the item that stands out of the list;
        `first`, the item at the first place; `all`; `none`. Where none of them tells, the action is dropped.

    Raises:
      InputError: an unknown rule.
    """

    def __init__(self, rules: Sequence[str]):
        for rule in rules:
            if rule not in RULES:
                raise InputError(
                    "--several", repr(rule), f"some of {', '.join(RULES)}, in the order in which to try them"
                )
        self._rules = rules
        self.counts: dict[str, Counter[str]] = {}
        """By action, how many events with several items were settled by what; `dropped` if by nothing."""

    def of(self, action: str, items: Sequence[Item], first_index: int, listed: Collection[str]) -> list[Item]:
        """Items that an action means, each once.

        Args:
          items: Those of the event that have an id or a name.
          first_index: The index of the first place in a list.
          listed: Keys of the items in the list that the user was shown last.
        """
        distinct = _once(items)
        if len(distinct) < 2 or action == _BOUGHT:
            return distinct
        found, reason = self._settle(action, items, first_index, listed)
        self.counts.setdefault(action, Counter())[reason] += 1
        return _once(found)

    def _settle(
        self, action: str, items: Sequence[Item], first_index: int, listed: Collection[str]
    ) -> tuple[list[Item], str]:
        for rule in self._rules:
            if rule == ALL:
                return list(items), ALL
            if rule == FIRST:
                return [min(items, key=_place_in_list)], FIRST
            if rule == EXTRA:
                if action == _FILLED and all(item.quantity for item in items):
                    return list(items), "quantity"
                for reason, stands_out in _signs(items, first_index, listed):
                    found = [item for item in items if stands_out(item)]
                    if len({item.key for item in found}) == 1:
                        return found, reason
        return [], "dropped"


def replaces_first(item: Item, items: Sequence[Item], first_index: int) -> bool:
    """Whether an item acted on is in its event for the action alone: once, where the others lack the first place."""
    others = [other.index for other in items if other.key != item.key]
    once = len(items) == len(others) + 1
    return once and None not in others and first_index not in others


def _signs(
    items: Sequence[Item], first_index: int, listed: Collection[str]
) -> Iterable[tuple[str, Callable[[Item], bool]]]:
    """Reasons for which one item stands out of the others; the strongest first."""
    keys = Counter(item.key for item in items)
    names = Counter(item.name for item in items if item.name)
    last = first_index + len(items) - 1
    have_index = sum(item.index is not None for item in items)
    yield "quantity", lambda item: bool(item.quantity)
    yield "twice", lambda item: keys[item.key] > 1
    # The parent of a variant is in the list, and is what was shown.
    yield "name_twice", lambda item: names[item.name] > 1 and item.key in listed
    yield "no_index", lambda item: have_index == len(items) - 1 and item.index is None
    yield "index_above", lambda item: have_index == len(items) and (item.index or 0) > last
    lists = Counter((item.list_name, item.list_id) for item in items)
    if len(lists) == 2 and len(items) > 2:
        yield "own_list", lambda item: lists[item.list_name, item.list_id] == 1
    if len(keys) > 2 and len(keys.keys() & set(listed)) == len(keys) - 1:
        yield "not_listed", lambda item: item.key not in listed


def _once(items: Sequence[Item]) -> list[Item]:
    return [item for place, item in enumerate(items) if item.key not in {other.key for other in items[:place]}]


def _place_in_list(item: Item) -> float:
    return float("inf") if item.index is None else item.index
