"""Columns of log tables: names and types that a schema needs of each table."""

import dataclasses

import pyarrow as pa

from usr_tf.schema import ACTION, ITEM, POSITION, REQUEST, SCENARIO, TIMESTAMP, USER, Schema, oracle_column

PLACE = "_place"  # no feature can have this name
"""Where a row stands in the logs: the number of its file times 2**40, plus its line from 1."""

LINE_BITS = 40
STRING, INTEGER, FLOAT = pa.string(), pa.int64(), pa.float64()
STRINGS, NUMBERS = pa.list_(STRING), pa.list_(FLOAT)
_ARROW_TYPES = {"string": STRING, "strings": STRINGS, "number": FLOAT, "numbers": NUMBERS}
"""By `FeatureType.value`."""


@dataclasses.dataclass(frozen=True)
class Column:
    """Type of a log column. A row without a required value is rejected."""

    type: pa.DataType
    required: bool = False
    width: int | None = None
    """Numbers of a vector."""
    moment: bool = False
    """Whether it holds moments, ms UTC."""
    unit: str = "ms"
    """Unit of moments that are logged as numbers."""
    separator: str | None = None
    """Between the values of a list that is a text but no JSON."""
    dates: bool = False
    """Whether a date without a time of day is a moment, its midnight."""

    @property
    def description(self) -> str:
        """What a value is, for errors."""
        if self.moment:
            day = ", a date" if self.dates else ""
            return (
                f"a moment: a whole number of {self.unit} since 1970, a timestamp or an ISO 8601 text with a time{day}"
            )
        if self.width:
            return f"a list of {self.width} numbers"
        return {STRING: "a text or a whole number", INTEGER: "a whole number from 1", FLOAT: "a number"}.get(
            self.type, "a list of numbers" if self.type == NUMBERS else "a list of texts or whole numbers"
        )


def columns_of(schema: Schema, table: str) -> dict[str, Column]:
    """Columns of a table that the schema needs, by name; other columns are not read."""
    key = Column(STRING, required=True)
    moment = Column(INTEGER, required=True, moment=True, unit=schema.timestamp_unit)
    if table == "impressions":
        keys = {REQUEST: key, SCENARIO: key, USER: key, ITEM: key, TIMESTAMP: moment, POSITION: Column(INTEGER)}
        keys |= {oracle_column(task): Column(FLOAT) for task in schema.task_names}
        features = schema.features_of("query", "context", "candidate")
    elif table == "actions":
        keys = {
            USER: key,
            ITEM: key,
            TIMESTAMP: moment,
            ACTION: key,
            REQUEST: Column(STRING),
            SCENARIO: Column(STRING),
        }
        features = {}
    else:
        valid_from = dataclasses.replace(moment, required=False, dates=True)
        keys = {USER if table == "users" else ITEM: key, TIMESTAMP: valid_from}
        features = schema.features_of("user" if table == "users" else "item")
    columns = {
        name: Column(_ARROW_TYPES[feature.kind.value], width=feature.width) for name, feature in features.items()
    }
    columns |= {feature.weights: Column(NUMBERS) for feature in features.values() if feature.weights}
    return {**columns, **keys}


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
    counted = (action for counter in schema.counters.values() for action in counter.actions)
    used = {*schema.history.actions, *(task.action for task in schema.tasks), *counted}
    return Layout(columns, sources, {SCENARIO: schema.scenarios, ACTION: tuple(sorted(used))})


def table_schema(schema: Schema, table: str) -> pa.Schema:
    """Arrow schema of the batches that `read_file` yields."""
    return layout_of(schema, table).arrow


def is_optional_key(name: str, column: Column) -> bool:
    """Whether an empty string in this column means a missing key."""
    return name in (REQUEST, SCENARIO) and not column.required


def _renamed_to(schema: Schema, name: str) -> tuple[str, ...]:
    return tuple(source for source, target in schema.columns.items() if target == name)
