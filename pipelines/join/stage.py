"""Join stage: validated rows of every table → joined, labelled rows of every split.

Rows travel in Arrow blocks of thousands, keyed by a partition of the items and then of the users, so that Beam moves
blocks and the work on rows is columnar. Items and impressions meet a partition of the items at a time, users and all
that they did a partition of the users at a time.
"""

from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import AsSingleton, TaggedOutput

from pipelines.beam.blocks import Block, BlockStore, Gather, gather, load, partition, tables_of
from pipelines.beam.progress import JOIN
from pipelines.join import counter_stage
from pipelines.join.as_of import attach, first_of_each, histories, label
from pipelines.join.counter_stage import MOMENT
from pipelines.join.counter_state import CounterState
from pipelines.join.counters import action_features
from pipelines.join.past_queries import PastQueries
from pipelines.join.rows import make_batches
from pipelines.join.split import EVER, SPLITS, CountMinutes, Counts, boundaries, count_minutes
from pipelines.logs.columns import PLACE, table_schema
from pipelines.logs.rejected import COUNTS, REJECTED, set_aside_marked
from usr_tf.schema import ACTION, ITEM, REQUEST, SCENARIO, TIMESTAMP, USER, Schema

BEFORE_SINCE = "before_since"
"""Why an impression makes no row though it is sound. Too many to be set aside row by row, they are only counted."""

BY_USER = "by_user"
IDENTITIES = {
    "impressions": ([USER, REQUEST, ITEM], [TIMESTAMP, PLACE]),
    "actions": ([USER, ITEM, TIMESTAMP, ACTION, REQUEST, SCENARIO], [PLACE]),
    "users": ([USER, TIMESTAMP], [PLACE]),
}
"""Columns that no two rows of a table share, and the order by which the first of those that do is kept."""
_BLOCK_ROWS, _ROWS_PER_PART = 100_000, 256
_SPLIT = "_split"  # no feature can have this name


class JoinLogs(beam.PTransform):
    """Joins `{table: record batches}`. Outputs: `train`, `valid`, `test` (block handles), `rejected`, `counts`.

    Args:
      partitions: parts of the items and of the users; a part of the users is joined in the memory of one worker.
      since: ms; an impression before it takes its share of the actions, but makes no row.
      state: of an earlier run's counters, whose moment is not after `since`: their events before it are counted, and
        those of the tables from it on.
    """

    def __init__(
        self,
        schema: Schema,
        partitions: int,
        store: BlockStore,
        since: int = EVER,
        state: CounterState | None = None,
    ):
        super().__init__()
        self._schema, self._partitions, self._store, self._since = schema, partitions, store, since
        self._state = state

    def expand(self, tables):  # Beam warns of hints that are dictionaries
        bounds = (
            tables["impressions"]
            | "Minutes" >> beam.Map(_minutes, self._since)
            | "CountMinutes" >> beam.CombineGlobally(CountMinutes())
            | "Boundaries" >> beam.Map(boundaries, self._schema.split)
        )
        grouped = tables | "GroupByUser" >> GroupByUser(self._schema, self._partitions, self._store)
        counted_since = self._state.moment if self._state else EVER
        join_users = _JoinUsers(self._schema, self._partitions, self._store, self._since, counted_since)
        joined = grouped[BY_USER] | "JoinUsers" >> beam.ParDo(join_users, AsSingleton(bounds)).with_outputs(
            COUNTS, REJECTED, *(counter_stage.TAGS if self._schema.counters else SPLITS)
        )
        both = {tag: (grouped[tag], joined[tag]) | f"All[{tag}]" >> beam.Flatten() for tag in (COUNTS, REJECTED)}
        if not self._schema.counters:
            return {**{split: joined[split] for split in SPLITS}, **both}
        moment = (
            tables["impressions"]
            | "LastOfBatch" >> beam.Map(lambda batch: pc.max(batch.column(TIMESTAMP)).as_py())
            | "Last" >> beam.CombineGlobally(lambda moments: max(moments, default=0))
            | "AfterLast" >> beam.Map(lambda last: last + 1)
        )
        blocks = {tag: joined[tag] for tag in counter_stage.TAGS} | {MOMENT: moment}
        add_counts = counter_stage.AddCounts(self._schema, self._partitions, self._store, self._state)
        counted = blocks | "Counters" >> add_counts
        return {**counted, MOMENT: moment, **both}


class GroupByUser(beam.PTransform):
    """Groups `{table: record batches}` by partition of the users, impressions and actions with their items' features.

    Outputs: BY_USER, `(partition, [(table, block), …])` as `joined_schemas` has them; `rejected`, `counts`.
    """

    def __init__(self, schema: Schema, partitions: int, store: BlockStore):
        super().__init__()
        self._schema, self._partitions, self._store = schema, partitions, store

    def expand(self, tables):  # Beam warns of hints that are dictionaries
        with_items = (
            [self._by_key(tables, table, ITEM) for table in ("impressions", "actions", "items")]
            | "BothSidesOfItems" >> beam.Flatten()
            | "ByItem" >> beam.GroupByKey()
            | "AttachItems"
            >> beam.ParDo(_AttachItems(self._schema, self._partitions, self._store)).with_outputs(
                COUNTS, REJECTED, main="rows"
            )
        )
        users = [self._by_key(tables, "users", USER)] if "users" in tables else []
        by_user = [with_items.rows, *users] | "BothSidesOfUsers" >> beam.Flatten() | "ByUser" >> beam.GroupByKey()
        return {BY_USER: by_user, COUNTS: with_items[COUNTS], REJECTED: with_items[REJECTED]}

    def _by_key(self, tables: dict[str, beam.PCollection], table: str, key: str) -> beam.PCollection:
        by_key = _Partition(table, key, self._partitions, self._store)
        return (
            tables[table]
            | f"Gather[{table}]" >> Gather(_block_rows(self._partitions))
            | f"Partition[{table}]" >> beam.ParDo(by_key)
        )


def _block_rows(partitions: int) -> int:
    """Rows to partition at once, enough for each part to outweigh its header."""
    return max(_BLOCK_ROWS, _ROWS_PER_PART * partitions)


def _minutes(impressions: pa.RecordBatch, since: int) -> Counts:
    return count_minutes(impressions.column(TIMESTAMP).to_numpy(), since)


class _Partition(beam.DoFn):
    """Partitions the batches of a table by the hash of their `key`."""

    def __init__(self, table: str, key: str, partitions: int, store: BlockStore):
        self._table, self._key, self._partitions, self._store = table, key, partitions, store

    def process(self, batch: pa.RecordBatch) -> Iterator[tuple[int, Block]]:
        for number, part in partition(batch, self._key, self._partitions):
            yield number, (self._table, self._store.put(part))


class _AttachItems(beam.DoFn):
    """Joins item features to impressions and actions, one partition of the items at a time.

    The catalogue of the partition is held in memory; impressions and actions stream past it, so the impressions of a
    hot item may be any number.
    """

    def __init__(self, schema: Schema, partitions: int, store: BlockStore):
        self._schema, self._partitions, self._store = schema, partitions, store

    def process(self, element: tuple[int, Iterable[Block]]) -> Iterator:
        _, blocks = element
        layout = {"items": table_schema(self._schema, "items")}
        items = tables_of(((name, handle) for name, handle in blocks if name == "items"), layout)["items"]
        first = first_of_each(items, [ITEM, TIMESTAMP], [PLACE])
        yield from set_aside_marked(items, ~first, "duplicate", "items", self._store)
        items = items.filter(pa.array(first))
        yield TaggedOutput(COUNTS, {("rows", "items", "written"): items.num_rows})
        wanted = {"impressions": list(self._schema.columns_of("item")), "actions": action_features(self._schema)}
        for table, names in wanted.items():
            columns = items.select(dict.fromkeys([ITEM, TIMESTAMP, *names]))
            size = _block_rows(self._partitions)
            for rows in gather((load(handle) for name, handle in blocks if name == table), size):
                wider, known = attach(rows, columns, ITEM)
                yield from set_aside_marked(pa.table(rows), ~known, "unknown_item", table, self._store)
                for number, part in partition(wider.filter(pa.array(known)), USER, self._partitions):
                    yield number, (table, self._store.put(part))


class _JoinUsers(beam.DoFn):
    """Joins one partition of the users: labels, histories, user features and time split."""

    def __init__(self, schema: Schema, partitions: int, store: BlockStore, since: int, counted_since: int):
        self._schema, self._partitions, self._store, self._since = schema, partitions, store, since
        self._counted_since = counted_since

    def process(self, element: tuple[int, Iterable[Block]], bounds: tuple[int, int]) -> Iterator:
        schema = self._schema
        tables = tables_of(element[1], joined_schemas(schema))
        for table, (key, order) in IDENTITIES.items():
            first = first_of_each(tables[table], key, order)
            yield from set_aside_marked(tables[table], ~first, "duplicate", table, self._store)
            tables[table] = tables[table].filter(pa.array(first))
            if table != "impressions":
                yield TaggedOutput(COUNTS, {("rows", table, "written"): tables[table].num_rows})
        impressions = tables["impressions"]
        of_split = np.searchsorted((self._since, *bounds), impressions.column(TIMESTAMP).to_numpy(), side="right")
        early, *rows_of_split = np.bincount(of_split, minlength=1 + len(SPLITS)).tolist()
        yield TaggedOutput(COUNTS, {("rows", "impressions", "written"): sum(rows_of_split)})
        if early:
            yield TaggedOutput(COUNTS, {("rows", "impressions", "rejected", BEFORE_SINCE): early})
        if not any(rows_of_split) and not schema.counters:
            return
        # A user's rows together: what they share is packed, counted and looked up once a block.
        order = [(_SPLIT, "ascending"), *((name, "ascending") for name in (USER, TIMESTAMP, REQUEST, PLACE))]
        impressions = impressions.append_column(_SPLIT, pa.array(of_split)).sort_by(order)
        labels, credited = label(impressions, tables["actions"], schema)
        users = tables["users"].select(dict.fromkeys([USER, TIMESTAMP, *schema.columns_of("user")]))
        past = []
        if schema.history_columns:
            past.append(histories(impressions, tables["actions"], credited, schema))
        if schema.query_columns:
            past.append(PastQueries(impressions, schema))
        impressions, _ = attach(impressions, users, USER)
        if schema.counters:
            actions, _ = attach(tables["actions"], users, USER)
            yield from counter_stage.event_blocks(
                element[0],
                impressions,
                actions,
                credited,
                early,
                schema,
                self._partitions,
                self._store,
                self._counted_since,
            )
        start = early
        for split, rows in zip(SPLITS, rows_of_split, strict=True):
            part = slice(start, start + rows)
            yield TaggedOutput(COUNTS, _label_counts(split, impressions.column(SCENARIO), labels, part))
            first = start - early
            for batch in make_batches(impressions, labels, past, schema, part):
                handle = self._store.put(batch)
                if schema.counters:
                    yield TaggedOutput(counter_stage.ROWS, (element[0], (split, first, handle)))
                    first += batch.num_rows
                else:
                    yield TaggedOutput(split, handle)
            start = part.stop
        self._store.progress.add(JOIN, sum(rows_of_split))


def joined_schemas(schema: Schema) -> dict[str, pa.Schema]:
    """Arrow schemas of the tables in BY_USER: impressions and actions with item features."""
    layouts = {table: table_schema(schema, table) for table in ("impressions", "actions", "users")}
    items = table_schema(schema, "items")
    for table, names in (("impressions", schema.columns_of("item")), ("actions", action_features(schema))):
        for name in names:
            if name != ITEM:
                layouts[table] = layouts[table].append(items.field(name))
    return layouts


def _label_counts(
    split: str, scenarios: pa.ChunkedArray, labels: dict[str, np.ndarray], part: slice
) -> dict[tuple[str, ...], int]:
    counts: dict[tuple[str, ...], int] = {}
    names = scenarios.slice(part.start, part.stop - part.start)
    for scenario in pc.unique(names).to_pylist():
        mask = pc.equal(names, scenario).to_numpy()
        counts["splits", split, scenario, "impressions"] = int(mask.sum())
        for name, values in labels.items():
            counts["splits", split, scenario, name] = int(values[part][mask].sum())
    return counts
