"""What a training shows while it runs: a bar on a terminal, and a line for each epoch everywhere."""

import time
from collections.abc import Mapping
from typing import Any

import tf_keras as keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

_REFRESH_SECONDS = 0.2
"""A loss is read no more often than this: reading it waits for the step."""


class Progress(keras.callbacks.Callback):
    """Epoch, step, examples a second, time left in the epoch and loss, on standard error.

    Use it as a context, with `verbose=0` in `fit`. One object serves any number of `fit`s of one training.

    Args:
      epochs: of the whole training.
      steps_per_epoch: steps of a whole epoch.
      batch_size: examples of a step.
      first_step: steps of the first epoch that an earlier try has done.
      console: where to write; standard error when absent.
    """

    def __init__(
        self, epochs: int, steps_per_epoch: int, batch_size: int, first_step: int = 0, console: Console | None = None
    ):
        super().__init__()
        self._supports_tf_logs = True  # Keras would else read every figure after every step
        self._epochs = epochs
        self._before = first_step
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
        self._shown = 0.0

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._pace.start()
        self._bar.reset(self._task, completed=self._before, description=self._name(epoch), phase="")
        if self._console.is_terminal:
            self._bar.refresh()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._pace.step(batch + 1)
        now = time.monotonic()
        if self._console.is_terminal and now - self._shown >= _REFRESH_SECONDS:
            self._shown = now
            loss = f"loss {float(logs['loss']):.4f}"
            self._bar.update(self._task, completed=self._before + batch + 1, phase=loss, refresh=True)

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        if self._console.is_terminal:
            self._bar.update(self._task, completed=self._before + self._pace.steps, phase="validation", refresh=True)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        shown = {name: value for name, value in logs.items() if name == "loss" or name.startswith("val_")}
        line = [
            self._name(epoch),
            f"{self._pace.examples_per_second:,.0f} examples/s",
            f"{self._pace.seconds:.1f} s",
            *(f"{name} {float(value):.4f}" for name, value in shown.items()),
        ]
        self._console.print("  ".join(line), soft_wrap=True, markup=False, highlight=False)
        self._before = 0

    def _name(self, epoch: int) -> str:
        return f"epoch {epoch + 1}/{self._epochs}"


class Pace:
    """How fast an epoch's steps go.

    Args:
      batch_size: examples of a step.
    """

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self.start()

    def start(self) -> None:
        """An epoch begins."""
        self._began = self._last = time.monotonic()
        self._first, self._first_steps, self.steps = self._began, 0, 0

    def step(self, steps: int) -> None:
        """So many steps are done since the start."""
        self.steps, self._last = steps, time.monotonic()
        if not self._first_steps:
            self._first, self._first_steps = self._last, steps

    @property
    def seconds(self) -> float:
        """From the start to the end of the last step."""
        return self._last - self._began

    @property
    def examples_per_second(self) -> float:
        """After the first step, which waits for the graph to be traced; of that step where there is no other."""
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
