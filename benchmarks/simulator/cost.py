"""Cost of the simulator: time and memory."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.simulator.logs import Row


def cost(sizes: Sequence[int], workers: int) -> list[Row]:
    """Seconds of `usr-tf simulate`, and peak memory of its largest process."""
    result = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            flags = [f"--out={folder}/logs", f"--impressions={size}", f"--workers={workers}"]
            start = time.perf_counter()
            command = subprocess.Popen([sys.executable, "-m", "usr_tf.cli", "simulate", *flags])
            _, status, usage = os.wait4(command.pid, 0)  # of the command and its workers
            if status:
                raise RuntimeError(f"usr-tf simulate {' '.join(flags)} ended with status {status}")
            seconds = time.perf_counter() - start
            mebibytes = sum(path.stat().st_size for path in Path(folder).rglob("*.gz")) / 2**20
        result.append(
            {
                "impressions": size,
                "workers": workers,
                "seconds": round(seconds, 1),
                "impressions/s": round(size / seconds),
                "largest process, MiB": round(usage.ru_maxrss / 1024),
                "on disk, MiB": round(mebibytes),
            }
        )
    return result


# Positions.
