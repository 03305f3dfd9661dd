"""Checks of log tables before the job: columns, types, units, and whether any row of a sample is sound."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipelines.logs.columns import Layout, layout_of
from pipelines.logs.formats import Block, read_blocks
from pipelines.logs.tables import check_types, convert_block, first_moments, parse_lines, partition_values
from usr_tf.errors import InputError
from usr_tf.files import strict_json
from usr_tf.log_timestamps import check_unit
from usr_tf.schema import TIMESTAMP, USER, Schema

_ROWS = 10_000
"""Rows of each file that are looked at."""
_FILES = 16
"""Files that are looked at."""
_QUOTED = 100
_OF_THE_SCHEMA = ("unknown_scenario", "action_not_in_schema")
"""Reasons that say nothing about the form of the rows: all actions may be of a kind that no task needs."""


def check_table(schema: Schema, table: str, paths: list[str]) -> None:
    """Checks a table by the first rows of some of its files.

    Raises:
      InputError: the table or a column is missing, a column is of a type that the schema's cannot come from, its
        timestamps are of another unit, or no row looked at is sound.
    """
    layout = layout_of(schema, table)
    if not paths:
        needed = [name for name in layout.columns if name in schema.features and name != USER]
        if needed:
            raise InputError(f"features.{needed[0]}", f"no {table} file among the logs", "one that holds this column")
        return
    found: set[str] = set()
    samples = [sample for path in spread(paths, _FILES) if (sample := _Sample.of(path, layout)) is not None]
    if not samples:
        raise InputError(paths[0], "no rows", f"at least one row of {table}")
    for sample in samples:
        found |= sample.columns
    for name, column in layout.columns.items():
        is_feature = name in schema.features or name in schema.weight_columns
        if not found & {*layout.sources[name]} and (column.required or is_feature):
            raise InputError(
                f"{samples[0].path}: column {name!r}",
                f"only {', '.join(sorted(found))} in its first {_ROWS:,} rows",
                f"it, for features.{schema.weight_columns.get(name, name)} of the schema"
                if is_feature
                else "this required column",
            )
    for sample in samples:
        sample.check(layout)
    _refuse_unsound(samples, layout)


class _Sample:
    """The first rows of a file."""

    def __init__(self, path: str, block: Block):
        self.path, self.block = path, block
        self.constants = partition_values(path)
        if isinstance(block.rows, pa.RecordBatch):
            self.columns = {*block.rows.schema.names}
        else:
            self.columns = set().union(*(row.keys() for row in parse_lines(block.rows, _ROWS)))
        self.columns |= self.constants.keys()

    @classmethod
    def of(cls, path: str, layout: Layout) -> "_Sample | None":
        """Sample of a file; None if it has no rows."""
        blocks = read_blocks(path, None)
        block = next((block for block in blocks if len(block.numbers) or block.rejected), None)
        blocks.close()
        if block is None:
            return None
        if isinstance(block.rows, pa.RecordBatch):
            rows = block.rows.slice(0, _ROWS)
            return cls(path, block._replace(rows=rows, numbers=block.numbers[:_ROWS]))
        lines = block.rows.split(b"\n", _ROWS)[:_ROWS] if len(block.numbers) > _ROWS else None
        rows = b"\n".join(lines) + b"\n" if lines else block.rows
        return cls(path, block._replace(rows=rows, numbers=block.numbers[:_ROWS]))

    def check(self, layout: Layout) -> None:
        if isinstance(self.block.rows, pa.RecordBatch):
            check_types(self.path, self.block.rows.schema, layout)
        check_unit(self.path, first_moments(self.block, layout, _ROWS), layout.columns[TIMESTAMP].unit)

    def convert(self, layout: Layout) -> tuple[pa.RecordBatch, list[dict]]:
        batch, rejected = convert_block(
            self.path, self.block, np.asarray(self.block.numbers, np.int64), layout, self.constants
        )
        wrong = [{"place": line, "reason": reason, "row": text} for line, reason, text in self.block.rejected]
        return batch, wrong + rejected


def spread(paths: Sequence[str], files: int) -> list[str]:
    """Some files from the first to the last."""
    return [paths[i] for i in sorted({round(i) for i in np.linspace(0, len(paths) - 1, min(files, len(paths)))})]


def _refuse_unsound(samples: list[_Sample], layout: Layout) -> None:
    """Refuses a table none of whose sampled rows is sound."""
    rejected: list[tuple[_Sample, dict]] = []
    for sample in samples:
        batch, wrong = sample.convert(layout)
        if batch.num_rows or any(row["reason"] in _OF_THE_SCHEMA for row in wrong):
            return
        rejected += [(sample, row) for row in wrong]
    if not rejected:
        return
    [(reason, _)] = Counter(row["reason"] for _, row in rejected).most_common(1)
    sample, row = next((sample, row) for sample, row in rejected if row["reason"] == reason)
    name = next((name for name in layout.columns if reason.endswith(f"_{name}")), None)
    where = f"{sample.path}:{row['place']}" + (f": column {name!r}" if name else "")
    content = row["row"]
    if name and isinstance(content, dict):
        content = next((content[source] for source in layout.sources[name] if content.get(source) is not None), None)
    quoted = content if isinstance(content, str) else strict_json(content, default=str, ensure_ascii=False)
    expected = layout.columns[name].description if name else "one JSON object a row"
    raise InputError(where, f"{quoted[:_QUOTED]} ({reason}), none of {len(rejected):,} rows is sound", expected)
