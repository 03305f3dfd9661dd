"""The jobs of a grid: data to be made, and models to be trained and to score the test split.

Every job is known by a hash of what its result depends on, and of nothing else: experiments that have a job in common
do it once. What is under `work`:

    data/KEY/           rows.npz, the test split's keys and labels; and data/, where we made them
    runs/KEY/           a run in training
    results/KEY/        probabilities.npz, samples.npz, job.json
"""

import contextlib
import dataclasses
import functools
import gc
import hashlib
import json
import os
import resource
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from usr_tf.config import Config
from usr_tf.errors import InputError
from usr_tf.metrics.figures import figure_of
from usr_tf.metrics.resample import Resample
from usr_tf.metrics.sums import order_sums, row_sums
from usr_tf.schema import RAW_ITEM, RAW_USER, REQUEST, SCENARIO, SUCCESS, load_schema, oracle_column

REPLICATES = 1000
VERSION = 1
"""Of what jobs leave. Another one does them all again."""
VIEWED = ("interests", "features")
"""What each view makes: IE's outputs and FG's."""
_VIEWED_ROWS = 300
SHOP_SPLIT = {"valid": 0.1, "test": 0.2}
"""A larger test split than the simulator's own, for narrower intervals."""


@dataclass(frozen=True)
class Shop:
    """A simulated shop as training data."""

    seed: int
    impressions: int
    similarity: float
    label_noise: float
    global_label_noise: float
    scenarios: int
    needs: float

    @functools.cached_property
    def key(self) -> str:
        return _hash({"shop": dataclasses.asdict(self), "split": SHOP_SPLIT})

    @property
    def name(self) -> str:
        told = f"{self.impressions:,} impressions, seed {self.seed}, similarity {self.similarity:g}"
        noise = (self.label_noise, self.global_label_noise)
        return f"shop of {told}" + (f", noise {noise[0]:g} and {noise[1]:g}" if any(noise) else "")

    @property
    def needs_noiseless(self) -> "Shop | None":
        """The shop without noise, which shows the same impressions and so has the same transform."""
        quiet = dataclasses.replace(self, label_noise=0.0, global_label_noise=0.0)
        return None if quiet == self else quiet

    def make(self, folder: Path, work: Path) -> Path:
        from pipelines.preprocess import preprocess
        from pipelines.simulate import simulate

        arguments = dataclasses.asdict(self)
        simulate(folder / "logs", **arguments, workers=1, progress=False)
        schema = folder / "logs" / "schema.yaml"
        document = yaml.safe_load(schema.read_text(encoding="utf-8"))
        schema.write_text(yaml.safe_dump(document | {"split": SHOP_SPLIT}), encoding="utf-8")
        quiet = self.needs_noiseless
        transform = str(DataJob(quiet).directory(work)) if quiet else None
        partitions = 1 if self.impressions <= _ONE_PARTITION else None
        with _untranslated():
            preprocess(str(folder / "logs"), str(folder / "data"), partitions=partitions, transform=transform)
        shutil.rmtree(folder / "logs")
        return folder / "data"


_ONE_PARTITION = 80_000
"""Impressions that are joined in one part; what a small shop costs is the number of Beam's bundles."""


@dataclass(frozen=True)
class Given:
    """Data that `usr-tf preprocess` made."""

    path: str

    @functools.cached_property
    def key(self) -> str:
        """Of what the data are, wherever they lie."""
        files = {}
        for file in ("stats.json", "schema.yaml", SUCCESS):
            try:
                files[file] = Path(self.path, file).read_text(encoding="utf-8")
            except OSError as error:
                raise InputError(self.path, f"no {file}", "a directory that `usr-tf preprocess` finished") from error
        return _hash(files)

    @property
    def name(self) -> str:
        return f"data {self.path}"


@dataclass(frozen=True)
class OneScenario:
    """Of other data, the rows of one scenario to train on and all to test on.

    Features, histories and labels stay what they are, global ones too: a model of one scenario alone is to miss the
    other scenarios' rows and nothing else.
    """

    data: Shop | Given
    scenario: str

    @functools.cached_property
    def key(self) -> str:
        return _hash({"data": self.data.key, "scenario": self.scenario})

    @property
    def name(self) -> str:
        return f"{self.data.name}, trained on {self.scenario} alone"


@dataclass(frozen=True)
class DataJob:
    """Makes data, and writes down what the rows of their test split are."""

    source: Shop | Given | OneScenario

    @property
    def key(self) -> str:
        return self.source.key

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def needs(self) -> "tuple[DataJob, ...]":
        match self.source:
            case OneScenario(data=data):
                return (DataJob(data),)
            case Shop(needs_noiseless=Shop() as quiet):
                return (DataJob(quiet),)
        return ()

    def directory(self, work: Path) -> Path:
        """Of the training data."""
        return Path(self.source.path) if isinstance(self.source, Given) else self._folder(work) / "data"

    def is_done(self, work: Path) -> bool:
        return self._folder(work).exists()

    def do(self, work: Path) -> None:
        from usr_tf.data import open_data

        with _aside(self._folder(work)) as folder:
            match self.source:
                case Shop() as shop:
                    made = shop.make(folder, work)
                case OneScenario(data=whole, scenario=scenario):
                    made = _keep_scenario(open_data(DataJob(whole).directory(work)), scenario, folder / "data")
                case Given(path=path):
                    made = Path(path)
            np.savez_compressed(folder / "rows.npz", **_read_rows(open_data(made)))

    def rows(self, work: Path) -> dict[str, np.ndarray]:
        """Of the test split `[N]`: `scenario`, `user`, `item` and `request` as numbers, `<task>` labels,
        `oracle_<task>`, and `user_seen` and `item_seen`, impressions in training.
        """
        with np.load(self._folder(work) / "rows.npz") as file:
            return dict(file)

    def _folder(self, work: Path) -> Path:
        return work / "data" / self.key


@dataclass(frozen=True)
class TrainJob:
    """A model to train and to score the test split with."""

    data: DataJob
    config: Config
    label: str = dataclasses.field(default="", compare=False)
    """For people."""

    @functools.cached_property
    def key(self) -> str:
        return _hash({"data": self.data.key, "config": self.config.model_dump(mode="json", exclude={"data"})})

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
        from usr_tf.run import open_run
        from usr_tf.train import train
        from usr_tf.views import views_document

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
        with _aside(self._result(work)) as folder:
            np.savez_compressed(folder / "probabilities.npz", **predictions.probabilities)
            samples = {
                f"{scenario}/{task}": auc_sample(rows, probabilities, task, rows["scenario"] == number)
                for number, scenario in enumerate(data.schema.scenarios)
                for task, probabilities in predictions.probabilities.items()
            }
            np.savez_compressed(folder / "samples.npz", **samples)
            history = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
            told = {"label": self.label, "data": self.data.name, "config": self.config.model_dump(mode="json")}
            told["views"] = {part: views[part] for part in VIEWED if views.get(part)}
            cost = {"seconds": time.time() - began, "cpu_seconds": _cpu_seconds() - busy, "peak_mib": _peak_mib()}
            (folder / "job.json").write_text(json.dumps(told | cost | {"history": history}, indent=1), encoding="utf-8")
        shutil.rmtree(run)
        keras.backend.clear_session()
        gc.collect()

    def probabilities(self, work: Path) -> dict[str, np.ndarray]:
        """Each task's `[N]`, in the order of the data's `rows`."""
        with np.load(self._result(work) / "probabilities.npz") as file:
            return dict(file)

    def sample(self, work: Path, scenario: str, task: str) -> np.ndarray:
        """The AUC of a scenario and task, and of each resample of its users, `[1 + REPLICATES]`."""
        with np.load(self._result(work) / "samples.npz") as file:
            return file[f"{scenario}/{task}"]

    def views(self, work: Path) -> dict[str, dict[str, Any]]:
        """How far the views stand apart, as `usr_tf.views.picture` tells, of those of `VIEWED` that the model has."""
        return self._told(work)["views"]

    def validation_auc(self, work: Path) -> float:
        """Mean over scenarios and tasks, of the epoch with the least validation loss; NaN where none is defined."""
        history = self._told(work)["history"]
        best = min(history, key=lambda epoch: epoch["val_nll"])
        found = [value for name, value in best.items() if name.startswith("val_") and name.endswith("_auc")]
        defined = [value for value in found if np.isfinite(value)]
        return float(np.mean(defined)) if defined else float("nan")

    def _told(self, work: Path) -> dict[str, Any]:
        return json.loads((self._result(work) / "job.json").read_text(encoding="utf-8"))

    def _result(self, work: Path) -> Path:
        return work / "results" / self.key


def auc_sample(rows: Mapping[str, np.ndarray], scores: np.ndarray, task: str, mask: np.ndarray) -> np.ndarray:
    """AUC of scores `[N]` on some of the rows, and of each resample of their users, `[1 + REPLICATES]`; NaN where
    undefined. How often a user is drawn depends on the user alone, so the samples of two models are paired.
    """
    labels, scores = rows[task][mask], scores[mask]
    resample = Resample.of(rows["user"][mask], REPLICATES, seed=7)
    sums = row_sums(labels, scores, resample) | order_sums(labels, scores, resample)
    return figure_of(sums, "auc")


def _read_rows(data: Any) -> dict[str, np.ndarray]:
    """What `DataJob.rows` gives."""
    shown, whole = (_columns(data, split) for split in ("train", "test"))
    rows = {"scenario": whole[SCENARIO].astype(np.int16)}
    for name, column in (("user", RAW_USER), ("item", RAW_ITEM), ("request", REQUEST)):
        rows[name] = np.unique(whole[column], return_inverse=True)[1].astype(np.int32)
    for name, column in (("user_seen", RAW_USER), ("item_seen", RAW_ITEM)):
        seen = dict(zip(*np.unique(shown[column], return_counts=True), strict=True))
        rows[name] = np.array([seen.get(value, 0) for value in whole[column]], np.int32)
    for task in data.schema.task_names:
        rows[task] = whole[task].astype(np.int8)
        if not np.isnan(whole[oracle_column(task)]).all():
            rows[oracle_column(task)] = whole[oracle_column(task)]
    return rows


def _columns(data: Any, split: str) -> dict[str, np.ndarray]:
    """Scenario, keys and labels `[N]` of a split."""
    parts: dict[str, list[np.ndarray]] = {}
    for features, labels, keys in data.evaluation(4096, split):
        for name, values in (keys | labels | {SCENARIO: features[SCENARIO]}).items():
            parts.setdefault(name, []).append(values.numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def _keep_scenario(data: Any, scenario: str, out: Path) -> Path:
    """Writes the data without what other scenarios have in train and valid."""
    import tensorflow as tf

    shutil.copytree(data.directory, out, ignore=shutil.ignore_patterns("train", "valid", "rejected"))
    stats = json.loads(json.dumps(data.stats))
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    for split in ("train", "valid"):
        (out / split).mkdir()
        for file in sorted((data.directory / split).glob("*.tfrecord.gz")):
            with tf.io.TFRecordWriter(str(out / split / file.name), options) as writer:
                for record in tf.data.TFRecordDataset(str(file), "GZIP").as_numpy_iterator():
                    row = tf.train.Example.FromString(record)
                    if row.features.feature[SCENARIO].bytes_list.value[0].decode() == scenario:
                        writer.write(record)
        for other, counts in stats["splits"][split].items():
            if other != scenario:
                stats["splits"][split][other] = dict.fromkeys(counts, 0)
    (out / "stats.json").write_text(json.dumps(stats), encoding="utf-8")
    return out


def scenarios_of(data: DataJob, work: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Scenarios and tasks of data that are there."""
    schema = load_schema(data.directory(work) / "schema.yaml")
    return schema.scenarios, schema.task_names


def _hash(content: Mapping[str, Any]) -> str:
    text = json.dumps({"version": VERSION} | dict(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@contextlib.contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A folder that gets its name when it is whole. What a lost try left is cleared away."""
    aside = folder.with_name(f".{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    yield aside
    aside.rename(folder)


@contextlib.contextmanager
def _untranslated() -> Iterator[None]:
    """Beam parses its options some thousand times a pipeline, and each parser looks for translations on the disk."""
    before = os.environ.get("LANGUAGE")
    os.environ["LANGUAGE"] = "C"
    yield
    if before is None:
        del os.environ["LANGUAGE"]
    else:
        os.environ["LANGUAGE"] = before


def _peak_mib() -> int:
    """Of the process, over all its jobs so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
