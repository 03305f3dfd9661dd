"""Backend of a feature store: keys and values in bytes, read in one round trip and written in transactions."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

_T = TypeVar("_T")


class Stored(NamedTuple):
    """A value to write."""

    value: bytes
    lifetime: int | None = None
    """Milliseconds from now after which it may be dropped; None for never."""


class Transaction(Protocol):
    """Reads and writes that take effect together, or not at all."""

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """Values of keys in their order, None for unknown ones, as of this transaction."""

    def write(self, values: Mapping[str, Stored | None]) -> None:
        """Writes values at the end of the transaction; None deletes. Called once, after all reads."""


class Backend(Protocol):
    """Where a feature store keeps its values. Safe for use by several threads."""

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """Values of keys in their order, None for unknown ones, in one round trip."""

    def transact(self, work: Callable[[Transaction], _T]) -> _T:
        """Runs `work` in a transaction and returns its result.

        No other writer changes what it reads in between: a backend may lock, or notice the change and run `work` again.
        When this returns, the writes are as durable as the backend makes them.
        """

    def close(self) -> None:
        """Closes connections."""
