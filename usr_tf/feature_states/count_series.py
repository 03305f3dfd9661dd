"""Count series of one counter key: how often each event had happened by each time.

A document is `[whether earlier times are merged, [time, …], [count of the first kind up to and at each time, …], …]`.
"""

import bisect
from typing import Any

from usr_tf.feature_states.limits import Limits
from usr_tf.schema import Counter


class CountSeries:
    """Cumulative counts by time, for counts as of any moment within the lateness.

    Exact to the millisecond while the key has at most `limits.entries` distinct times within the longest window, the
    delay and the lateness. Beyond that, pairs of neighbouring times become one, the oldest half first: totals stay
    exact, and the left edge of a window may be off by what one pair holds.

    Args:
      document: as `document` gives it; an empty series by default.
    """

    def __init__(self, counter: Counter, limits: Limits, document: list[Any] | None = None):
        self._counter, self._limits = counter, limits
        if document:
            self._merged, self._times, *self._counts = document
        else:
            self._merged, self._times, self._counts = 0, [], [[] for _ in counter.events]

    @property
    def document(self) -> list[Any] | None:
        """The series as JSON values; None where nothing is counted."""
        return [self._merged, self._times, *self._counts] if self._times else None

    def add(self, event: int, time: int, number: int = 1) -> None:
        """Counts an event at a time, or no longer counts it where `number` is negative."""
        times = self._times
        place = bisect.bisect_left(times, time)
        if number < 0 and place == len(times):
            return  # what was counted has been dropped since
        exact = place < len(times) and times[place] == time
        merged = (place == 0 and self._merged) or number < 0
        if not exact and not merged:
            times.insert(place, time)
            for counts in self._counts:
                counts.insert(place, counts[place - 1] if place else 0)
        counts = self._counts[event]
        for later in range(place, len(times)):
            counts[later] += number
        if number < 0 and exact and all(each[place] == (each[place - 1] if place else 0) for each in self._counts):
            self._delete(slice(place, place + 1))
        self._trim()

    def before(self, moment: int) -> list[float]:
        """Counts as of a moment (ms), by `Counter.columns`: strictly before it less the delay, within each window."""
        known = moment - self._counter.delay
        until = self._up_to(known)
        counts: list[float] = []
        for window in self._counter.windows:
            start = until if window is None else self._up_to(known - window)
            for each in self._counts:
                value = each[until] if until >= 0 else 0
                if window is not None and start >= 0:
                    value -= each[start]
                counts.append(float(value))
        return counts

    def _up_to(self, time: int) -> int:
        """The last place whose time is strictly before this one, or -1."""
        return bisect.bisect_left(self._times, time) - 1

    def _trim(self) -> None:
        """Merges what no window of a moment within the lateness begins or ends at."""
        if self._times:
            first = self._times[-1] - self._counter.delay - self._longest - self._limits.lateness
            place = self._up_to(first)
            if place > 0:
                self._delete(slice(0, place))
                self._merged = 1
        if len(self._times) > self._limits.entries:
            self._delete(slice(0, self._limits.entries // 2, 2))
            self._merged = 1

    @property
    def _longest(self) -> int:
        return max((window for window in self._counter.windows if window is not None), default=0)

    def _delete(self, places: slice) -> None:
        del self._times[places]
        for counts in self._counts:
            del counts[places]


def lifetime(counter: Counter, limits: Limits) -> int | None:
    """How long (ms) a series matters after its last event; None for ever, where a window has no limit."""
    if None in counter.windows:
        return None
    return max(window for window in counter.windows if window is not None) + counter.delay + limits.lateness
