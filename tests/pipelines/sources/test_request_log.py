"""Import of request logs: rows exactly as they were served."""

import json

import numpy as np
import pytest

from pipelines.sources import import_logs
from serving.request_log import RequestLog, make_record
from tests.pipelines.sources.imported import assert_preprocess_takes, read_table
from usr_tf.cli import main
from usr_tf.errors import InputError
from usr_tf.schema import parse_schema

SCHEMA = """
scenarios: [search, feed]
tasks: [{name: ctr, action: click}]
history: {actions: [click]}
features:
  user_id: {group: user, type: categorical}
  city: {group: user, type: categorical}
  item_id: {group: item, type: categorical, in_history: true}
  tags: {group: item, type: categorical_list, weights: tag_weights}
  price: {group: candidate, type: numeric}
  query: {group: query, type: text}
  device: {group: context, type: categorical}
"""
INPUTS = {
    "user_id": "ann",
    "city": ["Derby"],  # which spells out the leading 1
    "item_id": ["a", "b"],
    "tags": [["x"], []],
    "tag_weights": [[0.5], []],
    "price": [1.5, None],
    "query": "tea",
    "device": "phone",
    "history_item_id": ["a"],
    "history_action": ["click"],
}


def log(folder, *requests):
    """Files of logged requests: `(request_id, moment, changes of the inputs, order)`."""
    with RequestLog(folder) as writer:
        for request_id, moment, changes, order in requests:
            scenario = "search" if changes.get("query", "tea") else "feed"
            record = make_record(
                scenario,
                {**INPUTS, **changes},
                {"ctr": [0.25, 0.5]},
                model="usr",
                version=3,
                latency_seconds=0.004,
                timestamp=moment,
                request_id=request_id,
                order=order,
            )
            writer.write(lambda record=record: record)


@pytest.fixture
def schema(tmp_path):
    path = tmp_path / "schema.yaml"
    path.write_text(SCHEMA)
    return path


def test_rows_are_what_was_served(tmp_path, schema):
    log(
        tmp_path / "in",
        ("r1", 1000, {}, [1, 0]),
        ("r2", 2000, {"query": "", "price": [2.0, 3.0]}, None),
        ("r3", 3000, {"city": "Goole", "tags": [["x"], ["z"]], "tag_weights": [[0.5], [1.0]]}, [0, 1]),
    )
    actions = tmp_path / "actions.jsonl"
    schema.write_text(schema.read_text() + "timestamp_unit: s\ncolumns: {t: timestamp}\n")  # of the shop's own logs
    click = {"user_id": "ann", "item_id": "b", "timestamp": 1500, "action": "click", "request_id": "r1"}
    logged = {name: value for name, value in click.items() if name != "timestamp"}
    actions.write_text(
        json.dumps({**logged, "t": 1.5, "page": 1}) + "\n" + json.dumps({"user_id": "ann", "t": 2}) + "\n3\n"
    )
    out = tmp_path / "logs"
    flags = ["--source=request_log", f"--input={tmp_path / 'in'}", f"--schema={schema}", f"--action_files={actions}"]
    assert main(["import", *flags, f"--out={out}"]) == 0
    report = json.loads((out / "import.json").read_text())
    assert report["read"] == {"requests": 3, "actions": 1}
    assert report["versions"] == {"3": 3}
    assert report["rejected"] == {"no action (missing_item_id)": 1, "no action (not_an_object)": 1}
    shared = {"user_id": "ann", "device": "phone"}
    first = {"request_id": "r1", "scenario": "search", "timestamp": 1000, "query": "tea", **shared}
    second = {"request_id": "r2", "scenario": "feed", "timestamp": 2000, "query": "", **shared}
    third = {"request_id": "r3", "scenario": "search", "timestamp": 3000, "query": "tea", **shared}
    assert read_table(out, "impressions") == [
        {**first, "item_id": "a", "price": 1.5, "position": 2},
        {**first, "item_id": "b", "price": None, "position": 1},
        {**second, "item_id": "a", "price": 2.0},
        {**second, "item_id": "b", "price": 3.0},
        {**third, "item_id": "a", "price": 1.5, "position": 1},
        {**third, "item_id": "b", "price": None, "position": 2},
    ]
    assert read_table(out, "actions") == [click]
    assert read_table(out, "items") == [  # a row each time that something changes
        {"item_id": "a", "timestamp": 1000, "tags": ["x"], "tag_weights": [0.5]},
        {"item_id": "b", "timestamp": 1000, "tags": [], "tag_weights": []},
        {"item_id": "b", "timestamp": 3000, "tags": ["z"], "tag_weights": [1.0]},
    ]
    assert read_table(out, "users") == [
        {"user_id": "ann", "timestamp": 1000, "city": "Derby"},
        {"user_id": "ann", "timestamp": 3000, "city": "Goole"},
    ]
    assert_preprocess_takes(out)


def test_ages_become_the_moments_that_they_count_from(tmp_path, schema):
    """float32 ages of one moment are one row, though years in ms are more than they hold."""
    ages = "  item_age: {group: item, type: numeric, since: listed_at}\n"
    ages += "  offer_age: {group: candidate, type: numeric, since: offered_at}\n"
    schema.write_text(SCHEMA + ages)
    listed, now = 1_000_000_000_123, 1_700_000_000_000
    requests = []
    for number in range(3):
        moment = now + number * 777
        old = float(np.float32((moment - listed) / 1000))
        requests.append(
            (f"r{number}", moment, {"item_age": [old, None if number < 2 else 0.5], "offer_age": [2, None]}, None)
        )
    log(tmp_path / "in", *requests, ("bad", now, {"item_age": ["old", 1.0], "offer_age": [1, 1]}, None))
    out = tmp_path / "logs"
    report = import_logs("request_log", [str(tmp_path / "in")], out, progress=False, options={"schema": str(schema)})
    assert report["rejected"] == {"no age in seconds in item_age": 1}
    items = read_table(out, "items")
    assert [(row["item_id"], row["timestamp"]) for row in items] == [("a", now), ("b", now), ("b", now + 1554)]
    assert abs(items[0]["listed_at"] - listed) <= 32_000  # half of what a float32 of 22 years is exact to
    assert [row["listed_at"] for row in items[1:]] == [None, now + 1554 - 500]
    offers = [row["offered_at"] for row in read_table(out, "impressions")]
    assert offers == [now - 2000, None, now + 777 - 2000, None, now + 1554 - 2000, None]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scenario": "home"}, "the scenario 'home', which the schema lacks"),
        ({"timestamp": None}, "no record with request_id, scenario, timestamp, inputs"),
        ({"inputs": {**INPUTS, "price": [1.0]}}, "inputs of different numbers of candidates"),
        ({"inputs": {name: value for name, value in INPUTS.items() if name != "query"}}, "no input query"),
        ({"inputs": {**INPUTS, "user_id": None}}, "no user_id"),
    ],
)
def test_a_record_that_cannot_be_read_is_rejected_with_its_reason(tmp_path, schema, change, reason):
    log(tmp_path / "in", ("r1", 1000, {}, None))
    whole = {"request_id": "r", "scenario": "search", "timestamp": 5, "inputs": INPUTS}
    (tmp_path / "in" / "requests-z.jsonl").write_text(json.dumps({**whole, **change}) + "\n{\n")
    options = {"schema": str(schema)}
    report = import_logs("request_log", [str(tmp_path / "in")], tmp_path / "logs", progress=False, options=options)
    assert report["rejected"].pop(reason) == 1
    assert [text[:7] for text in report["rejected"]] == ["no JSON"]
    assert report["rows"]["impressions"] == 2


def test_what_is_missing_is_refused(tmp_path, schema):
    log(tmp_path / "in", ("r1", 1000, {}, None))

    def run(**options):
        import_logs("request_log", [str(tmp_path / "in")], tmp_path / "logs", progress=False, options=options)

    with pytest.raises(InputError, match=r"--schema: found nothing, expected schema.yaml of the served model"):
        run()
    text = SCHEMA.replace("  user_id: {group: user, type: categorical}\n", "")
    assert parse_schema(text)
    schema.write_text(text)
    with pytest.raises(InputError, match=r"features.user_id: found nothing"):
        run(schema=str(schema))
