"""Training: one `model.fit` from initial weights, or from an interrupted run, to a finished run."""

import contextlib
import logging
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras

from usr_tf.config import Config
from usr_tf.data import Data, Split
from usr_tf.errors import InputError
from usr_tf.evaluate import predict
from usr_tf.files import strict_json, write_whole
from usr_tf.metrics import metrics_document
from usr_tf.model import USRModel
from usr_tf.optimizers import make_optimizer
from usr_tf.run import Run, create_run, is_begun, open_run
from usr_tf.schema import SCENARIO, SUCCESS
from usr_tf.training.checkpoints import Checkpoints, newest_checkpoint, writing
from usr_tf.training.history import write_history
from usr_tf.training.nan_guard import NotFiniteError, assertion_message
from usr_tf.training.progress import Progress
from usr_tf.training.strategies import default_strategy, is_chief, writable_directory
from usr_tf.training.tensorboard import TensorBoardLog
from usr_tf.training.warm_start import check_warm_start, warm_start

_LOG = logging.getLogger(__name__)


def train(
    data: Data,
    out: str | Path,
    config: Config,
    strategy: tf.distribute.Strategy | None = None,
    verbose: bool = True,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict:
    """Trains a model into the run directory `out`; continues an unfinished run there.

    Args:
      strategy: distribution strategy. Default: one replica per GPU, on all workers of `TF_CONFIG`. Workers other than
        the chief write to a temporary directory.
      verbose: whether to print the progress to standard error.
      callbacks: additional Keras callbacks of the one `fit` of the run, called before a checkpoint is written. A
        callback may stop the run, also within an epoch; `training.json` records it. A continued run starts with the
        callbacks as given, because Keras does not save their state.

    Returns:
      Contents of the run's `metrics.json`: the metrics of the best epoch on the validation split.

    Raises:
      InputError: `out` is taken or not writable, `config.train.monitor` is unknown, a data file is damaged, an id or a
        label is out of range, or a loss is NaN or infinite.
    """
    config = _with_whole_paths(config, data)
    if config.train.warm_start and not is_begun(Path(out)):  # before anything is written
        check_warm_start(open_run(config.train.warm_start), data, config)
    strategy = strategy or default_strategy(config.train.weights_on)
    _LOG.info("%d replicas in sync", strategy.num_replicas_in_sync)
    with writable_directory(Path(out), strategy) as directory:
        return _train(data, directory, config, strategy, verbose and is_chief(strategy), callbacks)


def save_run(model: USRModel, data: Data, directory: str | Path) -> Run:
    """Saves a model that `model.fit` has trained as a finished run, to evaluate, export, publish, explain.

    The current weights become the best ones. The run has no optimizer state, so it cannot be continued.

    Raises:
      InputError: the directory holds a run already, or is not writable. Nothing is left behind.
    """
    directory = Path(directory)
    if directory.exists() and any(directory.iterdir()):
        raise InputError(directory, "a run" if is_begun(directory) else "other files", "a new directory")
    aside = directory.with_name(f".{directory.name}.{uuid.uuid4().hex}")
    try:
        run = create_run(aside, data, _with_whole_paths(model.config, data))
        with writing(directory):
            tf.train.CheckpointManager(model.checkpoint(), str(run.best), max_to_keep=1).save()
            if model.history:  # of `fit`
                figures = model.history.history
                epochs = (dict(zip(figures, values, strict=True)) for values in zip(*figures.values(), strict=True))
                write_history(run.history, epochs)
        document = metrics_document(predict(run.load_model(), data, "valid", run.config.train.batch_size), data.schema)
        _finish(run, document)
        with writing(directory):
            aside.replace(directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return open_run(directory)


def _with_whole_paths(config: Config, data: Data) -> Config:
    """Configuration with absolute paths, valid from any working directory."""
    older = config.train.warm_start
    train = config.train.model_copy(update={"warm_start": older and str(Path(older).resolve())})
    return config.model_copy(update={"data": str(data.directory.resolve()), "train": train})


def _train(
    data: Data,
    out: Path,
    config: Config,
    strategy: tf.distribute.Strategy,
    verbose: bool,
    callbacks: Sequence[keras.callbacks.Callback],
) -> dict:
    rows = _readable_rows(data) if config.train.skip_corrupt else data.rows("train")
    if not rows:
        raise InputError(data.directory / "train", "no rows", "at least one impression to train on")
    batches = -(-rows // config.train.batch_size)
    with strategy.scope():
        model = USRModel.from_data(data, config)
        model.compile(make_optimizer(model, config.train, batches))
    _check_monitor(config.train.monitor, model)
    run = create_run(out, data, config)
    with TensorBoardLog(run.directory / "logs", config) as log, _named_errors(run, data):
        _fit(run, data, model, batches, callbacks, log, verbose)
        document = metrics_document(predict(run.load_model(), data, "valid", config.train.batch_size), data.schema)
        log.finish(document, int(model.step.numpy()))
    _finish(run, document)
    return document


def _finish(run: Run, document: dict) -> None:
    with writing(run.directory):
        write_whole(run.directory / "metrics.json", strict_json(document, indent=2) + "\n")
        (run.directory / SUCCESS).touch()


def _fit(
    run: Run,
    data: Data,
    model: USRModel,
    batches: int,
    callbacks: Sequence[keras.callbacks.Callback],
    log: TensorBoardLog,
    verbose: bool,
) -> None:
    """Trains to the end, from the newest checkpoint if any."""
    config = run.config.train
    valid = data.validation(config.batch_size) if data.rows("valid") else None
    checkpoints = Checkpoints(run, model, config, validated=valid is not None, batches=batches)
    if not checkpoints.restore() and config.warm_start:
        warm_start(model, open_run(config.warm_start))
    if checkpoints.done:
        return
    with contextlib.ExitStack() as stack:
        callbacks = [*callbacks, checkpoints, log]
        if verbose:
            callbacks.append(
                stack.enter_context(Progress(config.epochs, batches, config.batch_size, lambda: checkpoints.summary))
            )
        model.fit(
            training_batches(run.config, data, range(checkpoints.epoch, config.epochs), checkpoints.batch),
            validation_data=valid,
            epochs=config.epochs,
            steps_per_epoch=batches,
            callbacks=callbacks,
            verbose=0,
        )


def training_batches(config: Config, data: Data, epochs: range, skip: int = 0) -> tf.data.Dataset:
    """Batches of these epochs of a run, without the first `skip` of the first epoch."""
    return data.training(
        config.train.batch_size,
        config.seed,
        config.position_tower.enabled,
        epochs=epochs,
        skip=skip,
        skip_corrupt=config.train.skip_corrupt,
    )


def _readable_rows(data: Data) -> int:
    """Number of readable training rows; warns of all others."""
    shards, rows = data.read_through("train"), data.rows("train")
    left = sum(shard.records for shard in shards)
    for shard in shards:
        if shard.broken:
            _LOG.warning("%s: leaving out what follows record %d (%s)", shard.file, shard.records, shard.broken)
    if left != rows:
        _LOG.warning("%s: %d of %d rows cannot be read and are left out", data.directory / "train", rows - left, rows)
    return left


@contextlib.contextmanager
def _named_errors(run: Run, data: Data) -> Iterator[None]:
    """Context that turns errors of files, values and losses into one-line `InputError`s."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        _refuse_broken(data, ("train", "valid"))
        found = assertion_message(error)
        if found is None:
            raise
        raise InputError(data.directory, found, "rows that `usr-tf preprocess` wrote") from error
    except (tf.errors.DataLossError, tf.errors.FailedPreconditionError):
        _refuse_broken(data, ("valid",) if run.config.train.skip_corrupt else ("train", "valid"))
        raise
    except NotFiniteError as error:
        where = f"{run.directory}: epoch {error.epoch + 1}, batch {error.batch + 1}"
        of_epoch = range(error.epoch, error.epoch + 1)
        batch = _describe(training_batches(run.config, data, of_epoch, error.batch), data)
        newest = newest_checkpoint(run)
        left = f"{Path(newest).name} is the last good checkpoint" if newest else "there is no good checkpoint yet"
        expected = f"finite losses: look at these rows, or train a new run with lower learning rates; {left}"
        raise InputError(where, f"{', '.join(error.names)} NaN or infinite ({batch})", expected) from error


def _refuse_broken(data: Data, splits: Sequence[Split]) -> None:
    for split in splits:
        data.refuse_broken(split)


def _describe(batches: tf.data.Dataset, data: Data) -> str:
    """Summary of the first of these batches: rows per scenario, and non-finite numbers."""
    features, _ = next(batches.as_numpy_iterator())
    rows = np.bincount(features[SCENARIO], minlength=len(data.schema.scenarios))
    parts = [f"{count} rows of {name}" for name, count in zip(data.schema.scenarios, rows, strict=True)]
    for name in data.schema.clamped_features:
        if bad := np.count_nonzero(~np.isfinite(features[name].reshape(rows.sum(), -1)).all(axis=1)):
            parts.append(f"{name} NaN or infinite in {bad}")
    return ", ".join(parts)


def _check_monitor(monitor: str, model: USRModel) -> None:
    """Raises for an unknown validation metric before anything is written."""
    known = [metric.name for metric in model.metrics if not metric.name.endswith("_contrastive")]  # training's alone
    if monitor.removeprefix("val_") not in known:
        raise InputError("train.monitor", repr(monitor), f"val_ and one of {', '.join(known)}")
