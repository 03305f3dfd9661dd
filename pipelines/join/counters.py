"""Counters as of a moment: how many impressions and actions share a key, on whole columns of events. No Beam here.

An event is an impression or an action: a hash of its key, a time (ms), and its kind. The hash has 64 bits and stands
for the key from here on; the key's own strings go along once each, for the snapshot.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.beam.hashing import hash_strings
from pipelines.join.timeline import Timeline
from usr_tf.schema import (
    ACTION,
    IMPRESSION,
    ITEM,
    SCENARIO,
    TIMESTAMP,
    USER,
    Counter,
    Schema,
    counter_column,
)

KEY, EVENT, ROW = "key", "event", "row"
EVENTS = pa.schema({KEY: pa.uint64(), TIMESTAMP: pa.int64(), EVENT: pa.int8(), ROW: pa.int32()})
"""Events of a counter: the hash of the key, the time, 0 for an impression or 1 + the index of the action in
`counter.actions`, and the row that wants the counts of this key as of this time, or -1."""

NO_ROW = -1
_ODD = np.uint64(0x9E3779B97F4A7C15)


def key_columns(counter: Counter) -> tuple[str, ...]:
    """Columns that hold the strings of a key."""
    return (*counter.key, SCENARIO) if counter.by_scenario else counter.key


def count_columns(name: str, counter: Counter) -> list[str]:
    """Columns of the counts, in the order of `Counts.before`."""
    return [
        counter_column(name, window, event) for window in counter.windows for event in (IMPRESSION, *counter.actions)
    ]


def key_schema(counter: Counter) -> pa.Schema:
    """Arrow schema of the keys that `events_of` yields: each hash with its strings."""
    return pa.schema({KEY: pa.uint64(), **dict.fromkeys(key_columns(counter), pa.string())})


def action_features(schema: Schema) -> tuple[str, ...]:
    """Item features that actions need: those of the history and of the counters' keys."""
    items = schema.features_of("item")
    keys = (name for counter in schema.counters.values() for name in counter.key if name in items)
    return tuple(dict.fromkeys([*schema.history_features, *keys]))


def events_of(
    impressions: pa.Table, actions: pa.Table, credited: np.ndarray, first_row: int, schema: Schema
) -> Iterator[tuple[str, pa.RecordBatch, pa.RecordBatch]]:
    """The events of every counter, and its keys: `(name, EVENTS, key_schema)`. Events without a key are left out.

    An action has the key values of its item and its user, as of its time. Those of the request and of the candidate,
    and the scenario, are those of the impression that it is credited to; without one it has the scenario that it names.

    Args:
      impressions, actions: with the features of their items and users.
      credited: as `as_of.label` returns it.
      first_row: impressions before it make no row; it is row 0.
    """
    of_impression = pa.array(credited, mask=credited < 0)
    names = dict.fromkeys(name for counter in schema.counters.values() for name in key_columns(counter))
    keys = {name: _Key.of(name, impressions, actions, of_impression, schema) for name in names}
    times = np.concatenate([table.column(TIMESTAMP).to_numpy() for table in (impressions, actions)])
    rows = np.full(len(times), NO_ROW, np.int32)
    rows[first_row : len(impressions)] = np.arange(len(impressions) - first_row)
    done = actions.column(ACTION).combine_chunks()
    for name, counter in schema.counters.items():
        kinds = pc.fill_null(pc.index_in(done, pa.array(counter.actions)), -2).to_numpy().astype(np.int8) + np.int8(1)
        kinds = np.concatenate([np.zeros(len(impressions), np.int8), kinds])
        hashed, valid = np.zeros(len(times), np.uint64), kinds >= 0
        for part in key_columns(counter):
            hashed = hashed * _ODD + keys[part].hashes
            valid &= keys[part].valid
        kept = np.flatnonzero(valid)
        events = [pa.array(values[kept]) for values in (hashed, times, kinds, rows)]
        _, first = np.unique(hashed[kept], return_index=True)
        first = kept[first]
        strings = [keys[part].strings.take(pa.array(first)) for part in key_columns(counter)]
        yield (
            name,
            pa.RecordBatch.from_arrays(events, schema=EVENTS),
            pa.RecordBatch.from_arrays([pa.array(hashed[first]), *strings], schema=key_schema(counter)),
        )


class Counts:
    """The events of a counter, sorted by key and time.

    Args:
      keys: `[events]` uint64.
      times: `[events]` int64.
      kinds: `[events]` int8, as in `EVENTS`.

    Attributes:
      codes: `[events]` int64, the index in `keys` of each event's key.
      keys: `[keys]` uint64, each once.
      order: `[events]`, which sorts the events. Questions in this order are answered faster.
    """

    def __init__(self, keys: np.ndarray, times: np.ndarray, kinds: np.ndarray, counter: Counter):
        self._counter = counter
        self.codes, self.keys = pd.factorize(keys)
        self._timeline = Timeline(len(self.keys), times)
        places = self._timeline.places(self.codes, times)
        self.order = np.argsort(places, kind="stable")
        places, kinds = places[self.order], kinds[self.order]
        self._places = [places[kinds == kind] for kind in range(1 + len(counter.actions))]

    def before(self, codes: np.ndarray, times: np.ndarray) -> np.ndarray:
        """`[rows, columns]` float32: the counts of each key as of each time, by `count_columns`.

        Events count whose time is strictly before `time - delay` and at or after `time - delay - window`.
        """
        known = times - self._counter.delay
        end = self._timeline.places(codes, known)
        until = [np.searchsorted(places, end) for places in self._places]
        columns = []
        for window in self._counter.windows:
            start = self._timeline.starts(codes) if window is None else self._timeline.places(codes, known - window)
            columns += [last - np.searchsorted(places, start) for places, last in zip(self._places, until, strict=True)]
        return np.stack(columns, axis=1).astype(np.float32)


class _Key:
    """One column of keys, for impressions and then actions."""

    def __init__(self, strings: pa.Array):
        self.strings = strings
        codes = strings.dictionary_encode()
        of_string = hash_strings(codes.dictionary) if len(codes.dictionary) else np.zeros(1, np.uint64)
        self.hashes = of_string[pc.fill_null(codes.indices, 0).to_numpy()]
        """`[events]` uint64."""
        self.valid = pc.fill_null(pc.not_equal(strings, ""), False).to_numpy(zero_copy_only=False)
        """`[events]` bool: whether there is a value."""

    @classmethod
    def of(cls, name: str, impressions: pa.Table, actions: pa.Table, credited: pa.Array, schema: Schema) -> "_Key":
        shown = impressions.column(name).combine_chunks()
        if name in (USER, ITEM) or name in schema.features_of("user", "item"):
            done = actions.column(name).combine_chunks()
        else:
            done = shown.take(credited)
            if name == SCENARIO:
                done = pc.coalesce(done, actions.column(SCENARIO).combine_chunks())
        strings = pa.concat_arrays([shown.cast(pa.string()), done.cast(pa.string())])
        if name in schema.features_of("query"):
            strings = pc.utf8_trim_whitespace(pc.utf8_lower(strings))
        return cls(strings)


def snapshot(counts: Counts, keys: pa.Table, moment: int, name: str, counter: Counter) -> pa.RecordBatch:
    """Every key with any count, by rising hash: its strings and its counts as of `moment` (ms), as `snapshot_schema`.

    Args:
      keys: by `key_schema`, each at least once.
    """
    found = counts.before(np.arange(len(counts.keys)), np.full(len(counts.keys), moment))
    any_event = np.flatnonzero(found.any(axis=1))
    any_event = any_event[np.argsort(counts.keys[any_event])]
    place = pc.index_in(pa.array(counts.keys[any_event]), keys.column(KEY).combine_chunks())
    strings = [keys.column(part).combine_chunks().take(place) for part in key_columns(counter)]
    return pa.RecordBatch.from_arrays(
        [*strings, *(pa.array(column) for column in found[any_event].T)], schema=snapshot_schema(name, counter)
    )


def snapshot_schema(name: str, counter: Counter) -> pa.Schema:
    """Arrow schema of `DATA/counters/<name>.parquet`."""
    strings: Mapping[str, pa.DataType] = dict.fromkeys(key_columns(counter), pa.string())
    return pa.schema({**strings, **dict.fromkeys(count_columns(name, counter), pa.float32())})
