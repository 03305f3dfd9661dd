"""Cost of the simulator: time and memory."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command_cost import run_command
from benchmarks.simulator.logs import Row


def cost(sizes: Sequence[int], workers: int) -> list[Row]:
    """Seconds of `usr-tf simulate`, and peak memory of its largest process."""
    result = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            flags = [f"--out={folder}/logs", f"--impressions={size}", f"--workers={workers}"]
            spent = run_command("simulate", *flags)
            mebibytes = sum(path.stat().st_size for path in Path(folder).rglob("*.gz")) / 2**20
        result.append(
            {
                "impressions": size,
                "workers": workers,
                "seconds": round(spent.wall_seconds, 1),
                "impressions/s": round(size / spent.wall_seconds),
                "largest process, MiB": round(spent.peak_bytes / 2**20),
                "on disk, MiB": round(mebibytes),
            }
        )
    return result


# Positions.
