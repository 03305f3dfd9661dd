"""Training progress: a bar on a terminal, and a line per epoch."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tf_keras as keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

_REFRESH_SECONDS = 0.2
"""A loss is read no more often than this: reading it waits for the step."""
_COLUMNS = 120
"""Width of a line; more figures go to the next one."""


class Progress(keras.callbacks.Callback):
    """Callback that prints epoch, step, examples per second, remaining time and loss to standard error.

    Use it as a context, with `verbose=0` in `fit`. Put it after `Checkpoints` in the list of callbacks.

    Args:
      epochs: of the whole training.
      steps_per_epoch: steps of a whole epoch.
      batch_size: examples of a step.
      summary: how far the training is, `Checkpoints.summary`: an epoch's line names the best epoch so far, and the last
        line why training stopped. None leaves both out.
      console: where to write; standard error when absent.
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        batch_size: int,
        summary: Callable[[], Mapping[str, Any]] | None = None,
        console: Console | None = None,
    ):
        super().__init__()
        self._supports_tf_logs = True  # Keras would else read every figure after every step
        self._epochs = epochs
        self._summary = summary
        self._console = console or Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(batch_size),
            TimeRemainingColumn(),
            TextColumn("{task.fields[phase]}"),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task("", total=steps_per_epoch, phase="")
        self._pace = Pace(batch_size)
        self._began = False
        self._done = 0
        self._refreshed = 0.0

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._pace.start()
        self._began, self._done = False, 0
        self._bar.reset(self._task, description=self._name(epoch), phase="")

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if not self._began and self._console.is_terminal:  # an epoch that goes on does not begin with its first batch
            self._bar.update(self._task, completed=batch, refresh=True)
        self._began = True

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._pace.step()
        self._done = batch + 1
        now = time.monotonic()
        if self._console.is_terminal and now - self._refreshed >= _REFRESH_SECONDS:
            self._refreshed = now
            loss = f"loss {float(logs['loss']):.4f}"
            self._bar.update(self._task, completed=self._done, phase=loss, refresh=True)

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        if self._console.is_terminal:
            self._bar.update(self._task, completed=self._done, phase="validation", refresh=True)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        figures = [
            self._name(epoch),
            f"{self._pace.examples_per_second:,.0f} examples/s",
            f"{self._pace.seconds:.1f} s",
            *(f"{name} {float(logs[name]):.4f}" for name in ("loss", "val_loss", "val_nll") if name in logs),
        ]
        if self._summary:
            figures.append(f"best epoch {self._summary()['best_epoch']}")
        auc = [
            f"{name.removeprefix('val_').removesuffix('_auc')} {float(value):.4f}"
            for name, value in logs.items()
            if name.startswith("val_") and name.endswith("_auc")
        ]
        self._print(*_lines(figures), *(_lines(["  val AUC", *auc]) if auc else ()))

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        if self._summary:
            self._print(_ending(self._summary()))

    def _print(self, *lines: str) -> None:
        for line in lines:
            self._console.print(line, soft_wrap=True, markup=False, highlight=False)

    def _name(self, epoch: int) -> str:
        return f"epoch {epoch + 1}/{self._epochs}"


def _lines(figures: list[str]) -> Iterator[str]:
    """Metrics in lines of `_COLUMNS`, all except the first indented."""
    line = figures[0]
    for figure in figures[1:]:
        if len(line) + 2 + len(figure) > _COLUMNS:
            yield line
            line = f"  {figure}"
        else:
            line = f"{line}  {figure}"
    yield line


def _ending(summary: Mapping[str, Any]) -> str:
    """Reason why training stopped, and the best epoch."""
    best, epochs, monitor = summary["best_epoch"], summary["epochs"], summary["monitor"]
    reasons = {
        "epochs": "all epochs are done",
        "patience": f"{monitor} has not improved since epoch {best}",
        "callback": "a callback stopped it",
    }
    end = f"after epoch {epochs}"
    if "batches" in summary:
        end = f"in epoch {epochs + 1}, after {summary['batches']} of {summary['of_batches']} batches"
    value = "undefined" if summary["best"] is None else f"{summary['best']:.4f}"
    return f"training ended {end}: {reasons[summary['stopped']]}; best epoch {best}, {monitor} {value}"


class Pace:
    """Examples per second of an epoch's steps.

    Args:
      batch_size: examples of a step.
    """

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self.start()

    def start(self) -> None:
        """Starts an epoch."""
        self._began = self._last = time.monotonic()
        self._first, self._first_steps, self.steps = self._began, 0, 0

    def step(self) -> None:
        """Counts a finished step."""
        self.steps, self._last = self.steps + 1, time.monotonic()
        if not self._first_steps:
            self._first, self._first_steps = self._last, self.steps

    @property
    def seconds(self) -> float:
        """Seconds from the start to the end of the last step."""
        return self._last - self._began

    @property
    def examples_per_second(self) -> float:
        """Rate without the first step, which waits for tracing, unless it is the only one."""
        steps, seconds = self.steps - self._first_steps, self._last - self._first
        if not steps:
            steps, seconds = self.steps, self.seconds
        return steps * self._batch_size / seconds if seconds else 0.0


class _Rate(ProgressColumn):
    def __init__(self, batch_size: int):
        super().__init__()
        self._batch_size = batch_size

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed * self._batch_size:,.0f} examples/s" if task.speed else "")
