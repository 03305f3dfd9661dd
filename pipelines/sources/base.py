"""What every import of foreign logs is: a source, which turns what it reads into rows of the log tables."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from pipelines.sources.inputs import Inputs

Row = tuple[str, dict[str, Any]]
"""A table's name, and a row of it (DESIGN §2)."""


class Source(ABC):
    """Reads someone else's logs as rows of the raw-log contract (DESIGN §2). An instance reads once.

    The keyword arguments of a subclass's constructor are its options: `--list` of the command is `lists`.
    """

    name: ClassVar[str]
    """What the command, the progress bar and the report call it."""

    @abstractmethod
    def schema(self) -> str:
        """The `schema.yaml` that goes with the logs."""

    @abstractmethod
    def read(self, inputs: Inputs) -> Iterator[Row]:
        """Yields the rows; what could not be read goes to `inputs.reject`.

        Raises:
          InputError: a file is missing or unreadable as a whole, or there is not one impression in all of them.
        """

    def report(self) -> dict[str, Any]:
        """What has been read, written and dropped so far, in counts, for `import.json`."""
        return {}
