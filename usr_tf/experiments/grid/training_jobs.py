"""Training jobs of a grid: train a model and score the test split."""

import dataclasses
import functools
import gc
import json
import resource
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from usr_tf.config import Config
from usr_tf.experiments.grid.data_jobs import DataJob, content_key, set_aside
from usr_tf.experiments.grid.worker_processes import peak_mib
from usr_tf.files import strict_json
from usr_tf.metrics.ranking import AUC
from usr_tf.metrics.resample import Resample
from usr_tf.metrics.sums import order_sums, row_sums
from usr_tf.schema import SUCCESS
from usr_tf.training.history import read_history

REPLICATES = 1000
VIEWED = ("interests", "features")
"""What each view makes: IE's outputs and FG's."""
_VIEWED_ROWS = 300


@dataclass(frozen=True)
class TrainJob:
    """Job that trains a model and scores the test split."""

    data: DataJob
    config: Config
    label: str = dataclasses.field(default="", compare=False)
    """For people."""

    @functools.cached_property
    def key(self) -> str:
        return content_key({"data": self.data.key, "config": self.config.model_dump(mode="json", exclude={"data"})})

    @property
    def name(self) -> str:
        return f"{self.label} on {self.data.name}"

    @property
    def needs(self) -> tuple[DataJob, ...]:
        return (self.data,)

    def is_done(self, work: Path) -> bool:
        return self._result(work).exists()

    def do(self, work: Path) -> None:
        import tf_keras as keras

        from usr_tf.data import open_data
        from usr_tf.evaluate import predict
        from usr_tf.evaluation.view_diagnostics import views_document
        from usr_tf.run import open_run
        from usr_tf.train import train

        began, busy = time.time(), _cpu_seconds()
        data, run = open_data(self.data.directory(work)), work / "runs" / self.key
        if not (run / SUCCESS).exists():
            train(data, run, self.config, verbose=False)
        trained = open_run(run)
        model = trained.load_model()
        predictions = predict(model, data, "test")
        views = views_document(trained, model, data, rows=_VIEWED_ROWS, points=0, examples=0) or {}
        rows = self.data.rows(work)
        for task, labels in predictions.labels.items():
            if not np.array_equal(labels, rows[task]):
                raise RuntimeError(f"the rows of {data.directory} came in another order than when they were listed")
        with set_aside(self._result(work)) as folder:
            np.savez_compressed(folder / "probabilities.npz", **predictions.probabilities)
            samples = {
                f"{scenario}/{task}": auc_sample(rows, probabilities, task, rows["scenario"] == number)
                for number, scenario in enumerate(data.schema.scenarios)
                for task, probabilities in predictions.probabilities.items()
            }
            np.savez_compressed(folder / "samples.npz", **samples)
            history = read_history(run / "history.jsonl")
            description = {"label": self.label, "data": self.data.name, "config": self.config.model_dump(mode="json")}
            description["views"] = {part: views[part] for part in VIEWED if views.get(part)}
            cost = {"seconds": time.time() - began, "cpu_seconds": _cpu_seconds() - busy, "peak_mib": peak_mib()}
            document = description | cost | {"history": history}
            (folder / "job.json").write_text(strict_json(document, indent=1), encoding="utf-8")
        shutil.rmtree(run)
        keras.backend.clear_session()
        gc.collect()

    def probabilities(self, work: Path) -> dict[str, np.ndarray]:
        """Probabilities `[N]` of each task, in the order of the data's `rows`."""
        with np.load(self._result(work) / "probabilities.npz") as file:
            return dict(file)

    def sample(self, work: Path, scenario: str, task: str) -> np.ndarray:
        """AUC of a scenario and task, and of resamples of its users, `[1 + REPLICATES]`."""
        with np.load(self._result(work) / "samples.npz") as file:
            return file[f"{scenario}/{task}"]

    def views(self, work: Path) -> dict[str, dict[str, Any]]:
        """Distances between the model's views (of `VIEWED`), by `usr_tf.evaluation.view_diagnostics.picture`."""
        return self._told(work)["views"]

    def validation_auc(self, work: Path) -> float:
        """Mean AUC over scenarios and tasks at the epoch with the lowest validation loss; NaN if undefined."""
        history = [epoch for epoch in self._told(work)["history"] if epoch.get("val_nll") is not None]
        best = min(history, key=lambda epoch: epoch["val_nll"], default={})
        aucs = [best[name] for name in best if name.startswith("val_") and name.endswith("_auc")]
        defined = [value for value in aucs if value is not None and np.isfinite(value)]
        return float(np.mean(defined)) if defined else float("nan")

    def _told(self, work: Path) -> dict[str, Any]:
        return json.loads((self._result(work) / "job.json").read_text(encoding="utf-8"))

    def _result(self, work: Path) -> Path:
        return work / "results" / self.key


def auc_sample(rows: Mapping[str, np.ndarray], scores: np.ndarray, task: str, mask: np.ndarray) -> np.ndarray:
    """AUC of scores `[N]` on a subset of rows, and of user resamples, `[1 + REPLICATES]`; NaN where undefined.

    The draws depend on the user alone, so the samples of two models are paired.
    """
    labels, scores = rows[task][mask], scores[mask]
    resample = Resample.of(rows["user"][mask], REPLICATES, seed=7)
    sums = row_sums(labels, scores, resample) | order_sums(labels, scores, resample)
    return AUC.sample(sums)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
