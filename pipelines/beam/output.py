"""Output directory of a job: preparation before the job, completion marker after it."""

import json
from collections.abc import Sequence

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from pipelines.beam.file_system import match_in
from pipelines.join.split import SPLITS
from usr_tf.errors import InputError
from usr_tf.files import strict_json
from usr_tf.schema import SUCCESS, Schema, load_schema, parse_schema

TEMP, TRANSFORM, COUNTERS, SCHEMA = ".temp", "transform", "counters", "schema.yaml"
_WRITTEN = (
    *SPLITS,
    TRANSFORM,
    COUNTERS,
    "requests",
    "rejected",
    "statistics",
    "stats.json",
    "drift.json",
    TEMP,
    SCHEMA,
)  # the schema goes last


def prepare(out: str, schema: Schema) -> None:
    """Creates `out` with the schema only, and removes what an unfinished job left there.

    Such a directory is recognised by its schema and by holding only our files: no other file is ever deleted.

    Raises:
      InputError: `out` holds finished data or files of others, or cannot be written.
    """
    try:
        finished = FileSystems.exists(FileSystems.join(out, SUCCESS))
        paths = match_in(out, ["**"])
    except (OSError, ValueError, BeamIOError) as error:  # ValueError: a file system that Beam does not have
        raise InputError(out, f"no readable directory ({error})", "one that can be written") from error
    if finished:
        raise InputError(out, "finished data", "a new or an unfinished directory")
    found = sorted({path.removeprefix(FileSystems.join(out, "")).split("/")[0] for path in paths})
    foreign = [name for name in found if name not in _WRITTEN or SCHEMA not in found]
    if foreign:
        raise InputError(out, f"other files ({foreign[0]})", "a new directory, or one that an earlier try left")
    try:
        _clear(out, _WRITTEN)
        if not FileSystems.exists(out):
            FileSystems.mkdirs(out)
        with FileSystems.create(FileSystems.join(out, SCHEMA), "text/plain") as stream:
            stream.write(schema.to_yaml().encode("utf-8"))
        for name in (*SPLITS, TEMP):
            FileSystems.mkdirs(FileSystems.join(out, name))
    except (OSError, BeamIOError) as error:
        raise InputError(out, f"no writable directory ({error})", "one that can be written") from error


def finish(out: str) -> None:
    """Removes the scratch files and writes the completion marker of `out`."""
    _clear(out, (TEMP,))
    with FileSystems.create(FileSystems.join(out, SUCCESS)) as marker:
        marker.write(b"")


def _clear(out: str, names: Sequence[str]) -> None:
    """Deletes the files below these names one by one, in the given order; object stores have no folders."""
    top = FileSystems.join(out, "")
    files = match_in(out, ["**"])
    for name in names:
        FileSystems.delete([path for path in files if path.removeprefix(top).split("/")[0] == name])
        if FileSystems.exists(FileSystems.join(out, name)):
            FileSystems.delete([FileSystems.join(out, name)])


def read_schema(path: str) -> Schema:
    """Schema from any Beam file system, as `load_schema`."""
    if "://" not in path:
        return load_schema(path)
    try:
        with FileSystems.open(path) as stream:
            text = stream.read().decode("utf-8")
    except (OSError, ValueError, BeamIOError) as error:
        raise InputError(path, f"no readable file ({' '.join(str(error).split())})", "a schema.yaml") from error
    return parse_schema(text, path)


def read_json(path: str) -> dict:
    with FileSystems.open(path) as stream:
        return json.loads(stream.read())


def write_json(document: dict | list, path: str) -> None:
    with FileSystems.create(path, "application/json") as stream:
        stream.write(strict_json(document, indent=2, ensure_ascii=False).encode("utf-8") + b"\n")
