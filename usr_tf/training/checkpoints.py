"""Checkpoints of a run: newest state, best epoch, early stopping, epoch history."""

import contextlib
import logging
import math
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.config import Train
from usr_tf.errors import InputError
from usr_tf.files import strict_json, write_whole
from usr_tf.model import USRModel
from usr_tf.run import Run
from usr_tf.training.history import read_history, write_history
from usr_tf.training.nan_guard import FiniteLosses, NotFiniteError, bad_weights
from usr_tf.training.strategies import any_worker

_LOG = logging.getLogger(__name__)

_PREFIX, _KEPT = "step-", 2
_CLOCK_STEPS = 10
"""Steps between looks at the clock: several workers have to agree on what it says."""
_UNREADABLE = tf.errors.OpError, AssertionError, LookupError, OSError, RuntimeError, ValueError
"""What TensorFlow raises for a broken checkpoint, or for another model's."""


_LOST_WORKER = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)
"""What it raises in a worker that waits for one that is gone: saving is a collective act."""


class Checkpoints(keras.callbacks.Callback):
    """Callback that saves the newest state and the best epoch, and stops early.

    A checkpoint is the whole state of the training, the figures of the epoch so far among them: a run that goes on from
    one ends as if it had never been interrupted. Written every few minutes and after each epoch, aside first; two are
    kept. `fit` itself starts at the epoch and the batch of the checkpoint, by the hook of Keras's `BackupAndRestore`.

    Put it after the callbacks that change the optimizer or stop the training, so that what they do is saved.

    Args:
      run: where to write.
      model: compiled, all its variables and its optimizer's made.
      config: the run's configuration of `train`.
      validated: whether `fit` has validation data; without it, the monitor is the training metric.
      batches: of an epoch.
    """

    def __init__(self, run: Run, model: USRModel, config: Train, validated: bool, batches: int):
        super().__init__()
        self._supports_tf_logs = True  # Keras then leaves the figures of a step on the device
        self._run, self._model, self._config, self._batches = run, model, config, batches
        self._monitor = config.monitor if validated else config.monitor.removeprefix("val_")
        self._sign = 1.0 if config.monitor.endswith("auc") else -1.0
        self._state = tf.train.Checkpoint(
            epoch=tf.Variable(0),
            batch=tf.Variable(0),
            best=tf.Variable(float("-inf")),
            best_epoch=tf.Variable(0),
            stale=tf.Variable(0),
        )
        self._metrics = tf.train.Checkpoint(**{metric.name: metric for metric in model.metrics})
        self._whole = tf.train.Checkpoint(
            model=model.checkpoint(),
            step=model.step,
            optimizer=model.optimizer,
            metrics=self._metrics,
            state=self._state,
        )
        self._best = tf.train.CheckpointManager(model.checkpoint(), str(run.best), max_to_keep=1)
        self._losses = FiniteLosses()
        self._restored: str | None = None
        self._done = 0  # batches of the epoch
        self._saved = time.monotonic()

    @property
    def epoch(self) -> int:
        """Number of finished epochs, or index of the current one."""
        return int(self._state.epoch)

    @property
    def batch(self) -> int:
        """Number of finished batches of that epoch."""
        return int(self._state.batch)

    @property
    def done(self) -> bool:
        """Whether the training has ended."""
        return self.epoch >= self._config.epochs or self._out_of_patience or self._run.summary.exists()

    @property
    def summary(self) -> dict[str, Any]:
        """Progress of the training, as in `training.json`.

        `stopped` is why: `epochs` (all are done), `patience`, or `callback`. `batches` are those of the last epoch,
        where a callback stopped in the middle of it.
        """
        stopped = "epochs" if self.epoch >= self._config.epochs else "callback"
        value = float(self._state.best)
        summary = {
            "epochs": self.epoch,
            "best_epoch": int(self._state.best_epoch),
            "monitor": self._monitor,
            "best": self._sign * value if math.isfinite(value) else None,
            "stopped": "patience" if self._out_of_patience else stopped,
        }
        return summary | ({"batches": self.batch, "of_batches": self._batches} if self.batch else {})

    @property
    def _out_of_patience(self) -> bool:
        return int(self._state.stale) >= max(1, self._config.patience)

    def restore(self) -> bool:
        """Restores the newest readable checkpoint. Returns whether there is any.

        Raises:
          InputError: there are checkpoints, and none can be read.
        """
        with writing(self._run.latest):
            _clear_half_written(self._run.latest, _PREFIX)
            _clear_half_written(self._run.best, "ckpt-")
        broken: dict[str, str] = {}
        for path in _checkpoints(self._run.latest):
            try:
                _read_through(path)
                self._whole.read(path).assert_existing_objects_matched().expect_partial()
            except _UNREADABLE as error:
                broken[path] = _reason(error)
                continue
            self._restored = path
            for other, reason in broken.items():
                _LOG.warning("%s: found no whole checkpoint (%s), going on from %s", other, reason, Path(path).name)
                _remove(other)
            return True
        for path, reason in broken.items():
            raise InputError(path, f"no whole checkpoint ({reason})", "one, or a new directory for a new run")
        return False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.model._training_state = self  # what Keras asks where to begin

    def maybe_load_initial_counters_from_ckpt(self, *_: Any, **__: Any) -> tuple[int, int]:
        """Initial epoch and batch of `fit`, by Keras's protocol."""
        return self.epoch, self.batch

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._done = self.batch
        if self._done:  # Keras has just reset the figures
            tf.train.Checkpoint(metrics=self._metrics).read(self._restored).expect_partial()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._losses.add(self.epoch, batch, logs or {})
        self._done = done = batch + 1
        waited = done % _CLOCK_STEPS == 0 and self._have_waited()
        counted = self._config.checkpoint_steps and done % self._config.checkpoint_steps == 0
        if (waited or counted) and done < self._batches:  # the epoch's end has a checkpoint of its own
            self._save(self.epoch, done)

    def _have_waited(self) -> bool:
        """Whether any worker's clock has passed the interval: workers save together."""
        waited = time.monotonic() - self._saved >= 60 * self._config.checkpoint_minutes
        return any_worker(waited, self._model.distribute_strategy)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._losses.check()
        self._save_part()  # before Keras resets the figures for the validation

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._monitor not in (logs or {}):
            raise InputError("train.monitor", repr(self._monitor), f"one of {', '.join(sorted(logs or {}))}")
        self._refuse_divergence(self._done)
        if not any(name.startswith("val_") for name in logs):
            self._save_part()
        value = self._sign * float(logs[self._monitor])
        improved = value > float(self._state.best)  # never, where it is NaN
        if improved:
            self._state.best.assign(value)
        self._state.stale.assign(0 if improved else self._state.stale + 1)
        with writing(self._run.directory):
            if improved or not self._best.checkpoints:
                self._best.save(epoch + 1)
                self._state.best_epoch.assign(epoch + 1)
            self._record(epoch, logs)
        if self._done == self._batches:
            self._save(epoch + 1, 0)  # last: a run interrupted before this does the end of the epoch again
        if self._out_of_patience:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.model._training_state = None
        with writing(self._run.directory):
            write_whole(self._run.summary, strict_json(self.summary, indent=2) + "\n")

    def _save_part(self) -> None:
        """Saves an epoch that a callback has stopped midway."""
        if 0 < self._done < self._batches:
            self._save(self.epoch, self._done)

    def _save(self, epoch: int, batch: int) -> None:
        self._refuse_divergence(batch)
        self._state.epoch.assign(epoch)
        self._state.batch.assign(batch)
        with writing(self._run.latest):
            self._whole.write(str(self._run.latest / f"{_PREFIX}{int(self._model.step.numpy())}"))
            for old in _checkpoints(self._run.latest)[_KEPT:]:
                _remove(old)
        self._saved = time.monotonic()

    def _refuse_divergence(self, done: int) -> None:
        """Raises before NaN weights are written, `done` batches into the epoch."""
        self._losses.check()
        bad = bad_weights(self._model.trainable_variables)
        if bad:
            raise NotFiniteError(self.epoch, done - 1, bad)

    def _record(self, epoch: int, logs: dict[str, Any]) -> None:
        """Appends a line to `history.jsonl`, replacing an interrupted process's line of this epoch."""
        figures = {**logs, "batches": self._done} if self._done < self._batches else logs
        before = [{k: v for k, v in line.items() if k != "epoch"} for line in read_history(self._run.history)[:epoch]]
        write_history(self._run.history, [*before, figures])


def newest_checkpoint(run: Run) -> str | None:
    """Path prefix of a run's newest checkpoint; None without one."""
    return next(iter(_checkpoints(run.latest)), None)


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Context that turns a full disk or missing permission into a one-line error."""
    try:
        yield
    except _LOST_WORKER:
        raise
    except (OSError, tf.errors.OpError) as error:
        expected = "space and permission; the run then goes on from its last checkpoint"
        raise InputError(place, f"no way to write ({_reason(error)})", expected) from error


def _checkpoints(folder: Path) -> list[str]:
    """Path prefixes of the checkpoints in a folder, newest first.

    TensorFlow writes a checkpoint aside and its index last: without one, it is not whole.
    """
    steps = [int(path.stem.removeprefix(_PREFIX)) for path in folder.glob(f"{_PREFIX}*.index")]
    return [str(folder / f"{_PREFIX}{step}") for step in sorted(steps, reverse=True)]


def _clear_half_written(folder: Path, prefix: str) -> None:
    for left in folder.glob(f"{prefix}*"):
        if left.is_dir():  # where TensorFlow writes aside
            shutil.rmtree(left)
        elif not left.with_suffix(".index").exists():
            left.unlink()


def _read_through(path: str) -> None:
    """Reads a checkpoint through and raises for damage, which a lazy restore would miss."""
    reader = tf.train.load_checkpoint(path)
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)


def _remove(path: str) -> None:
    Path(f"{path}.index").unlink(missing_ok=True)  # first: what is left is no checkpoint then
    for file in Path(path).parent.glob(f"{Path(path).name}.*"):
        file.unlink()


def _reason(error: Exception) -> str:
    """Error message without the name of TensorFlow's operation."""
    text = error.strerror if isinstance(error, OSError) else str(error)
    return re.sub(r"\{\{.*?\}\} | \[Op:.*$", "", " ".join((text or str(error)).split()))
