"""A serving folder: `SERVING/<version>/` for each version of a model. Servers pass over every other name."""

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


def list_versions(out: Path) -> frozenset[int]:
    """The versions that servers find in `out`; none where there is no such folder."""
    if not out.is_dir():
        return frozenset()
    return frozenset(int(path.name) for path in out.iterdir() if path.name.isascii() and path.name.isdigit())


def withdraw(out: Path, version: int) -> Path:
    """Takes a version out of service in one step, and returns its new folder."""
    path = out / str(version)
    return path.rename(path.with_name(path.name + WITHDRAWN))


def remove_old(out: Path, keep: int, needed: Set[int]) -> list[int]:
    """Removes all but the newest `keep` versions and those that are `needed`, and returns the removed."""
    removed = sorted(sorted(list_versions(out), reverse=True)[keep:])
    removed = [version for version in removed if version not in needed]
    for version in removed:
        # Out of the servers' sight first: none may load half of it.
        shutil.rmtree((out / str(version)).rename(out / f".{version}.{uuid.uuid4().hex}"))
    return removed


@contextlib.contextmanager
def changing(out: Path) -> Iterator[None]:
    """Keeps other processes from changing the folder. Makes it, and takes it away where nothing came of that.

    Raises:
      InputError: another process is at it, or the folder cannot be.
    """
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InputError(out, f"no writable directory ({error.strerror})", "one that can be written") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise InputError(out, "another publish at work", "one at a time") from error
    finally:
        os.close(folder)
        if made:
            with contextlib.suppress(OSError):
                out.rmdir()  # only if it is empty
