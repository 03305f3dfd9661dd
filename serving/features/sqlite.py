"""SQLite backend: one file, nothing to install."""

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from serving.features.backend import Stored
from usr_tf.errors import InputError

_T = TypeVar("_T")
_VARIABLES = 30_000  # of one statement; SQLite's own limit is 32,766
_BUSY_SECONDS = 60.0


class SQLiteBackend:
    """Keys and values in a SQLite file. Any number of processes read while one writes.

    A committed transaction outlives the death of the process, and of the machine too except that its last ones may be
    missing, the offset of the ingest with them.

    Args:
      path: the file, which is made if missing.

    Raises:
      InputError: it is no SQLite file, or cannot be opened.
    """

    def __init__(self, path: str | Path):
        self._path = str(path)
        self._of_thread = threading.local()
        self._connections: list[sqlite3.Connection] = []
        try:
            connection = self._connect()
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS features (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires INTEGER) "
                "WITHOUT ROWID"
            )
            connection.execute(
                "CREATE INDEX IF NOT EXISTS features_expires ON features (expires) WHERE expires IS NOT NULL"
            )
        except sqlite3.Error as error:
            raise InputError(path, f"no usable SQLite file ({error})", "a feature store, or a path for one") from error

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        return _read(self._connect(), keys)

    def transact(self, work: Callable[["_Transaction"], _T]) -> _T:
        connection = self._connect()
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(_Transaction(connection))
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return result

    def close(self) -> None:
        while self._connections:
            self._connections.pop().close()
        self._of_thread = threading.local()

    def _connect(self) -> sqlite3.Connection:
        """Connection of this thread."""
        connection = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA synchronous=NORMAL")
            self._of_thread.connection = connection
            self._connections.append(connection)
        return connection


class _Transaction:
    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        return _read(self._connection, keys)

    def write(self, values: Mapping[str, Stored | None]) -> None:
        now = int(time.time() * 1000)
        self._connection.executemany(
            "INSERT OR REPLACE INTO features VALUES (?, ?, ?)",
            [
                (key, stored.value, None if stored.lifetime is None else now + stored.lifetime)
                for key, stored in values.items()
                if stored
            ],
        )
        self._connection.executemany(
            "DELETE FROM features WHERE key = ?", [(key,) for key, stored in values.items() if stored is None]
        )
        self._connection.execute("DELETE FROM features WHERE expires < ?", (now,))


def _read(connection: sqlite3.Connection, keys: Sequence[str]) -> list[bytes | None]:
    found: dict[str, bytes] = {}
    for start in range(0, len(keys), _VARIABLES):
        part = keys[start : start + _VARIABLES]
        marks = ",".join("?" * len(part))
        found.update(connection.execute(f"SELECT key, value FROM features WHERE key IN ({marks})", part))
    return [found.get(key) for key in keys]
