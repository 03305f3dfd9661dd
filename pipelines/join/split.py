"""Time split: boundaries of train, valid and test from exact impression counts per minute."""

from collections.abc import Iterable

import apache_beam as beam
import numpy as np

from usr_tf.schema import Split

SPLITS = ("train", "valid", "test")
MINUTE = 60_000
EVER, _NEVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max

Counts = tuple[np.ndarray, np.ndarray]
"""Minutes in rising order, and the impressions in each."""


def count_minutes(timestamps: np.ndarray, since: int = EVER) -> Counts:
    """Impressions per minute of `timestamps` (ms) at or after `since`."""
    return np.unique(timestamps[timestamps >= since] // MINUTE, return_counts=True)


def boundaries(counts: Counts, split: Split) -> tuple[int, int]:
    """Start times (ms, whole minutes) of valid and test.

    Train holds at least its share: valid starts after the minute in which train's share is reached.
    """
    minutes, rows = counts
    reached = np.cumsum(rows)
    starts = []
    for later in (split.valid + split.test, split.test):
        if not later or not len(minutes):
            starts.append(_NEVER)
            continue
        last = int(np.searchsorted(reached, (1 - later) * reached[-1] - 1e-9))
        starts.append(int(minutes[last] + 1) * MINUTE)
    return starts[0], starts[1]


class CountMinutes(beam.CombineFn):
    """Sums `Counts` exactly, so the boundaries do not depend on the order of the rows."""

    def create_accumulator(self) -> Counts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)

    def add_input(self, accumulator: Counts, element: Counts) -> Counts:
        return self.merge_accumulators([accumulator, element])

    def merge_accumulators(self, accumulators: Iterable[Counts]) -> Counts:
        parts = list(accumulators)
        minutes, place = np.unique(np.concatenate([part[0] for part in parts]), return_inverse=True)
        rows = np.zeros(len(minutes), np.int64)
        np.add.at(rows, place, np.concatenate([part[1] for part in parts]))
        return minutes, rows

    def extract_output(self, accumulator: Counts) -> Counts:
        return accumulator
