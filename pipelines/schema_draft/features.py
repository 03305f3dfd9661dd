"""Guess of a feature's group and type from its column."""

import dataclasses
import statistics
from typing import Any

from pipelines.schema_draft import column_names as names
from pipelines.schema_draft.profiles import Profile

_FEW = 50
"""Whole numbers of at most so many values are rather categories."""
_SKEWED = 20
"""Numbers above zero whose largest is so many times their median are taken by their logarithm."""
_WORDS = 2
"""Texts of more words than this on average are texts rather than categories."""
_HISTORY_VALUES = (3, 20_000)
"""Categories of an item that say something of a history: neither a flag nor a key."""
_LONGEST_LIST = 20
_WIDEST = 4096
"""Of vectors, by the schema."""
_UNUSABLE = {"object", "list", "moment", "infinite"}
"""Kinds of elements that no type of list holds."""


@dataclasses.dataclass
class Guess:
    """A line of `features`, or why there is none."""

    keys: dict[str, Any] | None
    comment: str


def guess_feature(group: str, column: Profile, per_candidate: bool = False) -> Guess:
    """The feature of a column.

    Args:
      per_candidate: whether the column differs between the items of a request.
    """
    if group == "context" and per_candidate:
        group = "candidate"
    reason = _reason_against(column)
    if reason:
        return Guess(None, reason)
    keys: dict[str, Any] = {"group": group, **_type_keys(column)}
    comment = _describe(column)
    if keys["type"] == "categorical":
        low, high = _HISTORY_VALUES
        if group == "item" and low <= column.distinct <= high:
            keys["in_history"] = True
        once = sum(count == 1 for count in column.values.values())
        if column.distinct > _FEW and once > column.distinct / 4:
            keys["min_count"] = 2
            comment += f"; {once:,} occur once"
    return Guess(keys, comment)


def _reason_against(column: Profile) -> str:
    if names.is_label(column.name):
        return "sounds like what happened after the impression, which a feature must not know"
    if names.is_bookkeeping(column.name):
        return "sounds like a record of how the row was made, which a request does not have"
    if column.kind == "empty":
        return "no value in the sample"
    if column.kind in ("mixed", "object"):
        kinds = ", ".join(sorted(column.kinds))
        return f"values of several kinds ({kinds})" if column.kind == "mixed" else "objects, which no type holds"
    if column.kind == "list" and ({*column.elements} & _UNUSABLE or {*column.elements} <= {"null"}):
        return "lists without values of one kind"
    if column.kind == "list" and "float" in column.elements and _width(column) is None:
        return f"lists of fractions without one length of at most {_WIDEST:,}, which no type holds"
    if column.kind == "moment" or (column.kind != "list" and names.is_moment(column.name) and column.distinct > _FEW):
        return "a moment, which means nothing to a model as it is"
    if names.is_locator(column.name):
        return "an address, which differs from row to row"
    if column.kind != "list" and column.distinct == 1:
        return f"the same value in all rows ({next(iter(column.values))!r})"
    if column.kind == "text" and column.distinct > 0.9 * column.filled > _FEW and not _is_text(column):
        return f"{column.distinct:,} values in {column.filled:,} rows: nearly a key"
    return ""


def _type_keys(column: Profile) -> dict[str, Any]:
    if column.kind == "list":
        width = _width(column)
        if width is not None:
            return {"type": "vector", "width": width}
        longest = max(column.lengths)
        return {"type": "categorical_list", "max_length": min(longest or 1, _LONGEST_LIST)}
    if column.kind in ("float", "number_text", "integer") and not _is_category(column):
        middle, largest = statistics.median(column.numbers), max(column.numbers)
        is_skewed = min(column.numbers) >= 0 and largest > _SKEWED * max(middle, 1e-9)
        return {"type": "numeric", **({"transform": "log"} if is_skewed or names.is_price(column.name) else {})}
    if _is_text(column):
        return {"type": "text", "max_length": _quantile(column.lengths, 0.98)}
    return {"type": "categorical"}


def _width(column: Profile) -> int | None:
    """Width of a list of fractions that all have the same one."""
    if {*column.elements} <= {"integer", "float"} and "float" in column.elements and len(column.lengths) == 1:
        [width] = column.lengths
        return width if width <= _WIDEST else None
    return None


def _is_category(column: Profile) -> bool:
    if column.kind == "float" or names.is_price(column.name):
        return False
    return names.is_id(column.name) or (column.distinct <= _FEW and column.filled > 4 * column.distinct)


def _is_text(column: Profile) -> bool:
    words = sum(length * count for length, count in column.lengths.items()) / max(column.filled, 1)
    return column.kind == "text" and (words > _WORDS or names.is_title(column.name))


def _quantile(lengths: Any, share: float) -> int:
    total, seen = sum(lengths.values()), 0
    for length, count in sorted(lengths.items()):
        seen += count
        if seen >= share * total:
            return max(1, length)
    return 1


def _describe(column: Profile) -> str:
    parts = []
    if column.kind == "list":
        parts.append(f"{column.distinct:,} values" if column.values else "numbers")
    elif column.numbers and not _is_category(column):
        low, high = min(column.numbers), max(column.numbers)
        parts.append(f"{low:g} to {high:g}")
    else:
        parts.append(f"{column.distinct:,} values")
    if column.missing:
        parts.append(f"{column.missing / column.rows:.1%} missing")
    if column.values and not names.is_id(column.name) and column.kind in ("text", "boolean"):
        common = ", ".join(repr(str(value)[:24]) for value, _ in column.values.most_common(3))
        parts.append(f"mostly {common}" if column.distinct <= _FEW else f"such as {common}")
    return ", ".join(parts)
