"""Reader of log tables as validated Arrow tables.

A block is converted as a whole at Arrow's speed. A block in which anything is off is read again row by row, so
that each bad row is set aside with its place and reason, and the rest of its block is kept.
"""

import contextlib
import dataclasses
import decimal
import json
import math
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from pipelines.logs import bigquery
from pipelines.logs.casts import cast_column, check_type, drop_null_elements, to_plain
from pipelines.logs.columns import (
    FLOAT,
    LINE_BITS,
    NUMBERS,
    STRING,
    STRINGS,
    Column,
    Layout,
    layout_of,
)
from pipelines.logs.formats import Block, read_blocks
from pipelines.logs.rows import convert_row_by_row
from usr_tf.errors import InputError
from usr_tf.log_rows import NUMBER, WHOLE_NUMBER, is_optional_key
from usr_tf.log_timestamps import LAST_MOMENT, check_unit
from usr_tf.schema import POSITION, TIMESTAMP, Schema

_PARTITION = re.compile(r"(?P<name>[^/=]+)=(?P<value>[^/]*)(?=/)")
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_UNIT_ROWS = 1_000
_PART_ROWS = 256
"""Rows of a block that are converted one by one if any of them is not sound."""


def read_file(path: str, number: int, schema: Schema, table: str) -> Iterator[tuple[pa.RecordBatch, list[dict]]]:
    """Blocks of a file: valid rows, and rejected ones as `{place, reason, row}`.

    Args:
      number: the file's index among the table's files, for `place`.

    Raises:
      InputError: the file cannot be read to its end, a column is of a type that the schema's cannot come from, or its
        timestamps are of another unit.
    """
    layout, base = layout_of(schema, table), number << LINE_BITS
    constants = partition_values(path)
    for index, block in enumerate(read_blocks(path, layout.names)):
        if isinstance(block.rows, pa.RecordBatch):
            check_types(path, block.rows.schema, layout)
        places = np.asarray(block.numbers, np.int64) + base
        rejected = [{"place": base + line, "reason": reason, "row": text} for line, reason, text in block.rejected]
        if index == 0:
            check_units(path, block, layout, _UNIT_ROWS, constants)
        batch, wrong = convert_block(path, block, places, layout, constants)
        yield batch, rejected + wrong


def convert_rows(rows: list[dict], places: list[int], schema: Schema, table: str) -> tuple[pa.RecordBatch, list[dict]]:
    """Blocks of rows that are already dictionaries, each with its place, as `read_file`."""
    return convert_row_by_row(rows, places, layout_of(schema, table), {})


def describe_place(place: int, names: list[str]) -> str:
    """Human-readable place of a row: `impressions.jsonl.gz:17`, or the table if it has no lines."""
    path = names[place >> LINE_BITS]
    name = path.rpartition("/")[2]
    return name if bigquery.is_table(path) else f"{name}:{place & ((1 << LINE_BITS) - 1)}"


def partition_values(path: str) -> dict[str, str | None]:
    """Columns that the folders of a file give, as Hive and Spark name them: `date=2026-11-29/part-0.parquet`."""
    return {
        urllib.parse.unquote(match["name"]): None
        if match["value"] == _NULL_PARTITION
        else urllib.parse.unquote(match["value"])
        for match in _PARTITION.finditer(path)
    }


def check_types(path: str, found: pa.Schema, layout: Layout) -> None:
    """Refuses a file of typed columns, one of which can hold no value of the schema's.

    Raises:
      InputError: there is such a column.
    """
    for name, column in layout.columns.items():
        for source in layout.sources[name]:
            if source in found.names:
                check_type(f"{path}: column {source!r}", found.field(source).type, column)


def check_units(path: str, block: Block, layout: Layout, limit: int, constants: dict[str, str | None]) -> None:
    """Refuses a file with a column of moments that are plainly of another unit than the schema's.

    Args:
      limit: first rows of the block that are looked at.
      constants: values of columns that the rows do not have.

    Raises:
      InputError: there is such a column.
    """
    sources = {name: layout.sources[name] for name in layout.moments}
    if isinstance(block.rows, pa.RecordBatch):
        present = [each for names in sources.values() for each in names if each in block.rows.schema.names]
        rows = block.rows.select(present).slice(0, limit).to_pylist() if present else []
    else:
        rows = parse_lines(block.rows, limit)
    for name, names in sources.items():
        values = [value for row in rows for each in names if (value := row.get(each)) is not None]
        numbers = [_plain_number(value) for value in values or map(constants.get, names)]
        finite = [number for number in numbers if number is not None and math.isfinite(number)]
        check_unit(f"{path}: column {name!r}", finite, layout.columns[name].unit)


def _plain_number(value: Any) -> int | float | None:
    """The number that a value is or spells."""
    if isinstance(value, bytes | str):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if WHOLE_NUMBER.fullmatch(text):
            return int(text)
        return float(text) if NUMBER.fullmatch(text) else None
    if isinstance(value, decimal.Decimal):
        return float(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def parse_lines(block: bytes, limit: int) -> list[dict]:
    """The objects among the first `limit` lines."""
    rows = []
    for line in block.split(b"\n", limit)[:limit]:
        with contextlib.suppress(ValueError, RecursionError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


def convert_block(
    path: str, block: Block, places: np.ndarray, layout: Layout, constants: dict[str, str | None]
) -> tuple[pa.RecordBatch, list[dict]]:
    """Valid rows of a block, and rejected ones as `{place, reason, row}`.

    Args:
      path: the file, for errors.
      places: `[rows]` int64, of rows or lines.
      constants: values of columns that the rows do not have.

    Raises:
      InputError: a column of texts of a typed file is not in UTF-8.
    """
    rows: bytes | pa.RecordBatch
    if isinstance(block.rows, pa.RecordBatch):
        rows, layout = _to_plain(block, layout)
    else:
        rows = block.rows
    whole = _convert_part(rows, places, layout, constants)
    if whole is not None:
        return whole, []
    lines = rows[:-1].split(b"\n") if isinstance(rows, bytes) else []
    batches, rejected = [], []
    for start in range(0, len(places), _PART_ROWS):  # most of which are sound, as a rule
        end = min(start + _PART_ROWS, len(places))
        part: list[bytes] | pa.RecordBatch
        if isinstance(rows, bytes):
            part = lines[start:end]
            batch = _convert_part(b"\n".join(part) + b"\n", places[start:end], layout, constants)
        else:
            part = rows.slice(start, end - start)
            batch = _convert_part(part, places[start:end], layout, constants)
        if batch is None:
            values = part if isinstance(part, list) else _to_rows(part, path)
            batch, wrong = convert_row_by_row(values, places[start:end].tolist(), layout, constants)
            rejected += wrong
        batches.append(batch)
    return pa.concat_batches(batches), rejected


def _convert_part(
    rows: bytes | pa.RecordBatch, places: np.ndarray, layout: Layout, constants: dict[str, str | None]
) -> pa.RecordBatch | None:
    if isinstance(rows, pa.RecordBatch):
        return _convert(rows, places, layout, constants)
    return _convert_lines(rows, places, layout, constants)


def _to_rows(batch: pa.RecordBatch, path: str) -> list[dict]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError as error:
        raise InputError(path, f"text that is not UTF-8 ({error})", "UTF-8 in columns of strings") from error


def _to_plain(block: Block, layout: Layout) -> tuple[pa.RecordBatch, Layout]:
    """Columns of plain types, and the layout that suits them: the unit of moments, the separator of lists."""
    batch = block.rows
    columns = {
        name: dataclasses.replace(column, separator=block.list_separator) for name, column in layout.columns.items()
    }
    arrays = {}
    for name, sources in layout.sources.items():
        for source in sources:
            if source in batch.schema.names:
                arrays[source], columns[name] = to_plain(batch.column(source), columns[name])
    plain = pa.RecordBatch.from_pydict(arrays) if arrays else batch
    return plain, dataclasses.replace(layout, columns=columns)


def _convert_lines(
    block: bytes, places: np.ndarray, layout: Layout, constants: dict[str, str | None]
) -> pa.RecordBatch | None:
    if block.startswith(b"{") + block.count(b"\n{") != len(places):  # blank lines, or two objects on one line
        lines = [line.strip() for line in block[:-1].split(b"\n")]
        block, places = b"\n".join(filter(None, lines)) + b"\n", places[[bool(line) for line in lines]]
        if not len(places) or block.startswith(b"{") + block.count(b"\n{") != len(places):
            return None
    try:
        parsed = _parse_json(block, layout)
        if parsed.num_rows != len(places):
            return None
        batch = parsed.combine_chunks().to_batches()[0]
        batch.validate(full=True)  # that strings are UTF-8, which Arrow's JSON reader does not look at
    except (pa.ArrowException, ValueError):
        return None
    return _convert(batch, places, layout, constants)


def _convert(
    block: pa.RecordBatch, places: np.ndarray, layout: Layout, constants: dict[str, str | None]
) -> pa.RecordBatch | None:
    """Block converted as a whole, or None if a row needs individual validation."""
    try:
        arrays = []
        for name, column in layout.columns.items():
            sources = layout.sources[name]
            present = [cast_column(block.column(each), column) for each in sources if each in block.schema.names]
            value = next((constants[each] for each in sources if constants.get(each) is not None), None)
            if value is not None:
                present.append(cast_column(pa.array([value]), column).take(pa.array(np.zeros(len(places), np.int64))))
            values = pc.coalesce(*present) if len(present) > 1 else present[0] if present else None
            if values is None:
                values = pa.nulls(len(places), column.type)
            arrays.append(_without_missing(name, column, values))
        batch = pa.RecordBatch.from_arrays([*arrays, pa.array(places)], schema=layout.arrow)
        batch.validate(full=True)
    except (pa.ArrowException, ValueError):
        return None
    return batch if _is_clean(batch, layout) else None


def _without_missing(name: str, column: Column, values: pa.Array) -> pa.Array:
    """Values with null for those that count as missing, and lists of texts without null elements."""
    if is_optional_key(name, column):
        return pc.if_else(pc.equal(values, ""), None, values)
    if column.type == FLOAT and pc.any(pc.is_nan(values)).as_py():
        return pc.if_else(pc.is_nan(values), None, values)
    if column.type == STRINGS and pc.list_flatten(values).null_count:
        return drop_null_elements(values)
    return values


def _parse_json(block: bytes, layout: Layout) -> pa.Table:
    """Parses the columns of a block of JSON Lines; each may be of another type than its own in the whole block.

    Raises:
      pyarrow.ArrowInvalid: the block is not clean, or a column of it is of several types.
    """

    def parse(types: dict[str, pa.DataType], others: str) -> pa.Table:
        return pa_json.read_json(
            pa.BufferReader(block),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=pa_json.ParseOptions(explicit_schema=pa.schema(types), unexpected_field_behavior=others),
        )

    types = {source: column.type for name, column in layout.columns.items() for source in layout.sources[name]}
    try:
        return parse(types, "ignore")
    except pa.ArrowInvalid:
        table = parse({}, "infer")
        inferred = {name: table.schema.field(name).type for name in types if name in table.column_names}
        moments = {name: STRING for name, kind in inferred.items() if pa.types.is_timestamp(kind)}
        moments |= {
            name: STRINGS
            for name, kind in inferred.items()
            if pa.types.is_list(kind) and pa.types.is_timestamp(kind.value_type)
        }
        return (parse(moments, "infer") if moments else table).select(list(inferred))  # as the texts that they are


def _is_clean(batch: pa.RecordBatch, layout: Layout) -> bool:
    """Whether every row passes the checks of `convert_row_by_row`."""
    for name, column in layout.columns.items():
        values = batch.column(name)
        if column.required and values.null_count:
            return False
        if column.required and column.type == STRING and pc.any(pc.equal(values, "")).as_py():
            return False
        if column.type == FLOAT and pc.any(pc.invert(pc.is_finite(values))).as_py():
            return False
        if column.type in (STRINGS, NUMBERS) and pc.list_flatten(values).null_count:
            return False
        if column.type == NUMBERS and pc.any(pc.invert(pc.is_finite(pc.list_flatten(values)))).as_py():
            return False
        if column.width and pc.any(pc.not_equal(pc.list_value_length(values), column.width)).as_py():
            return False
    for name, allowed in layout.allowed.items():
        if name in layout.columns:
            known = pa.array([*allowed, None], STRING)
            if not pc.all(pc.is_in(batch.column(name), known), min_count=0).as_py():
                return False
    for name in layout.moments:
        moments, first = batch.column(name), 0 if name == TIMESTAMP else -LAST_MOMENT
        if pc.any(pc.or_(pc.less(moments, first), pc.greater(moments, LAST_MOMENT))).as_py():
            return False
    return not (POSITION in layout.columns and pc.any(pc.less(batch.column(POSITION), 1)).as_py())
