import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_transform as tft

from tests.usr_tf.fixtures import small_config
from usr_tf.data import Data, open_data
from usr_tf.errors import InputError
from usr_tf.model import USRModel
from usr_tf.run import open_run
from usr_tf.train import train
from usr_tf.training.warm_start import check_warm_start, warm_start

NEW_ITEMS = ("i97", "i98", "i99")


@pytest.fixture(scope="module")
def grown(toy_data, tmp_path_factory) -> Data:
    """The toy shop's data after three items more have come."""
    folder = tmp_path_factory.mktemp("grown") / "data"
    shutil.copytree(toy_data.directory, folder)
    with vocabulary_of_items(folder / "transform").open("a", encoding="utf-8") as file:
        file.writelines(f"{item}\n" for item in NEW_ITEMS)
    return open_data(folder)


def vocabulary_of_items(transform: Path) -> Path:
    return Path(tft.TFTransformOutput(str(transform)).vocabulary_file_by_name("item_id"))


def new_model(data: Data) -> USRModel:
    model = USRModel.from_data(data, small_config())
    model.compile()
    return model


def test_old_ids_keep_their_vectors_and_new_ones_start(toy_run, grown):
    model = new_model(grown)
    optimizer = model.optimizer
    place = model.embedding.places["item_id"]
    table = model.embedding.tables[str(place.width)]
    fresh = table.numpy()
    warm_start(model, toy_run)
    old = toy_run.load_model()
    assert place.ids == old.embedding.places["item_id"].ids + len(NEW_ITEMS)
    accumulator = optimizer.state(table)["accumulator"].numpy()
    for name, now in model.embedding.places.items():
        was = old.embedding.places[name]
        mine = model.embedding.tables[str(now.width)].numpy()[now.before + 1 : now.before + 1 + was.ids]
        others = old.embedding.tables[str(was.width)].numpy()[was.before + 1 : was.before + 1 + was.ids]
        np.testing.assert_array_equal(mine, others, err_msg=name)
    new_rows = slice(place.before + 1 + place.ids - len(NEW_ITEMS), place.before + 1 + place.ids)
    np.testing.assert_array_equal(table.numpy()[new_rows], fresh[new_rows])
    assert not table.numpy()[0].any()
    np.testing.assert_allclose(accumulator[new_rows], 1e-7)
    assert accumulator[place.before + 1 : new_rows.start].max() > 1e-4
    for mine, others in zip(model.backbone.weights, old.backbone.weights, strict=True):
        np.testing.assert_array_equal(mine, others)
    assert np.abs(optimizer.state(model.backbone.trainable_weights[0])["m"]).max() > 0
    assert int(optimizer.iterations) > 0


@pytest.mark.slow  # two trainings
def test_a_warm_run_starts_better_than_a_cold_one(toy_run, grown, tmp_path):
    losses = {}
    for name, warm in (("cold", None), ("warm", str(toy_run.directory))):
        train(grown, tmp_path / name, small_config(train={"epochs": 1, "warm_start": warm}), verbose=False)
        (first,) = (tmp_path / name / "history.jsonl").read_text(encoding="utf-8").splitlines()
        losses[name] = json.loads(first)["loss"]
    assert losses["warm"] < losses["cold"] - 0.1


def test_ids_that_have_moved_are_refused(toy_run, toy_data, tmp_path):
    shutil.copytree(toy_data.directory, tmp_path / "data")
    file = vocabulary_of_items(tmp_path / "data" / "transform")
    file.write_text("".join(reversed(file.read_text(encoding="utf-8").splitlines(keepends=True))), encoding="utf-8")
    with pytest.raises(InputError, match=r"other ids of item_id than .*--grow_from"):
        check_warm_start(toy_run, open_data(tmp_path / "data"), small_config())


def test_what_does_not_fit_is_refused_before_anything_is_written(toy_run, grown, tmp_path):
    wider = small_config(shared_bottom={"bottom": [9, 6]}, train={"warm_start": str(toy_run.directory)})
    with pytest.raises(InputError, match=r"train.warm_start: found .* with shared_bottom .*8.*, expected .*9"):
        train(grown, tmp_path / "run", wider)
    missing = small_config(train={"warm_start": str(tmp_path / "nowhere")})
    with pytest.raises(InputError, match=r"nowhere: found no _SUCCESS"):
        train(grown, tmp_path / "run", missing)
    assert not (tmp_path / "run").exists()


def test_an_older_run_without_its_last_checkpoint_is_refused(toy_run, grown, tmp_path):
    copy = shutil.copytree(toy_run.directory, tmp_path / "older")
    shutil.rmtree(open_run(copy).latest)
    with pytest.raises(InputError, match=r"latest: found no checkpoint"):
        check_warm_start(open_run(copy), grown, small_config())
