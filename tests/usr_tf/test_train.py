import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import json
import math
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.usr_tf.fixtures import random_rows, sizes_of, small_config
from usr_tf.data import Data
from usr_tf.errors import InputError
from usr_tf.model import USRModel
from usr_tf.optimizers import make_optimizer
from usr_tf.run import Run
from usr_tf.schema import SUCCESS, parse_schema
from usr_tf.train import Checkpoints, train

PLAIN = {"ie": False, "fg": False, "glmt": False, "contrastive": False}
FIGURES = {"auc", "gauc", "logloss", "ne", "calibration", "ndcg@10", "n", "positives"}


def history_of(run: Run) -> list[dict]:
    return [json.loads(line) for line in (run.directory / "history.jsonl").read_text().splitlines()]


# A whole run


def test_loss_falls_and_auc_rises(toy_run):
    epochs = history_of(toy_run)
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    assert epochs[2]["loss"] < epochs[1]["loss"] < epochs[0]["loss"]
    assert epochs[2]["val_nll"] < epochs[0]["val_nll"]
    for scenario in ("search", "recommendation"):
        assert epochs[2][f"val_{scenario}/ctr_auc"] > 0.65
        assert epochs[2][f"val_{scenario}/ctr_auc"] > epochs[0][f"val_{scenario}/ctr_auc"] - 0.02
    assert not [name for name in epochs[0] if name.startswith("val_") and name.endswith("contrastive")]


def test_metrics_have_the_form_of_the_contract(toy_run, toy_data):
    document = json.loads((toy_run.directory / "metrics.json").read_text())
    assert set(document) == {"scenarios", "overall"}
    assert list(document["scenarios"]) == ["search", "recommendation"]
    for scenario in (*document["scenarios"].values(), document["overall"]):
        assert list(scenario) == ["ctr", "ctcvr"]
        for figures in scenario.values():
            assert set(figures) == FIGURES  # no oracle_auc: the toy logs have no true probabilities
    assert document["overall"]["ctr"]["n"] == toy_data.rows("valid")


def test_metrics_are_those_of_the_best_epoch(toy_run):
    document = json.loads((toy_run.directory / "metrics.json").read_text())
    best = min(history_of(toy_run), key=lambda epoch: epoch["val_nll"])
    overall = document["overall"]
    assert overall["ctr"]["logloss"] + overall["ctcvr"]["logloss"] == pytest.approx(best["val_nll"], rel=1e-4)
    for name, figures in document["scenarios"].items():  # a streaming AUC of bins against the exact one
        assert figures["ctr"]["auc"] == pytest.approx(best[f"val_{name}/ctr_auc"], abs=0.005)


def test_a_run_holds_all_it_needs(toy_run, toy_data):
    names = {path.name for path in toy_run.directory.iterdir()}
    expected = {"config.yaml", "schema.yaml", "checkpoints", "logs", "metrics.json", "transform", "requests", SUCCESS}
    assert names == expected | {"history.jsonl"}
    assert toy_run.config == small_config(data=str(toy_data.directory.resolve()))
    assert toy_run.schema == toy_data.schema


def test_tensorboard_shows_each_scenario(toy_run):
    tags: dict[str, set] = {}
    for path in (toy_run.directory / "logs").glob("*/events*"):
        events = tf.compat.v1.train.summary_iterator(str(path))
        tags.setdefault(path.parent.name, set()).update(value.tag for event in events for value in event.summary.value)
    wanted = {f"epoch_{scenario}/{task}_auc" for scenario in ("search", "recommendation") for task in ("ctr", "ctcvr")}
    assert wanted | {"epoch_loss", "epoch_nll"} <= tags["train"]
    assert wanted | {"epoch_loss", "epoch_nll"} <= tags["validation"]
    assert "epoch_interest_contrastive" in tags["train"]


def test_a_finished_run_is_refused(toy_run, toy_data):
    with pytest.raises(InputError, match="found a finished run, expected a new directory or an unfinished run"):
        train(toy_data, toy_run.directory, small_config())


def test_another_configuration_is_refused(toy_run, toy_data, tmp_path):
    copy = unfinished_copy(toy_run, tmp_path)
    with pytest.raises(InputError, match=r"config\.yaml: found another configuration than this one, expected the same"):
        train(toy_data, copy.directory, small_config(embedding_size=5))


def unfinished_copy(run: Run, folder) -> Run:
    """The run as if it had been killed after its last epoch."""
    directory = folder / "run"
    shutil.copytree(run.directory, directory)
    (directory / SUCCESS).unlink()
    (directory / "metrics.json").unlink()
    return Run(directory, run.config, run.schema)


def test_a_run_killed_after_its_last_epoch_is_only_evaluated(toy_run, toy_data, tmp_path):
    copy = unfinished_copy(toy_run, tmp_path)
    document = train(toy_data, copy.directory, small_config(), verbose=0)
    assert document == json.loads((toy_run.directory / "metrics.json").read_text())
    assert history_of(copy) == history_of(toy_run)
    assert (copy.directory / SUCCESS).exists()


@pytest.fixture(scope="module")
def killed(toy_data, tmp_path_factory):
    """Directories of a run that went through, and of one killed in its second epoch, and the latter's first line."""
    config = small_config(usr=PLAIN, train={"epochs": 2})
    folder = tmp_path_factory.mktemp("killed")
    train(toy_data, folder / "whole", config, verbose=0)
    end_epoch = Checkpoints.on_epoch_end

    def killed_in_the_second(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt
        end_epoch(self, epoch, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "on_epoch_end", killed_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            train(toy_data, folder / "cut", config, verbose=0)
    whole, cut = (Run(folder / name, config, toy_data.schema) for name in ("whole", "cut"))
    before = history_of(cut)
    assert not (cut.directory / SUCCESS).exists()
    assert not (cut.directory / "metrics.json").exists()
    train(toy_data, cut.directory, config, verbose=0)
    return whole, cut, before


@pytest.mark.slow
def test_the_same_seed_makes_the_same_epoch(killed):
    whole, _, before = killed
    assert len(before) == 1
    assert history_of(whole)[0] == pytest.approx(before[0], rel=1e-5)


@pytest.mark.slow
def test_a_killed_run_goes_on_after_its_last_epoch(killed):
    whole, cut, before = killed
    epochs = history_of(cut)
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert epochs[0] == before[0]
    assert epochs[1]["nll"] < epochs[0]["nll"]
    # The rows come in another order than in the run that went through, hence near and not equal.
    assert epochs[1]["nll"] == pytest.approx(history_of(whole)[1]["nll"], rel=0.05)
    assert (cut.directory / SUCCESS).exists()
    assert json.loads((cut.directory / "metrics.json").read_text())["overall"]["ctr"]["n"] > 0


def test_without_validation_and_test_rows(toy_data, tmp_path):
    shutil.copytree(toy_data.directory, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "requests")
    stats = json.loads((tmp_path / "data" / "stats.json").read_text())
    for split in ("valid", "test"):
        for path in (tmp_path / "data" / split).iterdir():
            with tf.io.TFRecordWriter(str(path), "GZIP"):
                pass
        for counts in stats["splits"][split].values():
            counts.update(dict.fromkeys(counts, 0))
    (tmp_path / "data" / "stats.json").write_text(json.dumps(stats))
    config = small_config(usr=PLAIN, train={"epochs": 1, "monitor": "val_recommendation/ctr_auc"})
    document = train(Data(tmp_path / "data", toy_data.schema), tmp_path / "run", config, verbose=0)
    nothing = dict.fromkeys(FIGURES - {"n", "positives"})
    assert document["scenarios"]["search"]["ctr"] == {**nothing, "n": 0, "positives": 0}
    text = (tmp_path / "run" / "metrics.json").read_text()
    assert '"auc": null' in text
    assert "NaN" not in text


# The callback alone, on figures written by hand

LEAST = parse_schema("""
scenarios: [search]
tasks: [{name: ctr, action: click}]
features: {item_id: {group: item, type: categorical}}
""")


class Harness:
    """A model whose weights tell the epoch, and the callback that keeps it."""

    def __init__(self, folder, validated: bool = True, **keys):
        self.config = small_config(usr=PLAIN, train=keys)
        self.run = Run(folder, self.config, LEAST)
        folder.mkdir(exist_ok=True)
        self.model = USRModel(LEAST, sizes_of(LEAST), self.config)
        self.model.make_variables()
        self.optimizer = make_optimizer(self.model, self.config.train)
        self.callback = Checkpoints(self.run, self.model, self.optimizer, self.config.train, validated)
        self.callback.set_model(self.model)
        self.model.stop_training = False

    @property
    def weight(self) -> tf.Variable:
        return self.model.heads.trainable_variables[0]

    def play(self, values: list[float], start: int = 0, name: str = "val_nll") -> int:
        """Ends epochs with these figures until it stops; the number of the last one."""
        for epoch, value in enumerate(values, start=start):
            self.weight.assign(tf.fill(self.weight.shape, float(epoch + 1)))
            self.callback.on_epoch_end(epoch, {name: value})
            if self.model.stop_training:
                return epoch + 1
        return start + len(values)

    def best_epoch(self) -> float:
        reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(self.run.best)))
        names = [name for name in reader.get_variable_to_shape_map() if name.startswith("heads/")]
        values = {float(reader.get_tensor(name).flat[0]) for name in names}
        return max(values)


def test_stops_when_patience_is_spent_and_keeps_the_best(tmp_path):
    harness = Harness(tmp_path, patience=2)
    assert harness.play([0.9, 0.5, 0.6, 0.5, 0.7, 0.1]) == 5
    assert harness.best_epoch() == 2


def test_no_patience(tmp_path):
    assert Harness(tmp_path, patience=0).play([0.9, 0.5, 0.5, 0.1]) == 3


def test_an_auc_is_better_when_higher(tmp_path):
    harness = Harness(tmp_path, patience=1, monitor="val_search/ctr_auc")
    assert harness.play([0.5, 0.7, 0.6, 0.5, 0.9], name="val_search/ctr_auc") == 4
    assert harness.best_epoch() == 2


def test_a_figure_that_was_undefined_at_first_can_still_improve(tmp_path):
    harness = Harness(tmp_path, patience=5)
    harness.play([math.nan, 0.9, math.nan, 0.8])
    assert harness.best_epoch() == 4


def test_a_figure_that_is_never_defined_leaves_a_checkpoint_and_stops(tmp_path):
    harness = Harness(tmp_path, patience=1)
    assert harness.play([math.nan] * 9) == 2
    assert harness.best_epoch() == 1


def test_without_validation_the_training_figure_is_taken(tmp_path):
    harness = Harness(tmp_path, validated=False, patience=0)
    assert harness.play([0.9, 0.5, 0.7], name="nll") == 3
    assert harness.best_epoch() == 2


def test_a_monitor_that_does_not_exist_is_refused(tmp_path):
    harness = Harness(tmp_path, monitor="val_recall")
    with pytest.raises(InputError, match=r"train.monitor: found 'val_recall', expected one of loss, val_nll"):
        harness.callback.on_epoch_end(0, {"val_nll": 1.0, "loss": 1.0})


def test_best_patience_weights_and_optimizer_are_remembered(tmp_path):
    first = Harness(tmp_path, patience=2)
    rows = random_rows(LEAST, 8)
    with tf.GradientTape() as tape:
        loss = first.model.compute_loss(rows, training=True)
    variables = first.model.trainable_variables
    first.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
    first.play([0.5, 0.6])

    again = Harness(tmp_path, patience=2)
    assert again.callback.restore() == 2
    for one, other in zip(first.model.trainable_variables, again.model.trainable_variables, strict=True):
        np.testing.assert_array_equal(one, other)
    with tf.GradientTape() as tape:  # the same step from here on
        loss = again.model.compute_loss(rows, training=True)
    gradients = tape.gradient(loss, again.model.trainable_variables)
    for harness in (first, again):
        harness.optimizer.apply_gradients(zip(gradients, harness.model.trainable_variables, strict=True))
    for one, other in zip(first.model.trainable_variables, again.model.trainable_variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert again.play([0.7, 0.55, 0.1], start=2) == 4  # stale by one before, and 0.5 is still the one to beat
    assert again.best_epoch() == 1


def test_a_run_that_had_stopped_does_not_start_again(tmp_path):
    first = Harness(tmp_path, patience=0, epochs=9)
    assert first.play([0.5, 0.6]) == 2
    assert Harness(tmp_path, patience=0, epochs=9).callback.restore() == 9


def test_history_replaces_what_a_lost_try_wrote(tmp_path):
    harness = Harness(tmp_path, patience=9)
    harness.play([0.5, 0.6])
    harness.play([0.4], start=1)
    assert [(line["epoch"], line["val_nll"]) for line in history_of(harness.run)] == [(1, 0.5), (2, 0.4)]
