"""What the jobs share: dates of the command line, scratch space, reading and joining, the run."""

import contextlib
import datetime
import tempfile
from collections.abc import Iterator, Mapping

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems

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
    """An ISO 8601 date or time, of UTC where it names no zone, in ms.

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
    """The store for blocks between stages: a local runner's on disk, in `OUT/.temp` if that is local too."""
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
    """What `JoinLogs` makes of the tables, and all rows set aside and all counts, of reading and of joining."""
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


def run(pipeline: beam.Pipeline) -> None:
    """Runs to the end.

    Raises:
      InputError: a worker met one, of which Beam hands over the traceback's text alone.
    """
    try:
        pipeline.run().wait_until_finish()
    except Exception as error:
        found = InputError.inside(error)
        if found is None:
            raise
        raise found from error
