"""Measurement of our training, in its own process: `model.fit` as `usr_tf.train` calls it.

From files, as users run it: the figure is that of a whole second epoch, for in the first one the timed steps would
find much of their input read ahead. From memory: the same batches, cached beforehand.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras

from benchmarks.training import measure
from benchmarks.training.measure import BACKBONES, BATCH, EMBEDDING, SEED, Clock
from usr_tf.config import Config, load_config
from usr_tf.data import Data, open_data
from usr_tf.evaluate import predict
from usr_tf.model import USRModel
from usr_tf.optimizers import make_optimizer

_EXPERT = list(measure.LAYERS)
ARCHITECTURE = (
    f"embedding_size={EMBEDDING}",
    "history.describe=[]",  # the peers have the items alone
    f"shared_bottom={{bottom: {_EXPERT}, tower: {list(measure.TOWER)}}}",
    f"mmoe={{experts: {measure.EXPERTS}, expert: {_EXPERT}, tower: {list(measure.TOWER)}}}",
    f"ple={{levels: {measure.LEVELS}, expert: {_EXPERT}, tower: {list(measure.TOWER)}}}",
    f"train.batch_size={BATCH}",
    f"seed={SEED}",
)
WITHOUT_USR = tuple(f"usr.{part}=false" for part in ("ie", "fg", "glmt", "contrastive"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", choices=BACKBONES, required=True)
    parser.add_argument("--usr", action="store_true", help="with all of USR's parts")
    parser.add_argument("--input", choices=("memory", "files"), default="memory")
    parser.add_argument("--steps", type=int, help="time so many steps only, and give no AUC")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    parts = () if arguments.usr else WITHOUT_USR
    overrides = (*ARCHITECTURE, f"backbone={arguments.backbone}", *parts, *arguments.set)
    run(open_data(arguments.data), load_config(None, overrides), arguments.input == "files", arguments.steps)


def run(data: Data, config: Config, from_files: bool, steps: int | None) -> None:
    model = USRModel.from_data(data, config)
    model.compile(optimizer=make_optimizer(model, config.train))
    batches = data.training(config.train.batch_size, config.seed)
    auc, clock = None, Clock(steps)
    if from_files:
        model.fit(batches.take(measure.WARM_UP) if steps else batches, verbose=0)
    else:
        batches = batches.cache().prefetch(2)
        sizes = [len(labels["ctr"]) for _, labels in batches]  # which fills the cache
        model.fit(batches, verbose=0, callbacks=[_Timer(clock, sizes)])
    if steps is None:
        found = predict(model, data, "test")
        labels, probabilities = (
            np.stack([values[task] for task in measure.TASKS], axis=1) for values in (found.labels, found.probabilities)
        )
        auc = measure.auc_by_scenario(found.scenario, labels, probabilities)
    rate = _epoch(model, batches, data.rows("train")) if from_files else clock.examples_per_second
    measure.report(rate, auc)


def _epoch(model: USRModel, batches: tf.data.Dataset, rows: int) -> float:
    """Examples per second of a whole epoch."""
    start = time.perf_counter()
    model.fit(batches, verbose=0)
    return rows / (time.perf_counter() - start)


class _Timer(keras.callbacks.Callback):
    """Keeps the clock of steps with so many rows each."""

    _supports_tf_logs = True  # as Keras's own callbacks do: else every metric would be fetched in every step

    def __init__(self, clock: Clock, sizes: Sequence[int]):
        super().__init__()
        self._clock, self._sizes, self._done = clock, sizes, 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        ended = self._sizes[self._done : batch + 1]  # several, where there are several to an execution
        self._done = batch + 1
        self._clock.count(sum(ended), len(ended))
        if self._clock.finished:
            self.model.stop_training = True


if __name__ == "__main__":
    main()
