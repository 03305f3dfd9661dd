"""Model manager: loads the configured versions and unloads the others.

As in the container a version is a folder with a number for a name, and what is asked for is loaded and warmed up beside
what is live before that goes. Three things are kinder here: a folder without a SavedModel (one that is still being
written) is passed over, in place of a version that does not load the next one is taken, and a label moves only once its
new version is live.
"""

import gc
import logging
import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2, model_pb2
from tensorflow_serving.config.file_system_storage_path_source_pb2 import FileSystemStoragePathSourceConfig
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from serving.local_server.servable import Servable
from serving.local_server.status import invalid, not_found
from usr_tf.errors import InputError

_LOG = logging.getLogger(__name__)
_MAX_VERSION = 2**63 - 1
_State = get_model_status_pb2.ModelVersionStatus.State
_Policy = FileSystemStoragePathSourceConfig.ServableVersionPolicy


class Models:
    """Models of a server.

    `refresh` blocks and is for one thread at a time. The other methods may be called from any thread meanwhile, and
    never see half a change: whoever has found a servable may use it to the end, live or not.

    Args:
      read_configs: gives the configuration that holds now.
      load: makes a servable of the folder of a version and its number.
    """

    def __init__(self, read_configs: Callable[[], list[ModelConfig]], load: Callable[[str, int], Servable]):
        self._read_configs = read_configs
        self._load = load
        self._configs: list[ModelConfig] = []
        self._models: dict[str, _Model] = {}
        self._served: tuple[str, ...] = ()
        self._told: set[str] = set()

    def start(self) -> None:
        """Runs the first `refresh`.

        Raises:
          InputError: the configuration is bad, or a model of it has no version that loads.
        """
        self._configs = self._read_configs()
        for config in self._configs:
            if not tf.io.gfile.isdir(config.base_path):
                raise InputError(config.base_path, "no such folder", "a folder of exported versions")
        self._tell(self._apply())
        for config in self._configs:
            self._models[config.name].check_served(config.base_path)

    def refresh(self) -> None:
        """Rereads configuration and versions. Problems are logged once and change nothing."""
        try:
            self._configs = self._read_configs()
            problems = self._apply()
        except InputError as error:
            problems = [str(error), *self._apply()]
        self._tell(problems)
        shrunk = [model.has_shrunk() for model in self._models.values()]  # each is asked, and forgets
        if any(shrunk):
            gc.collect()  # a TensorFlow graph is full of cycles: it would outlive its session for long

    def live(self) -> dict[str, list[int]]:
        """Configured models and their live versions, in ascending order."""
        return {name: sorted(self._models[name].now.servables) for name in self._served}

    def find(self, spec: model_pb2.ModelSpec) -> Servable:
        """Servable of a request.

        Raises:
          tf.errors.OpError: what TF Serving answers where there is none.
        """
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        servables, labels = self._models[spec.name].now if spec.name in self._models else _NOTHING
        choice = spec.WhichOneof("version_choice")
        if choice is None:
            if not servables:
                raise not_found(f"Servable not found for request: Latest({spec.name})")
            return servables[max(servables)]
        if choice == "version_label" and spec.version_label not in labels:
            raise invalid(f"Unrecognized servable version label: {spec.version_label}")
        version = labels[spec.version_label] if choice == "version_label" else spec.version.value
        if version not in servables:
            raise not_found(f"Servable not found for request: Specific({spec.name}, {version})")
        return servables[version]

    def statuses(self, name: str) -> dict[int, get_model_status_pb2.ModelVersionStatus]:
        """Version → status of every version that was tried, ascending; empty for an unknown model."""
        model = self._models.get(name)
        return dict(sorted(model.statuses.copy().items())) if model else {}

    def close(self) -> None:
        """Unloads everything."""
        for model in self._models.values():
            model.retire_all()

    def _apply(self) -> list[str]:
        """Applies `_configs` to every model and returns the problems."""
        configs = {config.name: config for config in self._configs}
        new = {name: _Model(name, self._load) for name in configs if name not in self._models}
        self._models = {**self._models, **new}  # a model that goes stays here, to tell of its versions
        self._served = tuple(configs)
        problems = []
        for name, model in self._models.items():
            if name not in configs:
                model.retire_all()
                continue
            try:
                problems += model.refresh(configs[name])
            except tf.errors.OpError as error:  # a file system that is away for a while must not end the serving
                problems.append(f"{configs[name].base_path}: cannot look for versions of {name} ({error.message})")
        return problems

    def _tell(self, problems: list[str]) -> None:
        for problem in problems:
            if problem not in self._told:
                _LOG.error("%s", problem)
        self._told = set(problems)


class _Live(NamedTuple):
    """Immutable table of the versions and labels that requests can use."""

    servables: Mapping[int, Servable]
    labels: Mapping[str, int]


_NOTHING = _Live({}, {})


class _Model:
    """State of one configured model."""

    def __init__(self, name: str, load: Callable[[str, int], Servable]):
        self.name = name
        self.now = _NOTHING
        self.statuses: dict[int, get_model_status_pb2.ModelVersionStatus] = {}
        self._load = load
        self._broken: dict[int, Any] = {}
        self._gone = False

    def refresh(self, config: ModelConfig) -> list[str]:
        """Loads versions, moves labels, unloads versions, in this order. Returns the problems.

        Raises:
          tf.errors.OpError: the file system does not answer.
        """
        problems: list[str] = []
        paths = _list_versions(config.base_path)
        wanted, count = _wanted(config.model_version_policy, paths)
        held: set[int] = set()
        for version in wanted:
            if version in self.now.servables or self._bring_up(version, paths[version], problems):
                held.add(version)
            if len(held) == count:
                break
        if paths and not held and self.now.servables:
            held = set(self.now.servables)
            problems.append(f"{config.base_path}: no version to go on to, {self.name} stays with {sorted(held)}")
        labels, awaited = self._place_labels(config, held, problems)
        self._switch(_Live({v: s for v, s in self.now.servables.items() if v in held | awaited}, labels))
        return problems

    def retire_all(self) -> None:
        self._switch(_NOTHING)

    def has_shrunk(self) -> bool:
        """Whether the last reference to an unloaded version has gone since the previous call."""
        gone, self._gone = self._gone, False
        return gone

    def check_served(self, base_path: str) -> None:
        if self.now.servables:
            return
        if self.statuses:
            worst = self.statuses[max(self.statuses)]
            found = f"version {worst.version} which does not load ({' '.join(worst.status.error_message.split())})"
            raise InputError(base_path, found, "a SavedModel that loads")
        is_model = tf.saved_model.contains_saved_model(base_path)
        found = "a SavedModel itself" if is_model else "no version to serve"
        raise InputError(base_path, found, "a folder that holds numbered folders with a SavedModel each")

    def _bring_up(self, version: int, path: str, problems: list[str]) -> bool:
        if not tf.saved_model.contains_saved_model(path):
            return False
        files = _fingerprint(path)
        if self._broken.get(version) != files:
            self._set_status(version, _State.LOADING)
            try:
                servable = self._load(path, version)
            except Exception as error:  # whatever a broken SavedModel makes TensorFlow raise
                self._broken[version] = files
                code = error.error_code if isinstance(error, tf.errors.OpError) else tf.errors.UNKNOWN
                self._set_status(version, _State.END, code, str(error))
            else:
                self._broken.pop(version, None)
                self.now = self.now._replace(servables={**self.now.servables, version: servable})
                self._set_status(version, _State.AVAILABLE)
                _LOG.info("Serving version %d of %s", version, self.name)
                return True
        reason = " ".join(self.statuses[version].status.error_message.split())
        problems.append(f"{path}: version {version} of {self.name} does not load ({reason})")
        return False

    def _place_labels(
        self, config: ModelConfig, held: Set[int], problems: list[str]
    ) -> tuple[dict[str, int], set[int]]:
        """Labels, each on its old version until the new one is live."""
        labels: dict[str, int] = {}
        awaited: set[int] = set()
        for label, version in sorted(config.version_labels.items()):
            before = self.now.labels.get(label)
            if version in held or version == before:
                labels[label] = version
                continue
            problems.append(
                f"Request to assign label {label} to version {version} of model {self.name}, "
                "which is not currently available for inference"
            )
            if before is not None:
                labels[label] = before
                awaited.add(before)
        return labels, awaited

    def _switch(self, live: _Live) -> None:
        retired = {v: s for v, s in self.now.servables.items() if v not in live.servables}
        self.now = live
        for version, servable in retired.items():
            self._set_status(version, _State.UNLOADING)
            # Nothing closes the session: it goes with its last reference, which a running request may hold.
            weakref.finalize(servable, self._end, version).atexit = False
            _LOG.info("Retiring version %d of %s", version, self.name)

    def _end(self, version: int) -> None:
        self._gone = True
        if self.statuses[version].state == _State.UNLOADING:  # it may have been loaded again
            self._set_status(version, _State.END)

    def _set_status(self, version: int, state: int, code: int = 0, message: str = "") -> None:
        status = get_model_status_pb2.ModelVersionStatus(version=version, state=state)
        status.status.error_code = code
        status.status.error_message = message
        self.statuses[version] = status


def _wanted(policy: _Policy, versions: Iterable[int]) -> tuple[list[int], int]:
    """Candidate versions, best first, and how many of them to hold."""
    newest_first = sorted(versions, reverse=True)
    if policy.HasField("all"):
        return newest_first, len(newest_first)
    if policy.HasField("specific"):
        chosen = [version for version in newest_first if version in policy.specific.versions]
        return chosen, len(chosen)
    return newest_first, max(policy.latest.num_versions, 1)


def _list_versions(base_path: str) -> dict[int, str]:
    """Version → folder, for folders with a number as name."""
    names = [entry.rstrip("/") for entry in tf.io.gfile.listdir(base_path)]
    numbers = {int(name): name for name in names if name.isascii() and name.isdigit()}
    return {version: os.path.join(base_path, name) for version, name in numbers.items() if version <= _MAX_VERSION}


def _fingerprint(path: str) -> list[tuple[str, int, int]]:
    """Value that changes when a file below `path` changes its name, size or time."""
    files = [os.path.join(folder, name) for folder, _, names in tf.io.gfile.walk(path) for name in names]
    stats = ((file, tf.io.gfile.stat(file)) for file in sorted(files))
    return [(file, stat.length, stat.mtime_nsec) for file, stat in stats]
