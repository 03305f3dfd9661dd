"""How much memory a command takes."""

import subprocess
import sys
from collections.abc import Sequence

_BETWEEN = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def peak_memory(command: Sequence[str]) -> int:
    """The most bytes that the largest process of a command ever held.

    A small process starts it: Linux counts what a process was forked from as its own, and tests grow large.
    """
    done = subprocess.run([sys.executable, "-c", _BETWEEN, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return 1024 * int(done.stdout)
