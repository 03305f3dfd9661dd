"""Small logs for pipeline tests, and a reference join of DESIGN §2 in plain Python."""

import gzip
import itertools
import json
from pathlib import Path

import pyarrow as pa
import tensorflow as tf

from pipelines.join.as_of import attach, histories, label
from pipelines.join.rows import make_batches
from pipelines.logs.columns import PLACE, table_schema
from usr_tf.schema import HISTORY, IDS, NUMBERS, Schema, load_schema


def write_table(logs: Path, table: str, rows: list[dict]) -> None:
    """`logs/TABLE.jsonl`."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (logs / f"{table}.jsonl").write_text(lines, encoding="utf-8")


def write_logs(logs: Path, schema: str, tables: dict[str, list[dict]]) -> Path:
    """A directory of logs."""
    logs.mkdir(parents=True)
    (logs / "schema.yaml").write_text(schema, encoding="utf-8")
    for table, rows in tables.items():
        write_table(logs, table, rows)
    return logs


def read_rows(data: Path, split: str) -> list[bytes]:
    """The serialized rows of a split, in the order of its files."""
    files = sorted(str(path) for path in (data / split).glob("*.tfrecord.gz"))
    return list(tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator())


def parse_rows(data: Path, split: str) -> list[dict[str, list]]:
    """The rows of `read_rows` by feature."""
    schema = load_schema(data / "schema.yaml")
    return [unpack(parse_example(row), schema) for row in read_rows(data, split)]


def parse_example(serialized: bytes) -> dict[str, list]:
    """`tf.Example` as lists of decoded values."""
    row = {}
    for name, feature in tf.train.Example.FromString(serialized).features.feature.items():
        values = list(getattr(feature, feature.WhichOneof("kind")).value) if feature.WhichOneof("kind") else []
        row[name] = [value.decode() if isinstance(value, bytes) else value for value in values]
    return row


def unpack(row: dict[str, list], schema: Schema) -> dict[str, list]:
    """A stored row with a column for each feature, straight from what `usr_tf.schema` says of the packed ones."""
    row = dict(row)
    names = [name for name, feature in schema.features.items() if feature.type == "categorical"]
    row |= {name: [value] for name, value in zip(names, row.pop(IDS, []), strict=True)}
    numbers = iter(row.pop(NUMBERS, []))
    row |= {name: list(itertools.islice(numbers, width)) for name, width in schema.number_columns.items()}
    assert not list(numbers)
    values, columns = iter(row.pop(HISTORY, [])), {name: [] for name in schema.history_columns}
    for first in values:
        action = itertools.chain([first], values)
        for name in columns:
            columns[name] += itertools.islice(action, schema.history_width(name) or 1)
    return row | columns


def read_lines(pattern: Path) -> list[dict]:
    """All lines of JSON in the files that match."""
    found = []
    for path in sorted(pattern.parent.glob(pattern.name)):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        found += [json.loads(line) for line in data.splitlines()]
    return found


def to_table(rows: list[dict], schema: Schema, table: str, more: pa.Schema | None = None) -> pa.Table:
    """Rows as a table of validated rows; each place is the index unless given."""
    layout = table_schema(schema, table)
    for field in more or ():
        layout = layout.append(field)
    return pa.Table.from_pylist([{PLACE: place, **row} for place, row in enumerate(rows)], schema=layout)


def with_items(rows: list[dict], items: list[dict], schema: Schema, table: str) -> pa.Table:
    """Rows with the features of their items, every one of which is known."""
    joined, known = attach(to_table(rows, schema, table), to_table(items, schema, "items"), "item_id")
    assert known.all()
    return joined


def join_rows(impressions: list[dict], actions: list[dict], items: list[dict], schema: Schema) -> list[dict]:
    """Joined raw rows of the pipeline's functions, one an impression, in the order given."""
    shown = with_items(impressions, items, schema, "impressions")
    done = with_items(actions, items, schema, "actions")
    labels, credited = label(shown, done, schema)
    past = [histories(shown, done, credited, schema)] if schema.history_columns else []
    batches = make_batches(shown, labels, past, schema, slice(0, shown.num_rows))
    return [row for batch in batches for row in batch.to_pylist()]


def expected_credit(impressions: list[dict], action: dict, attribution: int) -> int | None:
    """Index of the impression an action is credited to, by the reference join."""
    found = None
    for index, shown in enumerate(impressions):
        if (shown["user_id"], shown["item_id"]) != (action["user_id"], action["item_id"]):
            continue
        if action.get("request_id") is not None:
            if shown["request_id"] == action["request_id"]:
                found = index
            continue
        if action.get("scenario") is not None and shown["scenario"] != action["scenario"]:
            continue
        if shown["timestamp"] <= action["timestamp"]:
            latest = found is None or (shown["timestamp"], shown["request_id"]) > (
                impressions[found]["timestamp"],
                impressions[found]["request_id"],
            )
            found = index if latest else found
    if found is None or not 0 <= action["timestamp"] - impressions[found]["timestamp"] <= attribution:
        return None
    return found


def expected_labels(impressions: list[dict], actions: list[dict], schema: Schema) -> list[dict[str, int]]:
    """Labels of each impression, by the reference join."""
    credited = [expected_credit(impressions, action, schema.labels.attribution) for action in actions]
    result = []
    for index, shown in enumerate(impressions):
        labels, earlier = {}, True
        for task in schema.tasks:
            here = any(
                action["action"] == task.action and credit == index
                for action, credit in zip(actions, credited, strict=True)
            )
            earlier = earlier and here
            anywhere = any(
                action["action"] == task.action
                and (action["user_id"], action["item_id"]) == (shown["user_id"], shown["item_id"])
                and abs(action["timestamp"] - shown["timestamp"]) <= schema.labels.global_window
                for action in actions
            )
            labels[task.name] = int(earlier)
            labels[f"global_{task.name}"] = int(earlier or anywhere)
        result.append(labels)
    return result


def expected_attributes(table: list[dict], key: str, row: dict) -> dict:
    """The row of `items` or `users` that is valid for `row`, straight from DESIGN §2.1; empty where none is."""
    versions = [(-1 if each.get("timestamp") is None else each["timestamp"], each) for each in table]
    valid = [(since, each) for since, each in versions if each[key] == row[key] and since <= row["timestamp"]]
    return max(valid, key=lambda entry: entry[0], default=(-1, {key: row[key]}))[1]


def expected_history(
    shown: dict, impressions: list[dict], actions: list[dict], items: list[dict], schema: Schema
) -> dict[str, list]:
    """History columns of one impression, by the reference join, with all keys as tie-breakers."""
    past = []
    for place, action in enumerate(actions):
        if action["user_id"] != shown["user_id"] or action["action"] not in schema.history.actions:
            continue
        if action["timestamp"] >= shown["timestamp"]:
            continue
        scenario = action.get("scenario")
        if scenario is None:
            credit = expected_credit(impressions, action, schema.labels.attribution)
            scenario = "" if credit is None else impressions[credit]["scenario"]
        request = action.get("request_id")
        ties = (action["action"], action["item_id"], scenario, request is None, request or "", place)
        past.append((action["timestamp"], *ties, scenario, action))
    columns: dict[str, list] = {name: [] for name in schema.history_columns}
    for *_, scenario, action in sorted(past, key=lambda entry: entry[:7])[-schema.history.max_length :]:
        for name in schema.history_features:
            value = expected_attributes(items, "item_id", action).get(name)
            width = schema.history_width(f"history_{name}")
            if width:
                filled = itertools.chain(value or [], itertools.repeat(""))
                columns[f"history_{name}"] += itertools.islice(filled, width)
            else:
                columns[f"history_{name}"].append("" if value is None else value)
        columns["history_action"].append(action["action"])
        columns["history_scenario"].append(scenario)
        columns["history_age"].append(shown["timestamp"] - action["timestamp"])
    return columns
