"""Avro files of log tables."""

import itertools
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipelines.logs.files import open_bytes
from pipelines.logs.formats.block import Block
from usr_tf.errors import InputError

_BLOCK_ROWS = 16_384
_MAGIC = b"Obj\x01"


def read_blocks(path: str, columns: Sequence[str] | None) -> Generator[Block]:
    """Blocks of a file's columns.

    Raises:
      InputError: as `read_rows`.
    """
    number = 1
    for rows in read_rows(path):
        names = tuple(rows[0])
        wanted = [name for name in names if columns is None or name in columns]
        arrays = [_array([row[name] for row in rows]) for name in wanted]
        batch = pa.RecordBatch.from_arrays(arrays, wanted) if wanted else pa.record_batch({"": pa.nulls(len(rows))})
        yield Block(batch, range(number, number + len(rows)), columns=names)
        number += len(rows)


def read_rows(path: str, advance: Callable[[int], object] = lambda size: None) -> Iterator[list[dict[str, Any]]]:
    """Lists of a file's records.

    Args:
      advance: receives how many more bytes of the file have been read.

    Raises:
      InputError: the file is unreadable, no whole Avro file of records, or of a codec whose library is not installed.
    """
    import fastavro  # comes with Beam

    with open_bytes(path, decompress=False, advance=advance) as stream:
        start = stream.peek(len(_MAGIC))[: len(_MAGIC)]  # type: ignore[attr-defined]
        if start != _MAGIC:
            found = f"no Avro file (its first bytes are {start!r})" if start else "an empty file"
            raise InputError(path, found, "an Avro file of records")
        try:
            reader = fastavro.reader(stream)
            while rows := list(itertools.islice(reader, _BLOCK_ROWS)):
                if not all(isinstance(row, dict) for row in rows):
                    raise TypeError("values that are no records")
                yield rows
        except (ValueError, EOFError, LookupError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(path, f"no Avro file that can be read ({error})", "an Avro file of records") from error


def _array(values: list[Any]) -> pa.Array:
    """Values as an array; as texts if they are of several types of a union, lists among them in JSON."""
    try:
        return pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return json.dumps(value, default=str) if isinstance(value, bool | list | dict) else str(value)
