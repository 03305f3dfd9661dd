"""Files of log tables: files, shards, folders as Spark and Hive write them, Delta and Iceberg tables."""

import re
from collections.abc import Iterable

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from pipelines.beam.file_system import match_in
from pipelines.logs.formats import describe_suffixes, lakehouse, split_suffix
from usr_tf.errors import InputError
from usr_tf.schema import OPTIONAL_TABLES

_SHARD = re.compile(r"-(?P<index>\d+)-of-(?P<total>\d+)$")
_UNFINISHED = "_temporary"


def find_files(logs: str, table: str) -> list[str]:
    """Files of a table in a log directory, sorted by name; empty for an absent optional table.

    They are `TABLE.SUFFIX`, shards `TABLE-….SUFFIX`, and what is in the folder `TABLE`.

    Raises:
      InputError: a required table has no file, or as `match_files`.
    """
    paths = _match(logs, [f"{table}*", f"{table}/**"], "a directory of logs")
    names = {path: _inside(path, logs) for path in paths}
    folder = [path for path, name in names.items() if name.startswith(f"{table}/")]
    files = []
    for path, name in names.items():
        rest = name.removeprefix(table)
        if rest.startswith("_"):
            raise InputError(path, f"a file that may be of {table}", f"{table}-….SUFFIX for a shard, or another name")
        if "/" not in name and not rest[:1].isalnum():  # `itemsets.csv` is no file of `items`
            files.append(path)
    found = _check(files, table)
    if folder:
        found += _in_folder(FileSystems.join(logs, table), folder, table)
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
