"""Reads log files: bytes, blocks of whole lines and Parquet files, compressed or not, on any file system of Beam."""

import bz2
import contextlib
import gzip
import io
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from usr_tf.errors import InputError

MAX_LINE_BYTES = 16 << 20
"""Longer lines are no rows: each is cut to one byte more than this."""
_BLOCK_BYTES = 4 << 20
_BUFFER_BYTES = 1 << 20


class Compression(NamedTuple):
    name: str
    suffix: str
    magic: bytes
    """The first bytes of every such file."""
    open: Callable[[BinaryIO], Any]


def _open_gzip(stream: BinaryIO) -> Any:
    return gzip.GzipFile(fileobj=stream)


def _open_zstd(stream: BinaryIO) -> BinaryIO:
    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd"), _BUFFER_BYTES)


COMPRESSIONS = (
    Compression("gzip", ".gz", b"\x1f\x8b", _open_gzip),
    Compression("zstd", ".zst", b"\x28\xb5\x2f\xfd", _open_zstd),
    Compression("bzip2", ".bz2", b"BZh", bz2.BZ2File),
)
_BROKEN = (EOFError, OSError, zlib.error)
"""A compressed stream that is cut off, and one that is damaged, by the readers of `COMPRESSIONS`."""
_KINDS = {
    **{each.magic: f"{each.name} bytes, compressed twice or under another suffix" for each in COMPRESSIONS},
    b"PAR1": "a Parquet file",
    b"Obj\x01": "an Avro file",
    b"PK\x03\x04": "a zip archive or a workbook",
    b"\xff\xfe": "text in UTF-16 or UTF-32",
    b"\xfe\xff": "text in UTF-16 or UTF-32",
}
"""By the first bytes, files that are not the text which their name promises."""
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_FIRST_BYTES = 512


def compression_of(path: str) -> Compression | None:
    """The compression that a file's name promises."""
    return next((each for each in COMPRESSIONS if path.lower().endswith(each.suffix)), None)


def _is_text(first: bytes) -> bool:
    """Whether a file that begins so may be text: some tools decompress a file and leave its name."""
    return bool(first) and (first.startswith(b"\xef\xbb\xbf") or (first.isascii() and first.decode().isprintable()))


@contextlib.contextmanager
def open_bytes(
    path: str, decompress: bool = True, advance: Callable[[int], object] = lambda size: None
) -> Iterator[io.BufferedIOBase]:
    """The bytes of a file, decompressed if its first bytes are those of gzip, zstd or bzip2, whatever its name.

    Args:
      decompress: False for the bytes as they are.
      advance: receives how many more bytes of the file have been read.

    Raises:
      InputError: the file is unreadable, its compressed stream is cut off or damaged, or its name promises a
        compression and it holds neither that nor text; here or inside the `with` block.
    """
    try:
        raw = _open_raw(path)
        stream = io.BufferedReader(_Counted(raw, advance), _BUFFER_BYTES)
        first = stream.peek(4)[:4]
    except OSError as error:
        raise InputError(path, f"no readable file ({error.strerror or error})", "a log file") from error
    with raw:
        promised = compression_of(path)
        found = next((each for each in COMPRESSIONS if first.startswith(each.magic)), None)
        if promised and found is None and decompress and not _is_text(first):
            raise InputError(path, "no such stream" if first else "an empty file", f"a whole {promised.name} file")
        try:
            yield found.open(stream) if found and decompress else stream
        except _BROKEN as error:
            if found is None or not decompress:
                raise InputError(path, f"no readable file ({error})", "a log file") from error
            where = str(error) if isinstance(error, _BrokenAfter) else f"({error})"
            raise InputError(path, f"a broken {found.name} stream {where}", f"a whole {found.name} file") from error


def line_blocks(path: str, advance: Callable[[int], object] = lambda size: None) -> Iterator[bytes]:
    """Whole lines of a file, each ended by a newline, in blocks of some 4 MiB; lines are cut to `MAX_LINE_BYTES` + 1.

    Raises:
      InputError: as `open_bytes`; of a broken stream, the message says how many whole lines come before the break.
    """
    with open_bytes(path, advance=advance) as stream:
        yield from split_lines(stream)


def split_lines(stream: io.BufferedIOBase, start: bytes = b"") -> Iterator[bytes]:
    """Blocks of whole lines of an open stream, after the bytes `start`; as `line_blocks`."""
    lines, rest, skipping = 0, bytearray(start), False
    last = rest.rfind(b"\n") + 1
    try:
        while piece := stream.read1(min(_BUFFER_BYTES, _BLOCK_BYTES)):
            if skipping:
                newline = piece.find(b"\n")
                if newline < 0:
                    continue
                piece, skipping = piece[newline:], False
            if end := piece.rfind(b"\n") + 1:
                last = len(rest) + end
            rest += piece
            if last and len(rest) >= _BLOCK_BYTES:
                lines += rest.count(b"\n", 0, last)
                yield bytes(rest[:last])
                del rest[:last]
                last = 0
            if len(rest) - last > MAX_LINE_BYTES:
                del rest[last + MAX_LINE_BYTES + 1 :]
                skipping = True
    except _BROKEN as error:
        lines += rest.count(b"\n")
        raise _BrokenAfter(f"after {lines:,} whole lines") from error
    if rest:
        yield bytes(rest if rest.endswith(b"\n") else rest + b"\n")


class _BrokenAfter(EOFError):
    """A broken stream, and how many lines were read of it."""


def check_text(path: str, start: bytes) -> None:
    """Refuses a file that is no text, by its first bytes after decompression.

    Raises:
      InputError: they are those of another kind of file, or control characters, as UTF-16 and binary files have.
    """
    kind = next((kind for magic, kind in _KINDS.items() if start.startswith(magic)), None)
    if kind is None and _CONTROL.search(start.partition(b"\n")[0], 0, _FIRST_BYTES):
        kind = f"bytes that are no text ({start[:16]!r})"
    if kind:
        raise InputError(path, kind, "text in UTF-8")


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
            if "lists to be of size" in str(error):
                found = "a list of fixed size that is null, which Arrow cannot read"
                raise InputError(path, found, "lists of any size") from error
            raise InputError(path, f"no whole Parquet file ({error})", "a Parquet file") from error


def _open_raw(path: str) -> BinaryIO:
    if "://" not in path:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe can be read only once, and waits for its writer
            raise OSError("a directory, a pipe or a device")
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
