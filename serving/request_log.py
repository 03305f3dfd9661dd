"""Request log: sampled requests with their scores, version and latency, as rotated JSON Lines.

A thread compresses and writes, so no request waits for the disk. A file gets its name when it is complete;
`usr-tf import --source request_log` reads such files. Needs no TensorFlow.
"""

import contextlib
import glob
import gzip
import itertools
import logging
import os
import queue
import random
import socket
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from usr_tf.errors import InputError

_LOG = logging.getLogger(__name__)
_CLOSE_SECONDS = 10.0
_POLL_SECONDS = 1.0
_CHUNK_BYTES = 1 << 16
_NUMBERS = itertools.count()
_NAMED = "requests-"
_OPEN = ".requests-"
_SUFFIX = ".jsonl.gz"

Record = dict[str, Any]
"""`request_id`, `scenario`, `timestamp` (ms UTC, of the answer), `model`, `version`, `latency_ms`, `inputs` as in a
request document, `outputs` (name → `[N]` scores), `order` (`[N]` rows of the request, best first; null if unknown)."""


class RequestLog:
    """Writer of a request log. Thread-safe; close it, or use it in a `with` statement.

    Records beyond the disk's speed are dropped and counted in `dropped`. Files that a killed process of this machine
    has left open are completed when a log of the directory is opened again: every line that was flushed is kept.

    Args:
      directory: where the files go; several processes may share it.
      sample: share of requests that are logged, 0 to 1, drawn at random.
      max_bytes: size, not compressed, at which a file is completed and the next one begun.
      max_seconds: age at which a file is.
      max_waiting: records that may wait to be written.
      clock: gives the time of a record, ms UTC; the machine's by default.

    Raises:
      InputError: the directory cannot be written, or a number is out of its range.
    """

    def __init__(
        self,
        directory: str | Path,
        sample: float = 1.0,
        max_bytes: int = 256 << 20,
        max_seconds: float = 3600.0,
        max_waiting: int = 1_000,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ):
        if not 0 <= sample <= 1:
            raise InputError("sample", str(sample), "a share from 0 to 1")
        self.dropped = 0
        self.clock = clock
        self.directory = Path(directory)
        self._sample, self._max_bytes, self._max_seconds = sample, max_bytes, max_seconds
        self._waiting: queue.Queue[Callable[[], Record] | None] = queue.Queue(max_waiting)
        self._failed = False
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            _complete_leftovers(self.directory)
            self._file = _File(self.directory)
        except OSError as error:
            raise InputError(directory, f"no writable directory ({error.strerror})", "one for requests") from error
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        self._thread.start()

    def wants(self) -> bool:
        """Whether the request at hand is in the sample."""
        return self._sample == 1 or random.random() < self._sample

    def write(self, make_record: Callable[[], Record]) -> None:
        """Queues a record, which the log's thread makes.

        Args:
          make_record: returns the record, from values that nobody changes any more.
        """
        try:
            self._waiting.put_nowait(make_record)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Writes what waits, within ten seconds, and completes the file."""
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=_CLOSE_SECONDS)
        self._thread.join(_CLOSE_SECONDS)

    def __enter__(self) -> "RequestLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            try:
                make_record = self._waiting.get(timeout=_POLL_SECONDS)
                if make_record is None:
                    break
                if not self._guard(lambda make=make_record: self._file.write(make())):
                    self.dropped += 1
                    self._guard(self._replace)  # half a line may be in it
            except queue.Empty:
                self._guard(self._file.flush)
            if self._file.bytes >= self._max_bytes or self._file.age >= self._max_seconds:
                self._guard(self._rotate)
        self._guard(self._file.complete)

    def _rotate(self) -> None:
        file, self._file = self._file, _File(self.directory)  # the old one goes on where no new one can be opened
        file.complete()

    def _replace(self) -> None:
        """Begins a new file, and keeps the whole lines of one that a write has failed on."""
        file, self._file = self._file, _File(self.directory)
        file.abandon()

    def _guard(self, step: Callable[[], object]) -> bool:
        """Runs a step, whose failure fails no request and is logged once; returns whether it succeeded."""
        try:
            step()
        except Exception:
            if not self._failed:
                self._failed = True
                _LOG.exception("The request log cannot be written; records are lost")
            return False
        return True


def make_record(
    scenario: str,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Sequence[float]],
    *,
    model: str,
    version: int | None,
    latency_seconds: float,
    timestamp: int,
    request_id: str | None = None,
    order: Sequence[int] | None = None,
) -> Record:
    """Record of a request; see `Record`."""
    return {
        "request_id": request_id or uuid.uuid4().hex,
        "scenario": scenario,
        "timestamp": timestamp,
        "model": model,
        "version": version,
        "latency_ms": round(latency_seconds * 1000, 3),
        "inputs": inputs,
        "outputs": outputs,
        "order": order,
    }


class _File:
    """File that is being written, under a hidden name until it is complete."""

    def __init__(self, directory: Path):
        self.bytes = 0
        self._begun = time.monotonic()
        stem = f"{time.time_ns() // 1_000_000}-{socket.gethostname()}-{os.getpid()}-{next(_NUMBERS):06}"
        self._path = directory / f"{_OPEN}{stem}{_SUFFIX}"
        self._raw: BinaryIO = self._path.open("wb")
        self._gzip = gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=self._raw)
        self._unflushed = False

    @property
    def age(self) -> float:
        """Seconds since it was begun; 0 while it is empty."""
        return time.monotonic() - self._begun if self.bytes else 0.0

    def write(self, record: Record) -> None:
        line = orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"
        if not self.bytes:
            self._begun = time.monotonic()
        self._gzip.write(line)
        self.bytes += len(line)
        self._unflushed = True

    def flush(self) -> None:
        """Brings all lines to the disk, so that a crash leaves them readable."""
        if self._unflushed:
            self._gzip.flush()
            self._raw.flush()
            self._unflushed = False

    def complete(self) -> None:
        self._gzip.close()
        self._raw.close()
        _give_name(self._path, bool(self.bytes))

    def abandon(self) -> None:
        """Completes the file with the whole lines that it holds."""
        with contextlib.suppress(OSError):
            self.flush()
        with contextlib.suppress(OSError):
            self._raw.close()
        _salvage(self._path)


def _give_name(path: Path, has_lines: bool) -> None:
    if has_lines:
        path.rename(path.with_name(_NAMED + path.name.removeprefix(_OPEN)))
    else:
        path.unlink()


def _complete_leftovers(directory: Path) -> None:
    """Completes the files of this machine's processes that are gone."""
    for path in directory.glob(f"{_OPEN}*-{glob.escape(socket.gethostname())}-*{_SUFFIX}"):
        pid = int(path.name.removesuffix(_SUFFIX).split("-")[-2])
        if pid != os.getpid() and not _is_alive(pid):
            _salvage(path)


def _salvage(path: Path) -> None:
    """Completes a file that may be cut off with the whole lines at its beginning."""
    lines = _whole_lines(path)
    aside = path.with_name(f".{uuid.uuid4().hex}")
    aside.write_bytes(gzip.compress(lines, 1))
    aside.replace(path)
    _give_name(path, bool(lines))


def _whole_lines(path: Path) -> bytes:
    """Whole lines at the beginning of a gzip file that may be cut off."""
    reader, data, text = zlib.decompressobj(wbits=31), path.read_bytes(), b""
    for start in range(0, len(data), _CHUNK_BYTES):
        chunk, before = data[start : start + _CHUNK_BYTES], reader.copy()
        try:
            text += reader.decompress(chunk)
        except zlib.error:
            with contextlib.suppress(zlib.error):
                for byte in chunk:
                    text += before.decompress(bytes([byte]))
            break
    return text[: text.rfind(b"\n") + 1]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
