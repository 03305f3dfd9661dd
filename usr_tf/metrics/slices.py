"""Slices of a split: new users and items, history, query frequency, position, day."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from usr_tf.metrics.checks import check_numbers
from usr_tf.metrics.keys import codes_of
from usr_tf.metrics.predictions import Predictions

SEEN = ("new", "seen")
"""Whether training has an impression of the user or the item."""
QUERY = ("none", "unseen", "tail", "torso", "head")
"""No query; one that training has not seen; and by how often it did: the queries of each third of its impressions."""
HISTORY = ("0", "1-4", "5-19", "20+")
POSITION = ("1", "2", "3", "4-5", "6-10", "11-20", "21+")

VALUES = {"user": SEEN, "item": SEEN, "history": HISTORY, "query": QUERY, "position": POSITION}
"""Slices whose values are known before any row is; those of `day` are dates."""

_FIRST = re.compile(r"\d+")


@dataclass(frozen=True, eq=False)
class Training:
    """Impression counts of the training split by key.

    Attributes:
      users: user → impressions.
      items: item → (clicks, impressions).
      queries: query key → impressions.
    """

    users: Mapping[bytes, int] = field(default_factory=dict)
    items: Mapping[bytes, tuple[int, int]] = field(default_factory=dict)
    queries: Mapping[int, int] = field(default_factory=dict)


def slices_of(rows: Predictions, training: Training) -> dict[str, pd.Categorical]:
    """Slices that the columns of the rows allow: `user`, `item`, `history`, `query`, `position`, `day` (UTC).

    Raises:
      ValueError: a history of negative length, or a time that is no number of milliseconds.
    """
    if rows.history is not None:
        check_numbers("history", rows.history, 0)
    if rows.timestamp is not None:
        check_numbers("timestamp", rows.timestamp)
    slices = {
        "user": seen_slice(counts_of(rows.user, training.users)),
        "item": seen_slice(counts_of(rows.item, {item: shown for item, (_, shown) in training.items.items()})),
    }
    if rows.history is not None:
        slices["history"] = history_slice(rows.history)
    if rows.query is not None:
        limits = query_limits(np.array(list(training.queries.values()), np.int64))
        slices["query"] = query_slice(rows.query, counts_of(rows.query, training.queries), limits)
    if (rows.position > 0).any():
        slices["position"] = position_slice(rows.position)
    if rows.timestamp is not None:
        slices["day"] = day_slice(rows.timestamp)
    return slices


def seen_slice(impressions: np.ndarray) -> pd.Categorical:
    """Slice by training impressions `[N]` of the row's user or item."""
    return _categorical((impressions > 0).astype(np.int64), SEEN)


def history_slice(length: np.ndarray) -> pd.Categorical:
    """Slice by the number of actions in the history `[N]`."""
    return _categorical(np.digitize(length, [1, 5, 20]), HISTORY)


def position_slice(position: np.ndarray) -> pd.Categorical:
    """Slice by position `[N]` from 1; 0 (unknown) is in no slice."""
    return _categorical(np.digitize(position, [1, 2, 3, 4, 6, 11, 21]) - 1, POSITION)


def day_slice(timestamp: np.ndarray) -> pd.Categorical:
    """Slice by day of ms UTC `[N]`."""
    days, codes = np.unique(timestamp.astype("datetime64[ms]").astype("datetime64[D]"), return_inverse=True)
    return _categorical(codes, tuple(days.astype(str)))


def query_slice(query: np.ndarray, impressions: np.ndarray, limits: tuple[float, float]) -> pd.Categorical:
    """Slice by query frequency, from query keys `[N]` (0 for none) and their training impressions `[N]`."""
    known = 1 + np.digitize(impressions, [1, *np.maximum(limits, 1)])
    return _categorical(np.where(query == 0, 0, known), QUERY)


def query_limits(impressions: np.ndarray) -> tuple[float, float]:
    """Impressions from which a query belongs to the torso and to the head.

    The head is the fewest most frequent queries that hold a third of the training impressions, and all that are as
    frequent as the last of them; torso and head together hold two thirds likewise.

    Args:
      impressions: of each query in training, `[queries]`.
    """
    if not len(impressions):
        return np.inf, np.inf
    falling = np.sort(impressions)[::-1]
    held = np.cumsum(falling)
    head, torso = (falling[np.searchsorted(held, share * held[-1])] for share in (1 / 3, 2 / 3))
    return float(torso), float(head)


def counts_of(keys: np.ndarray, counts: Mapping) -> np.ndarray:
    """Count of each key, int `[N]`; 0 where there is none."""
    codes, distinct = codes_of(keys)
    return np.array([counts.get(key, 0) for key in distinct.tolist()], np.int64).reshape(-1)[codes]


def by_value(value: str) -> tuple:
    """Sort key of slice values: definition order, numbers by size, days by date."""
    for named in (SEEN, QUERY):
        if value in named:
            return (named.index(value), value)
    first = _FIRST.match(value)
    return (int(first[0]) if first else 0, value)


def _categorical(codes: np.ndarray, values: tuple[str, ...]) -> pd.Categorical:
    return pd.Categorical.from_codes(codes, values)
