"""Sort keys of (group, time) as one integer a row, for as-of joins by one sort and one binary search."""

import numpy as np

_LARGEST = np.iinfo(np.int64).max


class Timeline:
    """Integers that sort rows by group, then by time.

    `places` of events are sorted once. With them as `ordered`,
    `searchsorted(ordered, places(groups, times))` counts the events before each group's own, and those of the group
    strictly before each time. The difference to `searchsorted(ordered, starts(groups))` is those of the group alone.

    Args:
      groups: how many there are. They are numbered from 0.
      times: `[events]` int64, at least all times that rows are told apart by.
    """

    def __init__(self, groups: int, times: np.ndarray):
        self._first = int(times.min(initial=_LARGEST)) if len(times) else 0
        last = int(times.max()) if len(times) else 0
        self._span = last - self._first + 2
        self._ranks = None
        if groups > _LARGEST // self._span:  # their order is all that counts
            self._ranks = np.unique(times)
            self._span = len(self._ranks) + 1

    def places(self, groups: np.ndarray, times: np.ndarray) -> np.ndarray:
        """`[rows]` int64: where in the order a row of this group and time stands. Times may lie outside the events'."""
        if self._ranks is not None:
            return groups * self._span + np.searchsorted(self._ranks, times)
        return groups * self._span + np.clip(times - self._first, 0, self._span - 1)

    def starts(self, groups: np.ndarray) -> np.ndarray:
        """`[rows]` int64: where the group of each row starts."""
        return groups * self._span
