import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import dataclasses
import json
import re
import shutil
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from tests.usr_tf.broken import break_off
from tests.usr_tf.fixtures import ITEMS
from usr_tf.data import Data, open_data
from usr_tf.errors import InputError
from usr_tf.evaluate import predict


def keys_of(data: Data, split: str) -> list[tuple]:
    return [
        (request, item)
        for _, _, keys in data.evaluation(64, split).as_numpy_iterator()
        for request, item in zip(keys["request_id"], keys["raw_item_id"], strict=True)
    ]


def test_a_batch_has_the_shapes_and_types_that_the_model_takes(toy_data):
    features, labels = next(iter(toy_data.training(32)))
    lists = {"interests": 1, "tags": 1, "title": 1, "query": 1}
    for name, feature in toy_data.schema.features.items():
        assert features[name].dtype == (tf.float32 if feature.type == "numeric" else tf.int64)
        assert features[name].shape.rank == 1 + lists.get(name, 0)
        assert features[name].shape[0] == 32
    assert features["history_tags"].shape[2] == 2
    length = {features[name].shape[1] for name in toy_data.schema.history_columns}
    assert len(length) == 1
    assert max(length) <= 4
    assert set(features) == {*toy_data.schema.features, *toy_data.schema.history_columns, "scenario"}
    assert features["scenario"].dtype == tf.int32
    assert set(labels) == set(toy_data.schema.label_names)
    assert all(label.dtype == tf.float32 and label.shape == [32] for label in labels.values())


def test_the_shown_position_is_a_feature_where_it_is_asked_for(toy_data):
    features, _ = next(iter(toy_data.training(32, with_position=True)))
    assert features["position"].dtype == tf.int64
    assert set(features["position"].numpy()) == {1, 2, 3, 4, 5}
    for dataset in (toy_data.training(32), toy_data.validation(32), toy_data.evaluation(32)):
        assert "position" not in next(iter(dataset))[0]


def test_an_epoch_has_every_row_once_whatever_the_batch(toy_data):
    for batch in (7, 500):
        sizes = [len(labels["ctr"]) for _, labels in toy_data.training(batch)]
        assert sum(sizes) == toy_data.rows("train")
        assert max(sizes) <= batch
    assert max(Counter(keys_of(toy_data, "train")).values()) == 1
    assert sum(toy_data.rows(split) for split in ("train", "valid", "test")) == 3000


def test_validation_keeps_the_order_of_the_rows(toy_data):
    prices = [
        np.concatenate([features["price"] for features, _ in toy_data.validation(batch, "valid")])
        for batch in (50, 450)
    ]
    np.testing.assert_array_equal(*prices)
    assert len(prices[0]) == toy_data.rows("valid")


def test_labels_are_those_that_stats_counts_and_global_ones_are_implied(toy_data):
    counts: Counter = Counter()
    for features, labels in toy_data.validation(512, "train"):
        for task in toy_data.schema.task_names:
            assert np.all(labels[f"global_{task}"] >= labels[task])
        for number, scenario in enumerate(toy_data.schema.scenarios):
            for name, label in labels.items():
                counts[scenario, name] += int(tf.reduce_sum(label[features["scenario"] == number]))
    stats = json.loads((toy_data.directory / "stats.json").read_text())["splits"]["train"]
    expected = {
        (scenario, name): figures[name] for scenario, figures in stats.items() for name in toy_data.schema.label_names
    }
    assert dict(counts) == expected


def test_keys_of_evaluation(toy_data):
    features, _, keys = next(iter(toy_data.evaluation(16)))
    assert set(keys) == {
        "request_id", "raw_user_id", "raw_item_id", "timestamp", "position", "oracle_ctr", "oracle_ctcvr"
    }  # fmt: skip
    assert set(features).isdisjoint(keys)
    assert keys["position"].numpy().min() >= 1
    assert np.all(np.isnan(keys["oracle_ctr"]))  # the toy shop's logs have no true probabilities
    assert {item.decode() for item in keys["raw_item_id"].numpy()} <= {f"i{number:02}" for number in range(ITEMS)}


def test_splits_follow_each_other_in_time(toy_data):
    def times(split: str) -> np.ndarray:
        return np.concatenate([keys["timestamp"] for _, _, keys in toy_data.evaluation(512, split).as_numpy_iterator()])

    train, valid, test = (times(split) for split in ("train", "valid", "test"))
    assert train.max() < valid.min()
    assert valid.max() < test.min()


def test_vocabulary_sizes_hold_every_id(toy_data):
    sizes = toy_data.vocabulary_sizes
    assert sizes["item_id"] == 1 + ITEMS + 2  # padding, vocabulary, out-of-vocabulary buckets
    assert sizes["user_id"] == 1 + 60
    assert set(sizes) == set(toy_data.schema.features) - {"spend", "price"}
    for split in ("train", "valid", "test"):
        for features, _ in toy_data.validation(1024, split):
            for name, size in sizes.items():
                for column in (name, f"history_{name}"):
                    if column in features and tf.size(features[column]):
                        assert tf.reduce_min(features[column]) >= 0
                        assert tf.reduce_max(features[column]) < size


def test_shown_counts_the_training_split(toy_data):
    users, items, clicked, queries = Counter(), Counter(), Counter(), Counter()
    for features, labels, keys in toy_data.evaluation(512, "train").as_numpy_iterator():
        users.update(keys["raw_user_id"].tolist())
        items.update(keys["raw_item_id"].tolist())
        clicked.update(keys["raw_item_id"][labels["ctr"] > 0].tolist())
        queries.update(tuple(ids[ids > 0].tolist()) for ids in features["query"] if ids.any())
    shown = toy_data.shown()
    assert shown.users == users
    assert shown.items == {item: (clicked[item], count) for item, count in items.items()}
    assert sorted(shown.queries.values()) == sorted(queries.values())


def test_a_broken_or_lost_file_is_named_by_who_counts_and_who_predicts(toy_data, tmp_path):
    shutil.copytree(toy_data.directory, tmp_path / "data")
    data = open_data(tmp_path / "data")
    for split in ("train", "test"):
        break_off(sorted((data.directory / split).glob("*.tfrecord.gz"))[0], 0.5)

    def model(features):
        return dict.fromkeys(data.schema.task_names, tf.zeros_like(features["scenario"], tf.float32))

    with pytest.raises(InputError, match=r"data/train/.*found a break after record"):
        data.shown()
    with pytest.raises(InputError, match=r"data/test/.*found a break after record"):
        predict(model, data, "test")
    assert 0 < data.shown(skip_corrupt=True).users.total() < data.rows("train")
    sorted((data.directory / "train").glob("*.tfrecord.gz"))[0].unlink()
    with pytest.raises(InputError, match=r"data/train: found (\d+ rows|no \*)"):
        data.shown()


def test_a_row_of_a_scenario_that_the_schema_lacks_is_named(toy_data):
    other = dataclasses.replace(toy_data, schema=toy_data.schema.model_copy(update={"scenarios": ("search", "home")}))
    named = r"test/part-.*: found the scenario 'recommendation', expected one of search, home$"
    with pytest.raises(InputError, match=named), other.naming_broken("test"):
        list(other.evaluation(64))


def test_unfinished_data_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"found no _SUCCESS, expected a directory that `usr-tf preprocess` finished"):
        open_data(tmp_path)


def test_rows_of_an_earlier_version_are_refused(toy_data, tmp_path):
    """Which said nothing of their format."""
    (tmp_path / "schema.yaml").write_text(toy_data.schema.to_yaml())
    stats = json.loads((toy_data.directory / "stats.json").read_text())
    assert stats.pop("format") == 2
    (tmp_path / "stats.json").write_text(json.dumps(stats))
    (tmp_path / "_SUCCESS").touch()
    expected = (
        f"{tmp_path}: found rows of another version (format None in stats.json), expected those of this one (2): "
        "run `usr-tf preprocess` again"
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        open_data(tmp_path)


def test_a_split_without_files_is_refused(toy_data, tmp_path):
    shutil.copytree(toy_data.directory, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "valid")
    data = open_data(tmp_path / "data")
    assert data.schema == toy_data.schema
    with pytest.raises(InputError, match=r"data/valid: found no \*.tfrecord.gz, expected the split"):
        data.validation(8)
