"""Avro files of log tables."""

import itertools
from collections.abc import Generator, Sequence

import fastavro
import pyarrow as pa

from pipelines.logs.files import open_bytes
from pipelines.logs.formats.block import Block
from usr_tf.errors import InputError

_BLOCK_ROWS = 16_384


def read_blocks(path: str, columns: Sequence[str] | None) -> Generator[Block]:
    """Blocks of a file's columns.

    Raises:
      InputError: the file is unreadable, no whole Avro file, or of a codec whose library is not installed.
    """
    with open_bytes(path, decompress=False) as stream:
        number = 1
        try:
            reader = fastavro.reader(stream)
            fields = [field["name"] for field in reader.writer_schema["fields"]]
            names = [name for name in fields if columns is None or name in columns]
            while rows := list(itertools.islice(reader, _BLOCK_ROWS)):
                arrays = [pa.array([row[name] for row in rows]) for name in names]
                batch = (
                    pa.RecordBatch.from_arrays(arrays, names) if names else pa.record_batch({"": pa.nulls(len(rows))})
                )
                yield Block(batch, range(number, number + len(rows)))
                number += len(rows)
        except (ValueError, EOFError, KeyError, TypeError, IndexError, pa.ArrowException) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(path, f"no Avro file that can be read ({error})", "an Avro file of records") from error
