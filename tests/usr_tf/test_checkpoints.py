import usr_tf  # picks Keras 2, before TensorFlow comes

# isort: split
import json
import logging
import math
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import usr_tf.training.checkpoints
from tests.usr_tf.fixtures import random_rows, sizes_of, small_config
from usr_tf.errors import InputError
from usr_tf.model import USRModel
from usr_tf.optimizers import make_optimizer
from usr_tf.run import Run
from usr_tf.schema import parse_schema
from usr_tf.training.checkpoints import Checkpoints, newest_checkpoint, writing
from usr_tf.training.nan_guard import NotFiniteError

PLAIN = {"ie": False, "fg": False, "glmt": False, "contrastive": False}
BATCHES = 10
LEAST = parse_schema("""
scenarios: [search]
tasks: [{name: ctr, action: click}]
features: {item_id: {group: item, type: categorical}}
""")


class Harness:
    """A model whose weights tell the epoch, and the callback that keeps it; figures are written by hand."""

    def __init__(self, folder: Path, validated: bool = True, **keys):
        self.config = small_config(usr=PLAIN, train=keys)
        self.run = Run(folder, self.config, LEAST)
        folder.mkdir(exist_ok=True)
        self.model = USRModel(LEAST, sizes_of(LEAST), self.config)
        self.optimizer = make_optimizer(self.model, self.config.train)
        self.model.compile(self.optimizer)
        self.callback = Checkpoints(self.run, self.model, self.config.train, validated, BATCHES)
        self.callback.set_model(self.model)

    @property
    def weight(self) -> tf.Variable:
        return self.model.heads.trainable_variables[0]

    def play(self, values: list[float], name: str = "val_nll") -> int:
        """Ends epochs with these figures until the callback is done; epochs that it then has."""
        for value in values:
            self.weight.assign(tf.fill(self.weight.shape, float(self.callback.epoch + 1)))
            self.model.step.assign_add(BATCHES)
            self.end_epoch({name: value})
            if self.callback.done:
                break
        return self.callback.epoch

    def end_epoch(self, figures: dict[str, float]) -> None:
        """Does the last step of an epoch, and its end."""
        self.callback.on_epoch_begin(self.callback.epoch)
        self.callback.on_train_batch_end(BATCHES - 1, {"loss": 1.0})
        self.callback.on_epoch_end(self.callback.epoch, figures)

    def steps(self, count: int, **logs: float) -> None:
        """Takes steps of the epoch, with these figures."""
        self.callback.on_epoch_begin(self.callback.epoch)
        for batch in range(self.callback.batch, self.callback.batch + count):
            self.model.step.assign_add(1)
            self.callback.on_train_batch_end(batch, {"loss": 1.0, **logs})

    def kept(self) -> list[str]:
        return sorted(path.stem for path in self.run.latest.glob("*.index"))

    def best_epoch(self) -> float:
        reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(self.run.best)))
        names = [name for name in reader.get_variable_to_shape_map() if name.startswith("heads/")]
        return max(float(reader.get_tensor(name).flat[0]) for name in names)


def history_of(run: Run) -> list[dict]:
    return [json.loads(line) for line in (run.directory / "history.jsonl").read_text().splitlines()]


# The best epoch, and the end


def test_stops_when_patience_is_spent_and_keeps_the_best(tmp_path):
    harness = Harness(tmp_path, epochs=9, patience=3)
    assert harness.play([0.9, 0.5, 0.6, 0.5, 0.7, 0.1]) == 5
    assert harness.best_epoch() == 2


def test_no_patience(tmp_path):
    assert Harness(tmp_path, epochs=9, patience=0).play([0.9, 0.5, 0.5, 0.1]) == 3


def test_stops_after_the_last_epoch(tmp_path):
    assert Harness(tmp_path, epochs=3).play([0.9, 0.8, 0.7, 0.6]) == 3


def test_an_auc_is_better_when_higher(tmp_path):
    harness = Harness(tmp_path, epochs=9, patience=2, monitor="val_search/ctr_auc")
    assert harness.play([0.5, 0.7, 0.6, 0.5, 0.9], name="val_search/ctr_auc") == 4
    assert harness.best_epoch() == 2


def test_a_figure_that_was_undefined_at_first_can_still_improve(tmp_path):
    harness = Harness(tmp_path, epochs=9, patience=5)
    harness.play([math.nan, 0.9, math.nan, 0.8])
    assert harness.best_epoch() == 4


def test_a_figure_that_is_never_defined_leaves_a_checkpoint_and_stops(tmp_path):
    harness = Harness(tmp_path, epochs=9, patience=2)
    assert harness.play([math.nan] * 9) == 2
    assert harness.best_epoch() == 1


def test_without_validation_the_training_figure_is_taken(tmp_path):
    harness = Harness(tmp_path, validated=False, epochs=9, patience=0)
    assert harness.play([0.9, 0.5, 0.7], name="nll") == 3
    assert harness.best_epoch() == 2


def test_a_monitor_that_does_not_exist_is_refused(tmp_path):
    harness = Harness(tmp_path, monitor="val_recall")
    with pytest.raises(InputError, match=r"train.monitor: found 'val_recall', expected one of loss, val_nll"):
        harness.end_epoch({"val_nll": 1.0, "loss": 1.0})


# Going on


def test_best_patience_weights_and_optimizer_are_remembered(tmp_path):
    first = Harness(tmp_path, epochs=9, patience=3)
    rows = random_rows(LEAST, 8)
    with tf.GradientTape() as tape:
        loss = first.model.compute_loss(rows, training=True)
    variables = first.model.trainable_variables
    first.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
    first.play([0.5, 0.6])

    again = Harness(tmp_path, epochs=9, patience=3)
    again.callback.restore()
    assert (again.callback.epoch, again.callback.batch, int(again.model.step)) == (2, 0, 2 * BATCHES)
    for one, other in zip(first.model.trainable_variables, again.model.trainable_variables, strict=True):
        np.testing.assert_array_equal(one, other)
    with tf.GradientTape() as tape:  # the same step from here on
        loss = again.model.compute_loss(rows, training=True)
    gradients = tape.gradient(loss, again.model.trainable_variables)
    for harness in (first, again):
        harness.optimizer.apply_gradients(zip(gradients, harness.model.trainable_variables, strict=True))
    for one, other in zip(first.model.trainable_variables, again.model.trainable_variables, strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.play([0.7, 0.55, 0.1]) == 4  # stale by one before, and 0.5 is still the one to beat
    assert again.best_epoch() == 1


def test_a_run_that_had_stopped_does_not_start_again(tmp_path):
    assert Harness(tmp_path, patience=0, epochs=9).play([0.5, 0.6]) == 2
    again = Harness(tmp_path, patience=0, epochs=9)
    again.callback.restore()
    assert again.callback.done


def test_history_replaces_what_a_lost_try_wrote(tmp_path):
    first = Harness(tmp_path, epochs=9, patience=9)
    first.play([0.5, 0.6])
    for file in first.run.latest.glob("step-20.*"):  # killed between the line and the checkpoint
        file.unlink()
    again = Harness(tmp_path, epochs=9, patience=9)
    again.callback.restore()
    again.play([0.4])
    assert [(line["epoch"], line["val_nll"]) for line in history_of(again.run)] == [(1, 0.5), (2, 0.4)]


def test_within_an_epoch_batches_are_counted_and_the_last_one_is_left_to_the_epochs_end(tmp_path):
    first = Harness(tmp_path, checkpoint_steps=2)
    first.play([0.5])
    first.steps(5)
    assert first.kept() == ["step-12", "step-14"]  # two are kept
    again = Harness(tmp_path, checkpoint_steps=2)
    again.callback.restore()
    assert (again.callback.epoch, again.callback.batch, int(again.model.step)) == (1, 4, 14)
    again.steps(6)  # batch 4 to 9
    assert again.kept() == ["step-16", "step-18"]


def test_figures_of_the_epoch_so_far_are_remembered(tmp_path):
    first = Harness(tmp_path, checkpoint_steps=1)
    first.model.compute_loss(random_rows(LEAST, 50), training=True)
    first.steps(1)
    again = Harness(tmp_path, checkpoint_steps=1)
    again.callback.restore()
    again.model.reset_metrics()  # as Keras does where an epoch begins
    again.callback.on_epoch_begin(0)
    expected = {metric.name: float(metric.result()) for metric in first.model.metrics}
    assert 0 < expected["search/ctr_auc"] < 1
    assert {metric.name: float(metric.result()) for metric in again.model.metrics} == expected


def test_minutes_pass(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(usr_tf.training.checkpoints.time, "monotonic", lambda: clock[0])
    harness = Harness(tmp_path, checkpoint_minutes=0.5)
    harness.callback.on_epoch_begin(0)
    monkeypatch.setattr(usr_tf.training.checkpoints, "_CLOCK_STEPS", 2)
    for batch, clock[0] in enumerate([0.0, 29.0, 31.0, 32.0, 60.0, 61.0, 62.0, 63.0]):
        harness.model.step.assign_add(1)
        harness.callback.on_train_batch_end(batch, {"loss": 1.0})
    assert harness.kept() == ["step-4", "step-8"]


# Checkpoints that are not whole


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:  # a byte
        content[len(content) // 3] ^= 0xFF
        path.write_bytes(content)


@pytest.mark.parametrize("part", ["data-00000-of-00001", "index"])
@pytest.mark.parametrize("how", ["gone", "truncated", "a byte"])
def test_a_corrupt_newest_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, caplog, part, how):
    Harness(tmp_path, epochs=9).play([0.5, 0.6])
    damage(tmp_path / "checkpoints" / "latest" / f"step-20.{part}", how)
    again = Harness(tmp_path, epochs=9)
    with caplog.at_level(logging.WARNING, "usr_tf"):
        again.callback.restore()
    assert (again.callback.epoch, int(again.model.step), again.weight.numpy().max()) == (1, 10, 1.0)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("usr_tf")]
    if (part, how) == ("index", "gone"):
        assert lines == []  # as when it was never finished
    else:
        assert len(lines) == 1
        assert "step-20: found no whole checkpoint (" in lines[0]
        assert lines[0].endswith("going on from step-10")
    assert again.play([0.6, 0.7]) == 3
    assert again.kept() == ["step-20", "step-30"]


def test_where_no_checkpoint_is_whole_nothing_starts_anew(tmp_path):
    Harness(tmp_path, epochs=9).play([0.5, 0.6])
    for file in (tmp_path / "checkpoints" / "latest").glob("*.index"):
        damage(file, "truncated")
    with pytest.raises(InputError, match=r"step-20: found no whole checkpoint .* or a new directory for a new run"):
        Harness(tmp_path, epochs=9).callback.restore()


def test_another_models_checkpoint_is_refused(tmp_path):
    Harness(tmp_path).play([0.5])
    other = Harness(tmp_path, epochs=9)
    other.callback._whole.more = tf.train.Checkpoint(weight=tf.Variable(1.0))
    with pytest.raises(InputError, match="step-10: found no whole checkpoint"):
        other.callback.restore()


# Where writing fails


@pytest.fixture
def full_disk():
    """Files cannot grow past some kilobytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))

    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_in_a_line_and_leaves_the_last_checkpoint(tmp_path, full_disk):
    first = Harness(tmp_path, epochs=9, checkpoint_steps=1)
    first.play([0.5])
    full_disk()
    with pytest.raises(
        InputError, match=r"checkpoints/latest: found no way to write \(.*expected space and permission"
    ):
        first.steps(1)
    assert first.kept() == ["step-10"]
    again = Harness(tmp_path, epochs=9)
    again.callback.restore()
    assert (again.callback.epoch, again.callback.batch, again.weight.numpy().max()) == (1, 0, 1.0)


def test_a_directory_that_cannot_be_written(tmp_path):
    harness = Harness(tmp_path, checkpoint_steps=1)
    harness.run.latest.parent.mkdir()
    harness.run.latest.write_text("a file in its place")
    with pytest.raises(InputError, match=r"checkpoints/latest: found no way to write \("):
        harness.steps(1)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (
            tf.errors.ResourceExhaustedError(None, None, "{{node x}} a; No space left on device [Op:Save]"),
            "a; No space",
        ),
    ],
)
def test_errors_of_writing_are_one_line(error, told):
    with pytest.raises(InputError, match=rf"RUN: found no way to write \({told}") as caught, writing(Path("RUN")):
        raise error
    assert "{{" not in str(caught.value)
    assert "[Op" not in str(caught.value)


# Losses and weights that are no numbers


def test_the_first_bad_step_and_its_terms_are_told(tmp_path):
    harness = Harness(tmp_path, checkpoint_steps=1000)
    harness.steps(3, ctr_loss=0.5, interest_contrastive=2.0)
    figures = {"loss": math.nan, "ctr_loss": 0.5, "interest_contrastive": math.inf, "search/ctr_auc": math.nan}
    harness.callback.on_train_batch_end(3, figures)
    harness.callback.on_train_batch_end(4, {**figures, "ctr_loss": math.nan})
    with pytest.raises(NotFiniteError) as caught:
        harness.callback.on_test_begin()
    assert (caught.value.epoch, caught.value.batch, caught.value.names) == (0, 3, ["interest_contrastive"])


def test_a_bad_step_is_seen_long_before_the_epochs_end(tmp_path):
    harness = Harness(tmp_path)
    with pytest.raises(NotFiniteError, match="epoch 1, batch 1: ctr_loss not finite"):
        harness.steps(20, loss=math.nan, ctr_loss=math.nan)


def test_an_undefined_auc_is_no_bad_step(tmp_path):
    harness = Harness(tmp_path)
    harness.steps(9, **{"search/ctr_auc": math.nan})
    harness.callback.on_test_begin()


@pytest.mark.parametrize("what", ["loss", "weight"])
def test_what_is_no_number_is_never_written(tmp_path, what):
    harness = Harness(tmp_path, checkpoint_steps=2)
    harness.play([0.5])
    if what == "weight":  # the gradient of a finite loss need not be finite
        harness.weight.assign(tf.fill(harness.weight.shape, math.nan))
    with pytest.raises(NotFiniteError) as caught:
        harness.steps(2, loss=math.nan if what == "loss" else 1.0)
    assert (caught.value.epoch, caught.value.batch) == (1, 0 if what == "loss" else 1)
    assert caught.value.names == (["loss"] if what == "loss" else [harness.weight.name])
    assert harness.kept() == ["step-10"]
    assert harness.best_epoch() == 1
    assert newest_checkpoint(harness.run).endswith("step-10")


def test_the_best_epoch_too_holds_numbers(tmp_path):
    harness = Harness(tmp_path)
    harness.weight.assign(tf.fill(harness.weight.shape, math.inf))
    with pytest.raises(NotFiniteError, match="epoch 1, batch 10: "):
        harness.end_epoch({"val_nll": 0.5})
    assert not harness.run.best.exists()


def test_no_half_written_checkpoint_is_taken_for_whole_or_left(tmp_path):
    Harness(tmp_path).play([0.5])
    latest = tmp_path / "checkpoints" / "latest"
    shutil.copy(latest / "step-10.data-00000-of-00001", latest / "step-20.data-00000-of-00001")  # its index comes last
    (latest / "step-30_temp").mkdir()
    (latest / "step-30_temp" / "part-00000-of-00001.data-00000-of-00001.tempstate1").write_bytes(b"half")
    again = Harness(tmp_path)
    again.callback.restore()
    assert again.callback.epoch == 1
    assert {path.name for path in latest.iterdir()} == {"step-10.index", "step-10.data-00000-of-00001"}
