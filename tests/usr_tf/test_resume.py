"""Interrupted runs on the toy data, and runs on damaged data."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.usr_tf.broken import break_off, whole_records
from tests.usr_tf.fixtures import small_config
from usr_tf.cli import main
from usr_tf.data import Data
from usr_tf.errors import InputError
from usr_tf.model import USRModel
from usr_tf.run import Run
from usr_tf.schema import NUMBERS, SUCCESS
from usr_tf.train import train
from usr_tf.training.checkpoints import Checkpoints, newest_checkpoint

PLAIN = {"ie": False, "fg": False, "glmt": False, "contrastive": False}
ROWS, BATCHES = 2100, 17
"""Rows and batches of 128 of an epoch."""


def text_of(run: Path, name: str) -> str:
    return (run / name).read_text(encoding="utf-8")


def check_same_figures(run: Path, other: Path) -> None:
    """To 1e-5: how a sum is shared out among threads can change its last digits, from run to run on a busy machine."""
    for name in ("history.jsonl", "metrics.json"):
        texts = [text_of(each, name) for each in (run, other)]
        parts = [text.splitlines() if name.endswith("l") else [text] for text in texts]
        mine, others = (tf.nest.flatten([json.loads(part) for part in each]) for each in parts)
        assert [value is None for value in mine] == [value is None for value in others]
        for value, wanted in zip(mine, others, strict=True):
            assert value == pytest.approx(wanted, rel=1e-5, abs=1e-7, nan_ok=True)


def cut_off(data: Data, folder: Path, config, steps: int) -> None:
    """Trains that many steps more and dies."""
    end, seen = Checkpoints.on_train_batch_end, [0]

    def dies(self, batch, logs=None):
        end(self, batch, logs)
        seen[0] += 1
        if seen[0] == steps:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_end", dies)
        with pytest.raises(KeyboardInterrupt):
            train(data, folder, config, verbose=0)


def test_a_run_cut_off_within_an_epoch_is_the_unbroken_run(toy_run, toy_data, tmp_path, monkeypatch):
    """The order of the rows and all chance are functions of the seed and the step."""
    config = small_config(train={"checkpoint_steps": 5})
    cut_off(toy_data, tmp_path, config, steps=BATCHES + 8)  # three of which are lost
    assert newest_checkpoint(Run(tmp_path, config, toy_data.schema)).endswith("step-22")
    traces = {"train_step": 0, "test_step": 0}

    def counted(name: str):
        step = getattr(USRModel, name)

        def count(self, inputs):
            traces[name] += 1
            return step(self, inputs)

        return count

    for name in traces:
        monkeypatch.setattr(USRModel, name, counted(name))
    train(toy_data, tmp_path, config, verbose=0)
    check_same_figures(tmp_path, toy_run.directory)
    assert newest_checkpoint(Run(tmp_path, config, toy_data.schema)).endswith(f"step-{3 * BATCHES}")
    assert traces == {"train_step": 1, "test_step": 1}


def test_a_warm_started_run_goes_on_from_elsewhere_and_without_the_older_run(toy_run, toy_data, tmp_path, monkeypatch):
    """Yesterday's run may be gone by the time that today's is taken up again."""
    shutil.copytree(toy_run.directory, tmp_path / "yesterday")
    monkeypatch.chdir(tmp_path)
    config = small_config(train={"epochs": 1, "checkpoint_steps": 5, "warm_start": "yesterday"})
    cut_off(toy_data, tmp_path / "today", config, steps=8)
    monkeypatch.chdir("/")
    config = small_config(train={"epochs": 1, "checkpoint_steps": 5, "warm_start": str(tmp_path / "yesterday")})
    shutil.rmtree(tmp_path / "yesterday")
    train(toy_data, tmp_path / "today", config, verbose=False)
    assert newest_checkpoint(Run(tmp_path / "today", config, toy_data.schema)).endswith(f"step-{BATCHES}")


@pytest.fixture
def copy(toy_data, tmp_path) -> Data:
    shutil.copytree(toy_data.directory, tmp_path / "data")
    return Data(tmp_path / "data", toy_data.schema)


def spoil_a_price(data: Data) -> int:
    """Makes a row's price NaN; the number of its batch in the first epoch."""
    file = data.directory / "train" / "part-00001-of-00002.tfrecord.gz"
    rows = list(tf.data.TFRecordDataset(str(file), "GZIP").as_numpy_iterator())
    row = tf.train.Example.FromString(rows[500])
    row.features.feature[NUMBERS].float_list.value[data.schema.number_features.index("price")] = np.nan
    rows[500] = row.SerializeToString()
    with tf.io.TFRecordWriter(str(file), "GZIP") as writer:
        for content in rows:
            writer.write(content)
    prices = [features["price"] for features, _ in data.training(128, epochs=range(1)).as_numpy_iterator()]
    (batch,) = (number for number, values in enumerate(prices) if np.isnan(values).any())
    return batch


def test_a_loss_that_is_no_number_names_its_term_its_batch_and_what_is_in_it(copy, tmp_path, capsys):
    bad = spoil_a_price(copy)
    features, _ = next(copy.training(128, epochs=range(1), skip=bad).as_numpy_iterator())
    rows = np.bincount(features["scenario"])
    config = tmp_path / "config.yaml"
    config.write_text(small_config(usr=PLAIN, train={"checkpoint_steps": 1, "epochs": 1}).to_yaml())
    command = ["train", f"--data={copy.directory}", f"--out={tmp_path / 'run'}", f"--config={config}"]
    assert main(command) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert f"run: epoch 1, batch {bad + 1}: found ctcvr_loss, ctr_loss NaN or infinite (" in told
    assert f"({rows[0]} rows of search, {rows[1]} rows of recommendation, price NaN or infinite in 1)" in told
    assert told.endswith(f"step-{bad} is the last good checkpoint" if bad else "there is no good checkpoint yet")
    reader = tf.train.load_checkpoint(newest_checkpoint(Run(tmp_path / "run", None, copy.schema)))
    values = [reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if name.startswith("model/")]
    assert all(np.isfinite(value).all() for value in values)


def test_a_truncated_file_stops_training_and_is_left_out_where_that_is_asked_for(copy, tmp_path, caplog):
    file = copy.directory / "train" / "part-00000-of-00002.tfrecord.gz"
    total = whole_records(file)
    break_off(file, 0.6)
    whole = whole_records(file)
    config = small_config(usr=PLAIN, train={"epochs": 1})
    with pytest.raises(InputError, match=rf"part-00000-of-00002.tfrecord.gz: found a break after record {whole} \("):
        train(copy, tmp_path / "run", config, verbose=0)
    config = small_config(usr=PLAIN, train={"epochs": 1, "skip_corrupt": True})
    with caplog.at_level(logging.WARNING, "usr_tf"):
        train(copy, tmp_path / "another", config, verbose=0)
    lines = [record.getMessage() for record in caplog.records if record.name == "usr_tf.train"]
    assert f"part-00000-of-00002.tfrecord.gz: leaving out what follows record {whole} (truncated record" in lines[0]
    assert lines[1].endswith(f"train: {total - whole} of {ROWS} rows cannot be read and are left out")
    assert len(lines) == 2
    steps = -(-(ROWS - total + whole) // 128)
    assert newest_checkpoint(Run(tmp_path / "another", config, copy.schema)).endswith(f"step-{steps}")
    assert (tmp_path / "another" / SUCCESS).exists()


def test_a_directory_that_cannot_be_written_is_one_line(toy_run, toy_data, tmp_path, capsys):
    """A run killed after its last epoch has only its figures to write."""
    shutil.copytree(toy_run.directory, tmp_path / "run")
    (tmp_path / "run" / SUCCESS).unlink()
    (tmp_path / "run" / "metrics.json").unlink()
    (tmp_path / "run" / "metrics.json").mkdir()  # permissions do not hold for the superuser
    config = tmp_path / "config.yaml"
    config.write_text(toy_run.config.to_yaml())
    command = ["train", f"--data={toy_data.directory}", f"--out={tmp_path / 'run'}", f"--config={config}"]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run: found no way to write (Is a directory)" in line
    assert line.endswith("the run then goes on from its last checkpoint")
    assert json.loads(text_of(toy_run.directory, "metrics.json"))["overall"]
