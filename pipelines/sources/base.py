"""Base class of log sources."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from pipelines.sources.inputs import Inputs

Row = tuple[str, dict[str, Any]]
"""Name of a log table, and a row of it (docs/logs.md)."""


class Source(ABC):
    """Log source: reads another system's logs as rows of the log tables. An instance reads once.

    The keyword arguments of a subclass's constructor are its options: `--list` of the command is `lists`.
    """

    name: ClassVar[str]
    """What the command, the progress bar and the report call it."""

    @abstractmethod
    def schema(self) -> str:
        """`schema.yaml` of the imported logs."""

    @abstractmethod
    def read(self, inputs: Inputs) -> Iterator[Row]:
        """Yields the rows; unreadable ones go to `inputs.reject`.

        Raises:
          InputError: a file is missing or unreadable as a whole, or there is not one impression in all of them.
        """

    def report(self) -> dict[str, Any]:
        """Counts of what was read, written and dropped, for `import.json`."""
        return {}

    def advice(self) -> str:
        """What to do where a task has no action, for the warning."""
        return ""
