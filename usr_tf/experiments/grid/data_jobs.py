"""The data jobs of a grid: simulated shops, given data, and one scenario's rows of either.

Every job is known by a hash of what its result depends on, and of nothing else: experiments that have a job in common
do it once. What is under `work`:

    data/KEY/           rows.npz, the test split's keys and labels; and data/, where we made them
    runs/KEY/           a run in training
    results/KEY/        probabilities.npz, samples.npz, job.json
"""

import contextlib
import copy
import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from usr_tf.errors import InputError
from usr_tf.metrics.slices import counts_of
from usr_tf.schema import RAW_ITEM, RAW_USER, REQUEST, SCENARIO, SUCCESS, load_schema, oracle_column

VERSION = 1
"""Of what jobs leave. Another one does them all again."""
SHOP_SPLIT = {"valid": 0.1, "test": 0.2}
"""A larger test split than the simulator's own, for narrower intervals."""


@dataclass(frozen=True)
class Shop:
    """Simulated shop as training data."""

    seed: int
    impressions: int
    similarity: float
    label_noise: float
    global_label_noise: float
    scenarios: int
    needs: float

    @functools.cached_property
    def key(self) -> str:
        return content_key({"shop": dataclasses.asdict(self), "split": SHOP_SPLIT})

    @property
    def name(self) -> str:
        description = f"{self.impressions:,} impressions, seed {self.seed}, similarity {self.similarity:g}"
        noise = (self.label_noise, self.global_label_noise)
        return f"shop of {description}" + (f", noise {noise[0]:g} and {noise[1]:g}" if any(noise) else "")

    @property
    def needs_noiseless(self) -> "Shop | None":
        """The shop without noise, whose impressions and transform are the same."""
        quiet = dataclasses.replace(self, label_noise=0.0, global_label_noise=0.0)
        return None if quiet == self else quiet

    def make(self, folder: Path, work: Path) -> Path:
        from pipelines.preprocess import preprocess
        from pipelines.simulator.simulate import simulate

        arguments = dataclasses.asdict(self)
        simulate(folder / "logs", **arguments, workers=1, progress=False)
        schema = folder / "logs" / "schema.yaml"
        document = yaml.safe_load(schema.read_text(encoding="utf-8"))
        schema.write_text(yaml.safe_dump(document | {"split": SHOP_SPLIT}), encoding="utf-8")
        quiet = self.needs_noiseless
        transform = str(DataJob(quiet).directory(work)) if quiet else None
        partitions = 1 if self.impressions <= _ONE_PARTITION else None
        preprocess(str(folder / "logs"), str(folder / "data"), partitions=partitions, transform=transform)
        shutil.rmtree(folder / "logs")
        return folder / "data"


_ONE_PARTITION = 80_000
"""Impressions that are joined in one part; what a small shop costs is the number of Beam's bundles."""


@dataclass(frozen=True)
class Given:
    """Data directory given by the user."""

    path: str

    @functools.cached_property
    def key(self) -> str:
        """Content key of the data: statistics and file sizes, independent of the path."""
        files = {}
        for file in ("stats.json", "schema.yaml", SUCCESS):
            try:
                files[file] = Path(self.path, file).read_text(encoding="utf-8")
            except OSError as error:
                raise InputError(self.path, f"no {file}", "a directory that `usr-tf preprocess` finished") from error
        records = sorted(Path(self.path).glob("*/*.tfrecord.gz"))
        sizes = {str(file.relative_to(self.path)): file.stat().st_size for file in records}
        return content_key(files | {"sizes": sizes})

    @property
    def name(self) -> str:
        return f"data {self.path}"


@dataclass(frozen=True)
class OneScenario:
    """One scenario's training rows of other data, with all its test rows.

    Features, histories and labels stay what they are, global ones too: a model of one scenario alone is to miss the
    other scenarios' rows and nothing else.
    """

    data: Shop | Given
    scenario: str

    @functools.cached_property
    def key(self) -> str:
        return content_key({"data": self.data.key, "scenario": self.scenario})

    @property
    def name(self) -> str:
        return f"{self.data.name}, trained on {self.scenario} alone"


@dataclass(frozen=True)
class DataJob:
    """Job that makes data and records the rows of its test split."""

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
        """Directory of the training data."""
        return Path(self.source.path) if isinstance(self.source, Given) else self._folder(work) / "data"

    def is_done(self, work: Path) -> bool:
        return self._folder(work).exists()

    def do(self, work: Path) -> None:
        from usr_tf.data import open_data

        with set_aside(self._folder(work)) as folder:
            match self.source:
                case Shop() as shop:
                    made = shop.make(folder, work)
                case OneScenario(data=whole, scenario=scenario):
                    made = _keep_scenario(open_data(DataJob(whole).directory(work)), scenario, folder / "data")
                case Given(path=path):
                    made = Path(path)
            np.savez_compressed(folder / "rows.npz", **_read_rows(open_data(made)))

    def rows(self, work: Path) -> dict[str, np.ndarray]:
        """Columns `[N]` of the test split.

        `scenario`, `user`, `item` and `request` as numbers, `<task>` labels, `oracle_<task>`, and the training
        impressions `user_seen` and `item_seen`.
        """
        with np.load(self._folder(work) / "rows.npz") as file:
            return dict(file)

    def _folder(self, work: Path) -> Path:
        return work / "data" / self.key


def _read_rows(data: Any) -> dict[str, np.ndarray]:
    """Reads the rows of `DataJob.rows`."""
    whole, training = _test_columns(data), data.shown()
    items = {item: shown for item, (_, shown) in training.items.items()}
    rows = {"scenario": whole[SCENARIO].astype(np.int16)}
    for name, column in (("user", RAW_USER), ("item", RAW_ITEM), ("request", REQUEST)):
        rows[name] = np.unique(whole[column], return_inverse=True)[1].astype(np.int32)
    for name, column, seen in (("user_seen", RAW_USER, training.users), ("item_seen", RAW_ITEM, items)):
        rows[name] = counts_of(whole[column], seen).astype(np.int32)
    for task in data.schema.task_names:
        rows[task] = whole[task].astype(np.int8)
        if not np.isnan(whole[oracle_column(task)]).all():
            rows[oracle_column(task)] = whole[oracle_column(task)]
    return rows


def _test_columns(data: Any) -> dict[str, np.ndarray]:
    """Scenario, keys and labels `[N]` of the test split.

    Raises:
      InputError: it has no row.
    """
    if not data.rows("test"):
        raise InputError(data.directory, "no row in the test split", "some, which models are compared on")
    parts: dict[str, list[np.ndarray]] = {}
    for features, labels, keys in data.evaluation(4096):
        for name, values in (keys | labels | {SCENARIO: features[SCENARIO]}).items():
            parts.setdefault(name, []).append(values.numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def _keep_scenario(data: Any, scenario: str, out: Path) -> Path:
    """Writes the data without the other scenarios' rows in train and valid."""
    import tensorflow as tf

    shutil.copytree(data.directory, out, ignore=shutil.ignore_patterns("train", "valid", "rejected"))
    stats = copy.deepcopy(data.stats)
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    for split in ("train", "valid"):
        (out / split).mkdir()
        for file in sorted((data.directory / split).glob("*.tfrecord.gz")):
            with tf.io.TFRecordWriter(str(out / split / file.name), options) as writer:
                for records in tf.data.TFRecordDataset(str(file), "GZIP").batch(4096):
                    of = tf.io.parse_example(records, {SCENARIO: tf.io.FixedLenFeature([], tf.string)})[SCENARIO]
                    for record in records[of == scenario].numpy():
                        writer.write(record)
        for other, counts in stats["splits"][split].items():
            if other != scenario:
                stats["splits"][split][other] = dict.fromkeys(counts, 0)
    (out / "stats.json").write_text(json.dumps(stats), encoding="utf-8")
    return out


def scenarios_of(data: DataJob, work: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Scenarios and tasks of existing data."""
    schema = load_schema(data.directory(work) / "schema.yaml")
    return schema.scenarios, schema.task_names


def content_key(content: Mapping[str, Any]) -> str:
    text = json.dumps({"version": VERSION} | dict(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@contextlib.contextmanager
def set_aside(folder: Path) -> Iterator[Path]:
    """Temporary folder that is renamed when complete. Clears what a failed attempt left."""
    aside = folder.with_name(f".{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    yield aside
    aside.rename(folder)
