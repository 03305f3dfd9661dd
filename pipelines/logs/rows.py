"""Validation of log rows one by one: each bad row is rejected for a reason, the others become an Arrow batch."""

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from pipelines.logs.columns import PLACE, Layout
from pipelines.logs.files import MAX_LINE_BYTES
from usr_tf.log_rows import RejectedRow, check_values, coerce

_QUOTED_CHARACTERS = 1_000


def convert_row_by_row(
    rows: Iterable[Any], places: Iterable[int], layout: Layout, constants: dict[str, str | None]
) -> tuple[pa.RecordBatch, list[dict]]:
    """Sound rows, and rejected ones as `{place, reason, row}`.

    Args:
      rows: dictionaries, or lines of JSON as bytes, of which blank ones count for nothing.
      places: the place of each row.
      constants: values of columns that the rows do not have, such as those in the file's path.
    """
    sound, rejected = [], []
    for row, place in zip(rows, places, strict=True):
        try:
            if isinstance(row, bytes):
                if not row.strip():
                    continue
                row = _parse_line(row)
            if not isinstance(row, dict):
                raise RejectedRow("not_an_object")
            values = {
                name: coerce(_value(row, layout.sources[name], constants), column, name)
                for name, column in layout.columns.items()
            }
            check_values(values, layout.allowed)
        except RejectedRow as reason:
            if isinstance(row, bytes):
                row = row[: 4 * _QUOTED_CHARACTERS].decode("utf-8", "replace")[:_QUOTED_CHARACTERS]
            rejected.append({"place": place, "reason": str(reason), "row": row})
            continue
        sound.append({**values, PLACE: place})
    return pa.RecordBatch.from_pylist(sound, schema=layout.arrow), rejected


def _parse_line(line: bytes) -> Any:
    if len(line) > MAX_LINE_BYTES:
        raise RejectedRow("line_too_long")
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RejectedRow("broken_json") from error


def _value(row: dict, sources: tuple[str, ...], constants: dict[str, str | None]) -> Any:
    """The first of these columns that the row has a value of, or what the file's path says."""
    return next((value for value in (*map(row.get, sources), *map(constants.get, sources)) if value is not None), None)
