"""Progress of a Beam job: rows per stage, as bars on a terminal or as plain lines in a log.

Workers of a local runner append what they have done to one file, whatever process they are. On any runner the rows are
Beam counters of the namespace `usr_tf` too, which a distributed runner shows on a page of its own.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from apache_beam.metrics import Metrics
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

JOIN, TRANSFORM_ROWS, WRITE, SCORE = "join", "transform", "write", "score"
READ, READ_SCORES, TALLY = "read {}", "read scores", "tally {}s"
"""Stages of the jobs, in which `{}` is a table or a key."""
_TOTALS = {
    JOIN: READ.format("impressions"),
    TRANSFORM_ROWS: JOIN,
    WRITE: JOIN,
    SCORE: JOIN,
    TALLY.format("user"): READ_SCORES,
    TALLY.format("request"): READ_SCORES,
}
"""Stage → the stage before it whose rows are about as many."""

_NAMESPACE = "usr_tf"
_FILE = "progress"
_LOOK_SECONDS = 0.2
_LINE_SECONDS = 60.0
"""On a log a stage that takes longer says so once in this time."""

Done = list[tuple[str, int]]
"""Stages and rows, in the order in which they were done."""


class Progress:
    """Row counts per stage, collected from all workers of a job.

    Args:
      directory: a local one that they share; None where the workers are elsewhere, for Beam's counters alone.
    """

    def __init__(self, directory: str | None = None):
        self._path = None if directory is None else Path(directory, _FILE)
        self._read = 0

    def add(self, stage: str, rows: int) -> None:
        """Adds rows to the count of a stage. Called by workers."""
        Metrics.counter(_NAMESPACE, stage).inc(rows)
        if self._path:
            with self._path.open("ab", buffering=0) as stream:  # one write, so that lines stay whole
                stream.write(f"{stage}\t{rows}\n".encode())

    def take(self) -> Done:
        """Counts added since the last call. Called by the main process of the job."""
        if self._path is None or not self._path.exists():  # nothing was added yet
            return []
        with self._path.open("rb") as stream:
            stream.seek(self._read)
            lines = stream.read()
        lines = lines[: lines.rfind(b"\n") + 1]
        self._read += len(lines)
        return [(stage, int(rows)) for stage, rows in (line.split("\t") for line in lines.decode().splitlines())]


class _View(Protocol):
    def update(self, done: Done) -> None: ...

    def close(self) -> None: ...


@contextlib.contextmanager
def display(shown: bool, job: str, progress: Progress) -> Iterator[None]:
    """Context that displays the progress of a job on standard error, if `shown`.

    Args:
      job: what the job is called.
      progress: what its workers add to.
    """
    if not shown:
        yield
        return
    console = Console(stderr=True)
    view: _View = _BarsView(console, job) if console.is_terminal else _LinesView(console, job)
    stop = threading.Event()

    def follow() -> None:
        while not stop.wait(_LOOK_SECONDS):
            view.update(progress.take())

    follower = threading.Thread(target=follow, name="progress", daemon=True)
    follower.start()
    try:
        yield
    finally:
        stop.set()
        follower.join()
        view.update(progress.take())
        view.close()


class _BarsView:
    """Terminal view: one bar per stage."""

    def __init__(self, console: Console, job: str):
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[rows]}"),
            TimeElapsedColumn(),
        )
        self._bars = Bars(*columns, console=console)
        self._job = self._bars.add_task(job, total=None, rows="")
        self._stages: dict[str, TaskID] = {}
        self._rows: dict[str, int] = {}
        self._current: str | None = None
        self._bars.start()

    def update(self, done: Done) -> None:
        for stage, rows in done:
            self._rows[stage] = self._rows.get(stage, 0) + rows
            if stage not in self._stages:
                total = self._rows.get(_TOTALS.get(stage, ""))
                self._stages[stage] = self._bars.add_task(f"  {stage}", total=total, rows="")
            if self._current and self._current != stage:
                self._end(self._current)
            self._current = stage
            shown = f"{self._rows[stage]:,} rows"
            self._bars.update(self._stages[stage], completed=self._rows[stage], rows=shown)

    def close(self) -> None:
        if self._current:
            self._end(self._current)
        self._bars.update(self._job, total=1, completed=1)
        self._bars.stop()

    def _end(self, stage: str) -> None:
        self._bars.update(self._stages[stage], total=1, completed=1)


class _LinesView:
    """Log view: one line when a stage ends, and one at intervals while it runs."""

    def __init__(self, console: Console, job: str):
        self._console, self._job = console, job
        self._rows: dict[str, int] = {}
        self._current: str | None = None
        self._began = self._told = time.monotonic()

    def update(self, done: Done) -> None:
        for stage, rows in done:
            if stage != self._current:
                self.close()
                self._current = stage
            self._rows[stage] = self._rows.get(stage, 0) + rows
        if self._current and time.monotonic() - self._told >= _LINE_SECONDS:
            self._tell(self._current, " so far")

    def close(self) -> None:
        if self._current:
            self._tell(self._current)

    def _tell(self, stage: str, state: str = "") -> None:
        self._told = time.monotonic()
        done = f"{stage}: {self._rows[stage]:,} rows{state}"
        line = f"{self._job}: {done} ({self._told - self._began:.0f} s)"
        self._console.print(line, soft_wrap=True, markup=False, highlight=False)
