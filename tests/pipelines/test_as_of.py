"""Labels, attribution and histories: hand-computed cases, and the reference join on random logs."""

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.beam.blocks import BlockStore, partition, tables_of
from pipelines.join import rows as rows_module
from pipelines.join.as_of import attach, first_of_each, histories, label
from pipelines.join.rows import BATCH_ROWS, batch_rows, make_batches, row_schema
from pipelines.logs.columns import PLACE
from tests.pipelines.random_logs import ATTRIBUTION, WINDOW, did, random_logs, shown
from tests.pipelines.tiny import (
    expected_credit,
    expected_history,
    expected_labels,
    join_rows,
    to_table,
    with_items,
)
from usr_tf.errors import InputError
from usr_tf.schema import Schema, parse_schema

ITEMS = [
    {"item_id": "a", "category": "c1", "words": ["x", "y", "z"]},
    {"item_id": "b", "category": None, "words": []},
    {"item_id": "c", "category": "c2", "words": None},
]


def make_schema(tasks: int = 2, max_length: int = 3, history: bool = True) -> Schema:
    chains = {1: {"ctr": "click"}, 2: {"ctr": "click", "ctcvr": "purchase"}}
    chain = chains.get(tasks, {"ctr": "click", "ctcart": "cart", "ctcvr": "purchase"})
    names = [f"{{name: {name}, action: {action}}}" for name, action in chain.items()]
    actions = "[click, cart, purchase]" if history else "[]"
    return parse_schema(f"""
scenarios: [search, recommendation]
tasks: [{", ".join(names)}]
labels: {{attribution: {ATTRIBUTION}ms, global_window: {WINDOW}ms}}
history: {{actions: {actions}, max_length: {max_length}}}
features:
  item_id: {{group: item, type: categorical, in_history: true}}
  category: {{group: item, type: categorical, in_history: true}}
  words: {{group: item, type: categorical_list, in_history: true, max_length: 2}}
""")


def labels_of(impressions, actions, schema=None):
    schema = schema or make_schema()
    labels, _ = label(
        with_items(impressions, ITEMS, schema, "impressions"), to_table(actions, schema, "actions"), schema
    )
    return {name: values.tolist() for name, values in labels.items()}


@pytest.mark.parametrize(
    ("delay", "ctr", "global_ctr"),
    [
        (-WINDOW - 1, 0, 0),
        (-WINDOW, 0, 1),
        (-1, 0, 1),
        (0, 1, 1),
        (ATTRIBUTION, 1, 1),
        (ATTRIBUTION + 1, 0, 1),
        (WINDOW, 0, 1),
        (WINDOW + 1, 0, 0),
    ],
)
def test_windows_hold_their_edges(delay, ctr, global_ctr):
    labels = labels_of([shown("r", 100)], [did("click", 100 + delay)])
    assert labels["ctr"] == [ctr]
    assert labels["global_ctr"] == [global_ctr]
    assert labels["ctcvr"] == labels["global_ctcvr"] == [0]


def test_an_action_without_request_goes_to_the_latest_earlier_impression_of_its_item():
    impressions = [shown("r1", 100), shown("r2", 103), shown("r3", 106), shown("r4", 103, item="b")]
    assert labels_of(impressions, [did("click", 105)])["ctr"] == [0, 1, 0, 0]


def test_an_action_goes_to_the_impression_of_its_scenario_where_it_names_one():
    impressions = [shown("r1", 100), shown("r2", 103, "recommendation")]
    assert labels_of(impressions, [did("click", 105, scenario="search")])["ctr"] == [1, 0]
    assert labels_of(impressions, [did("click", 102, scenario="recommendation")])["ctr"] == [0, 0]


def test_an_action_goes_to_its_request_and_to_no_other():
    impressions = [shown("r1", 100), shown("r2", 103)]
    assert labels_of(impressions, [did("click", 105, request="r1")])["ctr"] == [1, 0]
    assert labels_of(impressions, [did("click", 105, request="r3")]) == {
        "ctr": [0, 0],
        "global_ctr": [1, 1],
        "ctcvr": [0, 0],
        "global_ctcvr": [0, 0],
    }
    assert labels_of(impressions, [did("click", 102, request="r2")])["ctr"] == [0, 0]  # before it was shown
    assert labels_of(impressions, [did("click", 105, request="r1", user="v")])["ctr"] == [0, 0]


def test_a_purchase_without_the_click_is_a_global_label_alone():
    impressions = [shown("r1", 100), shown("r2", 104, "recommendation")]
    actions = [did("click", 101, request="r1"), did("purchase", 105, request="r2")]
    labels = labels_of(impressions, actions)
    assert labels["ctr"] == [1, 0]
    assert labels["ctcvr"] == [0, 0]
    assert labels["global_ctr"] == labels["global_ctcvr"] == [1, 1]


def test_the_chain_needs_every_task_before_it():
    schema = make_schema(tasks=3)
    impressions = [shown("r", 100)]
    without_cart = [did("click", 101, request="r"), did("purchase", 102, request="r")]
    assert labels_of(impressions, without_cart, schema)["ctcvr"] == [0]
    assert labels_of(impressions, [*without_cart, did("cart", 102, request="r")], schema)["ctcvr"] == [1]


def test_a_history_is_what_the_user_did_strictly_before_newest_last():
    schema = make_schema(max_length=3)
    impressions = [shown("r1", 50, "recommendation"), shown("r2", 100), shown("r3", 100, user="v")]
    actions = [
        did("click", 40, item="c"),  # cut off: the fourth from the end
        did("purchase", 52),  # credited to r1: its scenario
        did("click", 60, item="b", scenario="search"),
        did("cart", 99, item="c"),
        did("click", 100),  # at the moment itself
        did("click", 99, user="w"),
    ]
    first, second, third = join_rows(impressions, actions, ITEMS, schema)
    assert second["history_item_id"] == ["a", "b", "c"]
    assert second["history_category"] == ["c1", "", "c2"]
    assert second["history_words"] == ["x", "y", "", "", "", ""]
    assert second["history_action"] == ["purchase", "click", "cart"]
    assert second["history_scenario"] == ["recommendation", "search", ""]
    assert second["history_age"] == [48, 40, 1]
    assert first["history_item_id"] == ["c"]
    assert third["history_item_id"] == third["history_age"] == []
    assert second["ctr"] == [1]


@settings(max_examples=60)
@given(random_logs(), st.integers(1, 3), st.integers(1, 4))
def test_rows_are_those_of_the_plain_join(drawn, tasks, max_length):
    impressions, actions = drawn
    schema = make_schema(tasks, max_length)
    rows = join_rows(impressions, actions, ITEMS, schema)
    _, credited = label(to_table(impressions, schema, "impressions"), to_table(actions, schema, "actions"), schema)
    for action, credit in zip(actions, credited.tolist(), strict=True):
        expected = expected_credit(impressions, action, ATTRIBUTION)
        assert credit == (-1 if expected is None else expected)
    for row, impression, labels in zip(rows, impressions, expected_labels(impressions, actions, schema), strict=True):
        assert {name: row[name] for name in schema.label_names} == {name: [value] for name, value in labels.items()}
        expected = expected_history(impression, impressions, actions, ITEMS, schema)
        assert {name: row[name] for name in schema.history_columns} == expected
        for task in schema.task_names:
            assert row[f"global_{task}"] >= row[task]


@settings(max_examples=60)
@given(random_logs(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_shuffled_rows_and_other_partitions_make_the_same_rows(drawn, partitions, shuffle):
    impressions, actions = drawn
    schema = make_schema()

    def joined(impressions, actions, partitions):
        placed = {"impressions": impressions, "actions": actions}
        blocks = {number: [] for number in range(partitions)}
        for table, rows in placed.items():
            for batch in to_table(rows, schema, table).to_batches(max_chunksize=3):
                for number, part in partition(batch, "user_id", partitions):
                    blocks[number].append((table, BlockStore().put(part)))
        found = []
        for of_partition in blocks.values():
            layouts = {table: to_table([], schema, table).schema for table in placed}
            tables = tables_of(of_partition, layouts)
            rows = (tables[table].drop_columns(PLACE).to_pylist() for table in placed)
            found += join_rows(*rows, ITEMS, schema)
        return sorted(map(repr, found))  # as text, in which an unknown probability equals itself

    expected = joined(impressions, actions, 1)
    shuffled = [shuffle.sample(rows, len(rows)) for rows in drawn]
    assert joined(*shuffled, partitions) == expected


@settings(max_examples=60)
@given(random_logs(), random_logs(), st.data())
def test_nothing_at_or_after_an_impression_reaches_its_features(drawn, others, data):
    impressions, actions = drawn
    schema = make_schema(max_length=4)
    chosen = data.draw(st.integers(0, len(impressions) - 1))
    moment = impressions[chosen]["timestamp"]
    replaced = [action for action in actions if action["timestamp"] < moment]
    replaced += [action for action in others[1] if action["timestamp"] >= moment]
    later = [row for row in others[0] if row["timestamp"] > moment]
    known = {(row["user_id"], row["request_id"], row["item_id"]) for row in impressions}
    later = [row for row in later if (row["user_id"], row["request_id"], row["item_id"]) not in known]

    before = join_rows(impressions, actions, ITEMS, schema)[chosen]
    kept = [row for row in impressions if row["timestamp"] < moment or row is impressions[chosen]]
    after = join_rows([*kept, *later], replaced, ITEMS, schema)[kept.index(impressions[chosen])]
    features = [name for name in row_schema(schema).names if name not in schema.label_names]
    assert {name: before[name] for name in features if name[:6] != "oracle"} == {
        name: after[name] for name in features if name[:6] != "oracle"
    }


def test_labels_may_change_with_what_follows():
    assert labels_of([shown("r", 100)], [did("click", 101)])["ctr"] == [1]
    assert labels_of([shown("r", 100)], [])["ctr"] == [0]


def test_times_of_any_spread_and_many_users_keep_their_order():
    schema = make_schema()
    far = 2**62
    users = [f"u{number}" for number in range(8)]
    impressions = [shown(f"r{user}", at, user=user) for user in users for at in (5, far)]
    impressions = [{**row, "request_id": f"r{number}"} for number, row in enumerate(impressions)]
    actions = [did("click", at, user=user) for user in users for at in (4, 5, far - 1, far)]
    rows = join_rows(impressions, actions, ITEMS, schema)
    assert [row["history_age"] for row in rows] == [[1], [far - 4, far - 5, 1]] * len(users)


def test_attach_looks_columns_up_by_key():
    schema = make_schema()
    rows = to_table([shown("r1", 1, item="b"), shown("r2", 2, item="zz"), shown("r3", 3)], schema, "impressions")
    for kind in (rows, rows.to_batches()[0]):
        wider, known = attach(kind, to_table(ITEMS, schema, "items"), "item_id")
        assert type(wider) is type(kind)
        assert known.tolist() == [True, False, True]
        assert wider.column("category").to_pylist() == [None, None, "c1"]
        assert wider.column("words").to_pylist() == [[], None, ["x", "y", "z"]]
        assert wider.column(PLACE).to_pylist() == [0, 1, 2]


def test_attach_looks_up_the_row_that_is_valid_at_each_rows_time():
    schema = make_schema()
    items = [
        {"item_id": "a", "category": "new", "timestamp": 20},
        {"item_id": "a", "category": "old"},
        {"item_id": "b", "category": "late", "timestamp": 10},
        {"item_id": "a", "category": "newer", "timestamp": 30},
    ]
    times = [0, 19, 20, 29, 30, 99]
    rows = [shown(f"r{time}", time) for time in times] + [shown(f"b{time}", time, item="b") for time in (9, 10)]
    rows.append(shown("z", 50, item="zz"))
    wider, known = attach(to_table(rows, schema, "impressions"), to_table(items, schema, "items"), "item_id")
    found = ["old", "old", "new", "new", "newer", "newer", None, "late", None]
    assert wider.column("category").to_pylist() == found
    assert known.tolist() == [True] * 8 + [False]
    assert wider.column("timestamp").to_pylist() == [row["timestamp"] for row in rows]


def test_the_first_of_each_key_is_kept():
    table = pa.table({"k": ["a", None, "a", None], "t": [2, 1, 1, 1], PLACE: [0, 3, 2, 1]})
    assert first_of_each(table, ["k"], ["t", PLACE]).tolist() == [False, False, True, True]
    assert first_of_each(table.slice(0, 0), ["k"], ["t", PLACE]).tolist() == []


def test_a_hot_users_histories_are_laid_out_a_slice_at_a_time():
    schema = make_schema(max_length=50)
    count = 200_000
    moments = pa.array(np.arange(count) * 7)
    constant = {"user_id": "hot", "item_id": "a", "scenario": "search", "category": "c1", "action": "click"}

    def hot(table, more):
        columns = {name: pa.repeat(pa.scalar(value), count) for name, value in constant.items()}
        columns |= {
            "timestamp": moments,
            PLACE: pa.array(np.arange(count)),
            "words": pa.repeat(pa.scalar(["x"]), count),
        }
        columns["request_id"] = pa.array([f"r{number}" for number in range(count)])
        columns |= {
            name: pa.nulls(count, kind) for name, kind in (("position", pa.int64()), ("oracle_ctr", pa.float64()))
        }
        columns["oracle_ctcvr"] = columns["oracle_ctr"]
        names = dict.fromkeys([*to_table([], schema, table).schema.names, *more])
        return pa.table({name: columns[name] for name in names})

    impressions, actions = hot("impressions", ("category", "words")), hot("actions", ("category", "words"))
    labels, credited = label(impressions, actions, schema)
    assert labels["ctr"].all()
    assert (credited == np.arange(count)).all()
    past = histories(impressions, actions, credited, schema)
    rows, largest = 0, 0
    for batch in make_batches(impressions, labels, [past], schema, slice(0, count)):
        rows += batch.num_rows
        largest = max(largest, batch.nbytes)
        assert batch.num_rows <= BATCH_ROWS
    assert rows == count
    # 4,096 rows of 50 actions: 3 one-value strings and 2 words of at most 14 + 4 bytes, a scenario, an age
    assert largest < BATCH_ROWS * 50 * 7 * 18
    assert batch.column("history_age")[-1].as_py() == [7 * age for age in range(50, 0, -1)]


@pytest.mark.parametrize("task", ["timestamp", "scenario", "global_ctr", "oracle_ctr", "raw_user_id", "history_age"])
def test_a_task_cannot_take_the_name_of_another_column_of_the_row(task):
    text = make_schema().to_yaml().replace("name: ctcvr", f"name: {task}")
    with pytest.raises(InputError, match=f"tasks: found the reserved column '{task}', expected another name"):
        parse_schema(text)


def test_a_feature_named_age_cannot_be_in_the_history():
    text = make_schema().to_yaml().replace("category:", "age:")
    with pytest.raises(InputError, match=r"features\.age: found in_history, expected another name"):
        parse_schema(text)


def test_the_widest_histories_make_smaller_batches(monkeypatch):
    assert batch_rows(make_schema(max_length=50)) == BATCH_ROWS
    assert batch_rows(make_schema(history=False)) == BATCH_ROWS
    assert batch_rows(make_schema(max_length=10_000)) == (4 << 20) // 20_000
    monkeypatch.setattr(rows_module, "_BATCH_VALUES", 12)  # two rows of 3 actions of 2 words
    schema = make_schema(max_length=3)
    impressions = [shown(f"r{number}", number) for number in range(5)]
    actions = [did("click", number) for number in range(5)]
    table = with_items(impressions, ITEMS, schema, "impressions")
    done = with_items(actions, ITEMS, schema, "actions")
    labels, credited = label(table, done, schema)
    past = histories(table, done, credited, schema)
    batches = list(make_batches(table, labels, [past], schema, slice(1, 5)))
    assert [batch.num_rows for batch in batches] == [2, 2]
    assert [row["request_id"] for batch in batches for row in batch.to_pylist()] == [["r1"], ["r2"], ["r3"], ["r4"]]
    ages = [row["history_age"] for batch in batches for row in batch.to_pylist()]
    assert ages == [[1], [2, 1], [3, 2, 1], [3, 2, 1]]


def test_partitions_hold_every_row_of_a_key_once():
    schema = make_schema()
    rows = [shown(f"r{number}", number, user=f"u{random.Random(number).randrange(9)}") for number in range(100)]
    batch = to_table(rows, schema, "impressions").to_batches()[0]
    of_user, found = {}, []
    for number, part in partition(batch, "user_id", 4):
        for row in part.to_pylist():
            assert of_user.setdefault(row["user_id"], number) == number
            found.append(row[PLACE])
    assert sorted(found) == list(range(100))
    assert len(set(of_user.values())) > 1
