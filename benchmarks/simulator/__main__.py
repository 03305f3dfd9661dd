"""Verification of the simulated shop: logs and labels against its equations.

`python -m benchmarks.simulator --out DIR` prints the tables of docs/simulator.md, writes them to `DIR/simulator.json`,
and draws its pictures, `DIR/simulator-*.png`. `--only NAME …` runs some of the parts, `--impressions N` a smaller shop.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from rich.console import Console
from rich.table import Table

from benchmarks.simulator.cost import cost
from benchmarks.simulator.crossing import global_sources, needs_switch
from benchmarks.simulator.learnable import learnable
from benchmarks.simulator.logs import Logs, Row
from benchmarks.simulator.pictures import STYLE, draw_lift, draw_positions, draw_similarity
from benchmarks.simulator.rates import positions, rates, rates_by_size
from benchmarks.simulator.signals import signals
from benchmarks.simulator.sweeps import noise_sweep, similarity_sweep
from pipelines.simulator.scenarios import SCENARIOS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory of the tables and pictures")
    parser.add_argument("--impressions", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--only", nargs="+", choices=tuple(PROGRAM), default=list(PROGRAM))
    parser.add_argument("--cost", type=int, nargs="+", default=[200_000, 1_000_000, 5_000_000], help="sizes to time")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes to time")
    values = parser.parse_args()
    values.out.mkdir(parents=True, exist_ok=True)
    report = values.out / "simulator.json"
    tables = json.loads(report.read_text()) if report.exists() else {}
    with rc_context(STYLE):
        for name in values.only:
            for title, rows in PROGRAM[name](values).items():
                tables[title] = rows
                _print(title, rows)
            report.write_text(json.dumps(tables, indent=2, default=float) + "\n")


def _run_rates(values: argparse.Namespace) -> dict[str, list[Row]]:
    sizes = [values.impressions // 10, values.impressions // 3, values.impressions]
    return {
        "rates by size": rates_by_size(sizes, range(10, 18)),
        "all scenarios": rates(
            Logs.simulated(impressions=values.impressions, seed=values.seeds[0], scenarios=len(SCENARIOS))
        ),
    }


def _run_positions(values: argparse.Namespace) -> dict[str, list[Row]]:
    rows = positions(Logs.simulated(impressions=3 * values.impressions, seed=values.seeds[0]))
    draw_positions(rows, values.out / "simulator-position.png")
    return {"positions": rows}


def _run_crossing(values: argparse.Namespace) -> dict[str, list[Row]]:
    flags = {"impressions": values.impressions, "seed": values.seeds[0]}
    worlds = {
        "needs 0.8": Logs.simulated(**flags),
        "needs 0": Logs.simulated(**flags, needs=0.0),
        "needs 0, ρ 0": Logs.simulated(**flags, needs=0.0, similarity=0.0),
    }
    draw_lift(worlds, values.out / "simulator-lift.png")
    sources = [{"needs": needs, **row} for needs in (0.8, 0.0) for row in global_sources(worlds[f"needs {needs:g}"])]
    return {"lift within a day": needs_switch(**flags), "global labels": sources}


def _run_sweeps(values: argparse.Namespace) -> dict[str, list[Row]]:
    sweep = similarity_sweep(values.impressions, values.seeds, (0.0, 0.3, 0.6, 0.8, 1.0))
    noise = noise_sweep(values.impressions, values.seeds[0], (0.0, 0.1, 0.2, 0.4, 0.8))
    draw_similarity(sweep, noise, values.out / "simulator-similarity.png")
    return {"similarity": sweep, "noise": noise}


def _run_learnable(values: argparse.Namespace) -> dict[str, list[Row]]:
    rows = [
        {"similarity": similarity, "seed": seed, **row}
        for similarity, seeds in ((0.3, values.seeds), (1.0, values.seeds[:1]))
        for seed in seeds
        for row in learnable(Logs.simulated(impressions=values.impressions, seed=seed, similarity=similarity))
    ]
    return {"learnable": rows}


def _run_cost(values: argparse.Namespace) -> dict[str, list[Row]]:
    return {"cost": [row for workers in values.workers for row in cost(sorted(values.cost), workers)]}


def _run_signals(values: argparse.Namespace) -> dict[str, list[Row]]:
    return {"signals": signals(values.impressions, values.seeds)}


PROGRAM = {
    "cost": _run_cost,
    "rates": _run_rates,
    "positions": _run_positions,
    "crossing": _run_crossing,
    "sweeps": _run_sweeps,
    "learnable": _run_learnable,
    "signals": _run_signals,
}


def _print(title: str, rows: Sequence[Row]) -> None:
    table = Table(*map(str, rows[0]), title=title)
    for row in rows:
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
