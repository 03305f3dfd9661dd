"""Cost of a `usr-tf` command: CPU and wall seconds, and peak memory of its largest process."""

import os
import subprocess
import sys
import time
from typing import NamedTuple


class CommandCost(NamedTuple):
    cpu_seconds: float
    """Of the command and the workers that it waited for."""
    wall_seconds: float
    peak_bytes: int
    """Of the largest process."""


def run_command(verb: str, *flags: str) -> CommandCost:
    """Runs `usr-tf VERB FLAGS` in a process of its own, without its output.

    Raises:
      RuntimeError: it ended with another status than 0.
    """
    start = time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-m", "usr_tf.cli", verb, *flags], **quiet)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"usr-tf {verb} {' '.join(flags)} ended with status {process.returncode}")
    return CommandCost(usage.ru_utime + usage.ru_stime, time.perf_counter() - start, 1024 * usage.ru_maxrss)
