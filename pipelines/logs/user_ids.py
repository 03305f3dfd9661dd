"""Edits of the user ids of log files: rows are removed by their user id, or get another one.

A file keeps its name, form and order. Only the column `user_id` is looked at: an id inside another column, such as a
`request_id` made of it, stays.
"""

import collections
import functools
import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from pipelines.logs.files import line_blocks, open_bytes, open_parquet
from usr_tf.errors import InputError
from usr_tf.schema import USER

Edit = Callable[[str], str | None]
"""The id that a row of this user gets; None for none, which removes the row."""

Counts = collections.Counter[str]
"""Rows `read`, `written`, `removed` by the edit, and `unreadable`: without a user id that `usr-tf preprocess` reads."""

_ROWS = 32_768


def edit_file(path: str, out: str, edit: Edit) -> Counts:
    """Writes the rows of a log file with edited user ids to `out` and returns their counts.

    A row without a readable user id may be anybody's, and `usr-tf preprocess` rejects it: it is left out.

    Raises:
      InputError: the file cannot be read to its end.
    """
    counts: Counts = collections.Counter()
    edit = functools.cache(edit)
    with FileSystems.create(out, compression_type=CompressionTypes.UNCOMPRESSED) as raw:
        if path.endswith(".parquet"):
            with open_parquet(path) as parquet:
                _edit_parquet(parquet, path, raw, edit, counts)
        elif path.endswith(".gz"):
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as lines:
                lines.writelines(_edit_lines(line_blocks(path, gzipped=True), edit, counts))
        else:
            for line in _edit_lines(line_blocks(path, gzipped=False), edit, counts):
                raw.write(line)
    return counts


def copy_file(path: str, out: str) -> None:
    """Copies a file without users to `out`, to the byte."""
    with (
        open_bytes(path, gzipped=False) as stream,
        FileSystems.create(out, compression_type=CompressionTypes.UNCOMPRESSED) as raw,
    ):
        while piece := stream.read(1 << 20):
            raw.write(piece)


def _edit_lines(blocks: Iterable[bytes], edit: Edit, counts: Counts) -> Iterator[bytes]:
    for block in blocks:
        for line in block[:-1].split(b"\n"):
            if not line.strip():
                continue
            counts["read"] += 1
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            user = _user(row.get(USER)) if isinstance(row, dict) else None
            edited = _count(user, edit, counts)
            if edited is None:
                continue
            yield (line if edited == user else json.dumps(row | {USER: edited}).encode()) + b"\n"


def _edit_parquet(parquet: pq.ParquetFile, path: str, raw: Any, edit: Edit, counts: Counts) -> None:
    schema = parquet.schema_arrow
    place = schema.get_field_index(USER)
    if place < 0:
        raise InputError(f"{path}: column {USER!r}", f"only {', '.join(schema.names)}", "this required column")
    edited_schema = schema.set(place, pa.field(USER, pa.string()))
    with pq.ParquetWriter(raw, edited_schema, compression="zstd") as writer:
        for batch in parquet.iter_batches(_ROWS):
            counts["read"] += len(batch)
            try:
                users = batch.column(place).to_pylist()
            except UnicodeDecodeError as error:
                raise InputError(path, f"text that is not UTF-8 ({error})", "UTF-8 in columns of strings") from error
            edited = [_count(_user(user), edit, counts) for user in users]
            batch = batch.set_column(place, edited_schema.field(place), pa.array(edited, pa.string()))
            writer.write_batch(batch.filter(batch.column(place).is_valid()))


def _count(user: str | None, edit: Edit, counts: Counts) -> str | None:
    edited = None if user is None else edit(user)
    counts["unreadable" if user is None else "removed" if edited is None else "written"] += 1
    return edited


def _user(value: Any) -> str | None:
    """User id as `pipelines.logs.tables` reads it; None where it reads none."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int) or value == "":
        return None
    try:
        return str(value).encode().decode()
    except UnicodeEncodeError:  # half a surrogate pair
        return None
