"""Inputs of each log table: files of a log directory, files given by `--table`, or a BigQuery table."""

import math
from collections.abc import Iterable

from apache_beam.io.filesystems import FileSystems

from pipelines.logs import bigquery, bigquery_read
from pipelines.logs.checks import check_table
from pipelines.logs.formats import partitions_of
from pipelines.logs.locations import find_files, match_files
from usr_tf.errors import InputError
from usr_tf.schema import OPTIONAL_TABLES, TABLES, Schema

TableInputs = dict[str, list[str]]
"""The inputs of each table, in the order of their names: paths of files, or one `bigquery:PROJECT.DATASET.TABLE`."""

_BIGQUERY_PARTITION_BYTES = 16 << 20


def find_tables(logs_dir: str | None, tables: Iterable[str] = ()) -> TableInputs:
    """Inputs of every table.

    Args:
      logs_dir: a log directory; None when every table is named apart.
      tables: `TABLE=WHERE` for tables that lie elsewhere, `WHERE` a file, a pattern, a folder or `bigquery:…`.

    Raises:
      InputError: a table that the contract requires is nowhere, or no file matches.
    """
    apart = _parse(tables)
    found: TableInputs = {}
    for table in TABLES:
        if table in apart:
            where = apart[table]
            found[table] = [where] if bigquery.is_table(where) else match_files(where, table)
        elif logs_dir is not None:
            found[table] = find_files(logs_dir, table)
        elif table in OPTIONAL_TABLES:
            found[table] = []
        else:
            raise InputError("--logs", "nothing", f"a log directory, or --table {table}=WHERE")
    return found


def check_tables(schema: Schema, inputs: TableInputs) -> None:
    """Checks the tables before the job, by samples of them (`checks.check_table`).

    Raises:
      InputError: a table or a column is missing, or what the sample holds cannot be read by the schema.
    """
    for table, names in inputs.items():
        if names and bigquery.is_table(names[0]):
            bigquery_read.check_columns(schema, table, names[0])
        else:
            check_table(schema, table, names)


def partitions_for(inputs: TableInputs) -> int:
    """Number of join partitions for tables of this size: about 80,000 impressions each."""
    size = 0.0
    for names in inputs.values():
        for name in names:
            if bigquery.is_table(name):
                size += (bigquery.look_up(name).num_bytes or 0) / _BIGQUERY_PARTITION_BYTES
            else:
                size += partitions_of(name, FileSystems.get_filesystem(name).size(name))
    return min(4096, max(4, math.ceil(size)))


def _parse(tables: Iterable[str]) -> dict[str, str]:
    apart: dict[str, str] = {}
    for text in tables:
        table, equals, where = text.partition("=")
        if table not in TABLES or not equals or not where:
            raise InputError("--table", repr(text), f"TABLE=WHERE, TABLE one of {', '.join(TABLES)}")
        if table in apart:
            raise InputError("--table", f"{table} twice", "each table once")
        apart[table] = where
    return apart
