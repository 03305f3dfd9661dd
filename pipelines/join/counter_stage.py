"""Counters as Beam stages: events by key → counts of each row and a snapshot → rows with their counts.

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
from pipelines.join.counters import (
    EVENT,
    KEY,
    NO_ROW,
    ROW,
    Counts,
    count_columns,
    events_of,
    key_schema,
    snapshot,
    snapshot_schema,
)
from pipelines.join.split import SPLITS
from usr_tf.schema import TIMESTAMP, Schema

EVENTS, ROWS, MOMENT, SNAPSHOT = "events", "rows", "moment", "snapshot"
"""Blocks of events and of keys; blocks of rows that want counts; the moment of the snapshot, ms, right after the last
impression; blocks of `DATA/counters/<name>.parquet`."""
TAGS = (EVENTS, ROWS)
"""What each partition of the users puts out."""

_COUNTS, _KEYS = "counts", "keys"
_USERS_PER_PART = 8
"""Partitions of the users for each part of a counter's keys: an event is that much smaller than a row, or more."""


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
) -> Iterator[TaggedOutput]:
    """The events of a partition of the users, `number`, and their keys, as blocks by counter and part of the keys."""
    parts = _parts_of(partitions)
    found = events_of(impressions, actions, credited, first_row, schema)
    for place, (_, events, keys) in enumerate(found):
        for kind, batch in ((EVENTS, events), (_KEYS, keys)):
            for part, rows in divide(batch, _part_of(batch.column(KEY).to_numpy(), parts)):
                yield TaggedOutput(EVENTS, (place * parts + part, (kind, number, store.put(rows))))


def _part_of(keys: np.ndarray, parts: int) -> np.ndarray:
    """`[keys]` int64: the part of each hash. Parts are ranges, so that theirs in order are all keys in order."""
    return ((keys >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)).astype(np.int64)


class AddCounts(beam.PTransform):
    """Fills the counter columns of rows.

    Takes `{EVENTS: (counter and part, block), ROWS: (partition, (split, first row, block)), MOMENT: ms}`. Gives
    `train`, `valid`, `test` (handles of row blocks), and SNAPSHOT, `(counter, (part, block))`.
    """

    def __init__(self, schema: Schema, partitions: int, store: BlockStore):
        super().__init__()
        self._schema, self._parts, self._store = schema, _parts_of(partitions), store

    def expand(self, inputs):  # Beam warns of hints that are dictionaries
        counted = (
            inputs[EVENTS]
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


class _Count(beam.DoFn):
    """A part of a counter's keys: counts as of every row that asks, by the partition of its user, and the snapshot."""

    def __init__(self, schema: Schema, parts: int, store: BlockStore):
        self._schema, self._parts, self._store = schema, parts, store

    def process(self, element: tuple[int, Iterable[tuple[str, int, Handle]]], moment: int) -> Iterator:
        place, part = divmod(element[0], self._parts)
        name, counter = list(self._schema.counters.items())[place]
        blocks = list(element[1])
        numbers, batches = [], []
        for kind, number, handle in blocks:
            if kind == EVENTS:
                batches.append(load(handle))
                numbers.append(np.full(batches[-1].num_rows, number, np.int32))
        keys, times, kinds, rows = (
            np.concatenate([batch.column(column).to_numpy() for batch in batches])
            for column in (KEY, TIMESTAMP, EVENT, ROW)
        )
        del batches
        counts = Counts(keys, times, kinds, counter)
        asking = counts.order[rows[counts.order] != NO_ROW]
        columns = counts.before(counts.codes[asking], times[asking])
        answers = pa.RecordBatch.from_arrays(
            [pa.array(rows[asking]), *(pa.array(column) for column in columns.T)],
            names=[ROW, *count_columns(name, counter)],
        )
        for number, batch in divide(answers, np.concatenate(numbers)[asking]):
            yield number, (_COUNTS, place, self._store.put(batch))
        of_keys = pa.Table.from_batches(
            [load(handle) for kind, _, handle in blocks if kind == _KEYS], key_schema(counter)
        )
        found = snapshot(counts, of_keys, moment, name, counter)
        yield TaggedOutput(SNAPSHOT, (name, (part, self._store.put(found))))


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


class WriteSnapshot(beam.PTransform):
    """Writes SNAPSHOT's blocks as `DIRECTORY/<counter>.parquet`, rows by rising hash of the key, and their moment."""

    def __init__(self, schema: Schema, directory: str):
        super().__init__()
        self._schema, self._directory = schema, directory

    def expand(self, inputs):  # Beam warns of hints that are dictionaries
        every = [
            (name, (-1, BlockStore().put(pa.RecordBatch.from_pylist([], snapshot_schema(name, counter)))))
            for name, counter in self._schema.counters.items()
        ]
        _ = inputs[MOMENT] | "Moment" >> beam.Map(
            lambda moment, path: write_json({"timestamp": moment}, path),
            FileSystems.join(self._directory, "snapshot.json"),
        )
        return (
            [inputs[SNAPSHOT], inputs[SNAPSHOT].pipeline | "EveryCounter" >> beam.Create(every)]
            | "Blocks" >> beam.Flatten()
            | "ByCounter" >> beam.GroupByKey()
            | "Write" >> beam.Map(_write, self._directory)
        )


def _write(element: tuple[str, Iterable[tuple[int, Handle]]], directory: str) -> None:
    name, blocks = element
    ordered = sorted(blocks, key=lambda block: block[0])
    with (
        FileSystems.create(FileSystems.join(directory, f"{name}.parquet"), "application/octet-stream") as stream,
        pq.ParquetWriter(stream, load(ordered[0][1]).schema, compression="zstd") as writer,
    ):
        for _, handle in ordered:
            writer.write_batch(load(handle))
