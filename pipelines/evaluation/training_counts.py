"""Training counts of users, items and queries by hashed key, 16 bytes per key, held by every worker."""

import dataclasses
from collections.abc import Iterable

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """Occurrences of each hashed key."""

    keys: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.uint64))
    """Hashes, rising."""
    counts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(cls, keys: np.ndarray) -> "Counts":
        """Counts of hashes `[N]`, in any order."""
        return cls(*np.unique(keys, return_counts=True))

    @classmethod
    def sum(cls, parts: Iterable["Counts"]) -> "Counts":
        parts = list(parts)
        if not parts:
            return cls()
        keys, place = np.unique(np.concatenate([part.keys for part in parts]), return_inverse=True)
        counts = np.bincount(place, np.concatenate([part.counts for part in parts]), len(keys))
        return cls(keys, counts.astype(np.int64))

    def get(self, keys: np.ndarray) -> np.ndarray:
        """Counts `[N]` of hashes; 0 for an absent key."""
        if not len(self.keys):
            return np.zeros(len(keys), np.int64)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, self.counts[place], 0)


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingCounts:
    """Training impressions of each user, item and query, and clicks of each item."""

    users: Counts = Counts()
    items: Counts = Counts()
    clicks: Counts = Counts()
    queries: Counts = Counts()

    @classmethod
    def sum(cls, parts: Iterable["TrainingCounts"]) -> "TrainingCounts":
        parts = list(parts)
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: Counts.sum(getattr(part, name) for part in parts) for name in names})
