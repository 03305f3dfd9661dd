"""As-of counts: impressions and actions with a row's key before its time, on Arrow columns, without Beam."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.join.counter_keys import (
    KEY,
    KeyColumn,
    distinct_keys,
    hash_keys,
    normalized_keys,
    strings_of,
)
from pipelines.join.split import EVER
from pipelines.join.timeline import Timeline
from usr_tf.schema import ACTION, SCENARIO, TIMESTAMP, Counter, Schema

EVENT, ROW = "event", "row"
EVENTS = pa.schema({KEY: pa.uint64(), TIMESTAMP: pa.int64(), EVENT: pa.int8(), ROW: pa.int32()})
"""Events of a counter: the hash of the key, the time (ms), the index of the kind in `Counter.events`, and the row that
wants the counts of this key as of this time, or -1."""

NO_ROW = -1


def action_features(schema: Schema) -> tuple[str, ...]:
    """Item features that actions need: those of the history and of the counters' keys."""
    items = schema.features_of("item")
    keys = (name for counter in schema.counters.values() for name in counter.key if name in items)
    return tuple(dict.fromkeys([*schema.history_features, *keys]))


def events_of(
    impressions: pa.Table, actions: pa.Table, credited: np.ndarray, first_row: int, schema: Schema, since: int = EVER
) -> Iterator[tuple[str, pa.RecordBatch, pa.RecordBatch]]:
    """The events of every counter, and its keys: `(name, EVENTS, key_schema)`. Events without a key are left out.

    An action has the key values of its item and its user, as of its time. Those of the request and of the candidate,
    and the scenario, are those of the impression that it is credited to; without one it has the scenario that it names.

    Args:
      impressions, actions: with the features of their items and users.
      credited: as `as_of.label` returns it.
      first_row: impressions before it make no row; it is row 0.
      since: ms; what is earlier is no event.
    """
    of_impression = pa.array(credited, mask=credited < 0)
    names = dict.fromkeys(name for counter in schema.counters.values() for name in counter.key_columns)
    column_of = {name: _key_column(name, impressions, actions, of_impression, schema) for name in names}
    times = np.concatenate([table.column(TIMESTAMP).to_numpy() for table in (impressions, actions)])
    rows = np.full(len(times), NO_ROW, np.int32)
    rows[first_row : len(impressions)] = np.arange(len(impressions) - first_row)
    done = actions.column(ACTION).combine_chunks()
    for name, counter in schema.counters.items():
        kinds = pc.fill_null(pc.index_in(done, pa.array(counter.events)), -1).to_numpy().astype(np.int8)
        kinds = np.concatenate([np.zeros(len(impressions), np.int8), np.where(kinds == 0, -1, kinds)])
        columns = [column_of[part] for part in counter.key_columns]
        valid = np.logical_and.reduce([kinds >= 0, times >= since, *(column.valid for column in columns)])
        kept = np.flatnonzero(valid)
        hashed = hash_keys(columns)[kept]
        events = [pa.array(values) for values in (hashed, times[kept], kinds[kept].astype(np.int8), rows[kept])]
        keys = distinct_keys(hashed, kept, columns, counter)
        yield name, pa.RecordBatch.from_arrays(events, schema=EVENTS), keys


def _key_column(name: str, impressions: pa.Table, actions: pa.Table, credited: pa.Array, schema: Schema) -> KeyColumn:
    """A column of keys, for impressions and then actions."""
    shown = impressions.column(name).combine_chunks()
    if name in schema.features_of("user", "item"):
        done = actions.column(name).combine_chunks()
    else:
        done = shown.take(credited)
        if name == SCENARIO:
            done = pc.coalesce(done, actions.column(SCENARIO).combine_chunks())
    strings = pa.concat_arrays([shown, done])
    return KeyColumn(normalized_keys(strings, name, schema) if name in schema.features else strings)


class Counts:
    """The events of a counter, sorted by key and time.

    Args:
      keys: `[events]` uint64.
      times: `[events]` int64.
      kinds: `[events]` int8, as in `EVENTS`.
      numbers: `[events]` int64, how often each happened; once by default.

    Attributes:
      codes: `[events]` int64, the index in `keys` of each event's key.
      keys: `[keys]` uint64, each once.
      order: `[events]`, which sorts the events. Questions in this order are answered faster.
    """

    def __init__(
        self,
        keys: np.ndarray,
        times: np.ndarray,
        kinds: np.ndarray,
        counter: Counter,
        numbers: np.ndarray | None = None,
    ):
        self._counter = counter
        self.codes, self.keys = pd.factorize(keys)
        self._timeline = Timeline(len(self.keys), times)
        places = self._timeline.places(self.codes, times)
        self.order = np.argsort(places, kind="stable")
        places, kinds = places[self.order], kinds[self.order]
        of_kind = [kinds == kind for kind in range(len(counter.events))]
        self._places = [places[mask] for mask in of_kind]
        self._sums = None
        if numbers is not None:
            numbers = numbers[self.order]
            self._sums = [np.concatenate([[0], np.cumsum(numbers[mask])]) for mask in of_kind]

    def before(self, codes: np.ndarray, times: np.ndarray) -> np.ndarray:
        """`[rows, columns]` float32: the counts of each key as of each time, by `Counter.columns`.

        Events count whose time is strictly before `time - delay` and at or after `time - delay - window`.
        """
        known = times - self._counter.delay
        end = self._timeline.places(codes, known)
        starts = [
            self._timeline.starts(codes) if window is None else self._timeline.places(codes, known - window)
            for window in self._counter.windows
        ]
        kinds = len(self._places)
        columns = np.empty((len(starts) * kinds, len(codes)), np.float32)
        for kind in range(kinds):
            until = self._events_before(end, kind)
            for window, start in enumerate(starts):
                columns[window * kinds + kind] = until - self._events_before(start, kind)
        return columns.T

    def totals(self, moment: int) -> np.ndarray:
        """`[keys, kinds]` int64: all events of each key strictly before a moment."""
        codes = np.arange(len(self.keys))
        places, starts = self._timeline.places(codes, np.full(len(codes), moment)), self._timeline.starts(codes)
        kinds = range(len(self._places))
        return np.stack([self._events_before(places, kind) - self._events_before(starts, kind) for kind in kinds], 1)

    def _events_before(self, places: np.ndarray, kind: int) -> np.ndarray:
        """The events of a kind that stand before each place."""
        found = np.searchsorted(self._places[kind], places)
        return found if self._sums is None else self._sums[kind][found]


def snapshot(counts: Counts, keys: pa.Table, moment: int, name: str, counter: Counter) -> pa.RecordBatch:
    """Every key with any count, by rising hash: its strings and its counts as of `moment` (ms), as `snapshot_schema`.

    Args:
      keys: by `key_schema`, each at least once.
    """
    found = counts.before(np.arange(len(counts.keys)), np.full(len(counts.keys), moment))
    known = np.flatnonzero(found.any(axis=1))
    known = known[np.argsort(counts.keys[known])]
    strings = strings_of(counts.keys[known], keys, counter)
    columns = [pa.array(column) for column in found[known].T]
    return pa.RecordBatch.from_arrays([*strings, *columns], schema=snapshot_schema(name, counter))


def snapshot_schema(name: str, counter: Counter) -> pa.Schema:
    """Arrow schema of `DATA/counters/<name>.parquet`."""
    strings = dict.fromkeys(counter.key_columns, pa.string())
    return pa.schema(strings | dict.fromkeys(counter.columns(name), pa.float32()))
