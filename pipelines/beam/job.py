"""Shared steps of the Beam jobs: command-line dates, scratch space, read and join, pipeline execution."""

import contextlib
import datetime
import tempfile
from collections.abc import Iterator, Mapping

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.runners.runner import PipelineResult

from pipelines.beam.blocks import BlockStore
from pipelines.beam.options import is_local
from pipelines.beam.output import TEMP
from pipelines.join.counter_state import CounterState
from pipelines.join.stage import JoinLogs
from pipelines.logs.inputs import TableInputs
from pipelines.logs.rejected import COUNTS, REJECTED
from pipelines.logs.stage import reader
from usr_tf.errors import InputError
from usr_tf.schema import Schema


def milliseconds(since: str, place: str = "--since") -> int:
    """Parses an ISO 8601 date or time to ms since the epoch; UTC if it names no zone.

    Raises:
      InputError: it is neither; `place` is what it names.
    """
    try:
        moment = datetime.datetime.fromisoformat(since)
    except ValueError as error:
        expected = "a date or time in ISO 8601, such as 2026-11-21 or 2026-11-21T06:00:00Z"
        raise InputError(place, repr(since), expected) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return (moment - datetime.datetime.fromtimestamp(0, datetime.UTC)) // datetime.timedelta(milliseconds=1)


def describe_moment(moment: int) -> str:
    """A time (ms) as `milliseconds` reads it, of UTC."""
    start = datetime.datetime.fromtimestamp(0, datetime.UTC)
    return (start + datetime.timedelta(milliseconds=moment)).isoformat(timespec="milliseconds")


@contextlib.contextmanager
def scratch(pipeline: beam.Pipeline, out: str) -> Iterator[BlockStore]:
    """Block store for the scratch space of a job: on disk in `OUT/.temp` if runner and output are local."""
    if not is_local(pipeline):
        yield BlockStore()
    else:
        near = None if "://" in out else FileSystems.join(out, TEMP)
        with tempfile.TemporaryDirectory(dir=near) as directory:
            yield BlockStore(directory)


def read_and_join(
    pipeline: beam.Pipeline,
    schema: Schema,
    inputs: TableInputs,
    partitions: int,
    store: BlockStore,
    since: int,
    state: CounterState | None = None,
) -> tuple[Mapping[str, beam.PCollection], beam.PCollection, beam.PCollection]:
    """Reads the tables and joins them: the outputs of `JoinLogs`, all rejected rows and all counts."""
    read = {
        table: pipeline | f"Read[{table}]" >> reader(schema, table, names, store)
        for table, names in inputs.items()
        if names
    }
    join = JoinLogs(schema, partitions, store, since, state)
    joined = {table: each.rows for table, each in read.items()} | "Join" >> join
    rejected, counts = (
        [each[tag] for each in (*read.values(), joined)] | f"All[{tag}]" >> beam.Flatten() for tag in (REJECTED, COUNTS)
    )
    return joined, rejected, counts


def run(pipeline: beam.Pipeline) -> PipelineResult:
    """Runs the pipeline, waits for its end, and returns its result.

    Raises:
      InputError: a worker met one, of which Beam hands over the traceback's text alone.
    """
    try:
        result = pipeline.run()
        result.wait_until_finish()
    except Exception as error:
        found = InputError.inside(error)
        if found is None:
            raise
        raise found from error
    return result
