"""Fake jobs without work, which record their execution in files."""

import fcntl
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from usr_tf.errors import InputError


@dataclass(frozen=True)
class FakeJob:
    """Job that appends to `done.txt`, and its process id to `workers.txt`.

    `deaths`: how many workers die over it first.
    """

    key: str
    needs: tuple["FakeJob", ...] = ()
    deaths: int = 0
    error: str | None = None
    waits_for: str | None = None
    """A file that holds it up while somebody has its lock."""

    @property
    def name(self) -> str:
        return f"job {self.key}"

    def is_done(self, work: Path) -> bool:
        return (work / self.key).exists()

    def do(self, work: Path) -> None:
        tries = work / f"{self.key}.tries"
        with tries.open("a") as file:
            file.write("x")
        if len(tries.read_text()) <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.error == "input":
            raise InputError("here", "nothing", "something")
        if self.error:
            raise RuntimeError(self.error)
        if self.waits_for:
            (work / f"{self.key}.begun").touch()
            with open(self.waits_for) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
        for file, line in (("done.txt", self.key), ("workers.txt", os.getpid())):
            with (work / file).open("a") as told:
                told.write(f"{line}\n")
        (work / self.key).touch()


def main(work: str, held: str) -> None:
    """Main process of a killed experiment."""
    from usr_tf.experiments.grid.worker_processes import run_jobs

    run_jobs([FakeJob("done"), FakeJob("cut", waits_for=held), FakeJob("later")], Path(work), 1)


if __name__ == "__main__":
    import signal
    import sys

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests without it
    from tests.experiments.fake_jobs import main as named  # jobs are pickled by their module's name

    named(*sys.argv[1:])
