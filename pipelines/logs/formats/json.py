"""JSON files of log tables: one object a line, arrays, or objects spread over several lines."""

import codecs
import io
import json
import re
from collections.abc import Callable, Generator, Iterator, Sequence

from pipelines.logs.files import MAX_LINE_BYTES, check_text, open_bytes, split_lines
from pipelines.logs.formats.block import Block
from usr_tf.errors import InputError

_PEEK_BYTES = 1 << 20
_PIECE_BYTES = 1 << 20
_BLOCK_ROWS = 16_384
_BOM = b"\xef\xbb\xbf"
_BLANK = re.compile(r"[ \t\r\n]*")
_JSON = json.JSONDecoder()


def read_blocks(
    path: str, columns: Sequence[str] | None, advance: Callable[[int], object] = lambda size: None
) -> Generator[Block]:
    """Blocks of lines, one object each. The numbers of arrays' elements and of spread objects count those.

    Args:
      advance: receives how many more bytes of the file have been read.

    Raises:
      InputError: the file is unreadable or no text, its compressed stream is broken, or an array or a spread object is.
    """
    with open_bytes(path, advance=advance) as stream:
        start = _peek(stream)
        check_text(path, start)
        lines = (
            _lines_of_documents(path, stream, start)
            if _is_array(start) or _is_spread(start)
            else split_lines(stream, start)
        )
        number = 1
        for block in lines:
            rows = block.count(b"\n")
            yield Block(block, range(number, number + rows))
            number += rows


def _peek(stream: io.BufferedIOBase) -> bytes:
    """The first line that is not blank and the beginning of the next one, or what there is of them."""
    start = bytearray()
    while not start.lstrip().partition(b"\n")[2].strip() and len(start) < _PEEK_BYTES:
        if not (piece := stream.read1(_PIECE_BYTES)):
            break
        start += piece
    return bytes(start)


def _is_array(start: bytes) -> bool:
    """Whether a file begins with an array of objects."""
    text = start.removeprefix(_BOM).lstrip()
    return text.startswith(b"[") and text[1:].lstrip()[:1] in (b"{", b"]", b"n", b"")  # of null


def _is_spread(start: bytes) -> bool:
    """Whether a file begins with an object that goes on in the next line."""
    first, newline, rest = start.removeprefix(_BOM).lstrip().partition(b"\n")
    if not newline or not first.startswith(b"{"):
        return False
    goes_on = (b":", b"[") if rest.lstrip().startswith(b"{") else (b":", b"[", b",")  # or the line is cut off
    if not first.rstrip().endswith(goes_on) and not rest.lstrip().startswith((b'"', b"}")):
        return False
    try:
        json.loads(first)
    except json.JSONDecodeError as error:
        return error.pos >= len(first.decode("utf-8", "replace").rstrip())  # it lacks its end alone
    except (ValueError, RecursionError):
        pass
    return False


def _lines_of_documents(path: str, stream: io.BufferedIOBase, start: bytes) -> Iterator[bytes]:
    """Each document of a stream, or each element of its arrays, as a line."""
    lines: list[str] = []
    for text in _documents(path, stream, start):
        lines.append(text.replace("\n", " "))  # which no string of JSON holds as it is
        if len(lines) == _BLOCK_ROWS:
            yield ("\n".join(lines) + "\n").encode()
            lines.clear()
    if lines:
        yield ("\n".join(lines) + "\n").encode()


def _documents(path: str, stream: io.BufferedIOBase, start: bytes) -> Iterator[str]:
    texts = _Texts(path, stream, start.removeprefix(_BOM))
    number = 0
    in_array = needs_comma = False
    while True:
        texts.skip(_BLANK)
        if in_array and texts.at("]"):
            texts.take(1)
            in_array = False
        elif not in_array and texts.at("["):
            texts.take(1)
            in_array, needs_comma = True, False
        elif texts.ended:
            if in_array:
                raise _broken(path, number, "the end of the file")
            return
        else:
            if in_array and needs_comma:
                if not texts.at(","):
                    raise _broken(path, number, "no comma")
                texts.take(1)
                texts.skip(_BLANK)
            size = texts.size_of_document()
            if size is None:
                raise _broken(path, number, "no whole JSON")
            number, needs_comma = number + 1, True
            yield texts.take(size)


def _broken(path: str, number: int, what: str) -> InputError:
    return InputError(
        path, f"{what} after {number:,} objects", "JSON: arrays of objects, or objects one after the other"
    )


class _Texts:
    """Text of a stream, of which no more is held than one document needs."""

    def __init__(self, path: str, stream: io.BufferedIOBase, start: bytes):
        self._path, self._stream = path, stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._read_all = False
        self._text, self._position = self._decode(start), 0

    @property
    def ended(self) -> bool:
        return self._position == len(self._text) and not self._read_more()

    def at(self, text: str) -> bool:
        return not self.ended and self._text.startswith(text, self._position)

    def skip(self, pattern: re.Pattern[str]) -> None:
        while not self.ended:
            self._position = pattern.match(self._text, self._position).end()  # type: ignore[union-attr]  # or ""
            if self._position < len(self._text):
                return

    def take(self, size: int) -> str:
        taken = self._text[self._position : self._position + size]
        self._position += size
        return taken

    def size_of_document(self) -> int | None:
        """Characters of the JSON document that begins here; None if none of at most `MAX_LINE_BYTES` does."""
        while True:
            try:
                _, end = _JSON.raw_decode(self._text, self._position)
            except RecursionError:
                return None
            except ValueError:
                end = None
            if end is not None and end < len(self._text):
                return end - self._position
            size = len(self._text) - self._position
            length = None if end is None else end - self._position
            if size > MAX_LINE_BYTES:
                return length
            read = False
            while len(self._text) - self._position < 2 * size and self._read_more():  # parsed anew few times
                read = True
            if not read:
                return length

    def _read_more(self) -> bool:
        """Reads on; whether there was anything."""
        while not self._read_all:
            piece = self._stream.read1(_PIECE_BYTES)
            self._read_all = not piece
            if text := self._decode(piece):
                self._text, self._position = self._text[self._position :] + text, 0
                return True
        return False

    def _decode(self, piece: bytes) -> str:
        try:
            return self._decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            raise InputError(self._path, f"text that is not UTF-8 ({error})", "UTF-8") from error
