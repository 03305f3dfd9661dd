"""A/B timing of two implementations in alternation, so that changes of the machine's speed affect both."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

_WARM_UP = 10
_PERCENTILES = {"p10": 10, "p50": 50, "p90": 90}


def alternate(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict:
    """Timings of two named functions: milliseconds of each, and the ratio second / first, pair by pair."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(_WARM_UP + repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if repeat >= _WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    first, second = seconds.values()
    return {
        "milliseconds": {name: _percentiles(1e3 * np.array(values)) for name, values in seconds.items()},
        "ratio": _percentiles(np.divide(second, first)),
    }


def report(title: str, figures: dict, path: str | None) -> None:
    """Prints the timings of `alternate` and, with a path, writes all of `figures` as JSON."""
    table = Table(title=title)
    table.add_column("way")
    for name in _PERCENTILES:
        table.add_column(f"{name} ms", justify="right")
    for way, values in figures["milliseconds"].items():
        table.add_row(way, *(f"{value:.2f}" for value in values.values()))
    table.add_row("ratio, pair by pair", *(f"{value:.2f}" for value in figures["ratio"].values()))
    Console().print(table)
    if path:
        Path(path).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _percentiles(values: np.ndarray) -> dict[str, float]:
    return {name: float(np.percentile(values, percent)) for name, percent in _PERCENTILES.items()}
