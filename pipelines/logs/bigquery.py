"""BigQuery tables as inputs, read with Beam's connector through the Storage Read API."""

import json
from collections.abc import Iterator

import apache_beam as beam
import numpy as np
import pandas as pd
from apache_beam.io.gcp.bigquery import ReadFromBigQuery
from apache_beam.io.gcp.bigquery_tools import BigQueryWrapper, parse_table_reference
from apache_beam.pvalue import TaggedOutput

from pipelines.beam.blocks import BlockStore
from pipelines.beam.progress import READ
from pipelines.logs import tables as logs
from pipelines.logs.rejected import COUNTS, REJECTED, set_aside
from usr_tf.errors import InputError
from usr_tf.schema import TIMESTAMP, Schema

_PREFIX = "bigquery:"
_BATCH_ROWS = 16_384


def is_table(name: str) -> bool:
    """Whether an input names a BigQuery table, `bigquery:PROJECT.DATASET.TABLE`."""
    return name.startswith(_PREFIX)


def check_columns(schema: Schema, table: str, name: str) -> None:
    """Checks that a BigQuery table has the columns that `table` needs.

    Raises:
      InputError: no such table, a missing column, or a `timestamp` that is not whole milliseconds.
    """
    types = {field.name: field.type for field in _look_up(name).schema.fields}
    columns = logs.columns_of(schema, table)
    for column, kind in columns.items():
        if column not in types and (kind.required or column in schema.features):
            raise InputError(f"{name}: column {column!r}", f"only {', '.join(sorted(types))}", "this column")
    if TIMESTAMP in columns and types[TIMESTAMP] not in ("INTEGER", "INT64"):
        raise InputError(
            f"{name}: column {TIMESTAMP!r}", types[TIMESTAMP], "INT64, milliseconds: a table of UNIX_MILLIS(…)"
        )


def size(name: str) -> int:
    """Uncompressed size of the table in bytes."""
    return int(_look_up(name).numBytes or 0)


class ReadBigQuery(beam.PTransform):
    """Reads a BigQuery table, with the outputs of `stage.reader`."""

    def __init__(self, schema: Schema, table: str, name: str, store: BlockStore):
        super().__init__()
        self._schema, self._table, self._name, self._store = schema, table, name, store

    def expand(self, pipeline):  # Beam warns of hints that are several outputs
        present = {field.name for field in _look_up(self._name).schema.fields}
        wanted = [column for column in logs.columns_of(self._schema, self._table) if column in present]
        return (
            pipeline
            | "Rows"
            >> ReadFromBigQuery(
                table=_reference(self._name), method=ReadFromBigQuery.Method.DIRECT_READ, selected_fields=wanted
            )
            | "Batch" >> beam.BatchElements(min_batch_size=1024, max_batch_size=_BATCH_ROWS)
            | "Check"
            >> beam.ParDo(_CheckRows(self._schema, self._table, self._store)).with_outputs(
                COUNTS, REJECTED, main="rows"
            )
        )


class _CheckRows(beam.DoFn):
    """Validates lists of row dictionaries: a batch of valid rows, and rejected rows."""

    def __init__(self, schema: Schema, table: str, store: BlockStore):
        self._schema, self._table, self._store = schema, table, store

    def process(self, rows: list[dict]) -> Iterator:
        batch, rejected = logs.convert_rows(rows, _places(rows), self._schema, self._table)
        yield from set_aside(rejected, self._table, self._store)
        if batch.num_rows:
            yield batch
        yield TaggedOutput(COUNTS, {("rows", self._table, "read"): len(rows)})
        self._store.progress.add(READ.format(self._table), len(rows))


def _places(rows: list[dict]) -> list[int]:
    """Identifier of each row for `rejected/`, derived from its values: BigQuery keeps no order."""
    texts = np.array([json.dumps(row, sort_keys=True, default=str) for row in rows], dtype=object)
    return (pd.util.hash_array(texts) >> np.uint64(64 - logs.LINE_BITS)).astype(np.int64).tolist()


def _look_up(name: str):
    reference = parse_table_reference(_reference(name))
    try:
        return BigQueryWrapper().get_table(reference.projectId, reference.datasetId, reference.tableId)
    except Exception as error:  # whatever the client raises: no credentials, no permission, no such table
        raise InputError(name, f"no readable table ({' '.join(str(error).split())[:200]})", "a table") from error


def _reference(name: str) -> str:
    """Table reference in Beam's form, `PROJECT:DATASET.TABLE`."""
    parts = name.removeprefix(_PREFIX).split(".")
    if len(parts) != 3 or not all(parts):
        raise InputError(name, "no table's name", f"{_PREFIX}PROJECT.DATASET.TABLE")
    project, dataset, table = parts
    return f"{project}:{dataset}.{table}"
