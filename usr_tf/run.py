"""Run: directory of a training, with configuration, checkpoints, schema and transform."""

import contextlib
import dataclasses
import filecmp
import shutil
from pathlib import Path

import tensorflow as tf

from usr_tf.baseline.run import TreeRun, is_tree_run, open_tree_run
from usr_tf.config import Config, load_config
from usr_tf.data import Data, open_data, vocabulary_sizes
from usr_tf.documents import read_yaml
from usr_tf.errors import InputError
from usr_tf.files import replace_text, write_whole
from usr_tf.model import USRModel
from usr_tf.schema import KEYS_OF_LOGS, SUCCESS, Schema, load_schema

_OLDER_MODEL = {"cross": "none", "number_bins": 1}
"""Values of keys for runs of versions that did not have them."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Run directory. It has copies of schema, transform and logged requests, so it can be moved alone."""

    directory: Path
    config: Config
    schema: Schema

    @property
    def name(self) -> str:
        """What pages and tables call its model."""
        return self.config.backbone

    @property
    def transform(self) -> Path:
        return self.directory / "transform"

    @property
    def requests(self) -> Path:
        return self.directory / "requests"

    @property
    def counters(self) -> Path:
        """Folder of the counters' snapshot."""
        return self.directory / "counters"

    @property
    def best(self) -> Path:
        """Folder of the best epoch's checkpoint."""
        return self.directory / "checkpoints" / "best"

    @property
    def latest(self) -> Path:
        """Folder of the newest checkpoints, from which an interrupted run continues."""
        return self.directory / "checkpoints" / "latest"

    @property
    def history(self) -> Path:
        """File of the epoch metrics."""
        return self.directory / "history.jsonl"

    @property
    def summary(self) -> Path:
        """File with the best epoch and the reason why training ended."""
        return self.directory / "training.json"

    def make_model(self) -> USRModel:
        """Untrained model of the run in float32, as it is evaluated and served."""
        train = self.config.train.model_copy(update={"precision": "float32"})
        config = self.config.model_copy(update={"train": train})
        return USRModel(self.schema, vocabulary_sizes(self.schema, self.transform), config)

    def load_model(self) -> USRModel:
        """Model of the run with its best weights.

        Raises:
          InputError: there is no checkpoint, or it is broken or another model's.
        """
        path = tf.train.latest_checkpoint(str(self.best))
        if path is None:
            raise InputError(self.best, "no checkpoint", "the one that training left")
        on_host = self.config.train.weights_on == "host"
        with tf.device("/cpu:0") if on_host else contextlib.nullcontext():
            model = self.make_model()
        try:
            model.checkpoint().restore(path).assert_existing_objects_matched()
        except (AssertionError, ValueError) as error:  # a weight is missing, or has another shape
            raise InputError(path, "weights of another model", "those of this version of usr_tf") from error
        except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
            raise InputError(path, f"a broken checkpoint ({error.message})", "the one that training left") from error
        return model


AnyRun = Run | TreeRun


def create_run(directory: Path, data: Data, config: Config) -> Run:
    """Creates or reopens the directory of an unfinished run of `config` on `data`.

    Raises:
      InputError: the directory holds a finished run, another configuration or schema, or cannot be written.
    """
    if (directory / SUCCESS).exists():
        raise InputError(directory, "a finished run", "a new directory or an unfinished run")
    run = Run(directory, config, data.schema)
    settings = _settings(directory)
    if is_begun(directory):
        if not _load_settings(directory).learns_as(config):
            raise InputError(settings, "another configuration than this one", "the same, to go on with the run")
        _check_same(run, data)
        replace_text(settings, config.to_yaml())
        return run
    try:
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copytree(data.directory / "transform", run.transform, dirs_exist_ok=True)
        for copy in (run.requests, run.counters):  # there are no requests without a test split
            if (data.directory / copy.name).exists():
                shutil.copytree(data.directory / copy.name, copy, dirs_exist_ok=True)
        write_whole(directory / "schema.yaml", data.schema.to_yaml())
        write_whole(settings, config.to_yaml())
    except OSError as error:
        raise InputError(directory, f"no writable directory ({error.strerror})", "one that can be written") from error
    return run


def is_begun(directory: Path) -> bool:
    """Whether `directory` holds a run of `create_run` that training can continue."""
    return _settings(directory).exists()


def open_run(directory: str | Path) -> Run:
    """Opens a finished run of `usr-tf train`.

    Raises:
      InputError: the directory is not there, training did not come to its end, or it is a tree run.
    """
    directory = Path(directory)
    if is_tree_run(directory):
        expected = "a directory that `usr-tf train` finished; evaluate, compare and explain take tree runs too"
        raise InputError(directory, "a tree run of `usr-tf baseline`", expected)
    if not (directory / SUCCESS).exists():
        raise InputError(directory, f"no {SUCCESS}", "a directory that `usr-tf train` finished")
    return Run(directory, _load_settings(directory), load_schema(directory / "schema.yaml"))


def open_any_run(directory: str | Path) -> AnyRun:
    """Opens a finished run of `usr-tf train` or `usr-tf baseline`.

    Raises:
      InputError: as `open_run` and `open_tree_run` do.
    """
    return open_tree_run(directory) if is_tree_run(directory) else open_run(directory)


def open_run_data(run: AnyRun, directory: str | Path | None) -> Data:
    """Data in `directory`, or by default the data of the run's training.

    Raises:
      InputError: there is no such data, or it has another schema than the run.
    """
    directory = directory or run.config.data
    if directory is None:
        raise InputError("--data", "nothing", "the directory of the data, which the run does not name")
    data = open_data(directory)
    _check_same(run, data)
    return data


def _load_settings(directory: Path) -> Config:
    """The run's configuration, with `_OLDER_MODEL` for keys that its version did not have."""
    path = _settings(directory)
    config, document = load_config(path), read_yaml(path, path, "a configuration")
    return config.model_copy(update={key: value for key, value in _OLDER_MODEL.items() if key not in document})


def _settings(directory: Path) -> Path:
    return directory / "config.yaml"


def _check_same(run: AnyRun, data: Data) -> None:
    """Raises for data with another schema or transform than the run's.

    The data may be split otherwise, as those of a later day are, and come from logs that are written otherwise.
    """
    free = {key: getattr(data.schema, key) for key in ("split", *KEYS_OF_LOGS)}
    if load_schema(run.directory / "schema.yaml").model_copy(update=free) != data.schema:
        raise InputError(data.directory, "another schema than the run's", f"that of {run.directory / 'schema.yaml'}")
    mine, other = run.transform, data.directory / "transform"
    files = {path.relative_to(mine) for path in mine.rglob("*") if path.is_file()}
    if files != {path.relative_to(other) for path in other.rglob("*") if path.is_file()} or not all(
        filecmp.cmp(mine / file, other / file, shallow=False) for file in files
    ):
        raise InputError(other, "another transform than the run's", "the one that the run was trained with")
