"""Columns of log tables: names and types that a schema needs of each table."""

import dataclasses

import pyarrow as pa

from usr_tf.log_rows import LogColumn, allowed_values, log_columns
from usr_tf.schema import Schema

PLACE = "_place"  # no feature can have this name
"""Where a row stands in the logs: the number of its file times 2**40, plus its line from 1."""

LINE_BITS = 40
STRING, INTEGER, FLOAT = pa.string(), pa.int64(), pa.float64()
STRINGS, NUMBERS = pa.list_(STRING), pa.list_(FLOAT)
_ARROW_TYPES = {"string": STRING, "strings": STRINGS, "number": FLOAT, "numbers": NUMBERS, "integer": INTEGER}
"""By `LogColumn.kind`."""


class Column(LogColumn):
    """A log column with its Arrow type."""

    @property
    def type(self) -> pa.DataType:
        return _ARROW_TYPES[self.kind]


def columns_of(schema: Schema, table: str) -> dict[str, Column]:
    """Columns of a table that the schema needs, by name; other columns are not read."""
    return {name: Column(**vars(column)) for name, column in log_columns(schema, table).items()}


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the reader of a table needs of the schema."""

    columns: dict[str, Column]
    sources: dict[str, tuple[str, ...]]
    """Columns of the files that each column is read from: those that the schema renames to it, then its own name."""
    allowed: dict[str, tuple[str, ...]]
    """Values that a row may have, of the columns that have few."""

    @property
    def arrow(self) -> pa.Schema:
        """Schema of the batches of valid rows."""
        fields = [pa.field(name, column.type) for name, column in self.columns.items()]
        return pa.schema([*fields, pa.field(PLACE, pa.int64())])

    @property
    def names(self) -> list[str]:
        """Every column of the files that may be read."""
        return [name for sources in self.sources.values() for name in sources]


def layout_of(schema: Schema, table: str) -> Layout:
    """Layout of a table."""
    columns = columns_of(schema, table)
    sources = {name: (*_renamed_to(schema, name), name) for name in columns}
    return Layout(columns, sources, allowed_values(schema))


def table_schema(schema: Schema, table: str) -> pa.Schema:
    """Arrow schema of the batches that `read_file` yields."""
    return layout_of(schema, table).arrow


def _renamed_to(schema: Schema, name: str) -> tuple[str, ...]:
    return tuple(source for source, target in schema.columns.items() if target == name)
