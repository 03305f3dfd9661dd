"""Preprocess on tiny logs: output, input errors and leak tests."""

import bisect
import gzip
import json
import os
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow.core.protobuf import saved_model_pb2

from pipelines.join.split import SPLITS
from pipelines.preprocess import preprocess
from pipelines.quality.row_counts import describe, scenarios_without_positive, tasks_without_positive
from pipelines.transform import shards
from pipelines.transform.preprocessing_fn import raw_feature_spec
from tests.pipelines.tiny import (
    expected_history,
    expected_labels,
    parse_rows,
    read_lines,
    read_rows,
    write_logs,
    write_table,
)
from usr_tf.cli import main
from usr_tf.data import open_data
from usr_tf.errors import InputError
from usr_tf.schema import SUCCESS, load_schema, parse_schema

MINUTE = 60_000
SMALL_SCHEMA = """
scenarios: [feed]
tasks: [{name: ctr, action: click}]
split: {valid: 0.2, test: 0.2}
features:
  item_id: {group: item, type: categorical}
"""


def small_tables():
    """Ten users, seven items; two rows a minute, every ninth clicked."""
    impressions = [
        {"request_id": f"r{n // 3}", "scenario": "feed", "user_id": f"u{n % 10}", "item_id": f"i{n % 7}"}
        | {"timestamp": n * MINUTE // 2}
        for n in range(100)
    ]
    actions = [
        {"user_id": row["user_id"], "item_id": row["item_id"], "timestamp": row["timestamp"] + 5, "action": "click"}
        for row in impressions[::9]
    ]
    return {"impressions": impressions, "actions": actions, "items": [{"item_id": f"i{n}"} for n in range(7)]}


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_by_key(data, split):
    """Each row of a split by its user, request and item."""
    keys = ("raw_user_id", "request_id", "raw_item_id")
    return {tuple(row[name][0] for name in keys): row for row in parse_rows(data, split)}


def all_rows(data):
    return {split: sorted(read_rows(data, split)) for split in SPLITS}


def sound(made):
    """The tables without what is rejected: each item, user, impression and action once, its items known."""
    tables = made.shop.tables
    return tables["impressions"], tables["actions"], tables["items"], tables["users"]


def expected_bounds(made):
    """The first moments of valid and test: the ends of the minutes in which 70% and 85% of the rows are reached."""
    rows = [*made.shop.tables["impressions"], *map(json.loads, made.shop.dirty["impressions"][3:5])]
    minutes = sorted(row["timestamp"] // MINUTE for row in rows)
    return [(minutes[-(-len(minutes) * share // 100) - 1] + 1) * MINUTE for share in (70, 85)]


def test_stats_account_for_every_row(made):
    assert made.stats == json.loads((made.data / "stats.json").read_text(encoding="utf-8"))
    tables = made.shop.tables
    rows = {
        table: {key: counts[key] for key in ("read", "written", "rejected")}
        for table, counts in made.stats["rows"].items()
    }
    assert rows["impressions"] == {
        "read": 406,
        "written": 400,
        "rejected": {
            "broken_json": 1,
            "broken_text_query": 1,
            "duplicate": 1,
            "missing_user_id": 1,
            "unknown_item": 1,
            "unknown_scenario": 1,
        },
    }
    done = len(tables["actions"])
    rejected = {"action_not_in_schema": 1, "duplicate": 1, "unknown_item": 1}
    assert rows["actions"] == {"read": done + 3, "written": done, "rejected": rejected}
    assert rows["items"] == {"read": 17, "written": 15, "rejected": {"duplicate": 1, "wrong_type_price": 1}}
    assert rows["users"] == {"read": 11, "written": 10, "rejected": {"duplicate": 1}}
    example = {"place": "users.parquet:11", "row": '{"user_id": "u1", "city": "Nowhere"}'}
    assert made.stats["rows"]["users"]["examples"] == {"duplicate": [example]}
    assert made.stats["quality"]["train"]["search"]["item_id"]["oov_share"] == 0.0
    assert "impressions: 406 read, 400 written" in describe(made.stats)


def test_every_rejected_row_is_written_with_its_place_and_reason(made):
    rejected = read_lines(made.data / "rejected" / "*.jsonl")
    done = len(made.shop.tables["actions"])
    second = "impressions-00001-of-00002.jsonl.gz"  # whose first 250 lines are sound
    assert sorted((row["table"], row["place"], row["reason"]) for row in rejected) == sorted(
        [
            ("impressions", f"{second}:251", "broken_json"),
            ("impressions", f"{second}:252", "unknown_scenario"),
            ("impressions", f"{second}:253", "missing_user_id"),
            ("impressions", f"{second}:254", "duplicate"),
            ("impressions", f"{second}:255", "unknown_item"),
            ("impressions", f"{second}:256", "broken_text_query"),
            ("actions", f"actions.jsonl:{done + 1}", "unknown_item"),
            ("actions", f"actions.jsonl:{done + 2}", "action_not_in_schema"),
            ("actions", f"actions.jsonl:{done + 3}", "duplicate"),
            ("items", "items.jsonl:16", "duplicate"),
            ("items", "items.jsonl:17", "wrong_type_price"),
            ("users", "users.parquet:11", "duplicate"),
        ]
    )
    of = {(row["table"], row["reason"]): row["row"] for row in rejected}
    assert of["impressions", "broken_json"] == made.shop.dirty["impressions"][0]
    assert of["impressions", "broken_text_query"]["query"] == "\ud83d"
    assert of["impressions", "unknown_item"]["item_id"] == "ghost"
    assert of["items", "wrong_type_price"]["price"] == "dear"


def test_rows_are_split_by_time_on_whole_minutes(made):
    bounds = expected_bounds(made)
    found = {split: parse_rows(made.data, split) for split in SPLITS}
    for split, rows in found.items():
        assert {SPLITS[bisect.bisect_right(bounds, row["timestamp"][0])] for row in rows} == {split}
    impressions, *_ = sound(made)
    keys = sorted((row["user_id"], row["request_id"], row["item_id"], row["timestamp"]) for row in impressions)
    assert keys == sorted(
        (row["raw_user_id"][0], row["request_id"][0], row["raw_item_id"][0], row["timestamp"][0])
        for rows in found.values()
        for row in rows
    )
    assert 280 <= len(found["train"]) <= 284  # at least its share, by whole minutes


def to_example(row, schema):
    features = {}
    for name, spec in raw_feature_spec(schema).items():
        value = row.get(name)
        values = value if isinstance(value, list) else [] if value is None else [value]
        if spec.dtype == tf.string:
            values = values or ([""] if isinstance(spec, tf.io.FixedLenFeature) else [])
            kind = {"bytes_list": tf.train.BytesList(value=[v.encode() for v in values])}
        elif spec.dtype == tf.int64:
            kind = {"int64_list": tf.train.Int64List(value=values)}
        else:
            kind = {"float_list": tf.train.FloatList(value=values)}
        features[name] = tf.train.Feature(**kind)
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def test_rows_are_the_plain_join_of_the_logs_seen_through_the_written_transform(made):
    schema = made.shop.schema
    impressions, actions, items, users = sound(made)
    labels = expected_labels(impressions, actions, schema)
    assert {name: sum(row[name] for row in labels) > 5 for name in schema.label_names} == dict.fromkeys(
        schema.label_names, True
    )
    catalogue, people = {row["item_id"]: row for row in items}, {row["user_id"]: row for row in users}
    raw = [
        {**catalogue[row["item_id"]], **people.get(row["user_id"], {}), **row}
        | expected_history(row, impressions, actions, items, schema)
        for row in impressions
    ]
    parsed = tf.io.parse_example([to_example(row, schema) for row in raw], raw_feature_spec(schema))
    transformed = tft.TFTransformOutput(str(made.data / "transform")).transform_raw_features(parsed)
    assert all(np.isnan(transformed.pop(f"packed_bounds_{name}")).all() for name in ("price", "weight"))
    assert set(transformed) == {*schema.features, *schema.history_columns}
    transformed = {
        name: (values.indices.numpy()[:, 0], values.values.numpy())
        if isinstance(values, tf.SparseTensor)
        else (np.arange(len(raw)), values.numpy())
        for name, values in transformed.items()
    }

    bounds = expected_bounds(made)
    rows = {key: (split, row) for split in SPLITS for key, row in rows_by_key(made.data, split).items()}
    counts = Counter()
    for index, (impression, expected) in enumerate(zip(impressions, labels, strict=True)):
        split, row = rows.pop((impression["user_id"], impression["request_id"], impression["item_id"]))
        assert split == SPLITS[bisect.bisect_right(bounds, impression["timestamp"])]
        assert {name: row[name] for name in schema.label_names} == {name: [value] for name, value in expected.items()}
        assert row["scenario"] == [impression["scenario"]]
        assert row["position"] == [impression["position"]]
        assert row["oracle_ctr"] == [0.25]
        assert np.isnan(row["oracle_ctcvr"]).tolist() == [True]  # unknown
        for name, (row_of, values) in transformed.items():
            found = values[row_of == index].tolist()
            assert row[name] == (pytest.approx(found, abs=1e-6) if values.dtype == np.float32 else found), name
        counts[split, impression["scenario"], "impressions"] += 1
        for name, value in expected.items():
            counts[split, impression["scenario"], name] += value
    assert not rows
    assert made.stats["splits"] == {
        split: {
            scenario: {name: counts[split, scenario, name] for name in ("impressions", *schema.label_names)}
            for scenario in schema.scenarios
        }
        for split in SPLITS
    }


def test_features_are_those_of_the_schema_and_never_position_truth_or_labels(made):
    schema = made.shop.schema
    allowed = {*schema.features, *schema.history_columns}
    output = tft.TFTransformOutput(str(made.data / "transform"))
    assert set(output.transformed_feature_spec()) == {*allowed, "packed_bounds_price", "packed_bounds_weight"}
    assert set(output.raw_feature_spec()) == allowed
    for features, labels in open_data(made.data).training(64).take(1):
        assert set(features) == {*allowed, "scenario"}
        assert set(labels) == set(schema.label_names)
    forbidden = {"position", "timestamp", "request_id"}
    assert not {name for name in features if name in forbidden or name.startswith(("oracle_", "global_", "raw_"))}


def test_the_directory_is_complete_and_reads_back(made):
    assert {path.name for path in made.data.iterdir()} == {
        *SPLITS,
        "transform",
        "requests",
        "rejected",
        "statistics",
        "schema.yaml",
        "stats.json",
        SUCCESS,
    }
    assert load_schema(made.data / "schema.yaml") == made.shop.schema.with_normal_forms(None)
    newest = max(made.data.rglob("*"), key=lambda path: (path.stat().st_mtime_ns, path.name == SUCCESS))
    assert newest.name == SUCCESS
    names = sorted(path.name for path in (made.data / "train").iterdir())
    assert names == [f"part-0000{shard}-of-00003.tfrecord.gz" for shard in range(3)]
    assert all(len(read_rows(made.data, split)) == open_data(made.data).rows(split) for split in SPLITS)


@pytest.mark.slow
def test_shuffled_logs_and_other_partitions_make_the_same_rows(made, shop, tmp_path):
    logs = shop.write(tmp_path / "logs", shuffle=random.Random(5))
    stats = preprocess(str(logs), str(tmp_path / "data"), partitions=1)
    assert stats == made.stats
    assert assets(tmp_path / "data") == assets(made.data)
    requests = "requests/*.jsonl"
    assert read_lines(tmp_path / "data" / requests) == read_lines(made.data / requests)
    for split in SPLITS:
        after, before = rows_by_key(tmp_path / "data", split), rows_by_key(made.data, split)
        assert after.keys() == before.keys()
        for key, row in after.items():  # TensorFlow's log1p depends in its last bit on a row's place in a batch
            assert row.pop("price") == pytest.approx(before[key].pop("price"), abs=1e-6)
            assert repr(row) == repr(before[key])  # as text, in which NaN equals itself


def assets(data):
    return files_of(data / "transform" / "transform_fn" / "assets")


def constants(data):
    """Every number that the transform's graph holds."""
    model = saved_model_pb2.SavedModel.FromString((data / "transform/transform_fn/saved_model.pb").read_bytes())
    graph = model.meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return Counter(node.attr["value"].tensor.SerializeToString() for node in nodes if node.op == "Const")


def test_what_comes_later_reaches_no_vocabulary_number_or_earlier_feature(made, shop, tmp_path):
    """Test rows are replaced by new users, items, prices and words, and all that is done from then on by other acts."""
    _, start = expected_bounds(made)
    draw = random.Random(3)
    tables = shop.tables
    for row in tables["impressions"]:
        if row["timestamp"] >= start:
            row.update(item_id=f"{row['item_id']}new", user_id=f"late{draw.randrange(3)}")
            row.update(query="unheard words", device="watch", place="moon", position=77)
    new = [{"item_id": f"{row['item_id']}new", "category": "novel", "words": ["unread"]} for row in tables["items"]]
    tables["items"] += [{**row, "price": 1e9, "weight": 1e9} for row in new]
    tables["users"].append({"user_id": "late0", "city": "Atlantis"})
    kept = [row for row in tables["actions"] if row["timestamp"] < start]
    tables["actions"] = kept + [
        {"user_id": f"u{draw.randrange(12)}", "item_id": f"i{draw.randrange(15)}", "action": "purchase"}
        | {"timestamp": start + draw.randrange(600 * MINUTE)}
        for _ in range(40)
    ]
    logs = shop.write(tmp_path / "logs")
    preprocess(str(logs), str(tmp_path / "data"), partitions=3)

    assert assets(made.data)
    assert assets(tmp_path / "data") == assets(made.data)
    assert constants(tmp_path / "data") == constants(made.data)
    labels = made.shop.schema.label_names
    changed = 0
    for split in ("train", "valid"):
        before, after = rows_by_key(made.data, split), rows_by_key(tmp_path / "data", split)
        assert before.keys() == after.keys()
        for key, row in before.items():
            changed += any(row[name] != after[key][name] for name in labels)
            for name in row.keys() - set(labels) - {"oracle_ctcvr"}:  # which is NaN
                assert row[name] == after[key][name], (key, name)
    assert changed  # a label looks ahead, and may


def test_a_failed_run_leaves_no_marker_and_the_next_one_makes_the_same_files(small, ran, tmp_path, monkeypatch):
    logs, out, first = str(small), tmp_path / "data", ran[0]
    copy, calls = shards.shutil.copyfileobj, []

    def fails_the_third_time(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError("no space left")
        copy(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(shards.shutil, "copyfileobj", fails_the_third_time)
        with pytest.raises(Exception, match="no space left") as failed:
            preprocess(logs, str(out), partitions=3)
    assert not isinstance(failed.value, InputError)
    assert not (out / SUCCESS).exists()
    with pytest.raises(InputError, match="found no _SUCCESS"):
        open_data(out)

    (out / "train" / "part-00007-of-00009.tfrecord.gz").write_bytes(b"of a try with other partitions")
    assert preprocess(logs, f"{out}/", partitions=3) == json.loads((first / "stats.json").read_text())
    assert files_of(out).keys() == files_of(first).keys()
    for split in SPLITS:
        assert files_of(out / split) == files_of(first / split)  # to the byte, though another process made them
    assert assets(out) == assets(first)

    before = files_of(out)
    with pytest.raises(InputError, match="found finished data, expected a new or an unfinished directory"):
        preprocess(logs, str(out))
    assert files_of(out) == before


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What the program made of the small logs on the DirectRunner, and the command."""
    folder = tmp_path_factory.mktemp("ran")
    logs, out = write_logs(folder / "logs", SMALL_SCHEMA, small_tables()), folder / "data"
    command = [sys.executable, "-m", "pipelines.preprocess", f"--logs={logs}", f"--out={out}"]
    options = ["--partitions=3", "--runner=DirectRunner"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out, command


def test_one_scenario_one_task_no_users_no_history(ran):
    tables, (out, _) = small_tables(), ran
    rows = {split: parse_rows(out, split) for split in SPLITS}
    assert {split: len(found) for split, found in rows.items()} == {"train": 60, "valid": 20, "test": 20}
    stats = json.loads((out / "stats.json").read_text())
    assert list(stats["rows"]) == ["impressions", "actions", "items"]
    clicked = {(row["user_id"], row["timestamp"]) for row in tables["impressions"][::9]}
    for row in (row for found in rows.values() for row in found):
        assert set(row) == {
            *("item_id", "request_id", "scenario", "raw_user_id", "raw_item_id", "timestamp", "position"),
            *("ctr", "global_ctr", "oracle_ctr"),
        }
        assert row["ctr"] == [int((row["raw_user_id"][0], row["timestamp"][0]) in clicked)]
        assert row["position"] == [0]
        assert 2 <= row["item_id"][0] <= 8


def test_the_program_ends_with_2_and_one_line_when_the_input_is_wrong(ran):
    out, command = ran
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    lines = [line for line in again.stderr.splitlines() if "found " in line]
    assert lines == [f"{out}: found finished data, expected a new or an unfinished directory"]
    assert again.stderr.endswith(f"{lines[0]}\n")
    assert "Traceback" not in again.stderr


@pytest.fixture
def small(tmp_path):
    return write_logs(tmp_path / "logs", SMALL_SCHEMA, small_tables())


def test_a_shard_cut_off_is_told_in_one_line_from_inside_a_worker(small, tmp_path):
    [shown] = small.glob("impressions*")
    rows = [json.loads(line) for line in shown.read_text().splitlines()]
    shown.unlink()
    for shard in range(2):
        text = "".join(json.dumps(row) + "\n" for row in rows[shard::2])
        whole = gzip.compress(text.encode())
        (small / f"impressions-{shard:05}-of-00002.jsonl.gz").write_bytes(whole[:-4] if shard else whole)
    with pytest.raises(InputError) as refused:
        preprocess(str(small), str(tmp_path / "data"), partitions=1)
    assert str(refused.value) == (
        f"{small}/impressions-00001-of-00002.jsonl.gz: found a broken gzip stream after 50 whole lines, "
        "expected a whole gzip file"
    )
    assert not (tmp_path / "data" / SUCCESS).exists()


def test_logs_without_a_row_to_train_on_are_refused(small, tmp_path):
    rows = small_tables()["impressions"]
    write_table(small, "impressions", [{**row, "item_id": "ghost"} if n < 90 else row for n, row in enumerate(rows)])
    with pytest.raises(InputError, match=r"found no sound impression to train on \(rejected: {'unknown_item': 90}\)"):
        preprocess(str(small), str(tmp_path / "data"), partitions=1)
    assert not (tmp_path / "data" / SUCCESS).exists()
    assert len(read_lines(tmp_path / "data" / "rejected" / "*.jsonl")) == 90


@pytest.fixture
def without_positives(small):
    """Logs of one click, before its item was shown."""
    impression = small_tables()["impressions"][1]
    click = {"user_id": impression["user_id"], "item_id": impression["item_id"], "timestamp": 1, "action": "click"}
    write_table(small, "actions", [click])
    return small


def test_a_task_without_a_positive_is_refused(without_positives, tmp_path):
    with pytest.raises(InputError) as refused:
        preprocess(str(without_positives), str(tmp_path / "data"), partitions=1)
    assert str(refused.value).startswith(
        f"{without_positives}: task 'ctr', split train: found no positive, no 'click' credited to "
        "0 of 60 impressions of feed (global label: 1)"
    )
    assert "--allow_no_positives" in str(refused.value)
    assert not (tmp_path / "data" / SUCCESS).exists()


@pytest.mark.slow
def test_a_task_without_a_positive_is_accepted_if_allowed_or_beside_earlier_data(without_positives, tmp_path, capsys):
    first, later = tmp_path / "first", tmp_path / "later"
    preprocess(str(without_positives), str(first), partitions=1, progress=True, allow_no_positives=True)
    assert "warning: task 'ctr', split train: found no positive" in capsys.readouterr().err
    preprocess(str(without_positives), str(later), partitions=1, transform=str(first))
    assert (later / SUCCESS).exists()


@pytest.mark.parametrize(
    ("positives", "refused", "warned"),
    [
        ({"search": (1, 0), "feed": (0, 2)}, [], ["'ctr', scenario 'feed'", "'ctcvr', scenario 'search'"]),
        ({"search": (1, 1), "feed": (2, 1)}, [], []),
        ({"search": (1, 0), "feed": (2, 0)}, ["'ctcvr', split train"], []),
        ({"search": (0, 0), "feed": (0, 0)}, ["'ctr', split train", "'ctcvr', split train"], []),
    ],
)
def test_which_tasks_have_no_positive(positives, refused, warned):
    schema = parse_schema(
        "scenarios: [search, feed]\ntasks: [{name: ctr, action: click}, {name: ctcvr, action: buy}]\n"
        "features: {item_id: {group: item, type: categorical}}",
        "schema",
    )
    counts = {
        scenario: {"impressions": 9, "ctr": ctr, "ctcvr": ctcvr, "global_ctr": 5, "global_ctcvr": 4}
        for scenario, (ctr, ctcvr) in positives.items()
    }
    stats = {"splits": {"train": counts}}
    for lines, expected in (
        (tasks_without_positive(stats, schema), refused),
        (scenarios_without_positive(stats, schema), warned),
    ):
        assert len(lines) == len(expected)
        assert all(line.startswith(f"task {start}") for line, start in zip(lines, expected, strict=True))
    if refused:
        assert (
            "0 of 9 impressions of search (global label: 4) and 0 of 9 impressions of feed (global label: 4)"
            in (tasks_without_positive(stats, schema)[-1])
        )


def test_a_path_under_a_file_cannot_be_written(small, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(InputError, match="found no writable directory"):
            preprocess(str(small), str(out))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["notes.txt", "test/test_shop.py", "logs/train/x", "rejected/rows"])
def test_a_directory_with_files_of_others_is_refused_and_kept(small, tmp_path, name):
    out = tmp_path / "mine [1]"
    path = out / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(InputError, match=r"mine \[1\]: found other files \(.*\), expected a new directory, or one"):
        preprocess(str(small), str(out))
    assert files_of(out) == {name: b"mine"}


def test_the_logs_own_directory_is_refused_and_kept(small):
    before = files_of(small)
    with pytest.raises(InputError, match=r"found other files \(actions\.jsonl\)"):
        preprocess(str(small), str(small))
    assert files_of(small) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--direct_num_worker=2"], "found the unknown '--direct_num_worker=2', expected options that Beam's"),
        (["--runner=DirectRunner", "--zone", "x", "--nope"], "found the unknown '--nope'"),
        (["-x"], "found the unknown '-x'"),
        (["stray"], "found the unknown 'stray'"),
        (["--direct_num_workers=two"], "argument --direct_num_workers: invalid int value: 'two'"),
        (["--direct_running_mode=fast"], "argument --direct_running_mode: invalid choice: 'fast'"),
        (["--runner"], "argument --runner: expected one argument"),
        (["--runner=FastRunner"], "found Unexpected pipeline runner: FastRunner. Valid values are"),
        (["--runner=no.such.Runner"], "found No module named 'no'"),
        (["--runner=pipelines.preprocess.Runner"], "has no attribute 'Runner'"),
    ],
)
def test_unknown_or_bad_beam_options_are_refused_before_anything_is_written(small, tmp_path, capsys, options, message):
    with pytest.raises(InputError) as refused:
        preprocess(str(small), str(tmp_path / "data"), beam_args=options)
    assert str(refused.value).startswith("Beam options: found ")
    assert message in str(refused.value)
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "data").exists()


def test_the_program_takes_beams_options_beside_its_own_and_says_one_line(small, tmp_path, capsys):
    arguments = [f"--logs={small}", f"--out={tmp_path / 'data'}"]
    for more, message in (
        (["--partition=3"], "Beam options: found the unknown '--partition=3'"),  # no abbreviation of ours
        (["--runner", "FastRunner", "--schema=nowhere.yaml"], "Beam options: found Unexpected pipeline runner"),
        (["--schema=nowhere.yaml"], "nowhere.yaml: found no readable file"),
    ):
        assert main(["preprocess", *arguments, *more], beam_program=True) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith(message)
        assert shown.err.count("\n") == 1


def test_blocks_that_travel_through_the_runner_make_the_same_rows(made, tmp_path, monkeypatch):
    """As on a runner with a shuffle of its own."""
    monkeypatch.setattr("pipelines.beam.job.is_local", lambda pipeline: False)
    stats = preprocess(str(made.logs), str(tmp_path / "data"), partitions=3)
    assert stats == made.stats
    assert all_rows(tmp_path / "data") == all_rows(made.data)


@pytest.mark.slow
def test_two_worker_processes_make_the_same_rows(made, tmp_path):
    command = [sys.executable, "-m", "pipelines.preprocess", f"--logs={made.logs}", f"--out={tmp_path / 'data'}"]
    options = ["--partitions=3", "--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert all_rows(tmp_path / "data") == all_rows(made.data)
    assert json.loads((tmp_path / "data" / "stats.json").read_text()) == made.stats
