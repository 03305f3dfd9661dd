"""What every figure of the benchmark consists of, ours and the peers' alike. Needs NumPy and scikit-learn alone, and
Linux.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

BATCH, EMBEDDING, SEED = 2048, 16, 0
EXPERTS, LAYERS, TOWER, LEVELS = 4, (256, 128), (64,), 2
LEARNING_RATE, TABLE_LEARNING_RATE, INITIAL_ACCUMULATOR = 1e-3, 0.02, 1e-7
BACKBONES = ("shared_bottom", "mmoe", "ple")
CORES = len(os.sched_getaffinity(0))
WARM_UP = 10
"""Steps before the clock runs: tracing, first allocations."""

SCENARIOS, TASKS = ("search", "recommendation"), ("ctr", "ctcvr")
AUC = dict[str, dict[str, float]]


@dataclass
class Clock:
    """Examples a second of the steps after the first `WARM_UP`.

    Args:
      steps: how many are timed; all that follow when None.
    """

    steps: int | None = None
    _done: int = field(default=0, init=False)
    _rows: int = field(default=0, init=False)
    _start: float = field(default=0.0, init=False)
    _end: float = field(default=0.0, init=False)

    def count(self, rows: int, steps: int = 1) -> None:
        """Another step of so many rows has come to its end; or several, which began together."""
        self._end = time.perf_counter()
        if self._done >= WARM_UP:
            self._rows += rows
        self._done += steps
        if not self._rows:
            self._start = self._end

    @property
    def finished(self) -> bool:
        return self.steps is not None and self._done >= WARM_UP + self.steps

    @property
    def examples_per_second(self) -> float:
        if not self._rows:
            raise ValueError(f"There must be more than {WARM_UP} steps to time. Received: {self._done}")
        return self._rows / (self._end - self._start)

    def watch(self, batches: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        """The `(features, labels)` batches, until enough are timed: a step ends when the next batch is asked for."""
        for features, labels in batches:
            yield features, labels
            self.count(len(labels))
            if self.finished:
                return


def report(examples_per_second: float, auc: AUC | None, **more: Any) -> None:
    """Prints a figure as the line that `benchmarks.training` reads, with the most memory that this process has held."""
    figure = {"examples_per_second": examples_per_second, "peak_mib": _peak_mib(), "auc": auc}
    print(json.dumps(figure | more), flush=True)


def auc_by_scenario(scenario: NDArray, labels: NDArray, probabilities: NDArray) -> AUC:
    """Of scenarios `[N]`, labels and probabilities `[N, tasks]`."""
    return {
        name: {
            task: float(roc_auc_score(labels[scenario == place, t], probabilities[scenario == place, t]))
            for t, task in enumerate(TASKS)
        }
        for place, name in enumerate(SCENARIOS)
    }


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return "amx_bf16" in flags or "avx512_bf16" in flags


def _peak_mib() -> float:
    # `getrusage` would not do: a process starts with the peak of the one that made it.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
