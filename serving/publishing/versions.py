"""Version folders: `SERVING/<version>/`. Servers ignore names that are not numbers."""

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator, Set
from pathlib import Path

from usr_tf.errors import InputError

WITHDRAWN = ".withdrawn"
"""What the name of a version ends in that was taken out of service. Renaming it back puts it there again."""
LOCK = ".lock"
"""Lock file of changes to the folder. It is never removed."""


def list_versions(out: Path) -> frozenset[int]:
    """Versions in `out` that servers find; empty without the folder."""
    if not out.is_dir():
        return frozenset()
    return frozenset(int(path.name) for path in out.iterdir() if path.name.isascii() and path.name.isdigit())


def withdraw(out: Path, version: int) -> Path:
    """Takes a version out of service by a rename and returns the new folder."""
    path = out / str(version)
    return path.rename(path.with_name(path.name + WITHDRAWN))


def remove_old(out: Path, keep: int, needed: Set[int]) -> list[int]:
    """Removes all versions except the newest `keep` and the `needed` ones; returns the removed."""
    removed = sorted(set(sorted(list_versions(out), reverse=True)[keep:]) - needed)
    for version in removed:
        remove(out, version)
    return removed


def remove(out: Path, version: int) -> None:
    """Deletes a version: renames it first, so that no server loads half of it."""
    shutil.rmtree((out / str(version)).rename(out / f".{version}.{uuid.uuid4().hex}"))


@contextlib.contextmanager
def changing(out: Path) -> Iterator[None]:
    """Lock of the folder against other processes. Creates it, and removes it if nothing was written.

    Raises:
      InputError: another process is at it, or the folder cannot be.
    """
    try:
        made = _make(out)
        lock = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o666)  # NFS locks only what may be written: no folder
    except OSError as error:
        raise InputError(out, f"no writable directory ({error.strerror})", "one that can be written") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise InputError(out, "another publish at work", "one at a time") from error
    try:
        yield
    finally:
        if made and os.listdir(out) == [LOCK]:
            (out / LOCK).unlink()
            out.rmdir()
        os.close(lock)


def _make(out: Path) -> bool:
    """Creates the folder; returns whether it was missing."""
    try:
        out.mkdir(parents=True)
    except FileExistsError:
        return False
    return True
