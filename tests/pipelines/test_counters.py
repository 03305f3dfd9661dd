"""Counters, past queries and attributes as of each impression, against DESIGN §2.1 in plain Python."""

import json
import random
import shutil
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.beam.blocks import BlockStore, load
from pipelines.beam.job import read_and_join, run
from pipelines.beam.options import make_pipeline
from pipelines.join.as_of import attach, label
from pipelines.join.counter_keys import KEY
from pipelines.join.counter_stage import MOMENT, SNAPSHOT, WriteSnapshot
from pipelines.join.counter_state import CounterState, open_state, read_state, row_groups
from pipelines.join.counters import EVENT, ROW, Counts, action_features, events_of
from pipelines.join.past_queries import PastQueries
from pipelines.join.split import EVER, SPLITS
from pipelines.join.timeline import Timeline
from pipelines.logs.inputs import find_tables
from pipelines.preprocess import preprocess
from tests.pipelines.random_logs import ATTRIBUTION, did, random_logs, shown
from tests.pipelines.tiny import expected_attributes, expected_credit, expected_history, to_table, write_logs
from usr_tf.counter_snapshot import CounterSnapshot
from usr_tf.errors import InputError
from usr_tf.schema import IMPRESSION, Counter, Schema, counter_column, parse_schema

SCHEMA = f"""
scenarios: [search, recommendation]
tasks: [{{name: ctr, action: click}}]
labels: {{attribution: {ATTRIBUTION}ms, global_window: 20ms}}
history: {{actions: [click, cart, purchase], max_length: 3, queries: {{max_length: 2}}}}
features:
  item_id: {{group: item, type: categorical, in_history: true}}
  category: {{group: item, type: categorical, in_history: true}}
  price: {{group: item, type: numeric}}
  user_id: {{group: user, type: categorical}}
  city: {{group: user, type: categorical}}
  device: {{group: context, type: categorical}}
  stock: {{group: candidate, type: categorical}}
  query: {{group: query, type: text}}
counters:
  item: {{key: [item_id], actions: [click, purchase], windows: [20ms, all], by_scenario: true, delay: 5ms}}
  category: {{key: [category], actions: [click], delay: 0s}}
  user: {{key: [user_id], actions: [view, cart], windows: [15ms, 7ms], delay: 1ms}}
  user_category: {{key: [user_id, category], actions: [cart, click, purchase], delay: 0s}}
  query_item: {{key: [query, item_id], actions: [click], delay: 0s}}
  place: {{key: [device, city], actions: [click], by_scenario: true, delay: 0s}}
  stock: {{key: [stock, item_id], actions: [purchase], windows: [30ms], delay: 2ms}}
"""
IDENTITY = ("user_id", "request_id", "item_id")
QUERIES = (None, "", " ", "Tea", "tea ", "ΟΔΟΣ", "οδος", "茶")


@pytest.fixture(scope="module")
def schema() -> Schema:
    return parse_schema(SCHEMA)


def random_shop(draw: random.Random, impressions: list[dict], actions: list[dict]) -> dict[str, list[dict]]:
    """Tables of logs: context for impressions, and items and users of which some change over time."""
    impressions = [
        {
            **row,
            "query": draw.choice(QUERIES),
            "device": draw.choice(["ios", "android", None, ""]),
            "stock": draw.choice(["few", "many"]),
        }
        for row in impressions
    ]
    items, users = [], []
    for item in dict.fromkeys(row["item_id"] for row in [*impressions, *actions]):
        for since in draw.sample([None, 0, 10, 25, 60], draw.randint(1, 3)):
            values = {"category": draw.choice(["c1", "c2", None, ""]), "price": draw.choice([None, 1.5, 2.5])}
            items.append({"item_id": item, "timestamp": since, **values})
    for user in dict.fromkeys(row["user_id"] for row in impressions):
        for since in draw.sample([None, 5, 30], draw.randint(0, 2)):
            users.append({"user_id": user, "timestamp": since, "city": draw.choice(["Łódź", "Xi'an", None])})
    for rows in (impressions, actions, items, users):
        draw.shuffle(rows)
    return {"impressions": impressions, "actions": actions, "items": items, "users": users}


def many_logs(seed: int, requests: int = 120) -> dict[str, list[dict]]:
    """A shop with many ties in time, and with users that act but were shown nothing."""
    draw = random.Random(seed)
    impressions, actions = [], []
    for request in range(requests):
        user, scenario = f"u{draw.randrange(9)}", draw.choice(["search", "recommendation"])
        for item in draw.sample("ABcdef", 3):
            row = shown(f"r{request}", draw.randrange(70), scenario, user, item)
            impressions.append(row)
            while draw.random() < 0.6:
                more = {"request": row["request_id"]} if draw.random() < 0.5 else {}
                more |= {"scenario": scenario} if draw.random() < 0.5 else {}
                after = row["timestamp"] + draw.choice([0, 1, 2, ATTRIBUTION, ATTRIBUTION + 1])
                actions.append(did(draw.choice(["click", "cart", "purchase", "view"]), after, user, item, **more))
    for stranger in range(6):
        scenario = draw.choice([None, "search"])
        actions.append(did("click", draw.randrange(70), f"stranger{stranger}", draw.choice("ABc"), scenario=scenario))
    actions = [dict(row) for row in {tuple(sorted(row.items(), key=str)): row for row in actions}.values()]
    return random_shop(draw, impressions, actions)


class Expected:
    """The counts of a shop, straight from DESIGN §2.1."""

    def __init__(self, tables: dict[str, list[dict]], schema: Schema):
        self._schema = schema
        self.impressions = [self._values(row, row, tables) for row in tables["impressions"]]
        """Key values and time of each impression."""
        self._events = [(IMPRESSION, values) for values in self.impressions]
        for action in tables["actions"]:
            credit = expected_credit(tables["impressions"], action, ATTRIBUTION)
            impression = {"scenario": action["scenario"]} if credit is None else tables["impressions"][credit]
            self._events.append((action["action"], self._values(action, impression, tables)))

    def _values(self, row: dict, impression: dict, tables: dict[str, list[dict]]) -> dict:
        context = {name: impression.get(name) for name in ("device", "stock", "query", "scenario")}
        if context["query"] is not None:
            context["query"] = context["query"].strip().lower()
        attributes = [expected_attributes(tables[f"{key}s"], f"{key}_id", row) for key in ("item", "user")]
        return {**attributes[0], **attributes[1], **context, "timestamp": row["timestamp"]}

    def key(self, values: dict, counter: Counter) -> tuple | None:
        names = [*counter.key, *(["scenario"] if counter.by_scenario else [])]
        key = tuple(values.get(name) for name in names)
        return key if all(key) else None

    def keys(self, counter: Counter) -> set[tuple]:
        return {key for _, values in self._events if (key := self.key(values, counter))}

    def counts(self, name: str, key: tuple | None, moment: int) -> dict[str, float]:
        counter, found = self._schema.counters[name], {}
        for window in counter.windows:
            for event in (IMPRESSION, *counter.actions):
                until = moment - counter.delay
                times = [v["timestamp"] for e, v in self._events if e == event and self.key(v, counter) == key]
                since = -np.inf if window is None else until - window
                n = sum(since <= time < until for time in times) if key else 0
                found[counter_column(name, window, event)] = float(n)
        return found

    def row(self, number: int) -> dict[str, float]:
        values, found = self.impressions[number], {}
        for name, counter in self._schema.counters.items():
            found |= self.counts(name, self.key(values, counter), values["timestamp"])
        return found


def expected_queries(number: int, impressions: list[dict], max_length: int) -> tuple[list[str], list[int]]:
    """One impression's past queries and their ages, straight from DESIGN §2.1."""
    own, first = impressions[number], {}
    for row in impressions:
        if row["user_id"] == own["user_id"] and (row["query"] or "").strip():
            entry = (row["timestamp"], row["query"])
            first[row["request_id"]] = min(first.get(row["request_id"], entry), entry)
    past = sorted(
        (time, request, query)
        for request, (time, query) in first.items()
        if request != own["request_id"] and time < own["timestamp"]
    )[-max_length:]
    return [query for *_, query in past], [own["timestamp"] - time for time, *_ in past]


def counted(tables: dict[str, list[dict]], schema: Schema) -> list[dict[str, float]]:
    """Each impression's counts by the pipeline's functions."""
    items, users = (to_table(tables[name], schema, name) for name in ("items", "users"))
    shown_rows, done = (to_table(tables[name], schema, name) for name in ("impressions", "actions"))
    shown_rows, known = attach(shown_rows, items, "item_id")
    assert known.all()
    wanted = dict.fromkeys(["item_id", "timestamp", *action_features(schema)])
    done, _ = attach(done, items.select(wanted), "item_id")
    _, credited = label(shown_rows, done, schema)
    shown_rows, done = (attach(table, users, "user_id")[0] for table in (shown_rows, done))
    rows: list[dict[str, float]] = [{} for _ in tables["impressions"]]
    for name, events, keys in events_of(shown_rows, done, credited, 0, schema):
        counter = schema.counters[name]
        assert len(keys) == len(set(events.column(KEY).to_pylist()))
        key, time, kind, row = (events.column(column).to_numpy() for column in (KEY, "timestamp", EVENT, ROW))
        counts = Counts(key, time, kind, counter)
        asking = np.flatnonzero(row >= 0)
        found = counts.before(counts.codes[asking], time[asking])
        for each in rows:
            each |= dict.fromkeys(counter.columns(name), 0.0)
        for place, values in zip(row[asking], found.tolist(), strict=True):
            rows[place] |= dict(zip(counter.columns(name), values, strict=True))
    return rows


@settings(max_examples=60)
@given(random_logs(), st.randoms(use_true_random=False))
def test_counts_are_those_of_plain_python(schema, drawn, draw):
    tables = random_shop(draw, *drawn)
    expected = Expected(tables, schema)
    assert counted(tables, schema) == [expected.row(number) for number in range(len(tables["impressions"]))]


@settings(max_examples=60)
@given(random_logs(), st.randoms(use_true_random=False), st.integers(1, 3))
def test_past_queries_are_those_of_plain_python(schema, drawn, draw, max_length):
    impressions = random_shop(draw, *drawn)["impressions"]
    history = schema.history.model_copy(
        update={"queries": schema.history.queries.model_copy(update={"max_length": max_length})}
    )
    past = PastQueries(to_table(impressions, schema, "impressions"), schema.model_copy(update={"history": history}))
    half = len(impressions) // 2
    slices = [past.columns(0, half), past.columns(half, len(impressions))]
    found = {name: [row for part in slices for row in part[name].to_pylist()] for name in slices[0]}
    for number in range(len(impressions)):
        queries, ages = expected_queries(number, impressions, max_length)
        assert found["history_queries"][number] == queries
        assert found["history_queries_age"][number] == ages


@settings(max_examples=20)
@given(random_logs(), random_logs(), st.randoms(use_true_random=False), st.data())
def test_nothing_within_the_delay_or_later_reaches_a_count(schema, drawn, others, draw, data):
    tables, other = random_shop(draw, *drawn), random_shop(draw, *others)
    number = data.draw(st.integers(0, len(tables["impressions"]) - 1))
    own = tables["impressions"][number]
    before = counted(tables, schema)[number]
    for name, counter in schema.counters.items():
        known = own["timestamp"] - counter.delay
        kept = [row for row in tables["impressions"] if row["timestamp"] < known and row is not own]
        taken = {tuple(row[key] for key in IDENTITY) for row in tables["impressions"]}
        later = [row for row in other["impressions"] if row["timestamp"] >= known]
        later = [row for row in later if tuple(row[key] for key in IDENTITY) not in taken]
        actions = [row for row in tables["actions"] if row["timestamp"] < known]
        actions += [row for row in other["actions"] if row["timestamp"] >= known]
        scrambled = {"impressions": [own, *kept, *later], "actions": actions}
        for table in ("items", "users"):
            scrambled[table] = [row for row in tables[table] if (row["timestamp"] or 0) <= own["timestamp"]]
            scrambled[table] += [{**row, "timestamp": 1_000} for row in tables[table] if row not in scrambled[table]]
        ids = {row["item_id"] for row in tables["items"]}
        scrambled["items"] += [row for row in other["items"] if row["item_id"] not in ids]
        after = counted(scrambled, schema)[0]
        assert {column: after[column] for column in counter.columns(name)} == {
            column: before[column] for column in counter.columns(name)
        }


def test_an_impression_and_its_own_label_reach_none_of_its_counts(schema):
    tables = random_shop(random.Random(1), [shown("r", 100), shown("s", 100)], [])
    clicked = {**tables, "actions": [did("click", at, request="r") for at in (100, 101)]}
    assert counted(tables, schema) == counted(clicked, schema)
    assert set(counted(tables, schema)[0].values()) == {0.0}


def test_counts_hold_their_edges():
    counter = Counter(key=("item_id",), actions=("click",), windows=("10ms", "all"), delay="5ms")
    times = np.array([84, 85, 94, 95, 96])
    counts = Counts(np.full(5, 7, np.uint64), times, np.zeros(5, np.int8), counter)
    # Known at 100 is what came before 95; of that, the window of 10 ms starts at 85.
    assert counts.before(np.array([0, 0]), np.array([100, 84])).tolist() == [[2, 0, 3, 0], [0, 0, 0, 0]]


def test_a_timeline_takes_any_groups_and_times():
    far = 2**62
    for groups in (1, 10):
        timeline = Timeline(groups, np.array([5, far]))
        codes = np.arange(groups)
        ordered = np.sort(np.concatenate([timeline.places(codes, np.full(groups, time)) for time in (5, far)]))
        for time, before in ((0, 0), (5, 0), (6, 1), (far, 1), (far + 1, 2)):
            places = np.searchsorted(ordered, timeline.places(codes, np.full(groups, time)))
            assert (places - np.searchsorted(ordered, timeline.starts(codes))).tolist() == [before] * groups


def join(
    logs: Path,
    schema: Schema,
    folder: Path,
    partitions: int,
    since: int = EVER,
    state: CounterState | None = None,
    travels: bool = False,
) -> tuple[list[dict], Path]:
    """The rows that the stages of the job join, in the order of their keys, and the directory of the snapshot.

    Args:
      travels: whether blocks go through the runner, as they do on a distributed one.
    """
    pipeline, lines = make_pipeline(()), folder / "rows"
    folder.mkdir()
    store = BlockStore(None if travels else str(folder))
    joined, _, _ = read_and_join(pipeline, schema, find_tables(str(logs)), partitions, store, since, state)
    _ = (
        [joined[split] for split in SPLITS]
        | beam.Flatten()
        | "Rows" >> beam.FlatMap(lambda handle: load(handle).to_pylist())
        | "AsText" >> beam.Map(json.dumps)
        | "WriteRows" >> beam.io.WriteToText(str(lines))
    )
    found = {tag: joined[tag] for tag in (SNAPSHOT, MOMENT)}
    _ = found | "WriteSnapshot" >> WriteSnapshot(schema, str(folder / "counters"))
    run(pipeline)
    rows = [json.loads(line) for path in folder.glob("rows-*") for line in path.read_text("utf-8").splitlines()]
    return sorted(rows, key=_identity), folder / "counters"


def _identity(row: dict) -> tuple:
    return tuple(row[name][0] for name in ("raw_user_id", "request_id", "raw_item_id"))


@pytest.fixture(scope="module")
def tables() -> dict[str, list[dict]]:
    return many_logs(seed=0)


@pytest.fixture(scope="module")
def logs(tables, tmp_path_factory) -> Path:
    return write_logs(tmp_path_factory.mktemp("counters") / "logs", SCHEMA, tables)


@pytest.fixture(scope="module")
def joined(schema, logs, tmp_path_factory) -> tuple[list[dict], Path]:
    return join(logs, schema, tmp_path_factory.mktemp("joined") / "a", partitions=20)


def test_joined_rows_are_those_of_plain_python(schema, tables, joined):
    expected, impressions = Expected(tables, schema), tables["impressions"]
    number_of = {tuple(row[name] for name in IDENTITY): number for number, row in enumerate(impressions)}
    assert len(joined[0]) == len(impressions)
    for row in joined[0]:
        number = number_of[_identity(row)]
        own = impressions[number]
        assert {name: row[name] for name in schema.counter_columns} == {
            name: [value] for name, value in expected.row(number).items()
        }
        assert (row["history_queries"], row["history_queries_age"]) == expected_queries(number, impressions, 2)
        history = expected_history(own, impressions, tables["actions"], tables["items"], schema)
        assert {name: row[name] for name in schema.history_columns} == history
        item = expected_attributes(tables["items"], "item_id", own)
        user = expected_attributes(tables["users"], "user_id", own)
        assert row["category"] == [item.get("category") or ""]
        assert row["price"] == ([] if item.get("price") is None else [item["price"]])
        assert row["city"] == [user.get("city") or ""]


def test_the_snapshot_is_that_of_plain_python_and_the_served_one(schema, tables, joined):
    expected, impressions, (rows, counters) = Expected(tables, schema), tables["impressions"], joined
    moment = max(row["timestamp"] for row in impressions) + 1
    assert json.loads((counters / "snapshot.json").read_text("utf-8")) == {"timestamp": moment}
    for name, counter in schema.counters.items():
        keys = [*counter.key, *(["scenario"] if counter.by_scenario else [])]
        read = pq.read_table(counters / f"{name}.parquet").to_pylist()
        found = {tuple(row.pop(key) for key in keys): row for row in read}
        counts = {key: expected.counts(name, key, moment) for key in expected.keys(counter)}
        assert found == {key: values for key, values in counts.items() if any(values.values())}
    number_of = {tuple(row[name] for name in IDENTITY): number for number, row in enumerate(impressions)}
    snapshot = CounterSnapshot(counters, schema)
    of_search = [row for row in rows if row["scenario"] == ["search"]]
    raw = {name: tf.constant([row[name][0] for row in of_search]) for name in (*schema.id_features, "query")}
    served = {name: values.numpy().tolist() for name, values in snapshot.look_up(raw, "search").items()}
    for place, row in enumerate(of_search):
        values = expected.impressions[number_of[_identity(row)]]
        for name, counter in schema.counters.items():
            for column, count in expected.counts(name, expected.key(values, counter), moment).items():
                assert served[column][place] == count


def test_the_order_of_the_logs_and_the_partitions_change_nothing(schema, tables, joined, tmp_path):
    shuffled = {name: random.Random(3).sample(rows, len(rows)) for name, rows in tables.items()}
    logs = write_logs(tmp_path / "logs", SCHEMA, shuffled)
    # Impressions before `since` make no rows, but they are events all the same.
    later, same = join(logs, schema, tmp_path / "b", partitions=1, since=40, travels=True)
    rows, counters = joined
    assert later == [row for row in rows if row["timestamp"][0] >= 40]
    assert 0 < len(later) < len(rows)
    for path in counters.glob("*.parquet"):
        assert pq.read_table(path).equals(pq.read_table(same / path.name))


def test_a_later_run_goes_on_from_an_earlier_ones_state(schema, tables, joined, tmp_path):
    rows, counters = joined
    state, done = None, []
    for start, end in ((0, 25), (25, 45), (45, 1_000)):
        # What came before the state's moment is gone, but for the impressions that later actions are credited to.
        known = state.moment if state else 0
        impressions = [row for row in tables["impressions"] if known - ATTRIBUTION <= row["timestamp"] < end]
        actions = [row for row in tables["actions"] if known <= row["timestamp"] < end]
        day = {**tables, "impressions": impressions, "actions": actions}
        folder = tmp_path / str(start)
        folder.mkdir()
        of_day, made = join(write_logs(folder / "logs", SCHEMA, day), schema, folder / "out", 9, start, state)
        done += of_day
        state = CounterState(str(made / "state"), json.loads((made / "snapshot.json").read_text("utf-8"))["timestamp"])
        assert state.moment <= end
    of_counters = [{name: row[name] for name in schema.counter_columns} for row in sorted(done, key=_identity)]
    assert of_counters == [{name: row[name] for name in schema.counter_columns} for row in rows]
    files = sorted(path.relative_to(counters) for path in counters.rglob("*.parquet"))
    assert len(files) == 2 * len(schema.counters)
    for file in files:
        assert pq.read_table(made / file).equals(pq.read_table(counters / file))


DAILY_SCHEMA = f"""
scenarios: [search, recommendation]
tasks: [{{name: ctr, action: click}}]
labels: {{attribution: {ATTRIBUTION}ms, global_window: 20ms}}
features:
  item_id: {{group: item, type: categorical, hash_buckets: 10}}
  device: {{group: context, type: categorical, hash_buckets: 10}}
counters:
  item: {{key: [item_id], actions: [click], windows: [20ms, all], delay: 5ms}}
"""


def test_preprocess_reads_the_state_of_earlier_data_and_refuses_rows_before_it(tables, tmp_path):
    schema = parse_schema(DAILY_SCHEMA)
    clicks = [row for row in tables["actions"] if row["action"] == "click"]
    tables = {"impressions": tables["impressions"], "actions": clicks, "items": tables["items"]}
    parts = [{**tables}, {**tables}]
    for name in ("impressions", "actions"):
        parts[0][name] = [row for row in tables[name] if row["timestamp"] < 40]
        parts[1][name] = [row for row in tables[name] if row["timestamp"] >= 40]
    first, second = (str(write_logs(tmp_path / f"logs{n}", DAILY_SCHEMA, part)) for n, part in enumerate(parts))
    data, later = tmp_path / "first", tmp_path / "second"
    preprocess(first, str(data), partitions=2)
    with pytest.raises(InputError, match=r"--since: found '1970-01-01', expected 1970-01-01T00:00:00.040\+00:00 or"):
        preprocess(second, str(later), transform=str(data), since="1970-01-01")
    preprocess(second, str(later), partitions=1, transform=str(data), since="1970-01-01T00:00:00.040")
    expected = Expected({**tables, "users": []}, schema)
    moment = max(row["timestamp"] for row in tables["impressions"]) + 1
    for row in pq.read_table(later / "counters" / "item.parquet").to_pylist():
        assert expected.counts("item", (row.pop("item_id"),), moment) == row


def test_a_state_with_a_missing_or_broken_file_is_refused(schema, joined, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(joined[1], data / "counters")
    path = data / "counters" / "state" / "place.parquet"
    state = open_state(str(data), schema)
    assert state == CounterState(
        str(path.parent), json.loads((path.parents[1] / "snapshot.json").read_text())["timestamp"]
    )
    assert row_groups(state, "place") > 0
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"place.parquet: found no state of counters .*, expected a file that"):
        row_groups(state, "place")
    pq.write_table(pa.table({"device": ["ios"]}), path)
    with pytest.raises(InputError, match=r"place.parquet: found no state of counters .*, expected a file that"):
        read_state(state, "place", schema.counters["place"], 0)
    path.unlink()
    with pytest.raises(InputError, match=r"place.parquet: found no such file, expected the state of this counter"):
        open_state(str(data), schema)
    shutil.rmtree(data / "counters")
    assert open_state(str(data), schema) is None
