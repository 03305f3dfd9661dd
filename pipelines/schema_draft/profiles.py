"""Profiles of log columns: what a sample of a table holds, column by column."""

import contextlib
import dataclasses
import datetime
import decimal
import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipelines.logs.casts import plain_values
from pipelines.logs.checks import spread
from pipelines.logs.formats import read_blocks
from pipelines.logs.tables import parse_lines, partition_values
from usr_tf.log_timestamps import parse_moment

_FILES = 16
_ROWS = 200_000
"""Rows of a table that are looked at."""


@dataclasses.dataclass
class Sample:
    """Rows of a table."""

    rows: list[dict[str, Any]]
    example: str | None
    """The first file that has a row."""
    complete: bool
    """Whether these are all rows."""

    @property
    def columns(self) -> list[str]:
        """Names, in the order in which they first occur."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def renamed(self, names: dict[str, str]) -> "Sample":
        """The same rows, with other names of columns."""
        rows = [{names.get(name, name): value for name, value in row.items()} for row in self.rows]
        return dataclasses.replace(self, rows=rows)


@dataclasses.dataclass
class Profile:
    """What a column holds."""

    name: str
    rows: int
    kinds: Counter[str]
    """How many values are of each kind: text, number_text, integer, float, boolean, moment, list, object."""
    missing: int
    values: Counter[Any]
    """Values of scalars, elements of lists."""
    numbers: list[float]
    lengths: Counter[int]
    """Lengths of lists, words of texts."""
    elements: Counter[str]
    """Kinds of the elements of lists."""

    @property
    def kind(self) -> str:
        """The kind of the values, `mixed` where they are of several."""
        present = {*self.kinds}
        if not present:
            return "empty"
        if present <= {"integer", "float"}:
            return "float" if "float" in present else "integer"
        if present <= {"text", "number_text", "integer"}:
            return "number_text" if present == {"number_text"} else "text" if "integer" not in present else "mixed"
        return present.pop() if len(present) == 1 else "mixed"

    @property
    def distinct(self) -> int:
        return len(self.values)

    @property
    def filled(self) -> int:
        """Rows with a value."""
        return self.rows - self.missing


def sample_table(paths: list[str]) -> Sample:
    """The first rows of some files of a table."""
    rows: list[dict[str, Any]] = []
    chosen = spread(paths, _FILES)
    complete, example = len(chosen) == len(paths), None
    for path in chosen:
        constants = partition_values(path)
        limit = len(rows) + -(-_ROWS // max(len(chosen), 1))
        for row in _rows(path):
            if len(rows) == limit:
                complete = False
                break
            example = example or path
            rows.append({**constants, **row})
    return Sample(rows, example, complete)


def profile(sample: Sample, name: str) -> Profile:
    """Profile of one column."""
    found = Profile(name, len(sample.rows), Counter(), 0, Counter(), [], Counter(), Counter())
    for row in sample.rows:
        value = row.get(name)
        if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
            found.missing += 1
            continue
        kind = _kind(value)
        found.kinds[kind] += 1
        if kind == "list":
            found.lengths[len(value)] += 1
            for element in value:
                found.elements[_kind(element)] += 1
                if _kind(element) in ("text", "number_text", "integer", "boolean"):
                    found.values[element] += 1
        elif kind != "object":
            found.values[str(value) if kind in ("boolean", "moment") else value] += 1
            if kind in ("integer", "float", "number_text"):
                found.numbers.append(float(value))
            if isinstance(value, str):
                found.lengths[len(value.split())] += 1
    return found


def _rows(path: str) -> Iterator[dict[str, Any]]:
    for block in read_blocks(path, None):
        if not isinstance(block.rows, pa.RecordBatch):
            yield from parse_lines(block.rows, len(block.numbers))
            continue
        columns = {name: plain_values(block.rows.column(name)).to_pylist() for name in block.rows.schema.names}
        if block.list_separator:
            columns = {name: _lists(values, block.list_separator) for name, values in columns.items()}
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


def _lists(texts: list[str], separator: str) -> list[Any]:
    """Texts as the lists that they spell, if one has a separator without spaces around it."""
    if any(text.startswith("[") for text in texts):
        with contextlib.suppress(ValueError):
            return [json.loads(text) if text else None for text in texts]
    if any(separator in text for text in texts) and not any(f" {separator}" in text for text in texts):
        return [text.split(separator) if text else None for text in texts]
    return list(texts)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float | decimal.Decimal):
        return "integer" if value == int(value) and isinstance(value, decimal.Decimal) else "float"
    if isinstance(value, str | bytes):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        try:
            return "number_text" if math.isfinite(float(text)) else "text"
        except ValueError:
            return "moment" if parse_moment(text, dates=True) is not None else "text"
    if isinstance(value, datetime.datetime | datetime.date):
        return "moment"
    return "list" if isinstance(value, list) else "object"
