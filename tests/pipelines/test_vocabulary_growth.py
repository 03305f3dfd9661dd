"""A new day on an earlier transform: applied as it is, or with vocabularies that grow while every id stays."""

import json
import re
import shutil

import pytest
import tensorflow as tf
import tensorflow_transform as tft

from pipelines.beam.job import milliseconds
from pipelines.join.split import SPLITS
from pipelines.logs.rejected import COUNTS
from pipelines.preprocess import preprocess
from pipelines.transform.previous import Earlier, copy_transform, open_earlier
from pipelines.transform.vocabulary_growth import Vocabulary, _Append
from tests.pipelines.conftest import MINUTE, SCHEMA
from tests.pipelines.tiny import parse_rows
from usr_tf import cli
from usr_tf.config import Config
from usr_tf.data import open_data
from usr_tf.errors import InputError
from usr_tf.run import create_run, open_run_data
from usr_tf.schema import SUCCESS, parse_schema

DAY = 1_700_092_800_000  # 2023-11-16, four hours after the last row of the shop
DAY_SCHEMA = (
    SCHEMA.replace("item_id: {", "item_id: {vocabulary_size: 15, ")  # the shop has 15 items: no room
    .replace("words: {", "words: {vocabulary_size: 8, ")
    .replace("global_window: 6h", "global_window: 7h")
)
GROWN = {"user_id": ["n 1", "n3"], "words": ["w8", "w9"], "query": ["matcha", "latte", "oolong"]}
"""What the day appends. Beyond the cap is `wa`; below min_count or the history's alone is `n2`."""


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def vocabulary(data, name):
    return [line.decode() for line in tft.TFTransformOutput(str(data / "transform")).vocabulary_by_name(name)]


@pytest.fixture(scope="module")
def day_logs(_shop, tmp_path_factory):
    """The shop's logs and those of the next day: 40 requests of one item, two a minute."""
    shop = type(_shop)(_shop.schema, {table: list(rows) for table, rows in _shop.tables.items()}, _shop.dirty)
    users = [*["n 1"] * 3, "n2", *["n3"] * 2, *["u0"] * 28, *["late"] * 6]
    items = [*["x1"] * 3, *["x2"] * 2, *["i3"] * 35]
    queries = ["Matcha latte", " latte  MATCHA", "oolong tea green matcha", *[None] * 37]
    places = ["ho\rme", *[None] * 39]
    for n, (user, item, query, place) in enumerate(zip(users, items, queries, places, strict=True)):
        keys = {"request_id": f"d{n}", "scenario": "recommendation", "user_id": user, "item_id": item}
        row = {**keys, "timestamp": DAY + n * MINUTE // 2, "query": query, "place": place, "device": None}
        shop.tables["impressions"].append({**row, "position": 1, "oracle_ctr": 0.5})
    keys = {"user_id": "n2", "item_id": "i3"}
    early = {**keys, "request_id": "e0", "scenario": "search", "timestamp": DAY - 10 * MINUTE, "position": 1}
    shop.tables["impressions"].append(early)
    shop.tables["actions"].append({**keys, "timestamp": DAY - MINUTE, "action": "click"})  # credited to it
    x1 = {"item_id": "x1", "category": None, "words": ["w9", "w8", "w7"], "price": 1e6, "weight": 1e6}
    shop.tables["items"] += [x1, {**x1, "item_id": "x2", "words": ["wa", "", "w8"]}]
    return shop.write(tmp_path_factory.mktemp("day") / "logs")


@pytest.fixture(scope="module")
def grown(made, day_logs):
    """The day's data, grown from the shop's, which lies no longer where it lay; and the stats."""
    folder = day_logs.parent
    (folder / "schema.yaml").write_text(DAY_SCHEMA, encoding="utf-8")
    shutil.copytree(made.data, folder / "old")
    stats = preprocess(
        *map(str, (day_logs, folder / "data", folder / "schema.yaml")),
        partitions=2,
        grow_from=f"{folder}/old/",
        since="2023-11-16T01:00+01:00",
    )
    assert files_of(folder / "old") == files_of(made.data)
    shutil.rmtree(folder / "old")
    return folder / "data", stats


def test_new_values_are_appended_and_the_rest_of_the_transform_stays_to_the_byte(made, grown):
    old, new = files_of(made.data / "transform"), files_of(grown[0] / "transform")
    for name, values in GROWN.items():
        asset = f"transform_fn/assets/{name}"
        assert new.pop(asset) == old.pop(asset) + "".join(f"{value}\n" for value in values).encode()
    assert new == old  # with the graph, its numbers, and the vocabularies that are full or found nothing new


def test_every_old_value_keeps_its_id_and_the_unknown_stay_unknown(made, grown):
    before, after = (
        tft.TFTransformOutput(str(data / "transform")).transform_features_layer() for data in (made.data, grown[0])
    )
    for name in ("user_id", "item_id", "words", "query", "place"):
        old, appended = vocabulary(made.data, name), GROWN.get(name, [])
        strings = tf.constant([*old, "zzz", *appended])
        values = tf.sparse.from_dense(strings[:, tf.newaxis]) if name == "words" else strings
        ids = [layer({name: values})[name] for layer in (before, after)]
        ids = [(found.values if isinstance(found, tf.SparseTensor) else found).numpy().tolist() for found in ids]
        known = list(range(2, 2 + len(old)))  # after 0 and the one bucket of the unknown
        assert ids[0] == [*known, 1, *[1] * len(appended)]
        assert ids[1] == [*known, 1, *range(2 + len(old), 2 + len(old) + len(appended))]


def test_the_sizes_of_the_tables_grow_by_what_was_appended(made, grown):
    old, new = (open_data(data).vocabulary_sizes for data in (made.data, grown[0]))
    assert {name: new[name] - old[name] for name in old if new[name] != old[name]} == {
        name: len(values) for name, values in (GROWN | {"title": GROWN["query"]}).items()
    }


def test_stats_tell_how_the_vocabularies_grew(made, grown):
    data, stats = grown
    kept = made.shop.tables["items"][3]["words"][:2]  # of the item in 23 rows
    assert stats["growth"] == {
        "user_id": {"old": 12, "new": 14, "appended_values": 5, "values": 28},
        "item_id": {"old": 15, "new": 15, "appended_values": 0, "values": 28},
        "words": {"old": 6, "new": 8, "appended_values": 8, "values": 10 + 23 * len(kept)},
        "query": {"old": 6, "new": 9, "appended_values": 5, "values": 7},
        "place": {"old": 1, "new": 1, "appended_values": 0, "values": 1},  # one with a line break in it
    }
    assert json.loads((data / "stats.json").read_text(encoding="utf-8")) == stats


def test_impressions_before_since_are_no_rows_but_their_actions_are_history(made, grown):
    data, stats = grown
    rows = {split: parse_rows(data, split) for split in SPLITS}
    assert {split: len(found) for split, found in rows.items()} == {"train": 28, "valid": 6, "test": 6}
    assert min(row["timestamp"][0] for found in rows.values() for row in found) == DAY
    impressions = stats["rows"]["impressions"]
    assert (impressions["written"], impressions["rejected"]["before_since"]) == (40, 401)
    assert impressions["read"] == 40 + sum(impressions["rejected"].values())
    [row] = (row for row in rows["train"] if row["request_id"] == ["d3"])
    assert row["user_id"] == [1]
    assert row["history_item_id"] == [2 + vocabulary(made.data, "item_id").index("i3")]
    assert (row["history_action"], row["history_scenario"]) == ([1], [1])  # the click, from the search before


def test_an_applied_transform_makes_the_same_rows_for_the_run_that_was_trained_with_it(made, tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    stats = preprocess(str(made.logs), str(data), partitions=3, transform=str(made.data / "transform"))
    assert stats == made.stats
    for name in (*SPLITS, "transform", "requests"):
        assert files_of(data / name) == files_of(made.data / name)
    opened = open_run_data(create_run(run, open_data(made.data), Config()), data)
    assert opened.directory == data
    drifts = json.loads((data / "drift.json").read_text())
    assert {drift["verdict"] for drift in drifts} == {"within", "no data"}
    assert {drift["amount"] for drift in drifts} == {0.0, None}


def test_data_that_drifted_beyond_a_limit_are_not_taken_for_whole(made, shop, tmp_path, capsys):
    """Prices are ten times what they were and all users new; the limit of new tokens is lifted, that of numbers not."""
    for row in shop.tables["items"]:
        row["price"] = row["price"] and 10 * row["price"]
    for row in [*shop.tables["impressions"], *shop.tables["actions"]]:
        row["user_id"] = f"new {row['user_id']}"
    out = tmp_path / "data"
    arguments = [f"--logs={shop.write(tmp_path / 'logs')}", f"--out={out}", "--partitions=1"]
    flags = [f"--transform={made.data}", "--drift_limit=new_tokens=1", "--drift_limit=coverage=1"]
    assert cli.main(["preprocess", *arguments, *flags]) == 2
    table, _, line = capsys.readouterr().err.rstrip("\n").rpartition("\n")
    assert line.startswith(f"{out}: found numeric_shift "), line
    assert f"in {made.data} to " in line
    assert line.endswith("expected at most 0.5, or a wider --drift_limit numeric_shift=NUMBER")
    assert re.search(r"numeric_shift +search +price p\d\d .* beyond", table)
    counted = json.loads((out / "stats.json").read_text())["rows"]
    written = counted["impressions"]["written"]
    read = {f"read {name}": rows["read"] for name, rows in counted.items()}
    shown = re.findall(r"^preprocess \S+: ([a-z ]+): ([\d,]+) rows \(\d+ s\)$", table, re.MULTILINE)
    assert {stage: int(rows.replace(",", "")) for stage, rows in shown} == {
        **read, "join": written, "transform": written, "write": written
    }  # fmt: skip
    with pytest.raises(InputError, match="found no _SUCCESS"):
        open_data(out)
    drifts = json.loads((out / "drift.json").read_text())
    assert drifts[0]["kind"] == "numeric_shift"
    [users] = [drift for drift in drifts if (drift["name"], drift["scenario"]) == ("user_id", "search")][:1]
    assert users["new"] == 1.0


@pytest.fixture
def refusals(made, tmp_path):
    """Flags with something wrong, and the line that they get."""
    unfinished = tmp_path / "unfinished"
    shutil.copytree(made.data / "transform", unfinished / "transform")
    without_quality = tmp_path / "without_quality"
    shutil.copytree(made.data, without_quality)
    stats = {name: figures for name, figures in made.stats.items() if name != "quality"}
    (without_quality / "stats.json").write_text(json.dumps(stats), encoding="utf-8")
    schemas = {}
    for name, (old, new) in {
        "length": ("max_length: 2", "max_length: 3"),
        "cap": ("item_id: {", "item_id: {vocabulary_size: 15, "),
        "less": ("  place: {group: context, type: categorical}\n", ""),
    }.items():
        schemas[name] = tmp_path / f"{name}.yaml"
        schemas[name].write_text(SCHEMA.replace(old, new), encoding="utf-8")
    old, as_in = made.data, f", as in {made.data}/schema.yaml"
    return {
        "unfinished": (
            [f"--transform={unfinished}/transform"],
            f"{unfinished}/transform: found no _SUCCESS, expected a directory that `usr-tf preprocess` finished",
        ),
        "both": (
            [f"--transform={old}", f"--grow_from={old}"],
            "--grow_from: found --transform beside it, expected one of the two",
        ),
        "another length": (
            [f"--grow_from={old}", f"--schema={schemas['length']}"],
            f"{schemas['length']}: features.words.max_length: found 3, expected 2{as_in}",
        ),
        "a cap where nothing grows": (
            [f"--transform={old}", f"--schema={schemas['cap']}"],
            f"{schemas['cap']}: features.item_id.vocabulary_size: found 15, expected nothing{as_in}",
        ),
        "a feature less": (
            [f"--grow_from={old}/transform/", f"--schema={schemas['less']}"],
            f"{schemas['less']}: features.place: found nothing, expected",
        ),
        "no drift": (
            ["--drift_limit=coverage=0.5"],
            "--drift_limit: found no earlier data, expected --transform or --grow_from beside it, with stats.json",
        ),
        "no limit": ([f"--transform={old}", "--drift_limit=tokens=1"], "--drift_limit: tokens: found an unknown key"),
        "no figures": (
            [f"--transform={without_quality}"],
            f"{without_quality}/stats.json: found no quality, expected data of a job that measures it",
        ),
        "no time": (["--since=yesterday"], "--since: found 'yesterday', expected a date or time in ISO 8601"),
    }


def test_what_does_not_fit_the_earlier_run_is_refused_before_anything_is_written(made, refusals, tmp_path, capsys):
    out = tmp_path / "data"
    for name, (flags, line) in refusals.items():
        arguments = [f"--logs={made.logs}", f"--out={out}", *flags]
        assert cli.main(["preprocess", *arguments]) == 2, name
        shown = capsys.readouterr()
        assert shown.out == "", name
        assert shown.err.startswith(line), name
        assert shown.err.count("\n") == 1, name
    assert not out.exists()


def test_texts_keep_the_normal_form_of_earlier_data(tmp_path):
    """Data of a version that did not normalize say nothing of it."""
    features = "features: {item_id: {group: item, type: categorical}, query: {group: query, type: text%s}}"
    text = "scenarios: [s]\ntasks: [{name: ctr, action: click}]\n" + features + "\n"
    (tmp_path / SUCCESS).touch()
    (tmp_path / "schema.yaml").write_text(text % "")
    silent, named = parse_schema(text % ""), parse_schema(text % ", normalize: nfc")
    earlier = open_earlier(str(tmp_path), None, silent, "schema.yaml")
    assert silent.with_normal_forms(earlier.schema) == silent
    assert silent.normal_form("query") == "none"
    with pytest.raises(InputError, match=r"features.query.normalize: found nfc, expected none, as in"):
        open_earlier(None, str(tmp_path), named, "schema.yaml")
    resolved = silent.with_normal_forms(None)
    assert resolved.to_yaml() == named.to_yaml()
    (tmp_path / "schema.yaml").write_text(resolved.to_yaml())
    earlier = open_earlier(None, str(tmp_path), silent, "schema.yaml")
    assert silent.with_normal_forms(earlier.schema) == resolved


def test_a_finished_run_is_an_earlier_one_too(made, tmp_path):
    run = create_run(tmp_path / "run", open_data(made.data), Config())
    (run.directory / SUCCESS).touch()
    earlier = open_earlier(f"{run.transform}/", None, made.shop.schema, "schema.yaml")
    assert earlier == Earlier(str(run.directory), grow=False)
    copy_transform(earlier, str(tmp_path / "copy"))
    assert files_of(tmp_path / "copy") == files_of(made.data / "transform")


def test_a_retried_append_writes_the_same_file_again(tmp_path):
    old, copy, found = (tmp_path / name for name in ("old", "copy", "found"))
    for folder, name, lines in ((old, "query", b"tea\nmilk\n"), (copy, "query", b""), (found, "query-new", b"oat\n")):
        (folder / "assets").mkdir(parents=True)
        (folder / "assets" / name).write_bytes(lines)
    append = _Append({"query": Vocabulary(str(old / "assets" / "query"), 2)}, str(copy), str(tmp_path))
    for _ in range(2):
        counts, path = append.process(str(found))
        assert (path, counts.tag) == (str(copy), COUNTS)
        assert counts.value == {("growth", "query", "old"): 2, ("growth", "query", "new"): 3}
        assert files_of(copy) == {"assets/query": b"tea\nmilk\noat\n"}
    assert {path.name for path in tmp_path.iterdir()} == {"old", "copy", "found"}


@pytest.mark.parametrize("since", ["2023-11-16", "2023-11-16T00:00:00Z", "2023-11-16T01:00+01:00"])
def test_since_is_a_date_or_time_of_utc_unless_it_names_a_zone(since):
    assert milliseconds(since) == DAY
