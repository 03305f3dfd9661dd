"""Training benchmark: throughput, memory and AUC of ours, public packages and plain Keras, and the hardware bound.

`make peers` once, then from the repository, on an idle machine::

    python -m benchmarks.training [--vocabulary 100000 2000000 10000000] [--backbones shared_bottom mmoe ple]
        [--peers torch_rechub deepctr keras3] [--work DIR] [--json FILE]

Every figure is of a process of its own. They take turns, each repeat in another order, so that a machine that is busy
for a while slows all alike. The first repeat trains a whole epoch, for the AUC; the others time `--steps` steps.

- *ours*: `model.fit` of `USRModel`, without any part of USR and with all of them; with the batches in memory, and from
  files as users run it.
- *default*: a peer as its documentation has it. *tuned*: what we found to be its best, by hand. *tuned_without_norm*:
  the same without the batch normalisation that torch-rechub's networks have and the others have not.
- A ratio is of medians. The JSON holds every run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.training import floor, measure
from benchmarks.training.measure import BACKBONES
from benchmarks.training.workload import Size, Workload, make_workload

ROOT = Path(__file__).parents[2]
PYTHON_OF_PEERS = ROOT / ".venv-peers" / "bin" / "python"
PEERS = {
    "torch_rechub": ("default", "tuned", "tuned_without_norm"),
    "deepctr": ("default", "tuned"),
    "keras3": ("default", "tuned"),
}
OURS = ("ours", "ours with USR")
_CONSOLE = Console(width=180)


class Figure(NamedTuple):
    """Measurement: model, settings and command."""

    vocabulary: int
    backbone: str
    name: str
    variant: str
    """`memory` or `files` of ours, `default` or `tuned` of a peer's."""
    command: tuple[str, ...]

    @property
    def key(self) -> tuple[int, str, str, str]:
        return self[:4]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[100_000, 2_000_000, 10_000_000])
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=BACKBONES)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--input", nargs="+", choices=("memory", "files"), default=("memory", "files"), help="of ours")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50, help="timed in every repeat but the first")
    parser.add_argument("--no_auc", action="store_true", help="time --steps steps in the first repeat too")
    parser.add_argument("--rows", type=int, default=Size().rows, help="of the workload")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every model of ours")
    parser.add_argument("--work", type=Path, help="directory of workloads, kept; a temporary one when absent")
    parser.add_argument("--json", type=Path, help="write all runs and figures to this file, after every run")
    arguments = parser.parse_args()
    if arguments.peers and not PYTHON_OF_PEERS.exists():
        sys.exit(f"{PYTHON_OF_PEERS.parent}: no environment of the peers; `make peers` makes it, `--peers` skips them")
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        sizes = [Size(vocabulary, arguments.rows) for vocabulary in arguments.vocabulary]
        workloads = {size.vocabulary: _make(size, work) for size in sizes}
        document = {"machine": _machine(), "oracle": _oracle(workloads[sizes[0].vocabulary]), "runs": []}
        document["floor"] = _run((sys.executable, "-m", floor.__name__, "--quiet", "--backbones", *arguments.backbones))
        figures = [
            figure
            for vocabulary, workload in workloads.items()
            for backbone in arguments.backbones
            for figure in _figures(vocabulary, backbone, workload, arguments)
        ]
        for repeat, figure in _turns(figures, arguments.repeats):
            whole = repeat == 0 and not arguments.no_auc
            found = _run(figure.command if whole else (*figure.command, "--steps", str(arguments.steps)))
            names = ("vocabulary", "backbone", "name", "variant")
            document["runs"].append({**dict(zip(names, figure.key, strict=True)), "repeat": repeat, **found})
            _CONSOLE.print(f"{repeat + 1}/{arguments.repeats}", *figure.key, _told(found), highlight=False)
            _write(document, arguments.json)
    summary = summarize(document["runs"])
    document |= {"figures": list(summary.values()), "ratios": ratios(summary)}
    _write(document, arguments.json)
    _print(document)


def _turns(figures: Sequence[Figure], repeats: int) -> Iterator[tuple[int, Figure]]:
    """Order of the measurements: once per repeat, alternating within a vocabulary and backbone."""
    groups: dict[tuple[int, str], list[Figure]] = {}
    for figure in figures:
        groups.setdefault(figure.key[:2], []).append(figure)
    for group in groups.values():
        for repeat in range(repeats):
            first = repeat * len(group) // repeats
            for figure in group[first:] + group[:first]:
                yield repeat, figure


def _figures(vocabulary: int, backbone: str, workload: Workload, arguments: argparse.Namespace) -> Iterator[Figure]:
    settings = [part for setting in arguments.set for part in ("--set", setting)]
    for name in OURS:
        for source in arguments.input:
            usr = ["--usr"] if name == OURS[1] else []
            options = ("--data", str(workload.data), "--backbone", backbone, "--input", source, *usr, *settings)
            command = (sys.executable, "-m", "benchmarks.training.ours", *options)
            yield Figure(vocabulary, backbone, name, source, command)
    for peer in arguments.peers:
        for variant in PEERS[peer]:
            options = ("--arrays", str(workload.arrays), "--backbone", backbone, "--variant", variant)
            command = (str(PYTHON_OF_PEERS), "-m", f"benchmarks.training.peers.{peer}", *options)
            yield Figure(vocabulary, backbone, peer, variant, command)


def _make(size: Size, work: Path) -> Workload:
    """Makes a workload in its own process, to keep this one small."""
    options = ("--vocabulary", size.vocabulary, "--rows", size.rows, "--seed", size.seed, "--work", work)
    command = (sys.executable, "-m", "benchmarks.training.workload", *map(str, options))
    subprocess.run(command, cwd=ROOT, env=_environment(), check=True, capture_output=True)
    return make_workload(size, work)


def _run(command: Sequence[str]) -> dict[str, Any]:
    """Last JSON line of a command's output; `error` if it failed."""
    done = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"error": f"status {done.returncode}: {last}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _environment() -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


def summarize(runs: Sequence[dict[str, Any]]) -> dict[tuple, dict[str, Any]]:
    """Summary of each measurement: median rate and range, peak memory, AUC after the epoch."""
    grouped: dict[tuple, list[dict[str, Any]]] = {}
    for run in runs:
        grouped.setdefault((run["vocabulary"], run["backbone"], run["name"], run["variant"]), []).append(run)
    summary = {}
    for key, group in grouped.items():
        figure = dict(zip(("vocabulary", "backbone", "name", "variant"), key, strict=True))
        good = [run for run in group if "error" not in run]
        if len(good) < len(group):
            figure["error"] = next(run["error"] for run in group if "error" in run)
        if good:
            rates = [run["examples_per_second"] for run in good]
            figure |= {"examples_per_second": statistics.median(rates), "least": min(rates), "most": max(rates)}
            figure["peak_mib"] = max(run["peak_mib"] for run in good)
            figure["auc"] = next((run["auc"] for run in good if run["auc"]), None)
        summary[key] = figure
    return summary


def ratios(summary: dict[tuple, dict[str, Any]]) -> list[dict[str, Any]]:
    """Ratios by vocabulary and backbone: ours over the best tuned peer and each default, and the cost of USR.

    `of first vocabulary`: the rate over that at the first vocabulary of the run.
    """
    rate = {key: figure["examples_per_second"] for key, figure in summary.items() if "examples_per_second" in figure}
    first = next(iter(summary))[0]
    rows = []
    for vocabulary, backbone in dict.fromkeys(key[:2] for key in rate):
        mine = rate.get((vocabulary, backbone, OURS[0], "memory"))
        if mine is None:
            continue
        peers = {key[2:]: value for key, value in rate.items() if key[:2] == (vocabulary, backbone) and key[2] in PEERS}
        tuned = {"/".join(key): value for key, value in peers.items() if key[1] != "default"}
        row: dict[str, Any] = {"vocabulary": vocabulary, "backbone": backbone}
        if tuned:
            best = max(tuned, key=tuned.get)
            row |= {"best tuned": best, "over best tuned": mine / tuned[best]}
        row["over default"] = {key[0]: mine / value for key, value in peers.items() if key[1] == "default"}
        row["from files"] = _over(rate.get((vocabulary, backbone, OURS[0], "files")), mine)
        row["step with USR"] = _over(mine, rate.get((vocabulary, backbone, OURS[1], "memory")))
        row["of first vocabulary"] = _over(mine, rate.get((first, backbone, OURS[0], "memory")))
        rows.append(row)
    return rows


def _over(value: float | None, other: float | None) -> float | None:
    return value / other if value and other else None


def _oracle(workload: Workload) -> measure.AUC:
    """AUC of the true probabilities on the test split."""
    with np.load(workload.arrays) as file:
        test = int(file["test"])
        scenario, labels, oracle = (file[name][-test:] for name in ("scenario", "labels", "oracle"))
    return measure.auc_by_scenario(scenario, labels, oracle)


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    return {"cpu": name, "cores": measure.CORES, "bfloat16": measure.cpu_has_bfloat16()}


def _write(document: dict[str, Any], path: Path | None) -> None:
    if path:
        aside = path.with_name(f"{path.name}.tmp")
        aside.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        aside.replace(path)


def _told(found: dict[str, Any]) -> str:
    return found.get("error") or f"{found['examples_per_second']:,.0f} examples/s, {found['peak_mib']:,.0f} MiB"


def _print(document: dict[str, Any]) -> None:
    machine = document["machine"]
    bfloat16 = "with" if machine["bfloat16"] else "without"
    title = f"One epoch of the workload on {machine['cores']} cores of {machine['cpu']}, {bfloat16} bfloat16 products"
    table = Table(title=title)
    for column in ("V", "backbone", "", "variant", "examples/s", "least to most", "peak MiB", *_auc_columns()):
        table.add_column(column, justify="left" if column in ("backbone", "", "variant") else "right")
    for figure in document["figures"]:
        key = (f"{figure['vocabulary']:,}", figure["backbone"], figure["name"], figure["variant"])
        if "examples_per_second" not in figure:
            table.add_row(*key, figure["error"])
            continue
        spread = f"{figure['least']:,.0f}–{figure['most']:,.0f}"
        rate, peak = f"{figure['examples_per_second']:,.0f}", f"{figure['peak_mib']:,.0f}"
        table.add_row(*key, rate, spread, peak, *_auc_cells(figure["auc"]))
    table.add_row("", "", "oracle", "", "", "", "", *_auc_cells(document["oracle"]))
    _CONSOLE.print(table)
    _print_ratios(document["ratios"])
    rates, found = document["floor"]["rates"], [floor.Floor(**row) for row in document["floor"]["floors"]]
    floor.print_floors(rates, found)
    _print_shares(document["figures"], {each.backbone: each for each in found if each.of == "ours"})


def _print_ratios(rows: Sequence[dict[str, Any]]) -> None:
    table = Table(title="Ours in memory, without USR, over the others")
    columns = ("over best tuned", "over default", "from files", "step with USR", "of first vocabulary")
    for column in ("V", "backbone", *columns):
        table.add_column(column, justify="right" if column == "V" else "left")
    for row in rows:
        best = f"{row['over best tuned']:.2f} ({row['best tuned']})" if "best tuned" in row else ""
        defaults = ", ".join(f"{name} {value:.1f}" for name, value in row["over default"].items())
        others = (f"{row[name]:.2f}" if row[name] else "" for name in columns[2:])
        table.add_row(f"{row['vocabulary']:,}", row["backbone"], best, defaults, *others)
    _CONSOLE.print(table)


def _print_shares(figures: Sequence[dict[str, Any]], floors: dict[str, floor.Floor]) -> None:
    for figure in figures:
        if figure["name"] == OURS[0] and figure["variant"] == "memory" and "examples_per_second" in figure:
            share = figure["examples_per_second"] / floors[figure["backbone"]].examples_per_second
            _CONSOLE.print(f"{figure['backbone']}, V = {figure['vocabulary']:,}: {share:.0%} of the float32 floor")


def _auc_columns() -> list[str]:
    return [f"{scenario[:6]} {task}" for scenario in measure.SCENARIOS for task in measure.TASKS]


def _auc_cells(auc: measure.AUC | None) -> list[str]:
    if not auc:
        return [""] * len(_auc_columns())
    return [f"{auc[scenario][task]:.4f}" for scenario in measure.SCENARIOS for task in measure.TASKS]


if __name__ == "__main__":
    main()
