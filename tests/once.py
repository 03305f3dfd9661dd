"""Session-wide fixtures shared by all test processes: made once, then read only."""

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Folder that the first process fills with `make` while the others wait. Read only."""
    session = tmp_path_factory.getbasetemp()
    if session.name.startswith("popen-"):  # a process of pytest-xdist has a folder in the session's
        session = session.parent
    folder, done = session / name, session / f"{name}.done"
    with (session / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a try that failed
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
