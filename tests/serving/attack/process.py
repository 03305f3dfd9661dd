"""`usr-tf serve` in its own process, to be measured and killed."""

import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

_PAGE_BYTES = 4096


class ServerProcess:
    """Server of the versions in `base`, with the same ports after a restart.

    Args:
      base: the folder of versions.
      options: more flags of `usr-tf serve`.
    """

    def __init__(self, base: Path, *options: str):
        self.port, self.rest_port = _free_port(), _free_port()
        self._command = [sys.executable, "-m", "usr_tf.cli", "serve", f"--model={base}", f"--port={self.port}"]
        self._command += [f"--rest_port={self.rest_port}", "--poll_seconds=0.05", *options]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (it outlives this method)

    def __enter__(self) -> "ServerProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def rest_address(self) -> str:
        return f"127.0.0.1:{self.rest_port}"

    def start(self) -> None:
        """Starts the server and waits until it serves."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        if not self._process.stdout.readline().startswith("Serving "):
            raise AssertionError(f"the server did not start: {self.log()}")

    def kill(self) -> None:
        """Kills the server with SIGKILL."""
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    @property
    def resident_bytes(self) -> int:
        """Resident memory in bytes."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * _PAGE_BYTES

    @property
    def cpu_seconds(self) -> float:
        """CPU time since the start."""
        user, system = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / 100

    def log(self) -> str:
        """Standard error of the server."""
        self._log.seek(0)
        return self._log.read()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]
