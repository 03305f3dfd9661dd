import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import copy
import math
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from tests.usr_tf.fixtures import random_rows, sizes_of, small_config
from usr_tf.model import USRModel
from usr_tf.optimizers import make_optimizer
from usr_tf.schema import parse_schema
from usr_tf.training import tensorboard
from usr_tf.training.tensorboard import TensorBoardLog

SCHEMA = parse_schema("""
scenarios: [search, home]
tasks: [{name: ctr, action: click}]
features:
  item_id: {group: item, type: categorical}
  tags: {group: item, type: categorical_list, embedding_size: 3}
  price: {group: item, type: numeric}
""")
TERMS = {"loss/loss", "loss/nll", "loss/ctr_loss", "loss/global_ctr_loss", "loss/features_contrastive"}
AUC = {"search/ctr_auc", "home/ctr_auc"}
FIGURES = {"auc": 0.7, "gauc": None, "logloss": 0.4, "n": 10}


class Trained:
    """A model, its batches, and what a log of two epochs of four steps, each a `fit`, left in a folder."""

    def __init__(self, folder, **train):
        self.folder = folder
        self.config = small_config(train=train)
        self.model = USRModel(SCHEMA, sizes_of(SCHEMA), self.config)
        self.model.compile(optimizer=make_optimizer(self.model, self.config.train))
        self.batches = tf.data.Dataset.from_tensors(random_rows(SCHEMA, 32)).repeat(4)
        self.losses: list[float] = []

    def fit(self, first: int, epochs: int, finish: dict | None = None) -> None:
        with TensorBoardLog(self.folder, self.config) as log:
            for epoch in range(first, epochs):
                fitted = self.model.fit(
                    self.batches,
                    validation_data=self.batches,
                    initial_epoch=epoch,
                    epochs=epoch + 1,
                    callbacks=[log],
                    verbose=0,
                )
                self.losses += fitted.history["val_loss"]
            if finish:
                log.finish(finish, int(self.model.step))

    def events(self, name: str) -> EventAccumulator:
        return EventAccumulator(str(self.folder / name)).Reload()


def values(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    """TensorFlow 2 writes scalars as tensors."""
    return [(event.step, tf.make_ndarray(event.tensor_proto).item()) for event in events.Tensors(tag)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    trained = Trained(tmp_path_factory.mktemp("logs"), log_steps=3, histograms=True, profile="2-3")
    trained.fit(0, 2, finish={"scenarios": {"search": {"ctr": FIGURES}}, "overall": {"ctr": FIGURES}})
    return trained


def test_training_and_validation_have_the_same_names(trained):
    own = {"run/examples_per_second", "run/learning_rate"}
    curves = {
        tag for tag in trained.events("train").Tags()["tensors"] if not tag.startswith(("weights/", "embedding/"))
    }
    assert curves == TERMS | AUC | own
    assert set(trained.events("validation").Tags()["tensors"]) == (TERMS | AUC) - {"loss/features_contrastive"}


def test_curves_are_over_the_steps_of_all_fits(trained):
    train, validation = trained.events("train"), trained.events("validation")
    steps, losses = zip(*values(validation, "loss/loss"), strict=True)
    assert steps == (4, 8)  # of two epochs
    assert losses == pytest.approx(trained.losses)
    assert [step for step, _ in values(train, "loss/loss")] == [3, 4, 7, 8]  # each third since the last, and the ends
    assert all(speed > 0 for _, speed in values(train, "run/examples_per_second"))
    rates = dict(values(train, "run/learning_rate"))
    assert rates[8] == pytest.approx(trained.config.train.learning_rate)


def test_a_process_writes_one_file_a_folder(trained):
    assert [len(list((trained.folder / name).glob("events*"))) for name in ("train", "validation", ".")] == [1, 1, 1]


def test_hyperparameters_are_the_flat_configuration(trained):
    metadata = trained.events(".").SummaryMetadata("_hparams_/session_start_info")
    found = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info.hparams
    assert found["backbone"].string_value == "shared_bottom"
    assert found["train.batch_size"].number_value == trained.config.train.batch_size
    assert found["usr.ie"].bool_value is True
    assert found["shared_bottom.bottom"].string_value == "[8, 6]"
    assert found["data"].string_value == "None"


def test_the_figures_of_the_run_stand_beside_its_hyperparameters(trained):
    root = trained.events(".")
    assert values(root, "best/search/ctr_auc") == [(8, pytest.approx(0.7))]
    assert values(root, "best/overall/ctr_logloss") == [(8, pytest.approx(0.4))]
    assert "best/search/ctr_gauc" not in root.Tags()["tensors"]  # undefined
    assert "_hparams_/session_end_info" in root.Tags()["tensors"]


def test_histograms_on_request_are_of_every_weight_and_feature(trained):
    events = trained.events("train")
    drawn = {tag for tag in events.Tags()["tensors"] if tag.startswith(("weights/", "embedding/"))}
    weights = [weight for part, layer in trained.model.parts.items() if part != "embedding" for weight in layer.weights]
    assert {"embedding/item_id", "embedding/tags"} <= drawn
    assert len(drawn) == len(weights) + 2  # no two weights under one name
    buckets = tf.make_ndarray(events.Tensors("embedding/tags")[-1].tensor_proto)  # [n, (left, right, count)]
    assert buckets[:, 2].sum() == 6 * 3  # six ids beside padding, three wide


def test_a_histogram_is_of_some_rows_of_a_large_table(trained, monkeypatch):
    monkeypatch.setattr(tensorboard, "_SAMPLED_ROWS", 4)
    vectors = dict(tensorboard._sampled_embeddings(trained.model))
    assert vectors["item_id"].shape == [4, 4]
    again = dict(tensorboard._sampled_embeddings(trained.model))
    np.testing.assert_array_equal(vectors["tags"], again["tags"])


def test_a_profile_on_request_is_written_once(trained):
    assert len(list(trained.folder.glob("plugins/profile/*/*.xplane.pb"))) == 1


def test_another_try_goes_on_with_the_curves_and_takes_no_profile_again(trained, tmp_path):
    again = copy.copy(trained)
    again.folder, again.losses = shutil.copytree(trained.folder, tmp_path / "logs"), []  # the others read these too
    again.fit(2, 3)
    assert [step for step, _ in values(again.events("validation"), "loss/loss")] == [4, 8, 12]
    assert len(list(again.folder.glob("plugins/profile/*/*.xplane.pb"))) == 1


def test_without_requests_there_is_a_point_an_epoch_and_nothing_else(tmp_path):
    trained = Trained(tmp_path, log_steps=None)
    log = TensorBoardLog(tmp_path, trained.config)
    log.set_model(trained.model)
    with log:
        log.on_epoch_begin(0)
        for batch in range(5):
            log.on_train_batch_begin(batch)
            log.on_train_batch_end(batch, {})  # a figure that were read would be missing
        trained.model.step.assign(5)
        log.on_epoch_end(0, {"loss": 0.5, "search/ctr_auc": math.nan, "val_loss": 0.25})
    events = trained.events("train")
    assert values(events, "loss/loss") == [(5, 0.5)]
    assert math.isnan(values(events, "search/ctr_auc")[0][1])
    assert not [tag for tag in events.Tags()["tensors"] if tag.startswith(("weights/", "embedding/"))]
    assert not (tmp_path / "plugins").exists()
