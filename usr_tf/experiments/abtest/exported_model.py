"""Exported model for replays: scores raw requests with the signatures that TF Serving serves."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from serving.formats.signatures import scenarios_of
from serving.publishing.versions import list_versions
from usr_tf.errors import InputError
from usr_tf.schema import Schema, load_schema


class Model:
    """SavedModel of `usr-tf export`.

    Args:
      path: its version folder.

    Raises:
      InputError: it holds no such model.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.schema: Schema = load_schema(self.path / "assets.extra" / "schema.yaml")
        try:
            self._model = tf.saved_model.load(str(self.path))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise InputError(path, f"no SavedModel ({error})", "a version folder of usr-tf export") from error
        self.scenarios = scenarios_of(self._model.signatures)

    def score(self, scenario: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Task → probabilities `[N]` of a request's items.

        Args:
          inputs: raw features by name, as `usr_tf.request_spec.request_spec` says: `[1, …]` or, of items, `[N, …]`.
        """
        outputs = self._model.signatures[scenario](**{name: tf.constant(value) for name, value in inputs.items()})
        return {task: values.numpy() for task, values in outputs.items()}


def find_version(path: str | Path) -> Path:
    """Version folder: `path` itself, or the newest in it.

    Raises:
      InputError: there is none.
    """
    path = Path(path)
    if (path / "saved_model.pb").is_file():
        return path
    versions = list_versions(path)
    if not versions:
        raise InputError(path, "no exported model", "a folder that usr-tf export wrote, or a version in it")
    return path / str(max(versions))
