"""Reuse of an earlier transform: lookup, compatibility check with the new schema, and copy."""

import dataclasses
import functools
from typing import Any

import tensorflow as tf
from apache_beam.io.filesystems import FileSystems

from pipelines.beam.output import SCHEMA, TRANSFORM, read_json, read_schema
from usr_tf.errors import InputError
from usr_tf.schema import KEYS_OF_LOGS, SUCCESS, Schema

_OF_ROWS = {"split", "labels", *KEYS_OF_LOGS}
"""Keys that say which rows there are, and nothing of the transform."""
_OF_GROWTH = ("min_count", "vocabulary_size")
"""Keys of a feature that say which values enter its vocabulary, and nothing of what is in it."""


@dataclasses.dataclass(frozen=True)
class Earlier:
    """Finished directory with schema and transform: data of `preprocess`, or a run of `train`."""

    directory: str
    grow: bool
    """Whether its vocabularies take in what is new."""

    @functools.cached_property
    def schema(self) -> Schema:
        return read_schema(FileSystems.join(self.directory, SCHEMA))

    @property
    def transform(self) -> str:
        return FileSystems.join(self.directory, TRANSFORM)


def open_earlier(transform: str | None, grow_from: str | None, schema: Schema, schema_path: str) -> Earlier | None:
    """Earlier directory that a flag names, as OLD or OLD/transform; None without a flag.

    Raises:
      InputError: both flags; no finished directory; or a schema that differs from `schema`, read from `schema_path`,
        in more than the keys of rows and logs. Growth also lets `min_count` and `vocabulary_size` change.
    """
    if transform and grow_from:
        raise InputError("--grow_from", "--transform beside it", "one of the two")
    path = transform or grow_from
    if not path:
        return None
    path = path.rstrip("/")
    parent, name = FileSystems.split(path)
    directories = [path, parent] if name == TRANSFORM else [path]
    for directory in directories:
        if FileSystems.exists(FileSystems.join(directory, SUCCESS)):
            earlier = Earlier(directory, grow=bool(grow_from))
            _check_agrees(schema.with_normal_forms(earlier.schema), schema_path, earlier)
            return earlier
    raise InputError(path, f"no {SUCCESS}", "a directory that `usr-tf preprocess` finished")


def read_stats(earlier: Earlier) -> dict | None:
    """Its `stats.json`, for drift; None for a run of `train`, which has none.

    Raises:
      InputError: it is of a job that did not measure the quality of the data.
    """
    path = FileSystems.join(earlier.directory, "stats.json")
    if not FileSystems.exists(path):
        return None
    stats = read_json(path)
    if "quality" not in stats:
        raise InputError(path, "no quality", "data of a job that measures it: preprocess it again")
    return stats


def copy_transform(earlier: Earlier, target: str) -> None:
    """Copies its transform byte for byte, from any file system to any other."""
    source = earlier.transform
    for folder, _, names in tf.io.gfile.walk(source):
        inside = FileSystems.join(target, folder.removeprefix(source).strip("/")).rstrip("/")
        tf.io.gfile.makedirs(inside)
        for name in names:
            tf.io.gfile.copy(FileSystems.join(folder, name), FileSystems.join(inside, name), overwrite=True)


def _check_agrees(schema: Schema, schema_path: str, earlier: Earlier) -> None:
    path = FileSystems.join(earlier.directory, SCHEMA)
    new, old = (_what_must_agree(each, earlier.grow) for each in (schema, earlier.schema))
    if new != old:
        key, found, expected = _first_difference(new, old)
        raise InputError(f"{schema_path}: {key}", found, f"{expected}, as in {path}")


def _what_must_agree(schema: Schema, grow: bool) -> dict[str, Any]:
    document = schema.model_dump(mode="json", exclude=_OF_ROWS)
    for name, feature in document["features"].items():
        feature["normalize"] = schema.normal_form(name)
    if grow:
        for feature in document["features"].values():
            for key in _OF_GROWTH:
                del feature[key]
    return document


def _first_difference(new: Any, old: Any, key: str = "") -> tuple[str, str, str]:
    """First key whose values differ, with both values."""
    if isinstance(new, dict) and isinstance(old, dict):
        name = next(name for name in (*old, *new) if new.get(name) != old.get(name))
        return _first_difference(new.get(name), old.get(name), f"{key}.{name}" if key else name)
    found, expected = ("nothing" if value is None else str(value) for value in (new, old))
    return key, found, expected
