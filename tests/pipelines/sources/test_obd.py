"""Each rule of the Open Bandit import on rows made by hand, and the public sample as a whole."""

from pathlib import Path

import pytest

from tests.pipelines.sources.generated import OBD_CONTEXT, OBD_ROWS, write_csv, write_obd
from tests.pipelines.sources.imported import Imported, assert_preprocess_takes
from usr_tf.errors import InputError
from usr_tf.schema import load_schema

SAMPLE = Path(__file__).parents[4] / "shared/data/obd"
NOON = 1_574_596_800_000
"""2019-11-24 12:00 UTC, in milliseconds."""


def row(item=0, position=2, click=0, propensity="0.25", time="2019-11-24 12:00:00.500000+00:00", affinity=("0.0",) * 3):
    return (0, time, item, position, click, propensity, "u0", "u1", "u2", "", *affinity)


def write(folder, name, rows, items=((0, "0.5", "a", "b", "c"), (1, "-1", "a", "x", "y"), (2, "", "z", "b", "c"))):
    write_csv(folder / f"{name}.csv", OBD_ROWS, rows)
    write_csv(folder / f"{name}_item_context.csv", OBD_CONTEXT, [(number, *item) for number, item in enumerate(items)])


def test_rows_of_every_table(tmp_path):
    write(tmp_path / "in", "bts_men", [row(), row(2, 1, 1, affinity=("1.0", "0.0", "3.0"))])
    other_hashes = [(0, "0.5", "q", "r", "s"), (1, "-1", "q", "t", "u"), (2, "", "v", "r", "s")]
    write(tmp_path / "in", "random_men", [row(1, propensity="0.3333")], other_hashes)
    logs = Imported("obd", tmp_path / "in")
    features = {"user_feature_0": "u0", "user_feature_1": "u1", "user_feature_2": "u2", "user_feature_3": ""}
    first, second, third = logs.impressions
    assert first == {
        "request_id": "bts/men/0",
        "user_id": "bts/men/0",
        "scenario": "men",
        "item_id": "men/0",
        "timestamp": NOON + 500,
        "position": 2,
        "policy": "bts",
        "propensity": 0.25,
        "affinity_items": [],
        "affinity_weights": [],
        **features,
    }
    assert (second["affinity_items"], second["affinity_weights"]) == (["men/0", "men/2"], [1.0, 3.0])
    assert (third["policy"], third["user_id"], third["propensity"]) == ("random", "random/men/0", 0.3333)
    action = {"request_id": "bts/men/1", "scenario": "men", "user_id": "bts/men/1", "item_id": "men/2"}
    assert logs.actions == [action | {"timestamp": NOON + 500, "action": "click"}]
    columns = ("item_feature_0", "item_feature_1", "item_feature_2", "item_feature_3")
    assert {item: tuple(values[name] for name in columns) for item, values in logs.items.items()} == {
        "men/0": (0.5, "men/0", "men/0", "men/0"),  # once, whatever the hashes of the two files
        "men/1": (-1.0, "men/0", "men/1", "men/1"),
        "men/2": (None, "men/1", "men/0", "men/0"),
    }
    assert logs.report["written"] == {
        "impressions": {"bts/men": 2, "random/men": 1},
        "clicks": {"bts/men": 1, "random/men": 0},
    }


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (row(item=3), "item_id: no number of the item context"),
        (row(position=0), "position: no number from 1"),
        (row(click=2), "click: no number 0 or 1"),
        (row(propensity="0"), "propensity_score: no number above 0, at most 1"),
        (row(propensity="1.01"), "propensity_score: no number above 0, at most 1"),
        (row(propensity="nan"), "propensity_score: no number above 0, at most 1"),
        (row(time="yesterday"), "timestamp: no ISO 8601 time"),
        (row(affinity=("0.0", "x", "0.0")), "user-item_affinity: no number from 0"),
    ],
)
def test_rows_that_cannot_be_read_are_rejected(tmp_path, broken, reason):
    write(tmp_path / "in", "bts_men", [broken, row()])
    logs = Imported("obd", tmp_path / "in")
    assert [impression["request_id"] for impression in logs.impressions] == ["bts/men/1"]
    assert [(each["line"], each["reason"]) for each in logs.rejected] == [(2, reason)]


def _no_context(folder):
    write(folder, "bts_men", [row()])
    (folder / "bts_men_item_context.csv").unlink()


def _other_items(folder):
    write(folder, "bts_men", [row()])
    write(folder, "random_men", [row()], [(0, "0.5", "a", "b", "c"), (1, "-1", "d", "x", "y"), (2, "", "z", "b", "c")])


@pytest.mark.parametrize(
    ("make", "refusal"),
    [
        (lambda folder: write_csv(folder / "sales.csv", "a", []), "--input: found no log of the Open Bandit Dataset"),
        (_no_context, "bts_men.csv: found no bts_men_item_context.csv, expected that file among --input"),
        (_other_items, "random_men_item_context.csv: found other items than under the other policy"),
        (lambda folder: write(folder, "bts_men", [row(item=9)]), "--input: found no impression to import"),
        (lambda folder: write(folder, "bts_men", [row()], [(1, "0", "", "", "")]), "item_id: found 1, expected the"),
    ],
)
def test_files_that_are_no_log_are_refused(tmp_path, make, refusal):
    make(tmp_path / "in")
    with pytest.raises(InputError) as refused:
        Imported("obd", tmp_path / "in")
    assert refusal in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_the_published_folders_give_the_same_logs(tmp_path):
    flat = Imported("obd", write_obd(tmp_path / "flat"))
    folders = tmp_path / "published"
    for path in sorted((tmp_path / "flat").iterdir()):
        policy, campaign, *context = path.stem.split("_", 2)
        target = folders / policy / campaign / ("item_context.csv" if context else f"{campaign}.csv")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    published = Imported("obd", folders / "**")
    assert published.impressions == flat.impressions
    assert published.items == flat.items
    assert_preprocess_takes(flat.logs)
    assert not load_schema(flat.logs / "schema.yaml").history_columns


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the sample of the Open Bandit Dataset is not here")
def test_the_public_sample(tmp_path):
    (tmp_path / "in").symlink_to(SAMPLE)
    logs = Imported("obd", tmp_path / "in")
    assert logs.report["rejected"] == {}
    assert set(logs.report["read"].values()) == {10_000}
    clicks = {"bts/all": 42, "bts/men": 69, "bts/women": 46, "random/all": 38, "random/men": 46, "random/women": 46}
    assert logs.report["written"]["clicks"] == clicks
    assert len(logs.items) == 80 + 34 + 46
    assert {len(item) for item in logs.items.values()} == {4}
