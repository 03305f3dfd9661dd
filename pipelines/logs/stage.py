"""Read stage of the job: blocks of validated rows of a log table."""

from collections.abc import Iterator

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from pipelines.beam.blocks import BlockStore
from pipelines.beam.progress import READ
from pipelines.logs import bigquery, bigquery_read
from pipelines.logs import tables as logs
from pipelines.logs.rejected import COUNTS, REJECTED, set_aside
from usr_tf.schema import Schema


def reader(schema: Schema, table: str, names: list[str], store: BlockStore) -> beam.PTransform:
    """Transform that reads a table from its inputs. Outputs: `rows` (record batches), `rejected`, `counts`."""
    if bigquery.is_table(names[0]):
        return bigquery_read.ReadBigQuery(schema, table, names[0], store)
    return ReadFiles(schema, table, names, store)


class ReadFiles(beam.PTransform):
    """Reads the files of a table; one worker reads a whole file."""

    def __init__(self, schema: Schema, table: str, paths: list[str], store: BlockStore):
        super().__init__()
        self._paths, self._read = paths, _ReadFile(schema, table, store)

    def expand(self, pipeline):  # Beam warns of hints that are several outputs
        return (
            pipeline
            | "Files" >> beam.Create(list(enumerate(self._paths)))
            | "OneWorkerAFile" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(self._read).with_outputs(COUNTS, REJECTED, main="rows")
        )


class _ReadFile(beam.DoFn):
    """Blocks of validated rows of a file, from `(number, path)`."""

    def __init__(self, schema: Schema, table: str, store: BlockStore):
        self._schema, self._table, self._store = schema, table, store

    def process(self, element: tuple[int, str]) -> Iterator:
        number, path = element
        read = 0
        for batch, rejected in logs.read_file(path, number, self._schema, self._table):
            read += batch.num_rows + len(rejected)
            self._store.progress.add(READ.format(self._table), batch.num_rows + len(rejected))
            yield from set_aside(rejected, self._table, self._store)
            if batch.num_rows:
                yield batch
        yield TaggedOutput(COUNTS, {("rows", self._table, "read"): read})
