"""Standard output and error: any character in any encoding, and standard error switched off."""

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator

_ERRORS = "usr_tf.plain"
_PLAIN = {
    "–": "-",
    "−": "-",
    "→": ">",
    "…": "...",
    "×": "x",
    "·": ".",
    "±": "+-",
    "≤": "<=",
    "≥": ">=",
    "█": "#",
    "²": "^2",
    "ρ": "rho",
}
"""ASCII for signs that the product's own tables and messages use."""


def accept_any_text() -> None:
    """Makes `sys.stdout` and `sys.stderr` escape characters that their encoding lacks.

    The product's own signs turn into ASCII, anything else into `\\uXXXX`, so that a line of JSON stays JSON.
    """
    codecs.register_error(_ERRORS, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


@contextlib.contextmanager
def no_stderr() -> Iterator[None]:
    """Context in which C++ libraries and new processes write no standard error."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character) or _escape(character) for character in characters), error.end


def _escape(character: str) -> str:
    """`\\uXXXX`, twice for a character beyond 16 bits: as JSON and JavaScript write it."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[start : start + 2].hex()}" for start in range(0, len(units), 2))
