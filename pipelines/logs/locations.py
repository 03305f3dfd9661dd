"""Files of log tables: files, shards, folders as Spark and Hive write them, Delta and Iceberg tables."""

import os
import re
from collections.abc import Iterable

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from pipelines.beam.file_system import match_in
from pipelines.logs.files import compression_of
from pipelines.logs.formats import describe_suffixes, lakehouse, split_suffix
from usr_tf.errors import InputError
from usr_tf.schema import OPTIONAL_TABLES

_SHARD = re.compile(r"-(?P<index>\d+)-of-(?P<total>\d+)$")
_UNFINISHED = "_temporary"


def find_files(logs: str, table: str) -> list[str]:
    """Files of a table in a log directory, sorted by name; empty for an absent optional table.

    They are `TABLE.SUFFIX`, shards `TABLE-….SUFFIX`, and what is in folders of such names or `TABLE`.

    Raises:
      InputError: a required table has no file, a link leads nowhere, or as `match_files`.
    """
    paths = _match(logs, [f"{table}*", f"{table}*/**"], "a directory of logs")
    _refuse_broken_links(logs, table)
    files = []
    folders: dict[str, list[str]] = {}
    for path in paths:
        top, slash, _ = _inside(path, logs).partition("/")
        rest = top.removeprefix(table)
        if rest.startswith("_") and (not slash or split_suffix(path)[1]):
            raise InputError(path, f"a file that may be of {table}", f"{table}-….SUFFIX for a shard, or another name")
        if rest.startswith("_") or rest[:1].isalnum():  # `itemsets.csv` is no file of `items`
            continue
        if slash:
            folders.setdefault(top, []).append(path)
        else:
            files.append(path)
    found = _check(files, table)
    for top, inside in folders.items():
        found += _in_folder(FileSystems.join(logs, top), inside, table)
    if not found and table not in OPTIONAL_TABLES:
        raise InputError(
            logs,
            f"no {table} file",
            f"{table}.jsonl, .parquet, .csv or .avro, shards of it, or a folder {table}",
        )
    return sorted(found)


def match_files(where: str, table: str) -> list[str]:
    """Files of a table at a path, a pattern or a folder, sorted by name.

    Raises:
      InputError: there is none, one is of no known format, one of its numbered shards is missing, or the folder is the
        remains of an unfinished job or a Delta or Iceberg table that its files alone do not tell.
    """
    where = where.rstrip("/") or where
    try:
        inside = _match(where, ["**"], f"files of {table}")
        paths = [] if inside else sorted(file.path for file in FileSystems.match([where])[0].metadata_list)
    except (ValueError, BeamIOError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(where, f"no readable files ({error})", f"files of {table}") from error
    found = _in_folder(where, inside, table) if inside else _check(paths, table)
    if not found:
        raise InputError(where, "no file", f"at least one of {table}")
    return sorted(found)


def _match(directory: str, patterns: list[str], expected: str) -> list[str]:
    try:
        return sorted({*match_in(directory, patterns)})
    except (ValueError, BeamIOError) as error:  # ValueError: a file system that Beam does not have
        raise InputError(directory, f"no readable directory ({error})", expected) from error


def _refuse_broken_links(logs: str, table: str) -> None:
    """Refuses a local table of which a link leads nowhere: listings leave such links out."""
    if not os.path.isdir(logs):
        return
    for entry in sorted(os.listdir(logs)):
        if entry.startswith(table):
            path = os.path.join(logs, entry)
            inside = (os.path.join(top, name) for top, _, names in os.walk(path) for name in names)
            broken = next((each for each in (path, *inside) if not os.path.exists(each)), None)
            if broken:
                raise InputError(broken, "a link that leads nowhere", "a file")


def _in_folder(folder: str, paths: Iterable[str], table: str) -> list[str]:
    """Files of a table in its folder, at any depth; those whose names or folders start with `_` or `.` do not count."""
    names = {path: _inside(path, folder) for path in paths}
    if snapshot := lakehouse.snapshot_files(folder, [*names.values()]):
        return snapshot
    if any(name.startswith(f"{_UNFINISHED}/") or f"/{_UNFINISHED}/" in name for name in names.values()):
        raise InputError(f"{folder}/{_UNFINISHED}", "the remains of an unfinished job", "a folder that is complete")
    return _check([path for path, name in names.items() if not _is_hidden(name)], table)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(("_", ".")) for part in name.split("/"))


def _inside(path: str, directory: str) -> str:
    return path.removeprefix(FileSystems.join(directory, ""))


def _check(paths: list[str], table: str) -> list[str]:
    for path in paths:
        if not split_suffix(path)[1]:
            raise InputError(path, f"another kind of file for {table}", f"one that ends in {describe_suffixes()}")
    plain: dict[str, str] = {}
    for path in paths:
        compression = compression_of(path)
        name = path[: -len(compression.suffix)] if compression else path
        if plain.setdefault(name, path) != path:
            raise InputError(path, f"{plain[name].rpartition('/')[2]} beside it", "one of them, if it is the same file")
    sets: dict[tuple[str, int], set[int]] = {}
    for path in paths:
        stem = split_suffix(path)[0]
        shard = _SHARD.search(stem)
        if shard:
            sets.setdefault((stem[: shard.start()], int(shard["total"])), set()).add(int(shard["index"]))
    for (stem, total), indices in sets.items():
        first = 1 if total in indices and 0 not in indices else 0  # some number from 1
        missing = sorted({*range(first, first + total)} - indices)
        if missing:
            raise InputError(f"{stem}-*-of-{total:05}", f"no shard {missing[0]:05}", f"all {total} shards")
    return paths
