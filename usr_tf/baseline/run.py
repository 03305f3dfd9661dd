"""A tree run on disk: what `usr-tf baseline` leaves and `evaluate`, `compare` and `explain` open.

| file | content |
| --- | --- |
| `baseline.json` | settings, LightGBM's version, rounds and calibration |
| `model_<task>.txt` | a model in LightGBM's text format; LambdaMART has `model_relevance.txt` alone |
| `counts.npz` | training rows of each id, for columns of large vocabularies |
| `importances.json` | each feature's and each signal family's share of the gain |
| `schema.yaml`, `transform/` | what the rows were made by |
"""

import dataclasses
import json
import shutil
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from usr_tf.baseline.calibration import Platt
from usr_tf.baseline.config import BaselineConfig
from usr_tf.baseline.features import Table
from usr_tf.baseline.importances import importances_document
from usr_tf.baseline.lightgbm import load_lightgbm
from usr_tf.baseline.model import RELEVANCE, TreeModel
from usr_tf.data import Data
from usr_tf.documents import parse_model
from usr_tf.errors import InputError
from usr_tf.files import make_folder, strict_json
from usr_tf.schema import SUCCESS, Schema, load_schema

_SETTINGS, _COUNTS = "baseline.json", "counts.npz"


@dataclasses.dataclass(frozen=True)
class TreeRun:
    """A finished tree run's directory."""

    directory: Path
    config: BaselineConfig
    schema: Schema

    @property
    def name(self) -> str:
        """What pages and tables call its model."""
        name = {"binary": "LightGBM", "lambdarank": "LambdaMART"}[self.config.objective]
        return f"{name} without {', '.join(self.config.without)}" if self.config.without else name

    @property
    def transform(self) -> Path:
        return self.directory / "transform"

    @property
    def importances(self) -> dict[str, Any]:
        """What `importances.json` holds."""
        return _read_json(self.directory / "importances.json")

    def load_model(self) -> TreeModel:
        """The run's model.

        Raises:
          InputError: LightGBM is not installed, or a file is missing or broken.
        """
        lightgbm, boosters = load_lightgbm(), {}
        names = self.schema.task_names if self.config.objective == "binary" else (RELEVANCE,)
        for name in names:
            path = _model_file(self.directory, name)
            try:
                boosters[name] = lightgbm.Booster(model_file=path)
            except (OSError, lightgbm.basic.LightGBMError) as error:
                raise InputError(path, f"no model ({error})", "the one that training left") from error
        table = Table(self.schema, self._counts(), self.config.without)
        for name, booster in boosters.items():
            if booster.feature_name() != table.names:
                path = _model_file(self.directory, name)
                raise InputError(path, "other columns than the schema's", "those of this version of usr_tf")
        calibration = _read_json(self.directory / _SETTINGS)["calibration"]
        if calibration is not None:
            calibration = {
                scenario: {task: Platt(**fitted) for task, fitted in tasks.items()}
                for scenario, tasks in calibration.items()
            }
        return TreeModel(self.schema, table, boosters, calibration)

    def _counts(self) -> dict[str, np.ndarray]:
        path = self.directory / _COUNTS
        try:
            with np.load(path) as counts:
                return dict(counts)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(path, f"no counts ({error})", "those that training left") from error


def is_tree_run(directory: str | Path) -> bool:
    """Whether a directory is a run of `usr-tf baseline`."""
    return (Path(directory) / _SETTINGS).exists()


def open_tree_run(directory: str | Path) -> TreeRun:
    """Opens what `usr-tf baseline --out DIRECTORY` finished.

    Raises:
      InputError: the directory is not there, or a file is missing or broken.
    """
    directory = Path(directory)
    if not (directory / SUCCESS).exists():
        raise InputError(directory, f"no {SUCCESS}", "a directory that `usr-tf baseline` finished")
    settings = directory / _SETTINGS
    config = parse_model(BaselineConfig, _read_json(settings)["config"], settings)
    return TreeRun(directory, config, load_schema(directory / "schema.yaml"))


def check_vacant(directory: str | Path) -> None:
    """Refuses a directory that holds anything.

    Raises:
      InputError: it holds files, or it cannot be written.
    """
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(directory, "files", "a new or an empty directory")
    make_folder(directory.parent)


def save_tree_run(
    directory: str | Path, data: Data, config: BaselineConfig, model: TreeModel, rounds: Mapping[str, int]
) -> TreeRun:
    """Writes a run aside and gives it its name when it is whole.

    Raises:
      InputError: the directory holds files, or it cannot be written.
    """
    directory = Path(directory)
    check_vacant(directory)
    aside = directory.with_name(f".{directory.name}.{uuid.uuid4().hex}")
    calibration = None
    if model.calibration is not None:
        calibration = {
            scenario: {task: fitted._asdict() for task, fitted in tasks.items()}
            for scenario, tasks in model.calibration.items()
        }
    settings = {
        "config": config.model_dump(mode="json"),
        "lightgbm": load_lightgbm().__version__,
        "rounds": dict(rounds),
        "calibration": calibration,
    }
    try:
        aside.mkdir()
        shutil.copytree(data.directory / "transform", aside / "transform")
        for name, booster in model.boosters.items():
            booster.save_model(_model_file(aside, name))
        counts: Any = model.table.counts
        np.savez_compressed(aside / _COUNTS, **counts)
        _write_json(aside / _SETTINGS, settings)
        _write_json(aside / "importances.json", importances_document(model.boosters, model.table))
        (aside / "schema.yaml").write_text(data.schema.to_yaml(), encoding="utf-8")
        (aside / SUCCESS).touch()
        aside.replace(directory)
    except OSError as error:
        raise InputError(directory, f"no writable directory ({error.strerror})", "one that can be written") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return open_tree_run(directory)


def _model_file(directory: Path, name: str) -> Path:
    return directory / f"model_{name}.txt"


def _write_json(path: Path, document: Any) -> None:
    path.write_text(strict_json(document, indent=2) + "\n", encoding="utf-8")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(path, f"no JSON file ({error})", "the one that training left") from error
