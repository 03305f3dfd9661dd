"""Access log: one JSON line per request, written by a thread so that no request waits or fails."""

import contextlib
import json
import logging
import queue
import sys
import threading
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler

from serving.local_server.call import Call
from usr_tf.errors import InputError

_LOG = logging.getLogger(__name__)
_CLOSE_SECONDS = 2.0


class AccessLog:
    """Access log in a file or on standard output. Lines that exceed the disk's speed are dropped and counted.

    A line holds `time` (ISO 8601, UTC, of the end), `peer`, `entrypoint`, `method`, `model`, `version`, `signature`,
    `candidates`, `status`, `queued_ms` and `run_ms`; `null` is what the request did not get as far as. A file that is
    moved away is opened again, as log rotation wants it.

    Args:
      path: the file; `-` is standard output.
      max_waiting: lines that may wait to be written.

    Raises:
      InputError: the file cannot be opened.
    """

    def __init__(self, path: str, max_waiting: int = 10_000):
        self.dropped = 0
        self._failed = False
        self._waiting: queue.Queue[str | None] = queue.Queue(max_waiting)
        try:
            self._handler = logging.StreamHandler(sys.stdout) if path == "-" else WatchedFileHandler(path)
        except OSError as error:
            raise InputError(path, f"no writable file ({error.strerror})", "a file for the access log") from error
        self._handler.handleError = self._count_failure
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def write(self, call: Call) -> None:
        """Queues the line of a finished call."""
        try:
            self._waiting.put_nowait(format_line(call))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Writes the queued lines, within two seconds."""
        try:
            self._waiting.put(None, timeout=_CLOSE_SECONDS)
        except queue.Full:
            return
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while (line := self._waiting.get()) is not None:
            try:
                self._handler.emit(logging.makeLogRecord({"msg": line}))
            except OSError:  # its folder has gone
                self._count_failure()
        if isinstance(self._handler, WatchedFileHandler):
            with contextlib.suppress(OSError):  # what could not be written before
                self._handler.close()

    def _count_failure(self, _: logging.LogRecord | None = None) -> None:
        self.dropped += 1
        if not self._failed:
            self._failed = True
            _LOG.exception("The access log cannot be written; lines are lost")


def format_line(call: Call) -> str:
    return json.dumps(
        {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "peer": call.peer,
            "entrypoint": call.entrypoint,
            "method": call.method,
            "model": call.model or None,
            "version": call.version,
            "signature": call.signature or None,
            "candidates": call.candidates,
            "status": call.status,
            "queued_ms": round(call.queued_seconds * 1000, 3),
            "run_ms": round(call.run_seconds * 1000, 3),
        }
    )
