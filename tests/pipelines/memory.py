"""Peak memory of a command."""

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
    """Peak memory of a command's largest process, in bytes.

    A small process starts it: Linux counts what a process was forked from as its own, and tests grow large.
    """
    done = subprocess.run([sys.executable, "-c", _BETWEEN, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return 1024 * int(done.stdout)
