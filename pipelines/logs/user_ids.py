"""Edits of the user ids of log files: rows are removed by their user id, or get another one.

A file of JSON or Parquet keeps its name, compression and order; JSON becomes one object a line. Only the columns that
the schema reads user ids from are looked at: an id inside another one, such as a `request_id` made of it, stays.
"""

import bz2
import collections
import contextlib
import functools
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from pipelines.logs.casts import plain_values
from pipelines.logs.files import open_bytes, open_parquet
from pipelines.logs.formats import Block, read_blocks, split_suffix
from pipelines.logs.tables import partition_values
from usr_tf.errors import InputError
from usr_tf.log_rows import LogColumn, RejectedRow, coerce
from usr_tf.schema import USER

Edit = Callable[[str], str | None]
"""The id that a row of this user gets; None for none, which removes the row."""

Counts = collections.Counter[str]
"""Rows `read`, `written`, `removed` by the edit, and `unreadable`: without a user id that `usr-tf preprocess` reads."""

_ROWS = 32_768
_USER_COLUMN = LogColumn("string", required=True)
_COMPRESSED: dict[str, Callable[[Any], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0),
    ".bz2": lambda raw: bz2.BZ2File(raw, "wb"),
    ".zst": lambda raw: pa.CompressedOutputStream(pa.PythonFile(raw, "w"), "zstd"),
}


def check_format(path: str, columns: Sequence[str] = (USER,)) -> None:
    """Checks that `edit_file` can write files of this kind.

    Args:
      columns: those that user ids are read from.

    Raises:
      InputError: it cannot, or the ids are in the names of folders.
    """
    if not partition_values(path).keys().isdisjoint(columns):
        raise InputError(path, "user ids in the name of a folder", "a column of them in the file")
    suffix = split_suffix(path)[1]
    if not suffix.startswith((".jsonl", ".ndjson", ".json", ".parquet")):
        raise InputError(path, f"a {suffix} file", "JSON or Parquet, which user ids are edited in")


def edit_file(path: str, out: str, edit: Edit, columns: Sequence[str] = (USER,)) -> Counts:
    """Writes the rows of a log file with edited user ids to `out` and returns their counts.

    A row without a readable user id may be anybody's, and `usr-tf preprocess` rejects it: it is left out.

    Args:
      columns: those that user ids are read from, the first that has a value. An edited id goes into each of them.

    Raises:
      InputError: the file cannot be read to its end.
    """
    counts: Counts = collections.Counter()
    edit = functools.cache(edit)
    with FileSystems.create(out, compression_type=CompressionTypes.UNCOMPRESSED) as raw:
        if path.lower().endswith(".parquet"):
            with open_parquet(path) as parquet:
                _edit_parquet(parquet, path, raw, edit, columns, counts)
        else:
            compress = next((each for suffix, each in _COMPRESSED.items() if path.lower().endswith(suffix)), None)
            with compress(raw) if compress else contextlib.nullcontext(raw) as stream:
                for line in _edit_lines(read_blocks(path, None), edit, columns, counts):
                    stream.write(line)
    return counts


def copy_file(path: str, out: str) -> None:
    """Copies a file without users to `out`, to the byte."""
    with (
        open_bytes(path, decompress=False) as stream,
        FileSystems.create(out, compression_type=CompressionTypes.UNCOMPRESSED) as raw,
    ):
        while piece := stream.read(1 << 20):
            raw.write(piece)


def _edit_lines(blocks: Iterable[Block], edit: Edit, columns: Sequence[str], counts: Counts) -> Iterator[bytes]:
    for block in blocks:
        counts["read"] += len(block.rejected)
        counts["unreadable"] += len(block.rejected)
        if not isinstance(block.rows, bytes):
            raise AssertionError("JSON is read as lines")
        for line in block.rows[:-1].split(b"\n"):
            if not line.strip():
                continue
            counts["read"] += 1
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            values = [row.get(name) for name in columns] if isinstance(row, dict) else []
            user = _user(values)
            edited = _count(user, edit, counts)
            if edited is not None:
                changed = {name: edited for name in columns if name in row}
                yield (line if edited == user else json.dumps(row | changed).encode()) + b"\n"


def _edit_parquet(
    parquet: pq.ParquetFile, path: str, raw: Any, edit: Edit, columns: Sequence[str], counts: Counts
) -> None:
    schema = parquet.schema_arrow
    places = [at for name in columns for at, each in enumerate(schema.names) if each == name]
    if len(places) > len({schema.names[at] for at in places}):
        raise InputError(f"{path}: column {schema.names[places[0]]!r}", "it twice", "each column once")
    if not places:
        raise InputError(f"{path}: column {columns[-1]!r}", f"only {', '.join(schema.names)}", "this required column")
    for place in places:
        schema = schema.set(place, pa.field(schema.names[place], pa.string()))
    with pq.ParquetWriter(raw, schema, compression="zstd") as writer:
        for batch in parquet.iter_batches(_ROWS):
            counts["read"] += len(batch)
            try:
                users = [
                    _user(values)
                    for values in zip(*(plain_values(batch.column(at)).to_pylist() for at in places), strict=True)
                ]
            except UnicodeDecodeError as error:
                raise InputError(path, f"text that is not UTF-8 ({error})", "UTF-8 in columns of strings") from error
            edited = pa.array([_count(user, edit, counts) for user in users], pa.string())
            for place in places:
                batch = batch.set_column(place, schema.field(place), edited)
            writer.write_batch(batch.filter(edited.is_valid()))


def _count(user: str | None, edit: Edit, counts: Counts) -> str | None:
    edited = None if user is None else edit(user)
    counts["unreadable" if user is None else "removed" if edited is None else "written"] += 1
    return edited


def _user(values: Sequence[Any]) -> str | None:
    """User id of the first value that there is, as `usr-tf preprocess` reads it; None where it reads none."""
    value = next((each for each in values if each is not None), None)
    try:
        user: str = coerce(value, _USER_COLUMN, USER)
    except RejectedRow:
        return None
    return user
