"""Feature load job: log tables up to a moment → states of users, items and counters → a feature store.

Runs as `usr-tf features load`. The states are those that the online ingest of the same events would have made.
"""

import contextlib
import itertools
import operator
import tempfile
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.pvalue import TaggedOutput

from pipelines.beam.blocks import Block, BlockStore, tables_of
from pipelines.beam.job import run
from pipelines.beam.options import is_local, make_pipeline
from pipelines.beam.progress import display
from pipelines.join.as_of import attach, first_of_each
from pipelines.join.stage import BY_USER, IDENTITIES, GroupByUser, joined_schemas
from pipelines.logs.columns import PLACE
from pipelines.logs.inputs import check_tables, find_tables, partitions_for
from pipelines.logs.stage import reader
from usr_tf.errors import InputError
from usr_tf.feature_states import (
    CountSeries,
    KeyPlan,
    Limits,
    UserState,
    add_version,
    history_values,
    item_key,
    lifetime,
    stored_row,
    user_keys,
)
from usr_tf.log_rows import feature_columns
from usr_tf.schema import ITEM, TIMESTAMP, USER, Schema

Values = list[tuple[str, bytes, int | None]]
"""Keys with their values and lifetimes (ms; None for ever)."""
Write = Callable[[Values], None]

_BATCH = 1_000
_USERS, _COUNTS = "users", "counts"


def load_features(
    logs_dir: str | None,
    schema: Schema,
    limits: Limits,
    open_writer: Callable[[], contextlib.AbstractContextManager[Write]],
    until: int | None = None,
    beam_args: Sequence[str] = (),
    partitions: int | None = None,
    progress: bool = False,
    *,
    tables: Sequence[str] = (),
    shared: bool = True,
) -> dict[str, int]:
    """Loads the events of a log directory before a moment, and the rows of items and users that are valid then.

    Args:
      logs_dir: a log directory on any file system of Beam; None if `tables` names every table.
      limits: of the store.
      open_writer: opens the store, once the logs are known to be readable. What it gives writes values; workers call
        it, so it has to be picklable, and it may write the same again.
      until: ms; everything when absent.
      beam_args, partitions, tables: as for `preprocess`.
      shared: whether workers of other machines reach the store.

    Returns:
      Written values by kind: `item`, `user`, `history`, `recent`, `count`.

    Raises:
      InputError: invalid logs, or workers that do not reach the store.
    """
    pipeline = make_pipeline(beam_args)
    local = is_local(pipeline)
    if not (local or shared):
        raise InputError("--store", "a file of this machine", "a store that all workers reach, such as redis://…")
    inputs = find_tables(logs_dir, tables)
    check_tables(schema, inputs)
    partitions = partitions or partitions_for(inputs)
    with (
        open_writer() as write,
        _scratch(local) as store,
        display(progress, f"features load {logs_dir or ''}", store.progress),
    ):
        read = {
            table: (pipeline | f"Read[{table}]" >> reader(schema, table, names, store)).rows
            for table, names in inputs.items()
            if names
        }
        if until is not None:
            read = {table: rows | f"Before[{table}]" >> beam.Map(_before, until) for table, rows in read.items()}
        grouped = read | "GroupByUser" >> GroupByUser(schema, partitions, store)
        states = grouped[BY_USER] | "UserStates" >> beam.ParDo(_UserStates(schema, limits)).with_outputs(
            _COUNTS, main=_USERS
        )
        counts = states[_COUNTS] | "ByKey" >> beam.GroupByKey() | "Counts" >> beam.Map(_count, schema, limits)
        rows = [
            read[table]
            | f"Rows[{table}]" >> beam.FlatMap(_rows, table, schema)
            | f"ByKey[{table}]" >> beam.GroupByKey()
            | f"Versions[{table}]" >> beam.Map(_versions, limits, None if table == "items" else limits.idle)
            for table in ("items", "users")
            if table in read
        ]
        _ = (
            (states[_USERS], counts, *rows)
            | "AllValues" >> beam.Flatten()
            | "Batches" >> beam.BatchElements(_BATCH, _BATCH)
            | "Write" >> beam.ParDo(_WriteValues(write))
        )
        result = run(pipeline)
    found = result.metrics().query(MetricsFilter().with_namespace(_WriteValues.__name__))["counters"]
    return {counter.key.metric.name: counter.committed for counter in found}


@contextlib.contextmanager
def _scratch(local: bool) -> Iterator[BlockStore]:
    """Store of the blocks between stages."""
    if not local:
        yield BlockStore()
    else:
        with tempfile.TemporaryDirectory() as directory:
            yield BlockStore(directory)


def _before(batch: pa.RecordBatch, until: int) -> pa.RecordBatch:
    """Rows before a moment, and those without a time."""
    return batch.filter(pc.fill_null(pc.less(batch.column(TIMESTAMP), until), True))


def _rows(batch: pa.RecordBatch, table: str, schema: Schema) -> Iterator[tuple[str, tuple[int | None, int, dict]]]:
    """Rows of items or users by the key of the store: `(valid from, place, values)`."""
    of_items = table == "items"
    columns = feature_columns(schema.features_of("item" if of_items else "user"))
    for row in batch.to_pylist():
        key = item_key(row[ITEM]) if of_items else user_keys(row[USER]).row
        yield key, (row[TIMESTAMP], row[PLACE], stored_row(row, columns))


def _versions(
    element: tuple[str, Iterable[tuple[int | None, int, dict]]], limits: Limits, life: int | None
) -> tuple[str, bytes, int | None]:
    """The row versions of an item or user."""
    key, rows = element
    versions: list[list[Any]] = []
    known: set[int | None] = set()
    for since, _, row in sorted(rows, key=lambda entry: (-1 if entry[0] is None else entry[0], entry[1])):
        if since not in known:  # the first row of a time holds
            add_version(versions, since, row, limits.versions)
        known.add(since)
    return key, orjson.dumps(versions), life


class _UserStates(beam.DoFn):
    """A partition of the users → the documents of each user, and the counts by counter key."""

    def __init__(self, schema: Schema, limits: Limits):
        self._schema, self._limits = schema, limits

    def setup(self) -> None:
        self._plan = KeyPlan(self._schema)

    def process(self, element: tuple[int, Iterable[Block]]) -> Iterator:
        schema, plan = self._schema, self._plan
        tables = tables_of(element[1], joined_schemas(schema))
        for table, (key, order) in IDENTITIES.items():
            tables[table] = tables[table].filter(pa.array(first_of_each(tables[table], key, order)))
        of_key = [name for name in schema.features_of("user") if name in plan.columns]
        users = tables["users"].select(dict.fromkeys([USER, TIMESTAMP, *of_key]))
        events = []
        for table in ("impressions", "actions"):
            rows, _ = attach(tables[table], users, USER)
            events += [(row[USER], row[TIMESTAMP], table, row) for row in rows.to_pylist()]
        events.sort(key=lambda event: event[:2])
        counts: Tally[tuple[str, str, int, int]] = Tally()
        for user, of_user in itertools.groupby(events, key=operator.itemgetter(0)):
            state = UserState(schema, plan, self._limits)
            for *_, table, row in of_user:
                keys = plan.values(row)
                if table == "impressions":
                    _, changes = state.add_impression(row, keys)
                else:
                    _, changes = state.add_action(row, history_values(schema, row), keys)
                for change in changes:
                    counts[change.counter, change.key, change.time, change.event] += change.number
            names = user_keys(user)
            for name, document in ((names.history, state.history), (names.recent, state.recent)):
                yield name, orjson.dumps(document), self._limits.idle
        by_key: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
        for (counter, name, time, event), number in counts.items():
            if number:
                by_key.setdefault((counter, name), []).append((time, event, number))
        for element_key, entries in by_key.items():
            yield TaggedOutput(_COUNTS, (element_key, entries))


def _count(
    element: tuple[tuple[str, str], Iterable[list[tuple[int, int, int]]]], schema: Schema, limits: Limits
) -> tuple[str, bytes, int | None]:
    """The series of a counter key."""
    (name, key), entries = element
    counter = schema.counters[name]
    series = CountSeries(counter, limits)
    for time, event, number in sorted(itertools.chain.from_iterable(entries)):
        series.add(event, time, number)
    return key, orjson.dumps(series.document), lifetime(counter, limits)


class _WriteValues(beam.DoFn):
    """Writes batches of values, and counts them by kind."""

    def __init__(self, write: Write):
        self._write = write

    def process(self, values: Values) -> None:
        self._write(values)
        for kind, number in Tally(key.partition(":")[0] for key, *_ in values).items():
            Metrics.counter(_WriteValues.__name__, kind).inc(number)
