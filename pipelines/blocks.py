"""Arrow blocks as Beam elements: split by the hash of a key column, and packed as bytes for the shuffle."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import pyarrow as pa

Block = tuple[str, bytes]
"""A table's name, and rows of it."""


def pack(batch: pa.RecordBatch) -> bytes:
    """`batch` as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue().to_pybytes()


def unpack(packed: bytes) -> pa.RecordBatch:
    """The batch that `pack` packed."""
    with pa.ipc.open_stream(packed) as stream:
        return stream.read_next_batch()


def partition(table: str, batch: pa.RecordBatch, key: str, partitions: int) -> Iterator[tuple[int, Block]]:
    """The rows of `batch`, keyed by the partition that the hash of their `key` falls in."""
    values = batch.column(key).to_numpy(zero_copy_only=False).astype(object)
    of_row = (pd.util.hash_array(values) % np.uint64(partitions)).astype(np.int64)
    order = np.argsort(of_row, kind="stable")
    batch = batch.take(pa.array(order))
    starts = np.searchsorted(of_row[order], np.arange(partitions + 1))
    for number in range(partitions):
        if starts[number] < starts[number + 1]:
            yield number, (table, pack(batch.slice(starts[number], starts[number + 1] - starts[number])))


def tables_of(blocks: Iterable[Block], schemas: dict[str, pa.Schema]) -> dict[str, pa.Table]:
    """All rows of a partition, a table each; a table without rows is empty."""
    batches: dict[str, list[pa.RecordBatch]] = {table: [] for table in schemas}
    for table, packed in blocks:
        batches[table].append(unpack(packed))
    return {table: pa.Table.from_batches(batches[table], schema) for table, schema in schemas.items()}
