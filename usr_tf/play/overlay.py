"""Overlay: a feature store's backend in memory, above another one that is only read."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from serving.features.backend import Backend, Stored, Transaction

_T = TypeVar("_T")


class Overlay:
    """Backend whose writes stay in memory.

    Args:
      base: what it reads where nothing has been written; empty when absent.
    """

    def __init__(self, base: Backend | None = None):
        self._base = base
        self._values: dict[str, bytes | None] = {}
        self._lock = threading.RLock()

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        with self._lock:
            below = [key for key in keys if key not in self._values] if self._base else []
            found = dict(zip(below, self._base.read(below), strict=True)) if self._base and below else {}
            return [self._values.get(key, found.get(key)) for key in keys]

    def transact(self, work: Callable[[Transaction], _T]) -> _T:
        with self._lock:
            return work(self)

    def write(self, values: Mapping[str, Stored | None]) -> None:
        self._values.update({key: stored.value if stored else None for key, stored in values.items()})

    def close(self) -> None:
        if self._base:
            self._base.close()
