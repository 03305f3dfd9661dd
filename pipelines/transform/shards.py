"""TFRecord shards: shuffles rows into shards, each one gzip file, whole or not at all."""

import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
from apache_beam.io.filesystems import FileSystems

from pipelines.beam.blocks import BlockStore, Gather, Handle, divide, load
from pipelines.beam.hashing import hash_rows
from pipelines.beam.progress import WRITE, Progress
from pipelines.transform.packing import pack
from pipelines.transform.tf_examples import encode_examples
from usr_tf.schema import RAW_ITEM, RAW_USER, REQUEST, Schema

_COMPRESSION_LEVEL = 2  # half the time of the default for a tenth more bytes
_ROWS_PER_SHARD = 64
"""Rows for each shard that are divided at once, in the mean."""
_CHUNK = pa.schema({"hash": pa.uint64(), "example": pa.large_binary()})  # large, for a shard may have over 2 GiB


class WriteShards(beam.PTransform):
    """Writes batches of transformed rows as `DIRECTORY/part-00000-of-0000N.tfrecord.gz`.

    A row's shard and its place there follow from a hash of its keys, so a rerun writes the same files. A shard is
    held in memory while it is written.
    """

    def __init__(self, directory: str, schema: Schema, shards: int, store: BlockStore):
        super().__init__()
        self._directory, self._schema, self._shards, self._store = directory, schema, shards, store

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        empty = pa.RecordBatch.from_pylist([], _CHUNK)
        every_shard = batches.pipeline | "EveryShard" >> beam.Create(
            [(shard, BlockStore().put(empty)) for shard in range(self._shards)]
        )
        chunks = (
            batches
            | "Serialize" >> beam.Map(_serialize, self._schema)
            | "Gather" >> Gather(_ROWS_PER_SHARD * self._shards)
            | "Divide" >> beam.ParDo(_Divide(self._shards, self._store))
        )
        return (
            (chunks, every_shard)
            | beam.Flatten()
            | "Shuffle" >> beam.GroupByKey()
            | "Write" >> beam.Map(_write, self._directory, self._shards, self._store.progress)
        )


def _serialize(batch: pa.RecordBatch | tuple, schema: Schema) -> pa.RecordBatch:
    """Serialized chunk of a batch of transformed rows."""
    batch = batch[0] if isinstance(batch, tuple) else batch
    hashes = hash_rows(batch, (RAW_USER, REQUEST, RAW_ITEM))
    examples = encode_examples(pack(batch, schema))
    return pa.RecordBatch.from_arrays([pa.array(hashes), examples.cast(pa.large_binary())], schema=_CHUNK)


class _Divide(beam.DoFn):
    """Splits chunks by shard: `(shard, chunk)`."""

    def __init__(self, shards: int, store: BlockStore):
        self._shards, self._store = shards, store

    def process(self, chunk: pa.RecordBatch) -> Iterator[tuple[int, Handle]]:
        shard_of = (chunk.column("hash").to_numpy() >> np.uint64(32)) % np.uint64(self._shards)
        for shard, part in divide(chunk, shard_of.astype(np.int64)):
            yield shard, self._store.put(part)


def _write(element: tuple[int, Iterable[Handle]], directory: str, shards: int, progress: Progress) -> str:
    shard = element[0]
    rows = pa.Table.from_batches([load(handle) for handle in element[1]], _CHUNK)
    order = np.argsort(rows.column("hash").to_numpy(), kind="stable")
    examples = rows.column("example").combine_chunks()
    path = FileSystems.join(directory, f"part-{shard:05}-of-{shards:05}.tfrecord.gz")
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, "shard")
        options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=_COMPRESSION_LEVEL)
        with tf.io.TFRecordWriter(str(local), options) as writer:
            for row in order.tolist():
                writer.write(examples[row].as_py())
        aside = f"{path}.{uuid.uuid4().hex}.tmp"
        with local.open("rb") as source, FileSystems.create(aside, "application/octet-stream", "uncompressed") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    if FileSystems.exists(path):  # an earlier try of this bundle
        FileSystems.delete([path])
    FileSystems.rename([aside], [path])
    progress.add(WRITE, rows.num_rows)
    return path
