"""TensorBoard logs of a training: curves, hyperparameters, and optional histograms and profile."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tensorboard.plugins.hparams import api as hparams
from tensorboard.plugins.hparams import api_pb2, summary

from usr_tf.config import Config
from usr_tf.training.progress import Pace

_SAMPLED_ROWS = 4096
"""Rows of a feature's embedding that a histogram is of, at the most."""


class TensorBoardLog(keras.callbacks.Callback):
    """Callback that writes the TensorBoard logs of a run.

    Curves are over the run's steps, under the same names for `train` and `validation`, so that TensorBoard draws one
    over the other: `<scenario>/<task>_auc`, and each term of the loss as `loss/<term>`. Within an epoch a training
    figure is the mean since the epoch began. `keras.callbacks.TensorBoard` names the two apart, begins anew with every
    `fit` and draws histograms of whole tables.

    Use it as a context; one object serves any number of `fit`s of one run. A run that goes on adds to what is there.

    Args:
      directory: where to write.
      config: the run's configuration; its `train` says what is written.
    """

    def __init__(self, directory: Path, config: Config):
        super().__init__()
        self._supports_tf_logs = True  # Keras would else read every figure after every step
        self._directory = directory
        self._config = config
        self._every = config.train.log_steps
        self._profile = config.train.profiled_steps
        self._profiling = False
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self._pace = Pace(config.train.batch_size)
        self._written = 0

    def __enter__(self) -> "TensorBoardLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_profile()
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def finish(self, document: Mapping[str, Any], step: int) -> None:
        """Writes the metrics of a finished run as results of its hyperparameters."""
        with self._writer(".").as_default(step):
            for scenario, tasks in (*document["scenarios"].items(), ("overall", document["overall"])):
                for task, figures in tasks.items():
                    for name in ("auc", "gauc", "logloss"):
                        if figures[name] is not None:
                            tf.summary.scalar(f"best/{scenario}/{task}_{name}", figures[name])
            end = summary.session_end_pb(api_pb2.STATUS_SUCCESS)
            tf.summary.experimental.write_raw_pb(end.SerializeToString(), step=0)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._start: int | None = None
        self._pace.start()

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self._start is None:  # an epoch that goes on begins with a later batch than the first
            self._start = int(self.model.step.numpy()) - batch
            if self._profile and self._start + batch >= self._profile[1]:  # an earlier process has done them
                self._profile = None
        if self._profile and not self._profiling and self._start + batch + 1 >= self._profile[0]:
            tf.profiler.experimental.start(str(self._directory))
            self._profiling = True

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._pace.step()
        step = self._start + batch + 1
        if self._profiling and step >= self._profile[1]:
            self._stop_profile()
        if self._every and step - self._written >= self._every:
            self._write_training(step, logs)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        step = int(self.model.step.numpy())
        if self._written < step:
            self._write_training(step, {name: value for name, value in logs.items() if not name.startswith("val_")})
        self._write("validation", step, {name[4:]: value for name, value in logs.items() if name.startswith("val_")})
        if self._config.train.histograms:
            self._write_histograms(step)
        for writer in self._writers.values():
            writer.flush()

    def _write_training(self, step: int, logs: Mapping[str, Any]) -> None:
        rates = {"run/learning_rate": tf.convert_to_tensor(self.model.optimizer.learning_rate)}
        speed = {"run/examples_per_second": self._pace.examples_per_second}
        self._write("train", step, {**logs, **rates, **speed})
        self._written = step

    def _write(self, name: str, step: int, values: Mapping[str, Any]) -> None:
        if values:
            with self._writer(name).as_default(step):
                for tag, value in values.items():
                    tf.summary.scalar(tag if "/" in tag else f"loss/{tag}", float(value))

    def _write_histograms(self, step: int) -> None:
        with self._writer("train").as_default(step):
            for part, layer in self.model.parts.items():
                if part != "embedding":
                    for weight in [layer] if isinstance(layer, tf.Variable) else layer.weights:
                        tf.summary.histogram(f"weights/{part}/{weight.name.removesuffix(':0')}", weight)
            for name, vectors in _sampled_embeddings(self.model):
                tf.summary.histogram(f"embedding/{name}", vectors)

    def _writer(self, name: str) -> tf.summary.SummaryWriter:
        """Summary writer of a folder, created on first use; the first one writes the hyperparameters."""
        if not self._writers:
            self._writers["."] = tf.summary.create_file_writer(str(self._directory))
            with self._writers["."].as_default(0):
                hparams.hparams(dict(_flat(self._config.model_dump(mode="json"))))
        if name not in self._writers:
            self._writers[name] = tf.summary.create_file_writer(str(self._directory / name))
        return self._writers[name]

    def _stop_profile(self) -> None:
        if self._profiling:
            tf.profiler.experimental.stop()
        self._profile, self._profiling = None, False


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """Flat configuration, such as `usr.rank`, with values that TensorBoard accepts."""
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value if isinstance(value, (bool, int, float, str)) else str(value)


def _sampled_embeddings(model: keras.Model) -> Iterator[tuple[str, tf.Tensor]]:
    """Sampled vectors `[n, width]` of each feature with its own ids; the same ids each time."""
    schema, sizes = model.schema, model.embedding.vocabulary_sizes
    for name, feature in schema.features.items():
        if not feature.has_ids or feature.shares:
            continue
        if sizes[name] > _SAMPLED_ROWS:
            ids = np.random.default_rng(0).integers(1, sizes[name], _SAMPLED_ROWS)
        else:
            ids = np.arange(1, sizes[name])
        values = tf.constant(ids[:, np.newaxis] if feature.is_list else ids, tf.int64)
        yield name, tf.cast(model.embedding({name: values}, [name]), tf.float32)
