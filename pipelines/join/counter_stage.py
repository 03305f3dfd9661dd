"""Beam stages of counters: events by key → counts of each row and a snapshot → rows with their counts.

Each partition of the users hands out the events of its impressions and actions. They meet by key: a part of a
counter's keys is counted at a time, in a few narrow columns, so that a hot key with many events stays small. Counts go
back to the partition of users that asked, in which every row has a number.
"""

from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import AsSingleton, TaggedOutput

from pipelines.beam.blocks import BlockStore, Handle, divide, load
from pipelines.beam.output import write_json
from pipelines.join.counter_keys import KEY, key_schema
from pipelines.join.counter_state import (
    COUNT,
    SNAPSHOT_FILE,
    STATE,
    CounterState,
    make_state,
    read_state,
    row_groups,
    state_schema,
)
from pipelines.join.counters import EVENT, NO_ROW, ROW, Counts, events_of, snapshot, snapshot_schema
from pipelines.join.split import SPLITS
from usr_tf.schema import TIMESTAMP, Schema

EVENTS, ROWS, MOMENT, SNAPSHOT = "events", "rows", "moment", "snapshot"
"""Blocks of events and of keys; blocks of rows that want counts; the moment of the snapshot, ms, right after the last
impression; blocks of files in `DATA/counters`."""
TAGS = (EVENTS, ROWS)
"""What each partition of the users puts out."""

_COUNTS, _KEYS = "counts", "keys"
_USERS_PER_PART = 8
"""Partitions of the users for each part of a counter's keys: an event is that much smaller than a row, or more."""

_ROWS = 1 << 20
"""Rows that are counted at once."""


def _parts_of(partitions: int) -> int:
    """Parts of each counter's keys."""
    return -(-partitions // _USERS_PER_PART)


def event_blocks(
    number: int,
    impressions: pa.Table,
    actions: pa.Table,
    credited: np.ndarray,
    first_row: int,
    schema: Schema,
    partitions: int,
    store: BlockStore,
    since: int,
) -> Iterator[TaggedOutput]:
    """The events of a partition of the users, `number`, and their keys, as blocks by counter and part of the keys."""
    parts = _parts_of(partitions)
    found = events_of(impressions, actions, credited, first_row, schema, since)
    for place, (_, events, keys) in enumerate(found):
        for block in _by_part(place, number, events, keys, parts, store):
            yield TaggedOutput(EVENTS, block)


def _by_part(
    place: int, number: int, events: pa.RecordBatch, keys: pa.RecordBatch, parts: int, store: BlockStore
) -> Iterator[tuple[int, tuple[str, int, Handle]]]:
    """Events and keys of the counter at `place`, as blocks by counter and part of the keys."""
    for kind, batch in ((EVENTS, events), (_KEYS, keys)):
        for part, rows in divide(batch, _part_of(batch.column(KEY).to_numpy(), parts)):
            yield place * parts + part, (kind, number, store.put(rows))


def _part_of(keys: np.ndarray, parts: int) -> np.ndarray:
    """`[keys]` int64: the part of each hash. Parts are ranges, so that theirs in order are all keys in order."""
    return ((keys >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)).astype(np.int64)


class AddCounts(beam.PTransform):
    """Fills the counter columns of rows.

    Takes `{EVENTS: (counter and part, block), ROWS: (partition, (split, first row, block)), MOMENT: ms}`. Gives
    `train`, `valid`, `test` (handles of row blocks), and SNAPSHOT, `(file, (part, block))`.

    Args:
      state: of an earlier run, whose events count too.
    """

    def __init__(self, schema: Schema, partitions: int, store: BlockStore, state: CounterState | None):
        super().__init__()
        self._schema, self._parts, self._store, self._state = schema, _parts_of(partitions), store, state

    def expand(self, inputs):  # Beam warns of hints that are dictionaries
        events = [inputs[EVENTS]]
        if self._state:
            events.append(
                inputs[EVENTS].pipeline
                | "Counters" >> beam.Create(list(enumerate(self._schema.counters)))
                | "RowGroups" >> beam.FlatMap(_row_groups, self._state)
                | "OneWorkerARowGroup" >> beam.Reshuffle()
                | "ReadState" >> beam.ParDo(_ReadState(self._schema, self._parts, self._store, self._state))
            )
        counted = (
            events
            | "AllEvents" >> beam.Flatten()
            | "ByKey" >> beam.GroupByKey()
            | "Count"
            >> beam.ParDo(_Count(self._schema, self._parts, self._store), AsSingleton(inputs[MOMENT])).with_outputs(
                SNAPSHOT, main=_COUNTS
            )
        )
        filled = (
            [inputs[ROWS], counted[_COUNTS]]
            | "RowsAndCounts" >> beam.Flatten()
            | "ByUser" >> beam.GroupByKey()
            | "Fill" >> beam.ParDo(_Fill(self._schema, self._store)).with_outputs(*SPLITS)
        )
        return {**{split: filled[split] for split in SPLITS}, SNAPSHOT: counted[SNAPSHOT]}


def _row_groups(element: tuple[int, str], state: CounterState) -> Iterator[tuple[int, int]]:
    place, name = element
    yield from ((place, group) for group in range(row_groups(state, name)))


class _ReadState(beam.DoFn):
    """`(counter, row group)` of a state → its events and keys, as `event_blocks` gives them."""

    def __init__(self, schema: Schema, parts: int, store: BlockStore, state: CounterState):
        self._schema, self._parts, self._store, self._state = schema, parts, store, state

    def process(self, element: tuple[int, int]) -> Iterator:
        place, group = element
        name, counter = list(self._schema.counters.items())[place]
        events, keys = read_state(self._state, name, counter, group)
        yield from _by_part(place, NO_ROW, events, keys, self._parts, self._store)


class _Count(beam.DoFn):
    """A part of a counter's keys: the counts of every row that asks, by the partition of its user; snapshot; state."""

    def __init__(self, schema: Schema, parts: int, store: BlockStore):
        self._schema, self._parts, self._store = schema, parts, store

    def process(self, element: tuple[int, Iterable[tuple[str, int, Handle]]], moment: int) -> Iterator:
        place, part = divmod(element[0], self._parts)
        name, counter = list(self._schema.counters.items())[place]
        blocks = list(element[1])
        batches = [(number, load(handle)) for kind, number, handle in blocks if kind == EVENTS]
        of_user = np.concatenate([np.full(batch.num_rows, number, np.int32) for number, batch in batches])
        keys, times, kinds, rows = (
            np.concatenate([batch.column(column).to_numpy() for _, batch in batches])
            for column in (KEY, TIMESTAMP, EVENT, ROW)
        )
        numbers = None
        if any(COUNT in batch.schema.names for _, batch in batches):
            numbers = np.concatenate([_numbers(batch) for _, batch in batches])
        del batches
        counts = Counts(keys, times, kinds, counter, numbers)
        asking = counts.order[rows[counts.order] != NO_ROW]
        for start in range(0, len(asking), _ROWS):
            part_of_asking = asking[start : start + _ROWS]
            columns = counts.before(counts.codes[part_of_asking], times[part_of_asking])
            answers = pa.RecordBatch.from_arrays(
                [pa.array(rows[part_of_asking]), *(pa.array(column) for column in columns.T)],
                names=[ROW, *counter.columns(name)],
            )
            for number, batch in divide(answers, of_user[part_of_asking]):
                yield number, (_COUNTS, place, self._store.put(batch))
        strings = pa.Table.from_batches(
            [load(handle) for kind, _, handle in blocks if kind == _KEYS], key_schema(counter)
        )
        files = {
            name: snapshot(counts, strings, moment, name, counter),
            _state_file(name): make_state(counts, times, kinds, numbers, strings, moment, counter),
        }
        for file, batch in files.items():
            yield TaggedOutput(SNAPSHOT, (file, (part, self._store.put(batch))))


def _numbers(events: pa.RecordBatch) -> np.ndarray:
    """How often each event happened."""
    return events.column(COUNT).to_numpy() if COUNT in events.schema.names else np.ones(events.num_rows, np.int64)


class _Fill(beam.DoFn):
    """A partition of the users: its blocks of rows with their counts, 0 where a row has no key."""

    def __init__(self, schema: Schema, store: BlockStore):
        self._schema, self._store = schema, store

    def process(self, element: tuple[int, Iterable[tuple[str, int, Handle]]]) -> Iterator:
        blocks = list(element[1])
        batches = [(split, first, load(handle).num_rows) for split, first, handle in blocks if split != _COUNTS]
        total = max((first + rows for _, first, rows in batches), default=0)
        columns = {name: np.zeros(total, np.float32) for name in self._schema.counter_columns}
        for tag, _, handle in blocks:
            if tag == _COUNTS:
                counts = load(handle)
                rows = counts.column(ROW).to_numpy()
                for name in counts.schema.names[1:]:
                    columns[name][rows] = counts.column(name).to_numpy()
        for split, first, handle in blocks:
            if split != _COUNTS:
                batch = load(handle)
                one = pa.array(np.arange(batch.num_rows + 1), pa.int32())
                for name, values in columns.items():
                    values = pa.array(values[first : first + batch.num_rows])
                    at = batch.schema.get_field_index(name)
                    batch = batch.set_column(at, name, pa.ListArray.from_arrays(one, values))
                yield TaggedOutput(split, self._store.put(batch))


def _state_file(name: str) -> str:
    return f"{STATE}/{name}"


class WriteSnapshot(beam.PTransform):
    """Writes SNAPSHOT's blocks as `DIRECTORY/<file>.parquet`, rows by rising hash of the key, and their moment.

    Every counter has a snapshot and a state, be it without rows.
    """

    def __init__(self, schema: Schema, directory: str):
        super().__init__()
        self._schema, self._directory = schema, directory

    def expand(self, inputs):  # Beam warns of hints that are dictionaries
        layouts = {name: snapshot_schema(name, counter) for name, counter in self._schema.counters.items()}
        layouts |= {_state_file(name): state_schema(counter) for name, counter in self._schema.counters.items()}
        empty = [(file, (-1, BlockStore().put(_empty(layout)))) for file, layout in layouts.items()]
        _ = inputs[MOMENT] | "Moment" >> beam.Map(_write_moment, FileSystems.join(self._directory, SNAPSHOT_FILE))
        return (
            [inputs[SNAPSHOT], inputs[SNAPSHOT].pipeline | "EveryFile" >> beam.Create(empty)]
            | "Blocks" >> beam.Flatten()
            | "ByFile" >> beam.GroupByKey()
            | "Write" >> beam.Map(_write, self._directory)
        )


def _empty(layout: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], layout)


def _write_moment(moment: int, path: str) -> None:
    write_json({TIMESTAMP: moment}, path)


def _write(element: tuple[str, Iterable[tuple[int, Handle]]], directory: str) -> None:
    file, blocks = element
    ordered = sorted(blocks, key=lambda block: block[0])
    with (
        FileSystems.create(FileSystems.join(directory, f"{file}.parquet"), "application/octet-stream") as stream,
        pq.ParquetWriter(stream, load(ordered[0][1]).schema, compression="zstd") as writer,
    ):
        for _, handle in ordered:
            writer.write_batch(load(handle))
