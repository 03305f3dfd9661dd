"""Logged shop: catalogue, users and the newest requests of a log directory."""

import dataclasses
import itertools
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import track

from pipelines.logs.inputs import find_tables
from pipelines.logs.tables import read_file
from serving.features import Backend, FeatureStore, open_store
from serving.features.event import EventReader
from usr_tf.errors import InputError
from usr_tf.feature_states import Limits
from usr_tf.play.overlay import Overlay
from usr_tf.schema import (
    ACTION,
    ITEM,
    POSITION,
    REQUEST,
    SCENARIO,
    TIMESTAMP,
    USER,
    Schema,
    load_schema,
    oracle_column,
    parse_model,
)

_QUERY = "query"
_DAY = 86_400_000
_BATCH = 20_000
"""Events that are applied to the store together."""
_NEWEST = 0.1
"""Share of the impressions whose requests are kept, where the schema has no test split."""


@dataclasses.dataclass(frozen=True)
class Slate:
    """A logged request with what was displayed, in its order."""

    request_id: str
    scenario: str
    user_id: str
    moment: int
    """ms UTC."""
    query: str | None
    items: tuple[str, ...]
    context: Mapping[str, Any]
    """Features of the groups query and context, except the query itself."""
    candidates: Mapping[str, Sequence[Any]]
    """Features of the group candidate, one value an item."""
    oracle: Mapping[str, Sequence[float]]
    """Task → true probability of each item; empty where the logs have none."""
    actions: Mapping[str, tuple[str, ...]]
    """Item → what the user did with it after this request."""


@dataclasses.dataclass(frozen=True)
class LoggedShop:
    """What the page has of a log directory. Its requests are those of the test split's time."""

    schema: Schema
    items: Mapping[str, Mapping[str, Any]]
    """Item → features."""
    users: Mapping[str, Mapping[str, Any]]
    slates: Mapping[str, Slate]
    """By request id, in the order of time."""
    popularity: Mapping[str, Mapping[str, int]]
    """Scenario → item → impressions."""
    since: int
    """ms; the time of the first slate."""
    end: int
    """ms; a moment after the last event."""

    def slates_of(self, user: str) -> list[Slate]:
        """The user's requests, newest first."""
        return [slate for slate in reversed([*self.slates.values()]) if slate.user_id == user]

    def has_queries(self, scenario: str) -> bool:
        """Whether users type a query there."""
        return _QUERY in self.schema.features_of("query") and any(
            slate.query for slate in self.slates.values() if slate.scenario == scenario
        )


def read_shop(logs: str | Path, base: Backend | None = None, counters: bool = True) -> tuple[LoggedShop, Backend]:
    """Reads a log directory, and makes a feature store of its events.

    Args:
      base: of a store that `usr-tf features load` has filled from these logs. Without one the events are applied to a
        store in memory, whose lateness covers the time of the slates.
      counters: whether the store in memory counts; most of its time goes there.

    Raises:
      InputError: unreadable logs, no impression, or a store of another schema.
    """
    schema = _schema_of(Path(logs) / "schema.yaml", base)
    inputs, reader = find_tables(str(logs)), EventReader(schema)
    tables = {table: _read(schema, table, names) for table, names in inputs.items() if names}
    impressions = tables["impressions"]
    if not impressions.num_rows:
        raise InputError(logs, "no impression that can be read", "at least one")
    times = impressions[TIMESTAMP]
    since = int(pc.quantile(times, 1 - (schema.split.test or _NEWEST))[0].as_py())
    end = max(pc.max(tables[name][TIMESTAMP]).as_py() or 0 for name in ("impressions", "actions")) + 60_000
    newest = impressions.filter(pc.greater_equal(times, since))
    shop = LoggedShop(
        schema,
        {row[ITEM]: reader.check("items", row).features for row in _rows(tables["items"])},
        {row[USER]: reader.check("users", row).features for row in _rows(tables.get("users"))},
        _slates(schema, newest, tables["actions"].filter(pc.greater_equal(tables["actions"][TIMESTAMP], since))),
        _popularity(impressions),
        since,
        end,
    )
    return shop, base or _filled(
        schema if counters else _without_counters(schema), Limits(lateness=f"{end - since + _DAY}ms"), reader, tables
    )


def _schema_of(path: Path, base: Backend | None) -> Schema:
    """Schema of logs, with the forms of texts that the store has."""
    known = None if base is None else FeatureStore(base, place="--store").schema
    schema = load_schema(path).with_normal_forms(known)
    if known is not None and schema != known:
        raise InputError("--store", "a store of another schema", f"one of {path}")
    return schema


def _without_counters(schema: Schema) -> Schema:
    return parse_model(Schema, {**schema.model_dump(mode="json", exclude_unset=True), "counters": {}}, "schema.yaml")


def open_base(url: str) -> Backend:
    """Backend of a feature store for `read_shop`.

    Raises:
      InputError: no store is there.
    """
    return open_store(url).backend


def _read(schema: Schema, table: str, names: Sequence[str]) -> pa.Table:
    blocks = [block for number, path in enumerate(names) for block, _ in read_file(path, number, schema, table)]
    return pa.Table.from_batches(blocks) if blocks else pa.table({})


def _rows(table: pa.Table | None) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=_BATCH) if table is not None else ():
        yield from batch.to_pylist()


def _filled(schema: Schema, limits: Limits, reader: EventReader, tables: Mapping[str, pa.Table]) -> Backend:
    """Store in memory with all events, in the order of their times."""
    store = FeatureStore(Overlay(), schema, limits)
    for table in ("items", "users"):
        rows = _rows(tables.get(table))
        while some := list(itertools.islice(rows, _BATCH)):
            store.apply(reader.check(table, row) for row in some)
    events = [
        (time, table, row)
        for table in ("impressions", "actions")
        for row, time in enumerate(tables[table][TIMESTAMP].to_pylist())
    ]
    events.sort(key=lambda event: event[0])
    starts = range(0, len(events), _BATCH)
    for start in track(starts, "feature store", console=Console(stderr=True), transient=True):
        part = events[start : start + _BATCH]
        rows_of = {
            table: iter(tables[table].take([row for _, of, row in part if of == table]).to_pylist())
            for table in ("impressions", "actions")
        }
        store.apply(reader.check(table, next(rows_of[table])) for _, table, _ in part)
    return store.backend


def _slates(schema: Schema, impressions: pa.Table, actions: pa.Table) -> dict[str, Slate]:
    shown: dict[str, list[dict[str, Any]]] = {}
    for row in _rows(impressions):
        shown.setdefault(row[REQUEST], []).append(row)
    done: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in _rows(actions):
        done.setdefault((row[USER], row[ITEM]), []).append(row)
    slates = {request: _slate(schema, rows, done) for request, rows in shown.items()}
    return dict(sorted(slates.items(), key=lambda entry: entry[1].moment))


def _slate(schema: Schema, rows: list[dict[str, Any]], done: Mapping[tuple[str, str], list[dict[str, Any]]]) -> Slate:
    rows = sorted({row[ITEM]: row for row in reversed(rows)}.values(), key=lambda row: row[POSITION] or 0)
    first = rows[0]
    oracle = {task: [row[oracle_column(task)] for row in rows] for task in schema.task_names}

    def actions_on(item: str) -> tuple[str, ...]:
        found = done.get((first[USER], item), ())
        return tuple(
            dict.fromkeys(
                action[ACTION]
                for action in found
                if (action[REQUEST] or first[REQUEST]) == first[REQUEST]
                and 0 <= action[TIMESTAMP] - first[TIMESTAMP] <= schema.labels.attribution
            )
        )

    of_request = schema.columns_of("query", "context")
    return Slate(
        first[REQUEST],
        first[SCENARIO],
        first[USER],
        first[TIMESTAMP],
        first.get(_QUERY),
        tuple(row[ITEM] for row in rows),
        {name: first[name] for name in of_request if name != _QUERY and first[name] is not None},
        {name: [row[name] for row in rows] for name in schema.columns_of("candidate")},
        {task: values for task, values in oracle.items() if None not in values},
        {row[ITEM]: actions_on(row[ITEM]) for row in rows},
    )


def _popularity(impressions: pa.Table) -> dict[str, dict[str, int]]:
    counts = impressions.group_by([SCENARIO, ITEM]).aggregate([([], "count_all")])
    popularity: dict[str, dict[str, int]] = {}
    columns = (counts[name].to_pylist() for name in (SCENARIO, ITEM, "count_all"))
    for scenario, item, count in zip(*columns, strict=True):
        popularity.setdefault(scenario, Tally())[item] = count
    return popularity
