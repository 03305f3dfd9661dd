"""Reads log files: bytes, blocks of whole lines and Parquet files, plain or gzip, on any file system of Beam."""

import contextlib
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from usr_tf.errors import InputError

_BLOCK_BYTES = 4 << 20
_BUFFER_BYTES = 1 << 20
_BROKEN_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)
"""A gzip stream that is cut off, and one that is damaged."""


@contextlib.contextmanager
def open_bytes(
    path: str, gzipped: bool | None = None, advance: Callable[[int], object] = lambda size: None
) -> Iterator[io.BufferedIOBase]:
    """The bytes of a file, unzipped by Python's reader, which notices a truncated stream where Beam's does not.

    Args:
      gzipped: whether to unzip; by the file's first bytes when absent.
      advance: receives how many more bytes of the file have been read.

    Raises:
      InputError: the file is unreadable or its gzip stream broken, here or inside the `with` block.
    """
    try:
        with _open_raw(path) as raw:
            stream = io.BufferedReader(_Counted(raw, advance), _BUFFER_BYTES)
            gzipped = stream.peek(2)[:2] == b"\x1f\x8b" if gzipped is None else gzipped
            yield gzip.GzipFile(fileobj=stream) if gzipped else stream
    except _BROKEN_GZIP as error:
        raise InputError(path, f"a broken gzip stream ({error})", "a whole gzip file") from error
    except OSError as error:
        raise InputError(path, f"no readable file ({error.strerror or error})", "a log file") from error


def line_blocks(
    path: str, gzipped: bool | None = None, advance: Callable[[int], object] = lambda size: None
) -> Iterator[bytes]:
    """Whole lines of a file, each ended by a newline, in blocks of some 4 MiB; arguments as in `open_bytes`.

    Raises:
      InputError: as `open_bytes`; of a broken gzip stream, the message says how many whole lines come before the break.
    """
    lines, rest = 0, bytearray()
    with open_bytes(path, gzipped, advance) as stream:
        try:
            while piece := stream.read1(min(_BUFFER_BYTES, _BLOCK_BYTES)):
                rest += piece
                if len(rest) >= _BLOCK_BYTES and (end := rest.rfind(b"\n") + 1):
                    lines += rest.count(b"\n")
                    yield bytes(rest[:end])
                    del rest[:end]
        except _BROKEN_GZIP as error:
            lines += rest.count(b"\n")
            raise InputError(path, f"a broken gzip stream after {lines:,} whole lines", "a whole gzip file") from error
        if isinstance(stream, gzip.GzipFile) and stream.mtime is None:  # no header was ever read
            raise InputError(path, "an empty file", "a whole gzip file")
    if rest:
        yield bytes(rest if rest.endswith(b"\n") else rest + b"\n")


@contextlib.contextmanager
def open_parquet(path: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file.

    Raises:
      InputError: the file is unreadable or not a whole Parquet file, here or inside the `with` block.
    """
    try:
        raw = _open_raw(path)
    except OSError as error:
        raise InputError(path, f"no readable file ({error.strerror or error})", "a log file") from error
    with raw:
        try:
            yield pq.ParquetFile(raw)
        except (pa.ArrowException, OSError) as error:
            raise InputError(path, f"no whole Parquet file ({error})", "a Parquet file") from error


def _open_raw(path: str) -> BinaryIO:
    if "://" not in path:
        return open(path, "rb")
    from apache_beam.io.filesystems import FileSystems  # takes seconds

    return FileSystems.open(path, compression_type="uncompressed")


class _Counted(io.RawIOBase):
    """A stream that reports how many bytes have been read of it."""

    def __init__(self, stream: BinaryIO, advance: Callable[[int], object]):
        self._stream, self._advance = stream, advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._advance(len(data))
        return len(data)
