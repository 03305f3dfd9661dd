"""Training workload: rows of `usr_tf.data` equal those of the peers."""

import numpy as np
import pytest

from benchmarks.training.measure import SCENARIOS, TASKS, auc_by_scenario
from benchmarks.training.workload import Size, generate, make_workload
from usr_tf.data import open_data
from usr_tf.schema import global_label, oracle_column

SIZE = Size(vocabulary=500, rows=400, seed=3)


@pytest.fixture(scope="module")
def workload(tmp_path_factory):
    return make_workload(SIZE, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def data(workload):
    return open_data(workload.data)


def test_open_data_knows_sizes_and_splits_without_a_transform(workload, data):
    with np.load(workload.arrays) as arrays:
        assert list(data.vocabulary_sizes.values()) == arrays["sizes"].tolist()
    assert data.vocabulary_sizes["user_id"] == data.vocabulary_sizes["item_id"] == 501
    assert [data.rows(split) for split in ("train", "valid", "test")] == [320, 0, 80]
    assert sum(len(labels["ctr"]) for _, labels in data.training(64)) == 320


def test_tfrecords_and_arrays_hold_the_same_rows(workload, data):
    with np.load(workload.arrays) as file:
        arrays = dict(file)
    seen = []
    for features, labels, keys in data.evaluation(32):
        row = np.array([int(request.decode().removeprefix("r")) for request in keys["request_id"].numpy()])
        seen += row.tolist()
        np.testing.assert_array_equal(features["scenario"], arrays["scenario"][row])
        for place, name in enumerate(data.schema.id_features):
            np.testing.assert_array_equal(features[name], arrays["fields"][row, place])
        for place, name in enumerate(data.schema.number_features):
            np.testing.assert_array_equal(features[name], arrays["numbers"][row, place])
        history = features["history_item_id"].numpy()
        np.testing.assert_array_equal(history, arrays["history"][row][:, : history.shape[1]])
        assert not arrays["history"][row][:, history.shape[1] :].any()
        np.testing.assert_array_equal(history > 0, features["history_age"].numpy() > 0)
        for place, task in enumerate(TASKS):
            np.testing.assert_array_equal(labels[task], arrays["labels"][row, place])
            np.testing.assert_array_equal(labels[global_label(task)], arrays["global_labels"][row, place])
            np.testing.assert_array_equal(keys[oracle_column(task)], arrays["oracle"][row, place])
    assert sorted(seen) == list(range(320, 400))


def test_another_vocabulary_gives_the_same_rows_under_other_ids():
    small, large = (generate(Size(vocabulary, rows=2_000)) for vocabulary in (100_000, 1_000_000))
    np.testing.assert_array_equal(small.labels, large.labels)
    np.testing.assert_array_equal(small.fields[:, 2:], large.fields[:, 2:])
    for place in (0, 1):  # ids go one to one
        pairs = set(zip(small.fields[:, place].tolist(), large.fields[:, place].tolist(), strict=True))
        assert len(pairs) == len(set(small.fields[:, place])) == len(set(large.fields[:, place]))
    assert 100_000 < large.fields[:, :2].max() <= 1_000_000


def test_the_true_probabilities_say_much_about_the_labels():
    rows = generate(Size(rows=20_000))
    assert (rows.labels <= rows.global_labels).all()
    assert (rows.labels[:, 1] <= rows.labels[:, 0]).all()
    np.testing.assert_allclose(rows.labels.mean(axis=0), rows.oracle.mean(axis=0), atol=0.01)  # 3.5 deviations
    oracle = auc_by_scenario(rows.scenario, rows.labels, rows.oracle)
    assert min(oracle[scenario][task] for scenario in SCENARIOS for task in TASKS) > 0.75
