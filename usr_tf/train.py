"""Training: `model.fit` with early stopping, the best checkpoint, and going on after an interruption."""

import json
import logging
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.config import Config, Train
from usr_tf.data import Data
from usr_tf.errors import InputError
from usr_tf.evaluate import predict
from usr_tf.files import replace_text
from usr_tf.metrics import metrics_document
from usr_tf.model import USRModel
from usr_tf.optimizers import make_optimizer
from usr_tf.run import Run, create_run
from usr_tf.schema import SUCCESS

_LOG = logging.getLogger(__name__)


def train(
    data: Data, out: str | Path, config: Config, strategy: tf.distribute.Strategy | None = None, verbose: int = 1
) -> dict:
    """Trains a model and leaves the run in `out`. Called again on an unfinished run, it goes on after its last epoch.

    Args:
      strategy: by default one replica a GPU, or TensorFlow's default without any.
      verbose: as for `model.fit`.

    Returns:
      What the run's `metrics.json` holds: the figures of the best epoch on the validation split.

    Raises:
      InputError: `out` is taken, or no metric has the name `config.train.monitor`.
    """
    config = config.model_copy(update={"data": str(data.directory.resolve())})
    keras.utils.set_random_seed(config.seed)
    strategy = strategy or default_strategy()
    _LOG.info("%d replicas in sync", strategy.num_replicas_in_sync)
    with strategy.scope():
        model = USRModel.from_data(data, config)
        optimizer = make_optimizer(model, config.train)
    model.compile(optimizer=optimizer)
    _check_monitor(config.train.monitor, model)
    run = create_run(Path(out), data, config)
    valid = data.validation(config.train.batch_size) if data.rows("valid") else None
    checkpoints = Checkpoints(run, model, optimizer, config.train, validated=valid is not None)
    model.fit(
        data.training(config.train.batch_size, config.seed, config.position_tower.enabled),
        validation_data=valid,
        epochs=config.train.epochs,
        initial_epoch=checkpoints.restore(),
        callbacks=[
            checkpoints,
            keras.callbacks.TensorBoard(str(run.directory / "logs"), write_graph=False, profile_batch=0),
            keras.callbacks.TerminateOnNaN(),
        ],
        verbose=verbose,
    )
    document = metrics_document(predict(run.load_model(), data, "valid", config.train.batch_size), data.schema)
    replace_text(run.directory / "metrics.json", json.dumps(document, indent=2) + "\n")
    (run.directory / SUCCESS).touch()
    return document


def default_strategy() -> tf.distribute.Strategy:
    """One replica a GPU; TensorFlow's default strategy where there is none."""
    return tf.distribute.MirroredStrategy() if tf.config.list_logical_devices("GPU") else tf.distribute.get_strategy()


def _check_monitor(monitor: str, model: USRModel) -> None:
    """Refuses the name of no validation metric before anything is written."""
    known = [metric.name for metric in model.metrics if not metric.name.endswith("_contrastive")]  # training's alone
    if monitor.removeprefix("val_") not in known:
        raise InputError("train.monitor", repr(monitor), f"val_ and one of {', '.join(known)}")


class Checkpoints(keras.callbacks.Callback):
    """Keeps the newest and the best epoch, and stops when the monitored metric has not improved for long enough.

    What it has seen so far is part of the checkpoint, so a run that goes on remembers its best epoch.

    Args:
      validated: whether `fit` has validation data; without it, the monitor is the training metric.
    """

    def __init__(
        self, run: Run, model: USRModel, optimizer: keras.optimizers.Optimizer, config: Train, validated: bool
    ):
        super().__init__()
        self._run = run
        self._monitor = config.monitor if validated else config.monitor.removeprefix("val_")
        self._sign = 1.0 if config.monitor.endswith("auc") else -1.0
        self._patience, self._epochs = config.patience, config.epochs
        self._state = tf.train.Checkpoint(epochs=tf.Variable(0), best=tf.Variable(float("-inf")), stale=tf.Variable(0))
        whole = tf.train.Checkpoint(model=model.checkpoint(), optimizer=optimizer, state=self._state)
        self._latest = tf.train.CheckpointManager(whole, str(run.latest), max_to_keep=1)
        self._best = tf.train.CheckpointManager(model.checkpoint(), str(run.best), max_to_keep=1)

    def restore(self) -> int:
        """Epochs that an earlier try has finished, all where it had stopped early; the model goes on from there."""
        self._latest.restore_or_initialize()
        return self._epochs if self._stale else int(self._state.epochs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._monitor not in (logs or {}):
            raise InputError("train.monitor", repr(self._monitor), f"one of {', '.join(sorted(logs or {}))}")
        value = self._sign * float(logs[self._monitor])
        improved = value > float(self._state.best)  # never, where it is NaN
        if improved:
            self._state.best.assign(value)
        if improved or not self._best.checkpoints:
            self._best.save(epoch + 1)
        self._state.stale.assign(0 if improved else self._state.stale + 1)
        self._state.epochs.assign(epoch + 1)
        self._latest.save(epoch + 1)
        self._record(epoch + 1, logs)
        if self._stale:
            self.model.stop_training = True

    @property
    def _stale(self) -> bool:
        return int(self._state.stale) > self._patience

    def _record(self, epoch: int, logs: dict[str, Any]) -> None:
        """Adds a line to `history.jsonl`, replacing what a lost try wrote of this epoch."""
        path = self._run.directory / "history.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines()[: epoch - 1] if path.exists() else []
        lines.append(json.dumps({"epoch": epoch} | {name: float(value) for name, value in sorted(logs.items())}))
        replace_text(path, "\n".join(lines) + "\n")
