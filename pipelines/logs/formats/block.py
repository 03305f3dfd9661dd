"""Block of rows of a file, before validation."""

from typing import NamedTuple

import pyarrow as pa

RejectedLine = tuple[int, str, str]
"""Number from 1, reason and text of a line that is no row."""


class Block(NamedTuple):
    rows: bytes | pa.RecordBatch
    """Lines of JSON, each ended by a newline, or columns."""
    numbers: range | list[int]
    """Number of each row in the file, from 1; of each line, where rows are lines."""
    rejected: tuple[RejectedLine, ...] = ()
    list_separator: str | None = None
    """Between the values of a list that is a text."""
    columns: tuple[str, ...] | None = None
    """Names of all columns of the file, of which `rows` may have some; None where rows are lines."""
