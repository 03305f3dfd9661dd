"""Counter state for incremental runs: the events so far, by key.

A row is a key, a kind of event, a time and how often: the events of the longest finite window and the delay one by one,
all earlier ones added up, without a time. It holds what came before its moment, and a later run adds the events of its
logs from that moment on. Counts as of that moment or later are then those of one run on all logs.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from pipelines.beam.output import COUNTERS, read_json
from pipelines.join.counter_keys import KEY, KeyColumn, distinct_keys, hash_keys, strings_of
from pipelines.join.counters import EVENT, EVENTS, NO_ROW, Counts
from usr_tf.errors import InputError
from usr_tf.schema import TIMESTAMP, Counter, Schema

COUNT = "count"
EVENTS_OF_STATE = EVENTS.append(pa.field(COUNT, pa.int64()))
"""EVENTS that happened several times."""
SNAPSHOT_FILE, STATE = "snapshot.json", "state"
"""Names in `DATA/counters`."""


@dataclasses.dataclass(frozen=True)
class CounterState:
    """The state that an earlier run wrote: the directory of its files, and its moment (ms)."""

    directory: str
    moment: int


def open_state(data: str, schema: Schema) -> CounterState | None:
    """The state of finished data; None where the schema has no counters, or the data no state.

    Raises:
      InputError: a file of the state is missing.
    """
    directory = FileSystems.join(data, COUNTERS, STATE)
    moment = snapshot_moment(data)
    if not schema.counters or moment is None:
        return None
    for name in schema.counters:
        path = FileSystems.join(directory, f"{name}.parquet")
        if not FileSystems.exists(path):
            raise InputError(path, "no such file", "the state of this counter, as `preprocess` wrote it")
    return CounterState(directory, moment)


def snapshot_moment(data: str) -> int | None:
    """The moment (ms) of the counters of finished data, right after its last impression; None where it has none."""
    path = FileSystems.join(data, COUNTERS, SNAPSHOT_FILE)
    return read_json(path)[TIMESTAMP] if FileSystems.exists(path) else None


def state_schema(counter: Counter) -> pa.Schema:
    """Arrow schema of `DATA/counters/state/<name>.parquet`."""
    strings = dict.fromkeys(counter.key_columns, pa.string())
    return pa.schema(strings | {EVENT: pa.string(), TIMESTAMP: pa.int64(), COUNT: pa.int64()})


def make_state(
    counts: Counts,
    times: np.ndarray,
    kinds: np.ndarray,
    numbers: np.ndarray | None,
    strings: pa.Table,
    moment: int,
    counter: Counter,
) -> pa.RecordBatch:
    """The state as of `moment` (ms) of the events in `counts`: `state_schema`, by rising hash of the key.

    Args:
      times, kinds, numbers: the same events, as `Counts` takes them.
      strings: by `key_schema`, each key at least once.
    """
    first = _first_kept(moment, counter)
    recent = np.flatnonzero((times >= first) & (times < moment))
    frame = pd.DataFrame({KEY: counts.keys[counts.codes[recent]], TIMESTAMP: times[recent], EVENT: kinds[recent]})
    frame[COUNT] = 1 if numbers is None else numbers[recent]
    frame = frame.groupby([KEY, TIMESTAMP, EVENT], as_index=False)[COUNT].sum()
    if None in counter.windows:
        totals = counts.totals(first)
        code, kind = np.nonzero(totals)
        older = {KEY: counts.keys[code], TIMESTAMP: first - 1, EVENT: kind, COUNT: totals[code, kind]}
        frame = pd.concat([pd.DataFrame(older), frame])
    frame = frame.sort_values([KEY, TIMESTAMP, EVENT])
    moments = frame[TIMESTAMP].to_numpy(np.int64)
    return pa.RecordBatch.from_arrays(
        [
            *strings_of(frame[KEY].to_numpy(np.uint64), strings, counter),
            pa.array(counter.events).take(pa.array(frame[EVENT].to_numpy(np.int8))),
            pa.array(moments, mask=moments < first),
            pa.array(frame[COUNT].to_numpy(np.int64)),
        ],
        schema=state_schema(counter),
    )


def read_state(state: CounterState, name: str, counter: Counter, group: int) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """One row group of a counter's state as events, with `count` beside the columns of EVENTS, and its keys.

    Raises:
      InputError: the file is not such a state.
    """
    layout = state_schema(counter)
    with _open(state, name) as file:
        table = file.read_row_group(group, columns=layout.names).cast(layout).combine_chunks()
    columns = [KeyColumn(table.column(part).combine_chunks()) for part in counter.key_columns]
    hashed = hash_keys(columns)
    times = pc.fill_null(table.column(TIMESTAMP), _first_kept(state.moment, counter) - 1)
    kinds = pc.index_in(table.column(EVENT), pa.array(counter.events))
    values = [hashed, times.to_numpy(), kinds.to_numpy(), np.full(len(hashed), NO_ROW), table.column(COUNT).to_numpy()]
    events = pa.RecordBatch.from_arrays(
        [pa.array(value, field.type) for value, field in zip(values, EVENTS_OF_STATE, strict=True)],
        schema=EVENTS_OF_STATE,
    )
    return events, distinct_keys(hashed, np.arange(len(hashed)), columns, counter)


def row_groups(state: CounterState, name: str) -> int:
    """Parts of a counter's state that can be read apart.

    Raises:
      InputError: the file is not such a state.
    """
    with _open(state, name) as file:
        return file.num_row_groups


@contextlib.contextmanager
def _open(state: CounterState, name: str) -> Iterator[pq.ParquetFile]:
    path = FileSystems.join(state.directory, f"{name}.parquet")
    try:
        with FileSystems.open(path) as stream:
            yield pq.ParquetFile(stream)
    except (pa.ArrowException, OSError, ValueError, BeamIOError) as error:
        raise InputError(path, f"no state of counters ({error})", "a file that `preprocess` wrote") from error


def _first_kept(moment: int, counter: Counter) -> int:
    """The first time whose events are kept one by one: no earlier event leaves or enters a window from `moment` on."""
    return moment - counter.delay - max((window for window in counter.windows if window is not None), default=0)
