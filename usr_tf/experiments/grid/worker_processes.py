"""Worker processes for jobs: reused between jobs, replaced when they die. Needs no TensorFlow."""

import contextlib
import fcntl
import multiprocessing
import os
import resource
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from usr_tf.errors import InputError

_LOG = "workers.log"
_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS"), "1")
"""As many jobs are done at a time as there are cores."""
_ENVIRONMENT["LANGUAGE"] = "C"
"""Beam parses its options some thousand times a pipeline, and each parser looks for translations on the disk."""
_MOST_MIB = 3000
"""A worker that ever had more is replaced: TensorFlow keeps some 60 MiB of every model that it has traced."""
_TRIES = 2
"""A job whose worker dies, usually because of too little memory, gets another one."""


class Job(Protocol):
    """Idempotent unit of work. Its result is stored, so a killed experiment continues."""

    @property
    def key(self) -> str:
        """Hash of everything that the result depends on."""

    @property
    def name(self) -> str:
        """Human-readable name."""

    @property
    def needs(self) -> "tuple[Job, ...]":
        """Jobs that must run before."""

    def is_done(self, work: Path) -> bool:
        """Whether the result is stored."""

    def do(self, work: Path) -> None:
        """Runs the job and stores its result, whole or not at all."""


@dataclass(frozen=True)
class Failure:
    """Failed job and its reason."""

    key: str
    name: str
    reason: str


def run_jobs(
    jobs: Sequence[Job], work: Path, workers: int, ended: Callable[[Job, str | None], None] = lambda *_: None
) -> list[Failure]:
    """Runs the pending jobs and their dependencies. A failed job does not stop the others.

    Args:
      work: where results lie, and `workers.log`, what the libraries had to say.
      workers: processes, of one thread each.
      ended: called for each finished job, with the reason if it failed.
    """
    work.mkdir(parents=True, exist_ok=True)
    waiting = pending(jobs, work)
    failures: dict[str, Failure] = {}
    tries: dict[str, int] = {}

    def fail(job: Job, reason: str) -> None:
        failures[job.key] = Failure(job.key, job.name, reason)
        ended(job, reason)

    with contextlib.ExitStack() as stack:
        crew = [stack.enter_context(_Worker(work)) for _ in range(min(workers, len(waiting)))]
        while waiting or any(worker.job for worker in crew):
            for job in list(waiting.values()):
                lost = [need for need in job.needs if need.key in failures]
                if lost:
                    del waiting[job.key]
                    fail(job, f"needs {lost[0].name}, which failed")
            ready = [job for job in waiting.values() if not any(_is_open(need, waiting, crew) for need in job.needs)]
            for worker, job in zip([worker for worker in crew if not worker.job], ready, strict=False):
                worker.give(waiting.pop(job.key))
            for worker in _first_to_end([worker for worker in crew if worker.job]):
                job, (died, reason) = worker.job, worker.take()
                tries[job.key] = tries.get(job.key, 0) + 1
                if died and tries[job.key] < _TRIES:
                    waiting = {job.key: job, **waiting}
                elif reason:
                    fail(job, reason)
                else:
                    ended(job, None)
    return list(failures.values())


def pending(jobs: Sequence[Job], work: Path) -> dict[str, Job]:
    """Pending jobs and dependencies, without repeats, by key, dependencies first."""
    found: dict[str, Job] = {}

    def add(job: Job) -> None:
        if job.key not in found and not job.is_done(work):
            for need in job.needs:
                add(need)
            found[job.key] = job

    for job in jobs:
        add(job)
    return found


def peak_mib() -> int:
    """Peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Context that holds a file lock, which the system releases when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_open(job: Job, waiting: dict[str, Job], crew: "Sequence[_Worker]") -> bool:
    return job.key in waiting or any(worker.job and worker.job.key == job.key for worker in crew)


def _first_to_end(busy: "Sequence[_Worker]") -> "list[_Worker]":
    if not busy:
        return []
    heard = set(wait([source for worker in busy for source in worker.sources]))
    return [worker for worker in busy if heard & set(worker.sources)]


class _Worker:
    """Worker process and its current job. It is replaced when it dies or has grown too large."""

    def __init__(self, work: Path):
        self._work = work
        self.job: Job | None = None

    def __enter__(self) -> "_Worker":
        # Spawned, for a fork of a process with threads may hang
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self._work), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is heard
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()

    @property
    def sources(self) -> tuple[Any, int]:
        """Connections that become ready when the job ends or the process dies."""
        return self._connection, self._process.sentinel

    def give(self, job: Job) -> None:
        self.job = job
        with contextlib.suppress(BrokenPipeError):  # it died while idle, as `take` will hear
            self._connection.send(job)

    def take(self) -> tuple[bool, str | None]:
        """Whether the process died during its job, and the failure of the job if any."""
        self.job = None
        try:
            reason, mib = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            self._replace()
            return True, f"its worker died {_TRIES} times ({f'signal {-code}' if code < 0 else f'exit status {code}'})"
        if mib > _MOST_MIB:
            self._replace()
        return False, reason

    def _replace(self) -> None:
        self.__exit__()
        self.__enter__()


def _work(connection: Connection, work: Path) -> None:
    """Main loop of a worker: runs jobs until the main process closes the connection or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the main process ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with (work / _LOG).open("a", encoding="utf-8") as log:  # the libraries' chatter would tear the progress bar
        os.dup2(log.fileno(), 2)
    os.environ.update(_ENVIRONMENT)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send((_do(job, work), peak_mib()))


def _do(job: Job, work: Path) -> str | None:
    """Runs a job; returns the reason of its failure, if any."""
    try:
        with locked(work / "locks" / job.key):
            if not job.is_done(work):
                job.do(work)
    except InputError as error:
        return str(error)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})".replace("\n", " ")
    return None


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
