"""Arrow record batches as Beam elements: coder, on-disk store between stages, hash partitioning.

A local runner keeps all that one stage passes to the next in the memory of a single process. There, blocks go to
files and only their places through the runner. A distributed runner has a shuffle of its own, on disks: there the
blocks themselves travel.
"""

import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.beam.hashing import hash_strings
from pipelines.beam.progress import Progress

Handle = bytes | tuple[str, int, int]
"""A packed block, or where one lies: file, offset, bytes."""
Block = tuple[str, Handle]
"""A table's name, and rows of it."""


class RecordBatchCoder(beam.coders.Coder):
    """Beam coder of Arrow record batches, with their size in bytes.

    Beam would pickle batches, also those that stay inside a stage: it samples elements to estimate their size.
    """

    def encode(self, value: pa.RecordBatch) -> bytes:
        return _pack(value)

    def decode(self, encoded: bytes) -> pa.RecordBatch:
        return load(encoded)

    def estimate_size(self, value: pa.RecordBatch) -> int:
        return value.nbytes

    def is_deterministic(self) -> bool:
        return False


beam.coders.registry.register_coder(pa.RecordBatch, RecordBatchCoder)

_PACKED = pa.ipc.IpcWriteOptions(compression="lz4")


class BlockStore:
    """Store of Arrow blocks between two stages; each copy of a store writes its own file.

    Args:
      directory: a local one for the files; None to hand out the blocks themselves.

    Attributes:
      progress: what the stages that have the store add the rows to that they have done.
    """

    def __init__(self, directory: str | None = None):
        self.progress = Progress(directory)
        self._directory = directory
        self._path = ""

    def put(self, batch: pa.RecordBatch) -> Handle:
        """Stores a block and returns its handle, readable at once by every process of this machine."""
        packed = _pack(batch)
        if self._directory is None:
            return packed
        self._path = self._path or str(Path(self._directory, uuid.uuid4().hex))
        with open(self._path, "ab") as stream:
            start = stream.tell()
            stream.write(packed)
        return self._path, start, len(packed)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_path": ""}


def load(handle: Handle) -> pa.RecordBatch:
    """Block of a handle that `BlockStore.put` returned."""
    if not isinstance(handle, bytes):
        path, offset, size = handle
        with open(path, "rb", buffering=0) as stream:
            stream.seek(offset)
            handle = stream.read(size)
    with pa.ipc.open_stream(handle) as stream:
        return stream.read_next_batch()


def partition(batch: pa.RecordBatch, key: str, partitions: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Rows of `batch` grouped by the hash partition of their `key`."""
    codes = batch.column(key).dictionary_encode()
    of_key = hash_strings(codes.dictionary) % np.uint64(partitions)
    yield from divide(batch, of_key.astype(np.int64)[codes.indices.to_numpy()])


def divide(batch: pa.RecordBatch, part_of_row: np.ndarray) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Rows of `batch` grouped by part, in ascending order of the non-empty parts."""
    order = np.argsort(part_of_row, kind="stable")
    batch = batch.take(pa.array(order))
    parts, starts, sizes = np.unique(part_of_row[order], return_index=True, return_counts=True)
    for part, start, size in zip(parts.tolist(), starts, sizes, strict=True):
        yield part, batch.slice(start, size)


class Gather(beam.PTransform):
    """Concatenation of the batches of a bundle to about `size` rows, so that their parts are not too small.

    A block of a few rows is mostly header: with a thousand parts, dividing every batch as it comes would cost more in
    headers than in rows.
    """

    def __init__(self, size: int):
        super().__init__()
        self._size = size

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        return (
            batches
            | beam.BatchElements(self._size, self._size, element_size_fn=lambda batch: batch.num_rows)
            | beam.FlatMap(lambda waiting: gather(waiting, self._size))
        )


def gather(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    """Concatenation of batches to about `size` rows."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= size:
            yield pa.concat_batches(waiting)
            waiting, rows = [], 0
    if waiting:
        yield pa.concat_batches(waiting)


def tables_of(blocks: Iterable[Block], schemas: dict[str, pa.Schema]) -> dict[str, pa.Table]:
    """One table per input of a partition, with all its rows; possibly empty."""
    batches: dict[str, list[pa.RecordBatch]] = {table: [] for table in schemas}
    for table, handle in blocks:
        batches[table].append(load(handle))
    return {table: pa.Table.from_batches(batches[table], schema) for table, schema in schemas.items()}


def _pack(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_PACKED) as stream:
        stream.write_batch(batch)
    return sink.getvalue().to_pybytes()
