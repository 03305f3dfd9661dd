"""External merge sort on disk."""

import contextlib
import sqlite3
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from usr_tf.errors import InputError

_CACHE_KIB = 64 << 10


class DiskSort:
    """Rows that come out in the order of their first columns: SQLite sorts them in temporary files.

    Memory stays below some `_CACHE_KIB`; the disk of the temporary directory (`SQLITE_TMPDIR` or `TMPDIR`) holds
    about twice the rows. Rows with equal keys keep the order in which they were added.

    Args:
      columns: Columns of a row: integers, floats, texts, bytes or None.
      keys: How many of them, from the first on, to sort by.

    Raises:
      InputError: the disk is full.
    """

    def __init__(self, columns: int, keys: int):
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # a file of no name
        self._close = weakref.finalize(self, self._database.close)  # also where an error keeps the rows from being read
        for pragma in ("journal_mode = OFF", "temp_store = FILE", f"cache_size = -{_CACHE_KIB}"):
            self._database.execute(f"PRAGMA {pragma}")
        names = [f"c{column}" for column in range(columns)]
        self._insert = f"INSERT INTO rows VALUES ({', '.join('?' * columns)})"
        self._select = f"SELECT * FROM rows ORDER BY {', '.join(names[:keys])}, rowid"
        self._database.execute(f"CREATE TABLE rows ({', '.join(names)})")
        self._database.execute("BEGIN")

    def add(self, rows: Iterable[tuple[Any, ...]]) -> None:
        with _room_on_disk():
            self._database.executemany(self._insert, rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """The rows in order, once."""
        try:
            with _room_on_disk():
                yield from self._database.execute(self._select)
        finally:
            self._close()


@contextlib.contextmanager
def _room_on_disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise InputError("TMPDIR", f"no room to sort in ({error})", "room for twice the rows") from error
