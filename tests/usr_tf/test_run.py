import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.usr_tf.fixtures import random_rows, small_config
from usr_tf.config import load_config
from usr_tf.data import Data
from usr_tf.errors import InputError
from usr_tf.files import replace_text
from usr_tf.run import create_run, open_run, open_run_data
from usr_tf.schema import SUCCESS, parse_schema


def test_a_new_run_has_settings_schema_transform_and_requests(toy_data, tmp_path):
    run = create_run(tmp_path / "deep" / "run", toy_data, small_config())
    names = {path.name for path in run.directory.iterdir()}
    assert names == {"config.yaml", "schema.yaml", "transform", "requests"}
    assert {path.name for path in run.requests.iterdir()} == {"search.jsonl", "recommendation.jsonl"}
    again = create_run(run.directory, toy_data, small_config())
    assert again == run


def test_another_configuration_is_refused(toy_data, tmp_path):
    create_run(tmp_path, toy_data, small_config())
    with pytest.raises(InputError, match="found another configuration"):
        create_run(tmp_path, toy_data, small_config(seed=1))


def test_what_no_step_depends_on_may_change_while_a_run_is_unfinished(toy_data, tmp_path):
    create_run(tmp_path, toy_data, small_config())
    longer = small_config(train={"epochs": 9, "skip_corrupt": True, "profile": "5-7"})
    assert create_run(tmp_path, toy_data, longer).config == load_config(tmp_path / "config.yaml") == longer
    with pytest.raises(InputError, match="found another configuration"):
        create_run(tmp_path, toy_data, small_config(train={"batch_size": 64}))


def test_another_schema_is_refused(toy_data, tmp_path):
    create_run(tmp_path, toy_data, small_config())
    other = toy_data.schema.model_copy(update={"scenarios": ("search", "feed")})
    with pytest.raises(InputError, match=r"found another schema than the run's, expected that of .*schema.yaml"):
        create_run(tmp_path, Data(toy_data.directory, other), small_config())


def test_another_transform_is_refused(toy_data, tmp_path):
    run = create_run(tmp_path / "run", toy_data, small_config())
    vocabulary = next((run.transform / "transform_fn" / "assets").iterdir())
    vocabulary.write_bytes(b"another\n" + vocabulary.read_bytes())
    with pytest.raises(InputError, match="found another transform than the run's"):
        create_run(tmp_path / "run", toy_data, small_config())
    with pytest.raises(InputError, match="found another transform than the run's"):
        open_run_data(run, toy_data.directory)


def test_weights_of_another_model_are_refused(toy_data, tmp_path):
    run = create_run(tmp_path, toy_data, small_config())
    tf.train.Checkpoint(embedding=tf.train.Checkpoint()).save(str(run.best / "ckpt"))
    with pytest.raises(InputError, match="found weights of another model"):
        run.load_model()


def test_a_finished_run_is_refused(toy_data, tmp_path):
    create_run(tmp_path, toy_data, small_config())
    (tmp_path / SUCCESS).touch()
    with pytest.raises(InputError, match="found a finished run"):
        create_run(tmp_path, toy_data, small_config())


@pytest.mark.parametrize("place", ["taken", "taken/run"])
def test_a_directory_that_cannot_be_is_refused(toy_data, tmp_path, place):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match="found no writable directory"):
        create_run(tmp_path / place, toy_data, small_config())


def test_an_unfinished_run_is_not_opened(toy_data, tmp_path):
    run = create_run(tmp_path, toy_data, small_config())
    with pytest.raises(InputError, match=r"found no _SUCCESS, expected a directory that `usr-tf train` finished"):
        open_run(run.directory)
    with pytest.raises(InputError, match=r"checkpoints/best: found no checkpoint, expected the one that training left"):
        run.load_model()


def test_a_moved_run_scores_as_before(toy_run, tmp_path):
    shutil.copytree(toy_run.directory, tmp_path / "elsewhere")
    features, _ = random_rows(toy_run.schema, 6, size=5)
    here, there = toy_run.load_model(), open_run(tmp_path / "elsewhere").load_model()
    for name, values in here(features).items():
        np.testing.assert_array_equal(there(features)[name], values)


def test_the_model_has_the_weights_of_the_best_epoch(toy_run):
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(toy_run.best)))
    shapes = reader.get_variable_to_shape_map()
    name = next(name for name in shapes if "embedding/table_4/" in name and "VARIABLE" in name)
    table = next(v for v in toy_run.load_model().table_variables if "table_4" in v.name)
    np.testing.assert_array_equal(table, reader.get_tensor(name))


def test_data_of_the_run_is_the_default(toy_run, toy_data):
    assert open_run_data(toy_run, None).directory == toy_data.directory.resolve()


def test_data_that_has_gone_or_was_never_named_is_refused(toy_run, tmp_path):
    with pytest.raises(InputError, match="found no _SUCCESS"):
        open_run_data(toy_run, tmp_path)
    nameless = type(toy_run)(toy_run.directory, small_config(), toy_run.schema)
    with pytest.raises(InputError, match=r"--data: found nothing, expected the directory of the data"):
        open_run_data(nameless, None)


def test_data_that_are_split_otherwise_are_taken(toy_run, toy_data, tmp_path):
    shutil.copytree(toy_data.directory, tmp_path / "data")
    split = toy_run.schema.split.model_copy(update={"valid": 0.0, "test": 0.5})
    other = toy_run.schema.model_copy(update={"split": split})
    (tmp_path / "data" / "schema.yaml").write_text(other.to_yaml())
    assert open_run_data(toy_run, tmp_path / "data").schema == other


def test_data_of_another_schema_is_refused(toy_run, toy_data, tmp_path):
    other = parse_schema(toy_run.schema.to_yaml().replace("max_length: 4", "max_length: 5"))
    (tmp_path / SUCCESS).touch()
    (tmp_path / "schema.yaml").write_text(other.to_yaml())
    shutil.copy(toy_data.directory / "stats.json", tmp_path)
    with pytest.raises(InputError, match=r"found another schema than the run's"):
        open_run_data(toy_run, tmp_path)


@pytest.mark.parametrize("name", ["folder", "file/within.txt", "nowhere/within.txt"])
def test_a_file_that_cannot_be_written_is_told_in_one_line(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("as it was")
    with pytest.raises(InputError, match=rf"{name}: found no writable file \(.+\), expected one that can be written"):
        replace_text(tmp_path / name, "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "as it was"


def test_replace_text_leaves_one_file(tmp_path):
    path = tmp_path / "file"
    for text in ("one", "two"):
        replace_text(path, text)
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]
