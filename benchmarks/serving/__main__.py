"""Serving benchmark: latency of one request and throughput, for our export and for peers.

`make peers` once, then from the repository, on an idle machine::

    python -m benchmarks.serving [--work DIR] [--backbone mmoe] [--candidates 500 1 50 200 2000] [--clients 1 2 4]
        [--ways request rows grpc ranker] [--peers torch_rechub deepctr keras3] [--json FILE]

The model is that of the training benchmark. Every figure is of a process of its own; they take turns, each repeat in
another order. A figure is the median over the repeats.

- *request*, *rows*, *grpc*, *ranker*: ours, see `benchmarks/serving/ours.py`; *with USR*: all of its parts on.
- A peer scores rows with the user's features in each of them, in its own process and without a server; `1 thread`: an
  operation has one, `default`: one a core.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.training.__main__ import PYTHON_OF_PEERS, ROOT, _environment, _machine, _make, _write
from benchmarks.training.measure import BACKBONES
from benchmarks.training.workload import Size

PEERS = ("torch_rechub", "deepctr", "keras3")
WAYS = ("request", "rows", "grpc", "ranker")
_CONSOLE = Console(width=150)


class Figure(NamedTuple):
    """Measurement and the command that prints it, one JSON line per number of candidates and clients."""

    name: str
    command: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=BACKBONES, default="mmoe")
    parser.add_argument("--candidates", type=int, nargs="+", default=[500, 1, 50, 200, 2000])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--no_usr", action="store_true", help="leave out ours with USR")
    parser.add_argument("--threads", type=int, nargs="+", default=[0, 1], help="of an operation; 0: one a core")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--work", type=Path, help="directory of models, kept; a temporary one when absent")
    parser.add_argument("--json", type=Path, help="write all figures to this file, after every run")
    arguments = parser.parse_args()
    if arguments.peers and not PYTHON_OF_PEERS.exists():
        sys.exit(f"{PYTHON_OF_PEERS.parent}: no environment of the peers; `make peers` makes it, `--peers` skips them")
    with tempfile.TemporaryDirectory() as temporary:
        figures = list(_figures(arguments, arguments.work or Path(temporary)))
        document: dict[str, Any] = {"machine": _machine(), "runs": []}
        for repeat in range(arguments.repeats):
            first = repeat * len(figures) // arguments.repeats
            for figure in figures[first:] + figures[:first]:
                for found in _run(figure.command):
                    document["runs"].append({"name": figure.name, "repeat": repeat, **found})
                _CONSOLE.print(f"{repeat + 1}/{arguments.repeats}", figure.name, highlight=False)
                _write(document, arguments.json)
    document["figures"] = summarize([run for run in document["runs"] if "p50_ms" in run])
    document["ratios"] = ratios(document["figures"]) | _first(document)
    _write(document, arguments.json)
    _print(document)


def _figures(arguments: argparse.Namespace, work: Path) -> Iterator[Figure]:
    common = ["--seconds", str(arguments.seconds)]
    for option in ("candidates", "clients"):
        common += [f"--{option}", *map(str, getattr(arguments, option))]
    threads = {number: f"{number} thread{'s' * (number > 1)}" if number else "default" for number in arguments.threads}
    for usr in (False, True)[: 1 if arguments.no_usr else 2]:
        if not arguments.ways:
            break
        shop = ("benchmarks.serving.shop", "--work", str(work), "--backbone", arguments.backbone, *(["--usr"] * usr))
        serving = _output((sys.executable, "-m", *shop)).strip().splitlines()[-1]
        for way in arguments.ways:
            for number, threads_label in threads.items():
                ours = ("benchmarks.serving.ours", "--serving", serving, "--way", way, *common)
                name = f"ours{' with USR' * usr}, {way}, {threads_label}"
                yield Figure(name, (sys.executable, "-m", *ours, "--intra_op_threads", str(number)))
    arrays = _make(Size(), work).arrays if arguments.peers else None
    for peer in arguments.peers:
        for number, threads_label in threads.items():
            options = ("--arrays", str(arrays), "--peer", peer, "--backbone", arguments.backbone, *common)
            command = (str(PYTHON_OF_PEERS), "-m", "benchmarks.serving.peers", *options)
            yield Figure(f"{peer}, {threads_label}", (*command, *(["--threads", str(number)] if number else [])))


def _run(command: Sequence[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _output(command).splitlines() if line.startswith("{")]


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: status {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def summarize(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over the repeats."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["name"], run["candidates"], run["clients"]), []).append(run)
    return [
        {
            **dict(zip(("name", "candidates", "clients"), key, strict=True)),
            **{
                field: statistics.median(run[field] for run in group)
                for field in ("p50_ms", "p99_ms", "candidates_per_second")
            },
        }
        for key, group in groups.items()
    ]


def ratios(figures: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Ratios to the peers: one client, the first number of candidates, best setting of each."""
    candidates = figures[0]["candidates"]
    p50 = {
        figure["name"]: figure for figure in figures if figure["candidates"] == candidates and figure["clients"] == 1
    }

    def best(*starts: str) -> dict[str, Any] | None:
        chosen = [figure for name, figure in p50.items() if name.startswith(starts)]
        return min(chosen, key=lambda figure: figure["p50_ms"], default=None)

    found = {}
    ours, rows, over_grpc, peer = best("ours, request"), best("ours, rows"), best("ours, grpc"), best(*PEERS)
    for name, other in (("best peer / ours", peer), ("rows / ours", rows), ("grpc / in process", over_grpc)):
        if ours and other:
            found[name] = other["p50_ms"] / ours["p50_ms"]
    for name, figure in (("in process", ours), ("grpc", over_grpc)):
        if figure:
            found[f"p99 / p50, {name}"] = figure["p99_ms"] / figure["p50_ms"]
    if ours:
        each = {
            figure["candidates"]: figure["p50_ms"] / figure["candidates"]
            for figure in figures
            if figure["name"] == ours["name"] and figure["clients"] == 1
        }
        if {200, 2000} <= each.keys():
            found["cost of a candidate, 2,000 / 200"] = each[2000] / each[200]
    return found


def _first(document: dict[str, Any]) -> dict[str, float]:
    """Latency of the first request after a version is loaded, relative to the p50 of the others."""
    p50 = {
        (figure["name"], figure["candidates"]): figure["p50_ms"]
        for figure in document["figures"]
        if figure["clients"] == 1
    }
    found: dict[str, list[float]] = {}
    for run in document["runs"]:
        if "first_ms" in run and ", grpc" in run["name"]:
            ratio = run["first_ms"] / p50[run["name"], run["candidates"]]
            found.setdefault(f"first / p50, {run['name']}", []).append(ratio)
    return {name: statistics.median(values) for name, values in found.items()}


def _print(document: dict[str, Any]) -> None:
    machine, figures = document["machine"], document["figures"]
    sizes = sorted({figure["candidates"] for figure in figures})
    clients = sorted({figure["clients"] for figure in figures})
    of = {(figure["name"], figure["candidates"], figure["clients"]): figure for figure in figures}
    names = dict.fromkeys(figure["name"] for figure in figures)
    latency = Table(
        title=f"One client: p50 (p99), ms, of so many candidates; {machine['cores']} cores of {machine['cpu']}"
    )
    first = figures[0]["candidates"]
    rates = Table(title=f"{first:,} candidates: thousands a second, of so many clients")
    for table, columns in ((latency, sizes), (rates, clients)):
        table.add_column("")
        for column in columns:
            table.add_column(f"{column:,}", justify="right")
    for name in names:
        cells = (of[name, size, clients[0]] for size in sizes)
        latency.add_row(name, *(f"{cell['p50_ms']:.2f} ({cell['p99_ms']:.2f})" for cell in cells))
        cells = (of[name, first, number] for number in clients)
        rates.add_row(name, *(f"{cell['candidates_per_second'] / 1e3:,.0f}" for cell in cells))
    _CONSOLE.print(latency)
    _CONSOLE.print(rates)
    for name, value in document["ratios"].items():
        _CONSOLE.print(f"{name}: {value:.2f}", highlight=False)


if __name__ == "__main__":
    main()
