"""Writer of log directories: sharded, gzipped JSON Lines that appear whole or not at all."""

import contextlib
import gzip
import io
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import orjson

from usr_tf.errors import InputError
from usr_tf.schema import OPTIONAL_TABLES, TABLES

REQUIRED_TABLES = tuple(table for table in TABLES if table not in OPTIONAL_TABLES)


class LogWriter:
    """Writer of the log tables to `out`.

    Everything is written in a folder beside `out`, which takes its name when the `with` block ends well and is
    removed when it does not. The same rows give the same bytes.

    Args:
      out: The directory to make. It may exist if it is empty.
      schema_yaml: The text of its `schema.yaml`.
      rows_per_shard: The most rows of one file.

    Raises:
      InputError: `out` is taken or cannot be written.
    """

    def __init__(self, out: str | Path, schema_yaml: str, rows_per_shard: int = 500_000):
        if rows_per_shard < 1:
            raise ValueError(f"`rows_per_shard` must be at least 1. Received: rows_per_shard={rows_per_shard}")
        self.out = Path(out)
        self.counts: dict[str, int] = dict.fromkeys(REQUIRED_TABLES, 0)
        """Rows written so far, by table."""
        self.folder = self.out.absolute().with_name(f".{self.out.absolute().name}.{uuid.uuid4().hex}.partial")
        """Where the logs lie until they are complete; a file put here comes along."""
        self._schema_yaml = schema_yaml
        self._rows_per_shard = rows_per_shard
        self._shards: dict[str, _Shards] = {}

    def __enter__(self) -> Self:
        _refuse_taken(self.out)
        try:
            self.folder.mkdir(parents=True)
            (self.folder / "schema.yaml").write_text(self._schema_yaml, encoding="utf-8")
            self._shards = {table: self._new_shards(table) for table in REQUIRED_TABLES}
        except OSError as error:
            self._remove()
            raise _unwritable(self.out, error) from error
        return self

    def write(self, table: str, row: dict[str, Any]) -> None:
        """Adds one row. NumPy scalars and arrays are accepted."""
        self.write_lines(table, (orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY),))

    def write_lines(self, table: str, lines: Iterable[bytes]) -> None:
        """Adds rows that are JSON objects already, without line ends."""
        shards = self._shards_of(table)
        for line in lines:
            shards.write(line)
        self.counts[table] = shards.rows

    def add_shard(self, table: str, path: Path, rows: int) -> None:
        """Adopts a file that `open_shard` wrote in `folder`, such as by another process, as the next shard."""
        shards = self._shards_of(table)
        shards.add(path, rows)
        self.counts[table] = shards.rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            for shards in self._shards.values():
                shards.close()
            if error is None:
                for shards in self._shards.values():
                    shards.name_with_total()
                _rename(self.folder, self.out)
        finally:
            self._remove()

    def _shards_of(self, table: str) -> "_Shards":
        if table not in TABLES:
            raise ValueError(f"`table` must be one of {TABLES}. Received: table={table!r}")
        if table not in self._shards:
            self._shards[table] = self._new_shards(table)
        return self._shards[table]

    def _new_shards(self, table: str) -> "_Shards":
        return _Shards(self.folder, table, self._rows_per_shard)

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def open_shard(path: Path) -> Iterator[BinaryIO]:
    """New gzip file for lines, without name or time in its header: equal rows give equal bytes."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as compressed,
        io.BufferedWriter(compressed, 1 << 20) as buffered,  # GzipFile is slow with small writes
    ):
        yield buffered


class _Shards:
    """Files of one table. There is at least one, because readers require every table."""

    def __init__(self, folder: Path, table: str, rows_per_shard: int):
        self.rows = 0
        self._folder = folder
        self._table = table
        self._rows_per_shard = rows_per_shard
        self._paths: list[Path] = []
        self._open = contextlib.ExitStack()
        self._file: BinaryIO | None = None
        self._rows_in_file = 0

    def write(self, line: bytes) -> None:
        if self._file is None or self._rows_in_file == self._rows_per_shard:
            self._open_next()
        self._file.write(line)
        self._file.write(b"\n")
        self._rows_in_file += 1
        self.rows += 1

    def add(self, path: Path, rows: int) -> None:
        self._close_file()
        self._paths.append(path)
        self.rows += rows

    def close(self) -> None:
        if not self._paths:
            self._open_next()
        self._close_file()

    def name_with_total(self) -> None:
        for index, path in enumerate(self._paths):
            path.rename(path.with_name(f"{self._table}-{index:05d}-of-{len(self._paths):05d}.jsonl.gz"))

    def _open_next(self) -> None:
        self._close_file()
        path = self._folder / f"{self._table}-{len(self._paths):05d}.jsonl.gz"
        self._paths.append(path)
        self._file = self._open.enter_context(open_shard(path))
        self._rows_in_file = 0

    def _close_file(self) -> None:
        self._open.close()
        self._file = None


def _refuse_taken(out: Path) -> None:
    try:
        taken = out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir())))
    except OSError as error:
        raise _unwritable(out, error) from error
    if taken:
        raise InputError(out, "something there already", "a new or empty directory")


def _rename(folder: Path, out: Path) -> None:
    try:
        os.replace(folder, out)
    except OSError as error:
        raise _unwritable(out, error) from error


def _unwritable(out: Path, error: OSError) -> InputError:
    return InputError(out, f"no way to write there ({error.strerror})", "a directory that can be made")
