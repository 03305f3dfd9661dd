"""Parity of our layers and backbones with public implementations under the same weights.

`python -m benchmarks.parity` prints the largest absolute difference of each comparison, and why one was skipped;
`--json FILE` writes the same. Exits 1 where a difference is above the tolerance of tests/test_parity.py, 1e-5.
"""

import argparse
import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.parity.comparison import ROWS, SCENARIOS, TASKS, TOLERANCE
from benchmarks.parity.peers import PEERS, comparisons, missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file to write the figures to")
    arguments = parser.parse_args()

    rows = [row for peer in PEERS for row in _rows(peer)]
    sizes = f"{ROWS} rows of {SCENARIOS} scenarios, {TASKS} tasks"
    table = Table(title=f"Ours against public implementations with the same weights, {sizes}, tolerance {TOLERANCE:g}")
    for column in ("ours", "theirs", "compared", "largest difference"):
        table.add_column(column)
    for row in rows:
        found = row["skipped"] if "skipped" in row else f"{row['difference']:.1e}"
        table.add_row(row["part"], f"{row['package']} {row['version']}", row["compared"], found)
    Console().print(table)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    sys.exit(any(row.get("difference", 0) > TOLERANCE for row in rows))


def _rows(peer: str) -> list[dict[str, Any]]:
    if reason := missing(peer):
        return [{"part": "", "package": peer, "version": "", "compared": "", "skipped": f"skipped: {reason}"}]
    rows = []
    for part, compared, outputs in comparisons(peer):
        ours, theirs = outputs()
        difference = float(np.abs(ours - theirs).max())
        package = {"package": peer, "version": metadata.version(peer)}
        rows.append({"part": part, **package, "compared": compared, "difference": difference})
    return rows


if __name__ == "__main__":
    main()
