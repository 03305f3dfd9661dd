"""JSON values of a file that are not one a line: arrays of them, or objects over several lines."""

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any

from usr_tf.errors import InputError

_LONGEST = 64 << 20
"""Characters of one value."""


def starts_document(first: bytes, second: bytes) -> bool:
    """Whether the first two lines of a file start an array, or an object over several lines."""
    return first.startswith(b"[") or (first == b"{" and second.startswith(b'"'))


def read_documents(path: str, blocks: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    """Elements of the arrays in a file and the values outside of them, each with the line in which it starts.

    Args:
      path: The file's, for messages.
      blocks: Its bytes.

    Raises:
      InputError: there is something else, or the file breaks off.
    """
    decoder, decode = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8-sig")().decode
    incoming = iter(blocks)
    text, at, line = "", 0, 1
    in_array = ended = False
    while True:
        start = _skip_space(text, at)
        line += text.count("\n", at, start)
        at = start
        if text[at : at + 1] == ("]" if in_array else "["):
            in_array = not in_array
            at += 1
            continue
        if at < len(text):
            try:
                value, stop = decoder.raw_decode(text, at)
            except (json.JSONDecodeError, RecursionError) as error:
                if ended or not _may_go_on(error, text) or len(text) - at > _LONGEST:
                    raise _broken(path, line) from error
            else:
                yield line, value
                line += text.count("\n", at, stop)
                at = stop
                continue
        if ended:
            if in_array:
                raise _broken(path, line)
            return
        block = next(incoming, None)
        ended = block is None
        try:
            text, at = text[at:] + decode(block or b"", ended), 0
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: after line {line}", "text that is not UTF-8", "JSON in UTF-8") from error


def _skip_space(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in " \t\r\n,":
        at += 1
    return at


def _may_go_on(error: Exception, text: str) -> bool:
    """Whether the text ends inside a value, so that more of it may make JSON."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or error.pos >= len(text) - 16


def _broken(path: str, line: int) -> InputError:
    return InputError(f"{path}: line {line}", "no JSON, or JSON that breaks off", "an object a line, or a whole array")
