"""Reader of log tables (JSON Lines, plain or gzip, or Parquet) as validated Arrow tables.

Clean blocks are parsed by Arrow at C++ speed. A block in which anything is off is read again row by row, so
that each bad row is set aside with its place and reason, and the rest of its block is kept.
"""

import contextlib
import dataclasses
import decimal
import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from pipelines.logs.files import line_blocks, open_parquet
from usr_tf.errors import InputError
from usr_tf.schema import (
    ACTION,
    ITEM,
    OPTIONAL_TABLES,
    POSITION,
    REQUEST,
    SCENARIO,
    TIMESTAMP,
    USER,
    Schema,
    oracle_column,
)

PLACE = "_place"  # no feature can have this name
"""Where a row stands in the logs: the number of its file times 2**40, plus its line from 1."""

LINE_BITS = 40
_PARQUET_ROWS = 32_768
_PEEK_ROWS = 10_000
_LAST_MOMENT = 253_402_300_799_999  # the end of the year 9999: times in µs or ns lie beyond it
_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
_SHARD = re.compile(r"-(?P<index>\d+)-of-(?P<total>\d+)$")
_STRING, _INTEGER, _FLOAT, _STRINGS = pa.string(), pa.int64(), pa.float64(), pa.list_(pa.string())
_NUMBERS = pa.list_(pa.float64())
_ARROW_TYPES = {"string": _STRING, "strings": _STRINGS, "number": _FLOAT, "numbers": _NUMBERS}
"""By `FeatureType.value`."""


@dataclasses.dataclass(frozen=True)
class Column:
    """Type of a log column. A row without a required value is rejected."""

    type: pa.DataType
    required: bool = False
    width: int | None = None
    """Numbers of a vector."""
    is_moment: bool = False
    """Milliseconds, up to the year 9999."""


def columns_of(schema: Schema, table: str) -> dict[str, Column]:
    """Columns of a table that the schema needs, by name; other columns are not read."""
    key = Column(_STRING, required=True)
    moment = Column(_INTEGER, required=True, is_moment=True)
    if table == "impressions":
        keys = {REQUEST: key, SCENARIO: key, USER: key, ITEM: key, TIMESTAMP: moment, POSITION: Column(_INTEGER)}
        keys |= {oracle_column(task): Column(_FLOAT) for task in schema.task_names}
        features = schema.features_of("query", "context", "candidate")
    elif table == "actions":
        keys = {
            USER: key,
            ITEM: key,
            TIMESTAMP: moment,
            ACTION: key,
            REQUEST: Column(_STRING),
            SCENARIO: Column(_STRING),
        }
        features = {}
    else:
        keys = {USER if table == "users" else ITEM: key, TIMESTAMP: Column(_INTEGER, is_moment=True)}
        features = schema.features_of("user" if table == "users" else "item")
    columns = {
        name: Column(_ARROW_TYPES[feature.kind.value], width=feature.width)
        for name, feature in features.items()
        if not feature.since
    }
    columns |= {feature.since: Column(_INTEGER, is_moment=True) for feature in features.values() if feature.since}
    columns |= {feature.weights: Column(_NUMBERS) for feature in features.values() if feature.weights}
    return {**columns, **keys}


def table_schema(schema: Schema, table: str) -> pa.Schema:
    """Arrow schema of the batches that `read_file` yields."""
    fields = [pa.field(name, column.type) for name, column in columns_of(schema, table).items()]
    return pa.schema([*fields, pa.field(PLACE, pa.int64())])


def find_files(logs: str, table: str) -> list[str]:
    """Files of a table, sorted by name; empty for an absent optional table.

    Raises:
      InputError: a required table has no file, or one of its numbered shards is missing.
    """
    patterns = [f"{table}{infix}{suffix}" for suffix in _SUFFIXES for infix in ("", "-*")]
    try:
        paths = sorted(set(match_in(logs, patterns)))
    except (ValueError, BeamIOError) as error:  # ValueError: a file system that Beam does not have
        raise InputError(logs, f"no readable directory ({error})", "a directory of logs") from error
    if not paths and table not in OPTIONAL_TABLES:
        raise InputError(logs, f"no {table} file", f"{table}.jsonl, .jsonl.gz or .parquet, or shards of it")
    _refuse_missing_shards(paths)
    return paths


def match_files(pattern: str, table: str) -> list[str]:
    """Files of a table that match a path or pattern, sorted by name.

    Raises:
      InputError: none does, one is of no kind that we read, or one of its numbered shards is missing.
    """
    try:
        paths = sorted(file.path for file in FileSystems.match([pattern])[0].metadata_list)
    except (ValueError, BeamIOError) as error:
        raise InputError(pattern, f"no readable files ({error})", f"files of {table}") from error
    if not paths:
        raise InputError(pattern, "no file", f"at least one of {table}")
    for path in paths:
        if not path.endswith(_SUFFIXES):
            raise InputError(path, "another kind of file", f"one that ends in {', '.join(_SUFFIXES)}")
    _refuse_missing_shards(paths)
    return paths


def match_in(directory: str, patterns: list[str]) -> list[str]:
    """Matching files in a directory, whose own name may contain pattern characters."""
    literal = re.sub(r"[*?\[]", "?", directory)
    matches = FileSystems.match([FileSystems.join(literal, pattern) for pattern in patterns])
    paths = [file.path for match in matches for file in match.metadata_list]
    return [path for path in paths if path.startswith(FileSystems.join(directory, ""))]


def check_columns(schema: Schema, table: str, paths: list[str]) -> None:
    """Checks that a table has every feature's column, by the first rows of its first non-empty file.

    Raises:
      InputError: the table or one of its columns is missing.
    """
    columns = columns_of(schema, table)
    if not paths:
        needed = [feature for name in columns if (feature := _feature_of(name, schema)) and name != USER]
        if needed:
            raise InputError(f"features.{needed[0]}", f"no {table} file among the logs", "one that holds this column")
        return
    for path in paths:
        found = _peek_columns(path)
        if not found:
            continue
        for name, column in columns.items():
            feature = _feature_of(name, schema)
            if name not in found and (column.required or feature):
                raise InputError(
                    f"{path}: column {name!r}",
                    f"only {', '.join(sorted(found))} in its first {_PEEK_ROWS:,} rows",
                    f"it, for features.{feature} of the schema" if feature else "this required column",
                )
        return
    raise InputError(paths[0], "no rows", f"at least one row of {table}")


def read_file(path: str, number: int, schema: Schema, table: str) -> Iterator[tuple[pa.RecordBatch, list[dict]]]:
    """Blocks of a file: valid rows, and rejected ones as `{place, reason, row}`.

    Args:
      number: the file's index among the table's files, for `place`.

    Raises:
      InputError: the file cannot be read to its end.
    """
    first_line = 1
    for block in _blocks(path, list(columns_of(schema, table))):
        rows = block.num_rows if isinstance(block, pa.RecordBatch) else block.count(b"\n")
        place = (number << LINE_BITS) + first_line
        batch = _convert(block, schema, table, place, rows)
        if batch is not None:
            yield batch, []
        else:
            try:
                yield _convert_row_by_row(block, schema, table, place)
            except UnicodeDecodeError as error:  # of a Parquet file: a broken line of JSON is a rejected row
                raise InputError(path, f"text that is not UTF-8 ({error})", "UTF-8 in columns of strings") from error
        first_line += rows


def convert_rows(rows: list[dict], places: list[int], schema: Schema, table: str) -> tuple[pa.RecordBatch, list[dict]]:
    """Blocks of rows that are already dictionaries, each with its place, as `read_file`."""
    batch, rejected = _convert_row_by_row(rows, schema, table, 0)
    at = batch.schema.get_field_index(PLACE)
    batch = batch.set_column(at, PLACE, pa.array(places, pa.int64()).take(batch.column(PLACE)))
    return batch, [{**entry, "place": places[entry["place"]]} for entry in rejected]


def describe_place(place: int, names: list[str]) -> str:
    """Human-readable place of a row: `impressions.jsonl.gz:17`, or the table if it has no lines."""
    name = names[place >> LINE_BITS].rpartition("/")[2]
    return f"{name}:{place & ((1 << LINE_BITS) - 1)}" if name.endswith(_SUFFIXES) else name


def _feature_of(column: str, schema: Schema) -> str | None:
    """The feature that a column of the logs is for; None for a column of no feature."""
    others = schema.weight_columns | schema.moment_columns
    return column if column in schema.features else others.get(column)


def _refuse_missing_shards(paths: list[str]) -> None:
    sets: dict[tuple[str, int], set[int]] = {}
    for path in paths:
        stem = path[: -len(next(suffix for suffix in _SUFFIXES if path.endswith(suffix)))]
        shard = _SHARD.search(stem)
        if shard:
            sets.setdefault((stem[: shard.start()], int(shard["total"])), set()).add(int(shard["index"]))
    for (stem, total), indices in sets.items():
        missing = sorted(set(range(total)) - indices)
        if missing:
            raise InputError(f"{stem}-*-of-{total:05}", f"no shard {missing[0]:05}", f"all {total} shards")


def _blocks(path: str, columns: list[str] | None = None) -> Iterator[bytes | pa.RecordBatch]:
    """Pieces of a file: whole lines, or batches of a Parquet file's `columns`."""
    if path.endswith(".parquet"):
        with open_parquet(path) as parquet:
            yield from parquet.iter_batches(_PARQUET_ROWS, columns=columns)
    else:
        yield from line_blocks(path, gzipped=path.endswith(".gz"))


def _peek_columns(path: str) -> set[str]:
    block = next(_blocks(path), b"")
    if isinstance(block, pa.RecordBatch):
        return set(block.schema.names)
    found: set[str] = set()
    for line in block.split(b"\n", _PEEK_ROWS)[:_PEEK_ROWS]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        found |= row.keys() if isinstance(row, dict) else set()
    return found


def _convert(block: bytes | pa.RecordBatch, schema: Schema, table: str, place: int, rows: int) -> pa.RecordBatch | None:
    """Block converted as a whole, or None if a row needs individual validation."""
    columns = columns_of(schema, table)
    try:
        if isinstance(block, pa.RecordBatch):
            present = {field.name: field.type for field in block.schema}
            if not all(_casts_exactly(present[name], columns[name].type) for name in present):
                return None
            arrays = [
                block.column(name).cast(column.type) if name in present else pa.nulls(rows, column.type)
                for name, column in columns.items()
            ]
        else:
            if block.startswith(b"{") + block.count(b"\n{") != rows:  # blank lines, or two objects on one line
                return None
            parsed = _parse_json(block, columns)
            if parsed.num_rows != rows:
                return None
            arrays = [parsed.column(name).combine_chunks().cast(column.type) for name, column in columns.items()]
        arrays = [
            pc.if_else(pc.equal(values, ""), None, values) if _is_optional_key(name, column) else values
            for values, (name, column) in zip(arrays, columns.items(), strict=True)
        ]
        places = pa.array(np.arange(place, place + rows))
        batch = pa.RecordBatch.from_arrays([*arrays, places], schema=table_schema(schema, table))
        batch.validate(full=True)  # that strings are UTF-8, which Arrow's JSON reader does not look at
    except (pa.ArrowException, ValueError):
        return None
    return batch if _is_clean(batch, columns, schema) else None


def _parse_json(block: bytes, columns: dict[str, Column]) -> pa.Table:
    """Parses the `columns` of a block of JSON Lines; ids may be integers in the whole block.

    Raises:
      pyarrow.ArrowInvalid: the block is not clean, or a column of it is of several types.
    """

    def parse(types: dict[str, pa.DataType], others: str) -> pa.Table:
        return pa_json.read_json(
            pa.BufferReader(block),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=pa_json.ParseOptions(explicit_schema=pa.schema(types), unexpected_field_behavior=others),
        )

    types = {name: column.type for name, column in columns.items()}
    try:
        return parse(types, "ignore")
    except pa.ArrowInvalid:
        ids = {name for name, kind in types.items() if kind == _STRING}
        table = parse({name: kind for name, kind in types.items() if name not in ids}, "infer")
        for name in ids & {*table.column_names}:
            found = table.schema.field(name).type
            if not (found in (_STRING, _INTEGER) or pa.types.is_null(found)):  # such as texts that look like dates
                raise
        absent = [name for name in types if name not in table.column_names]
        for name in absent:
            table = table.append_column(name, pa.nulls(table.num_rows, types[name]))
        return table


def _casts_exactly(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether Arrow's cast of a Parquet column of type `found` gives the values of `_coerce`."""
    kinds = pa.types
    if kinds.is_dictionary(found):
        found = found.value_type
    if kinds.is_null(found):
        return True
    if wanted in (_STRINGS, _NUMBERS):
        is_list = kinds.is_list(found) or kinds.is_large_list(found) or kinds.is_fixed_size_list(found)
        return is_list and _casts_exactly(found.value_type, wanted.value_type)
    if wanted == _STRING:
        is_string = kinds.is_string(found) or kinds.is_large_string(found)
        return is_string or kinds.is_integer(found) or kinds.is_boolean(found)
    return kinds.is_integer(found) or kinds.is_floating(found) or (wanted == _FLOAT and kinds.is_decimal(found))


def _is_optional_key(name: str, column: Column) -> bool:
    """Whether an empty string in this column means a missing key."""
    return name in (REQUEST, SCENARIO) and not column.required


def _is_clean(batch: pa.RecordBatch, columns: dict[str, Column], schema: Schema) -> bool:
    """Whether every row passes `_check_values`."""
    for name, column in columns.items():
        values = batch.column(name)
        if column.required and values.null_count:
            return False
        if column.required and column.type == _STRING and pc.any(pc.equal(values, "")).as_py():
            return False
        if column.type == _FLOAT and pc.any(pc.invert(pc.is_finite(values))).as_py():
            return False
        if column.type in (_STRINGS, _NUMBERS) and pc.list_flatten(values).null_count:
            return False
        if column.type == _NUMBERS and pc.any(pc.invert(pc.is_finite(pc.list_flatten(values)))).as_py():
            return False
        if column.width and pc.any(pc.not_equal(pc.list_value_length(values), column.width)).as_py():
            return False
    for name, allowed in _allowed_values(schema).items():
        if name in columns and not pc.all(pc.is_in(batch.column(name), pa.array([*allowed, None], _STRING))).as_py():
            return False
    for name in (name for name, column in columns.items() if column.is_moment):
        moments = batch.column(name)
        earliest = 0 if name == TIMESTAMP else -_LAST_MOMENT
        if pc.any(pc.or_(pc.less(moments, earliest), pc.greater(moments, _LAST_MOMENT))).as_py():
            return False
    return not (POSITION in columns and pc.any(pc.less(batch.column(POSITION), 1)).as_py())


def _allowed_values(schema: Schema) -> dict[str, tuple[str, ...]]:
    counted = (action for counter in schema.counters.values() for action in counter.actions)
    used = {*schema.history.actions, *(task.action for task in schema.tasks), *counted}
    return {SCENARIO: schema.scenarios, ACTION: tuple(sorted(used))}


def _convert_row_by_row(
    block: bytes | pa.RecordBatch | list[dict], schema: Schema, table: str, place: int
) -> tuple[pa.RecordBatch, list[dict]]:
    columns, allowed = columns_of(schema, table), _allowed_values(schema)
    rows: Iterable[Any]
    if isinstance(block, list):
        rows = block
    else:
        rows = block.to_pylist() if isinstance(block, pa.RecordBatch) else block[:-1].split(b"\n")
    sound, rejected = [], []
    for offset, row in enumerate(rows):
        if isinstance(row, bytes):
            if not row.strip():
                continue
            try:
                row = json.loads(row)
            except (ValueError, RecursionError):
                rejected.append(_rejection(place + offset, "broken_json", row.decode("utf-8", "replace")[:1000]))
                continue
        if not isinstance(row, dict):
            rejected.append(_rejection(place + offset, "not_an_object", row))
            continue
        try:
            values = {name: _coerce(row.get(name), column, name) for name, column in columns.items()}
            _check_values(values, columns, allowed)
        except _Reject as reason:
            rejected.append(_rejection(place + offset, str(reason), row))
            continue
        sound.append({**values, PLACE: place + offset})
    return pa.RecordBatch.from_pylist(sound, schema=table_schema(schema, table)), rejected


def _rejection(place: int, reason: str, row: Any) -> dict:
    return {"place": place, "reason": reason, "row": row}


class _Reject(Exception):
    """Exception that carries the reason for rejecting a row."""


def _coerce(value: Any, column: Column, name: str) -> Any:
    """`value` as the column's type. Integers and booleans are accepted as strings: ids are often numbers."""
    if isinstance(value, decimal.Decimal):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    if value is None or (value == "" and (column.required or _is_optional_key(name, column))):
        if column.required:
            raise _Reject(f"missing_{name}")
        return None
    if column.type == _STRING and isinstance(value, str | int):
        return _text(value, name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if column.type == _FLOAT and is_number:
        with contextlib.suppress(OverflowError):
            return float(value)
    if column.type == _INTEGER and is_number and value == int(value) and -(2**63) <= value < 2**63:
        return int(value)
    if column.type == _STRINGS and isinstance(value, list):
        kept = [item for item in value if item is not None]
        if all(isinstance(item, str | int) for item in kept):
            return [_text(item, name) for item in kept]
    if column.type == _NUMBERS and isinstance(value, list):
        if column.width and len(value) != column.width:
            raise _Reject(f"wrong_width_{name}")
        if all(isinstance(item, int | float) and not isinstance(item, bool) and abs(item) < math.inf for item in value):
            return [float(item) for item in value]
    raise _Reject(f"wrong_type_{name}")


def _text(value: str | int, name: str) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair, which JSON's \u can spell
        raise _Reject(f"broken_text_{name}") from error
    return text


def _check_values(values: dict[str, Any], columns: dict[str, Column], allowed: dict[str, tuple[str, ...]]) -> None:
    scenario = values.get(SCENARIO)
    if scenario is not None and scenario not in allowed[SCENARIO]:
        raise _Reject("unknown_scenario")
    if ACTION in values and values[ACTION] not in allowed[ACTION]:
        raise _Reject("action_not_in_schema")
    if (values.get(TIMESTAMP) or 0) < 0:
        raise _Reject("negative_timestamp")
    for name in (name for name, column in columns.items() if column.is_moment):
        if abs(values.get(name) or 0) > _LAST_MOMENT:
            raise _Reject(f"{name}_beyond_year_9999")
    if values.get(POSITION) is not None and values[POSITION] < 1:
        raise _Reject("position_below_1")
