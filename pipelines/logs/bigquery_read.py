"""BigQuery tables as inputs of the job, read by Beam's own connector through the Storage Read API."""

import json
from collections.abc import Iterator

import apache_beam as beam
import numpy as np
import pandas as pd
from apache_beam.io.gcp.bigquery import ReadFromBigQuery
from apache_beam.pvalue import TaggedOutput

from pipelines.beam.blocks import BlockStore
from pipelines.beam.progress import READ
from pipelines.logs.bigquery import look_up, parse_name
from pipelines.logs.columns import LINE_BITS, layout_of
from pipelines.logs.rejected import COUNTS, REJECTED, set_aside
from pipelines.logs.tables import convert_rows
from usr_tf.errors import InputError
from usr_tf.log_rows import feature_of
from usr_tf.schema import TIMESTAMP, Schema

_BATCH_ROWS = 16_384


def check_columns(schema: Schema, table: str, name: str) -> None:
    """Refuses a BigQuery table without the columns that `table` needs.

    Raises:
      InputError: no such table, a missing column, or a `timestamp` that is not whole milliseconds.
    """
    types = {field.name: field.field_type for field in look_up(name).schema}
    layout = layout_of(schema, table)
    for column, kind in layout.columns.items():
        if not types.keys() & {*layout.sources[column]} and (kind.required or feature_of(column, schema)):
            raise InputError(f"{name}: column {column!r}", f"only {', '.join(sorted(types))}", "this column")
    for source in layout.sources[TIMESTAMP]:
        if types.get(source, "INT64") not in ("INTEGER", "INT64"):
            raise InputError(
                f"{name}: column {source!r}", types[source], "INT64, milliseconds: a table of UNIX_MILLIS(…)"
            )


class ReadBigQuery(beam.PTransform):
    """Reads a BigQuery table, with the outputs of `read.reader`."""

    def __init__(self, schema: Schema, table: str, name: str, store: BlockStore):
        super().__init__()
        self._schema, self._table, self._name, self._store = schema, table, name, store

    def expand(self, pipeline):  # Beam warns of hints that are several outputs
        present = {field.name for field in look_up(self._name).schema}
        wanted = [column for column in layout_of(self._schema, self._table).names if column in present]
        project, dataset, table = parse_name(self._name)
        return (
            pipeline
            | "Rows"
            >> ReadFromBigQuery(
                table=f"{project}:{dataset}.{table}", method=ReadFromBigQuery.Method.DIRECT_READ, selected_fields=wanted
            )
            | "Batch" >> beam.BatchElements(min_batch_size=1024, max_batch_size=_BATCH_ROWS)
            | "Check"
            >> beam.ParDo(_CheckRows(self._schema, self._table, self._store)).with_outputs(
                COUNTS, REJECTED, main="rows"
            )
        )


class _CheckRows(beam.DoFn):
    """Lists of rows as dictionaries → their sound rows as a batch."""

    def __init__(self, schema: Schema, table: str, store: BlockStore):
        self._schema, self._table, self._store = schema, table, store

    def process(self, rows: list[dict]) -> Iterator:
        batch, rejected = convert_rows(rows, _places(rows), self._schema, self._table)
        yield from set_aside(rejected, self._table, self._store)
        if batch.num_rows:
            yield batch
        yield TaggedOutput(COUNTS, {("rows", self._table, "read"): len(rows)})
        self._store.progress.add(READ.format(self._table), len(rows))


def _places(rows: list[dict]) -> list[int]:
    """A place for each row: BigQuery keeps no order, so it follows from what the row holds."""
    texts = np.array([json.dumps(row, sort_keys=True, default=str) for row in rows], dtype=object)
    return (pd.util.hash_array(texts) >> np.uint64(64 - LINE_BITS)).astype(np.int64).tolist()
