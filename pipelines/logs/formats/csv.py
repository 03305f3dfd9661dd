"""CSV files with a header. Every value is a text, of which the schema says what it stands for."""

import codecs
import csv
import io
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from pipelines.logs.files import MAX_LINE_BYTES, check_text, open_bytes
from pipelines.logs.formats.block import Block, RejectedLine
from usr_tf.errors import InputError

LIST_SEPARATOR = "|"
"""Between the values of a list that is no JSON."""
_DELIMITERS = ",;\t|"
_BLOCK_BYTES = MAX_LINE_BYTES
_PIECE_BYTES = 1 << 20
_BOM = codecs.BOM_UTF8
_REPLACEMENT = "\ufffd"
"""Stands for bytes that are not UTF-8."""


def read_blocks(
    path: str,
    columns: Sequence[str] | None,
    delimiter: str | None = None,
    advance: Callable[[int], object] = lambda size: None,
) -> Generator[Block]:
    """Blocks of a file's columns, all of texts. A header alone gives one empty block, an empty file none.

    The header is row 1; its names count without the space around them. A quoted text may hold line ends. Rows with
    another number of fields than the header, and those that are not UTF-8, are rejected.

    Args:
      delimiter: by default the one that the header has most of.
      advance: receives how many more bytes of the file have been read.

    Raises:
      InputError: the file is unreadable or no text, has one of these columns twice, or a row that is too long.
    """
    with open_bytes(path, advance=advance) as stream:
        start = _first_line(stream)
        check_text(path, start)
        header, delimiter = _header(path, start, delimiter)
        names = [name.strip() for name in header]
        places = [at for at, name in enumerate(names) if (name if columns is None else name in columns)]
        for name, count in Counter(names[at] for at in places).items():
            if count > 1:
                raise InputError(f"{path}: column {name!r}", "it twice in the header", "each column once")
        if not any(names):
            return
        text = _Utf8(stream, start)
        number, empty = 2, True
        try:
            for batch, rejected in _batches(text, [header[at] for at in places] or header[:1], delimiter):
                batch = batch.rename_columns([names[at] for at in places] or [names[0]])
                last = number + batch.num_rows + len(rejected)
                wrong = {row for row, _, _ in rejected}
                numbers = [row for row in range(number, last) if row not in wrong] if wrong else range(number, last)
                if text.is_broken:
                    batch, numbers, broken = _split_broken(batch, numbers, delimiter)
                    rejected = sorted(rejected + broken)
                yield Block(batch, numbers, tuple(rejected), LIST_SEPARATOR, tuple(names))
                number, empty = last, False
        except pa.ArrowInvalid as error:
            found = "a row that is too long, or a quote without end" if "straddling" in str(error) else str(error)
            expected = f"CSV in UTF-8 with a header, no row longer than {_BLOCK_BYTES >> 20} MiB"
            raise InputError(f"{path}: after row {number - 1}", found, expected) from error
        if empty:
            yield Block(
                pa.record_batch({names[at]: pa.array([], pa.string()) for at in places}), [], columns=tuple(names)
            )


def _first_line(stream: Any) -> bytes:
    """The first line that is not blank and what has been read after it, without a byte order mark."""
    start = b""
    while b"\n" not in start and b"\r" not in start and len(start) < _BLOCK_BYTES:
        if not (piece := stream.read1(_PIECE_BYTES)):
            break
        start = (start + piece).removeprefix(_BOM).lstrip(b"\r\n")
    return start


def _header(path: str, start: bytes, delimiter: str | None) -> tuple[list[str], str]:
    """Names of the columns as they stand, and the delimiter."""
    try:
        line = start.replace(b"\r", b"\n").partition(b"\n")[0].decode()
        delimiter = delimiter or max(_DELIMITERS, key=line.count)
        return next(csv.reader([line], delimiter=delimiter), []), delimiter
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, f"a header that is no CSV in UTF-8 ({error})", "CSV in UTF-8 with a header") from error


def _batches(
    text: "_Utf8", columns: Sequence[str], delimiter: str
) -> Iterator[tuple[pa.RecordBatch, list[RejectedLine]]]:
    """Rows by batch, and between them those with another number of fields than the header."""
    wrong: deque[pa_csv.InvalidRow] = deque()

    def skip(row: pa_csv.InvalidRow) -> str:
        wrong.append(row)
        return "skip"

    reader = pa_csv.open_csv(
        io.BufferedReader(text, _PIECE_BYTES),
        pa_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
        pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip),
        pa_csv.ConvertOptions(
            include_columns=columns, column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False
        ),
    )
    number = 2
    for batch in reader:
        rejected: list[RejectedLine] = []
        while wrong and wrong[0].number - number < batch.num_rows + len(rejected):
            rejected.append(_rejected(wrong.popleft()))
        yield batch, rejected
        number += batch.num_rows + len(rejected)
    if wrong:
        empty = pa.record_batch({name: pa.array([], pa.string()) for name in columns})
        yield empty, [_rejected(row) for row in wrong]


def _rejected(row: pa_csv.InvalidRow) -> RejectedLine:
    return row.number, "wrong_number_of_fields", row.text


def _split_broken(
    batch: pa.RecordBatch, numbers: Sequence[int], delimiter: str
) -> tuple[pa.RecordBatch, list[int], list[RejectedLine]]:
    """Rows in UTF-8 with their numbers, and the others."""
    rejected: dict[int, RejectedLine] = {}
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        for at in pc.indices_nonzero(pc.match_substring(values, _REPLACEMENT)).to_pylist():
            row = delimiter.join(batch.slice(at, 1).to_pylist()[0].values())
            rejected.setdefault(at, (numbers[at], f"broken_text_{name}", row))
    kept = [at for at in range(batch.num_rows) if at not in rejected]
    return batch.take(pa.array(kept, pa.int64())), [numbers[at] for at in kept], list(rejected.values())


class _Utf8(io.RawIOBase):
    """A stream with U+FFFD in place of bytes that are not UTF-8, ended by a newline."""

    def __init__(self, stream: Any, start: bytes):
        self.is_broken = False
        """Whether there were such bytes."""
        self._stream, self._raw, self._text = stream, start, memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._text and not self._ended:
            piece = self._stream.read1(_PIECE_BYTES)
            self._ended = not piece
            self._text = memoryview(self._decode(self._raw + (piece or b"\n")))
        size = min(len(buffer), len(self._text))
        buffer[:size], self._text = self._text[:size], self._text[size:]
        return size

    def _decode(self, data: bytes) -> bytes:
        """The data in UTF-8; a character whose end is yet to be read stays in `_raw`."""
        self._raw = b""
        if data.isascii():
            return data
        try:
            _, size = codecs.utf_8_decode(data, "strict", self._ended)
            self._raw = data[size:]
            return data[:size]
        except UnicodeDecodeError:
            text, size = codecs.utf_8_decode(data, "replace", self._ended)
            self.is_broken, self._raw = True, data[size:]
            return text.encode()
