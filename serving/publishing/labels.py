"""Version labels `stable` and `canary`, and the loaded versions, in TF Serving's model configuration.

This is kept in the text `ModelServerConfig` that servers read (`--model_config_file`) and read again. What decides the
edits is how TF Serving takes a changed file (`ServerCore::ReloadConfig`): it moves the labels first, and refuses the
whole file while a label stands on a version that is not loaded; only then does it load and unload versions. With
`--allow_version_labels_for_unavailable_models` a label that is new may stand on a version that is yet to load, but one
that moves may not. So

- a canary's label and its version come in one edit, and `canary` never moves from one version to another;
- `stable` moves to versions that an earlier edit loaded: to the canary, or to the version before, which therefore stays
  loaded for as long as there is no canary.
"""

import dataclasses
import itertools
from collections.abc import Set
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from serving.local_server.model_config import read_model_config
from usr_tf.errors import InputError
from usr_tf.files import replace_text

STABLE, CANARY = "stable", "canary"


@dataclasses.dataclass(frozen=True)
class Rollout:
    """Labels of a model and the versions to keep loaded."""

    stable: int | None = None
    canary: int | None = None
    loaded: frozenset[int] = frozenset()

    def __str__(self) -> str:
        labels = {STABLE: self.stable, CANARY: self.canary}
        summary = ", ".join(f"{label} {version}" for label, version in labels.items() if version is not None)
        return f"{summary}; loaded {', '.join(map(str, sorted(self.loaded)))}"

    def begin(self, version: int) -> "Rollout":
        """Rollout with a new version: as canary, or as stable if there is none."""
        if self.stable is None:
            return Rollout(version, None, frozenset({version}))
        return Rollout(self.stable, version, frozenset({self.stable, version}))

    def promote(self) -> "Rollout":
        """Rollout with the canary as stable. The previous stable version stays loaded."""
        return Rollout(self.canary, None, frozenset({self.stable, self.canary}))

    def back(self, versions: Set[int]) -> "Rollout":
        """Rollout without the canary; without one, with the previous version as stable.

        Args:
          versions: those that lie in the serving folder.
        """
        stable = self.stable if self.canary else self.before(versions & self.loaded)
        earlier = Rollout(stable).before(versions)
        return Rollout(stable, None, frozenset({stable, earlier} - {None}))

    def before(self, versions: Set[int]) -> int | None:
        """Newest of `versions` older than the stable one."""
        return max((version for version in versions if version < self.stable), default=None)


def read_rollout(path: str | Path, name: str) -> Rollout:
    """Labels and specific versions of a model.

    Raises:
      InputError: the file is no configuration that a server takes, or does not have the model.
    """
    _, model = _read(path, name)
    labels = model.version_labels
    return Rollout(labels.get(STABLE), labels.get(CANARY), frozenset(model.model_version_policy.specific.versions))


def write_rollout(path: str | Path, name: str, rollout: Rollout) -> None:
    """Writes labels and versions atomically. The rest of the file stays, except inner comments.

    Raises:
      InputError: as `read_rollout`, or the file cannot be written.
    """
    path = Path(path)
    config, model = _read(path, name)
    for label, version in ((STABLE, rollout.stable), (CANARY, rollout.canary)):
        if version is not None:
            model.version_labels[label] = version
        elif label in model.version_labels:
            del model.version_labels[label]
    # The operator's own labels stay, and so do their versions.
    model.model_version_policy.specific.versions[:] = sorted({*rollout.loaded, *model.version_labels.values()})
    heading = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines(True))
    replace_text(path, "".join(heading) + text_format.MessageToString(config))


def _read(path: str | Path, name: str) -> tuple[ModelServerConfig, ModelConfig]:
    config = ModelServerConfig()
    config.model_config_list.config.extend(read_model_config(path))
    for model in config.model_config_list.config:
        if model.name == name:
            return config, model
    expected = ", ".join(model.name for model in config.model_config_list.config)
    raise InputError(path, f"no model {name!r}", f"one of {expected}")
