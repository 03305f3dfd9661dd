import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_transform as tft

from tests.usr_tf.fixtures import small_config
from usr_tf.config import Config
from usr_tf.data import Data, open_data
from usr_tf.errors import InputError
from usr_tf.model import USRModel
from usr_tf.optimizers import make_optimizer, make_state
from usr_tf.run import Run, create_run
from usr_tf.train import train
from usr_tf.warm_start import warm_start

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


def new_run(data: Data, out: Path, config: Config | None = None) -> tuple[USRModel, object, Run]:
    config = config or small_config()
    model = USRModel.from_data(data, config)
    model.make_variables()
    optimizer = make_optimizer(model, config.train)
    make_state(optimizer, model)
    return model, optimizer, create_run(out, data, config)


def test_old_ids_keep_their_vectors_and_new_ones_start(toy_run, grown, tmp_path):
    model, optimizer, run = new_run(grown, tmp_path / "run")
    place = model.embedding.places["item_id"]
    table = model.embedding.tables[str(place.width)]
    fresh = table.numpy()
    warm_start(model, optimizer, run, toy_run)
    old = toy_run.load_model()
    assert place.ids == old.embedding.places["item_id"].ids + len(NEW_ITEMS)
    accumulator = optimizer.optimizers[0].get_slot(table, "accumulator").numpy()
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
    momentum = optimizer.optimizers[1].get_slot(model.backbone.trainable_weights[0], "m")
    assert np.abs(momentum).max() > 0
    assert all(int(part.iterations) > 0 for part in optimizer.optimizers)


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
        warm_start(*new_run(open_data(tmp_path / "data"), tmp_path / "run"), toy_run)


def test_other_layers_are_refused(toy_run, grown, tmp_path):
    wider = small_config(shared_bottom={"bottom": [9, 6]})
    with pytest.raises(InputError, match=r"train.warm_start: found .* where this model has .*expected a run of"):
        warm_start(*new_run(grown, tmp_path / "run", wider), toy_run)
