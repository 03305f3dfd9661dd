import usr_tf  # picks Keras 2, before TensorFlow comes

# isort: split
import shutil
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import tensorflow as tf

import usr_tf.data
from tests.usr_tf.broken import break_off, whole_records
from usr_tf.data import Data
from usr_tf.errors import InputError

SIZES = 900, 40, 0, 700, 460
"""Rows of the shards; the toy data have 2,100 rows to train on."""


@pytest.fixture(scope="module")
def shards(toy_data, tmp_path_factory):
    """The toy data in files of very different sizes, one of them empty."""
    folder = tmp_path_factory.mktemp("shards") / "data"
    shutil.copytree(toy_data.directory, folder)
    files = sorted(str(path) for path in (folder / "train").iterdir())
    rows = list(tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator())
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()
    assert len(rows) == sum(SIZES)
    for number, size in enumerate(SIZES):
        with tf.io.TFRecordWriter(str(folder / "train" / f"part-{number}.tfrecord.gz"), "GZIP") as writer:
            for _ in range(size):
                writer.write(rows.pop())
    return Data(folder, toy_data.schema)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(usr_tf.data.datasets, "_SHUFFLE_ROWS", 200)


def batches(data: Data, batch_size: int = 100, epoch: int = 0, **keys) -> list[list[tuple]]:
    """The rows of each batch, told apart by two numbers."""
    return rows_of(data.training(batch_size, epochs=range(epoch, epoch + 1), **keys))


def rows_of(dataset: tf.data.Dataset) -> list[list[tuple]]:
    return [
        list(zip(features["price"].tolist(), features["spend"].tolist(), strict=True))
        for features, _ in dataset.as_numpy_iterator()
    ]


@pytest.mark.parametrize(("batch_size", "last"), [(11, 10), (100, 100), (4000, 2100)])
def test_every_batch_is_full_but_the_last(shards, batch_size, last):
    sizes = [len(batch) for batch in batches(shards, batch_size)]
    assert sizes == [batch_size] * ((2100 - last) // batch_size) + [last]


def test_the_order_is_a_function_of_seed_and_epoch(shards):
    first = batches(shards, seed=1, epoch=2)
    assert batches(shards, seed=1, epoch=2) == first
    for other in (batches(shards, seed=1, epoch=3), batches(shards, seed=2, epoch=2)):
        assert other != first
        assert Counter(chain(*other)) == Counter(chain(*first))


def test_without_a_number_every_epoch_has_an_order_of_its_own(shards):
    dataset = shards.training(100, 1)
    first, second = rows_of(dataset), rows_of(dataset)
    assert first != second
    assert Counter(chain(*first)) == Counter(chain(*second)) == Counter(chain(*batches(shards)))
    assert dataset.cardinality() == 21


def test_the_order_does_not_hang_on_threads(shards, monkeypatch):
    first = batches(shards, seed=1)
    dataset = shards.training(100, 1, epochs=range(1))
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    alone = [features["price"].tolist() for features, _ in dataset.with_options(options).as_numpy_iterator()]
    assert alone == [[price for price, _ in batch] for batch in first]


def test_every_block_of_every_file_is_shuffled_in_its_own_way(shards):
    epoch = np.concatenate(list(shards._shuffled(100, 0, 0, False).as_numpy_iterator())).tolist()
    place = {row: number for number, row in enumerate(epoch)}
    orders = set()
    for file in ("part-0", "part-3"):
        rows = usr_tf.data.datasets._records(str(shards.directory / "train" / f"{file}.tfrecord.gz"))
        for block in rows.batch(200, drop_remainder=True).as_numpy_iterator():
            orders.add(tuple(np.argsort([place[row] for row in block])))
    assert len(orders) == 4 + 3  # blocks
    assert tuple(range(200)) not in orders


@pytest.mark.parametrize("skip", [1, 13, 20])
def test_what_is_skipped_is_the_start_of_the_same_epoch(shards, skip):
    whole = batches(shards, seed=3, epoch=1)
    assert batches(shards, seed=3, epoch=1, skip=skip) == whole[skip:]
    assert len(whole) == 21


def test_epochs_follow_each_other_each_in_its_own_order(shards):
    three = shards.training(100, seed=3, epochs=range(1, 4), skip=5)
    expected = [batch for epoch in (1, 2, 3) for batch in batches(shards, seed=3, epoch=epoch)]
    assert rows_of(three) == expected[5:]
    assert three.cardinality() == 3 * 21 - 5


# Files that are broken


@pytest.fixture
def copy(shards, tmp_path) -> Data:
    shutil.copytree(shards.directory, tmp_path / "data")
    return Data(tmp_path / "data", shards.schema)


def test_whole_files_are_read_through(shards):
    assert [(shard.records, shard.broken) for shard in shards.read_through("train")] == [(n, None) for n in SIZES]
    shards.refuse_broken("train")
    shards.refuse_broken("valid")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_and_its_last_whole_record_are_named(copy, share):
    file = copy.directory / "train" / "part-3.tfrecord.gz"
    break_off(file, share)
    with pytest.raises((tf.errors.DataLossError, tf.errors.FailedPreconditionError)):
        batches(copy)
    # TensorFlow takes a cut that falls between two records for the end of the file
    reason = r"\((truncated record at \d+|Compressed file ended before)"
    expected = rf"part-3\.tfrecord\.gz: found a break after record {whole_records(file)} {reason}"
    with pytest.raises(InputError, match=expected + r".*expected whole records.*train\.skip_corrupt=true"):
        copy.refuse_broken("train")


def test_a_broken_file_of_another_split_has_no_way_around(copy):
    (file,) = list((copy.directory / "valid").iterdir())[:1]
    break_off(file, 0.5)
    with pytest.raises(InputError, match=r"valid/.*found a break after record \d+.*as preprocess wrote them$"):
        copy.refuse_broken("valid")


def test_the_rest_of_a_broken_file_is_left_out_where_that_is_asked_for(copy):
    file = copy.directory / "train" / "part-0.tfrecord.gz"
    break_off(file, 0.5)
    rows = 2100 - 900 + whole_records(file)
    read = batches(copy, skip_corrupt=True)
    assert sum(map(len, read)) == rows == sum(shard.records for shard in copy.read_through("train"))
    assert {len(batch) for batch in read[:-1]} == {100}
    assert batches(copy, skip_corrupt=True, skip=5) == read[5:]


def test_a_lost_file_does_not_go_unnoticed(copy):
    (copy.directory / "train" / "part-3.tfrecord.gz").write_bytes(b"")
    with pytest.raises(tf.errors.FailedPreconditionError):
        batches(copy)
    empty = ", none of them in part-2.tfrecord.gz, none of them in part-3.tfrecord.gz"
    with pytest.raises(InputError, match=f"train: found 1400 rows{empty}, expected 2100, as stats.json says"):
        copy.refuse_broken("train")
