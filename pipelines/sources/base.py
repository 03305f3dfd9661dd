"""What every import of foreign logs has in common: the interface, the input files and their lines."""

import glob
import gzip
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from usr_tf.errors import InputError

REJECTED = "rejected"
"""The table of input rows that a source could not read: `{"file": str, "line": int, "reason": str}`."""

Advance = Callable[[int], object]
"""Is told how many more bytes of the input have been read."""


class Source(ABC):
    """Reads someone else's logs as rows of the raw-log contract (DESIGN §2). An instance reads once."""

    name: ClassVar[str]

    @abstractmethod
    def schema(self) -> str:
        """The `schema.yaml` that goes with the logs."""

    @abstractmethod
    def read(self, paths: Sequence[Path], advance: Advance) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields `(table, row)`, where a row that could not be read comes as one of `REJECTED`.

        Raises:
          InputError: a file is unreadable as a whole, or there is not one impression in all of them.
        """

    @abstractmethod
    def report(self) -> dict[str, Any]:
        """What has been read, written and dropped so far, in counts."""


class Line(NamedTuple):
    path: Path
    number: int
    """From 1."""
    text: bytes


def find_inputs(inputs: Iterable[str]) -> list[Path]:
    """The files that `inputs` name, each once: files, patterns such as `ga_sessions_*`, and directories.

    Of a directory, all files count but those whose names start with `.` or `_`.

    Raises:
      InputError: a name stands for no file at all.
    """
    files: dict[Path, Path] = {}
    for name in inputs:
        paths = [Path(name)] if Path(name).exists() else [Path(match) for match in glob.glob(name, recursive=True)]
        found = [file for path in sorted(paths) for file in _files_at(path)]
        if not found:
            raise InputError(name, "no file", "a file, a pattern that matches some, or a directory that holds some")
        for file in found:
            files.setdefault(file.resolve(), file)
    if not files:
        raise InputError("--input", "nothing", "at least one file, pattern or directory")
    return list(files.values())


def read_lines(paths: Iterable[Path], advance: Advance) -> Iterator[Line]:
    """The lines of the files that are not blank; gzip is told by its first bytes, whatever the file's name.

    Raises:
      InputError: a file is unreadable, or its gzip stream is cut off or damaged.
    """
    for path in paths:
        number = position = 0
        try:
            with path.open("rb") as raw:
                zipped = raw.peek(2)[:2] == b"\x1f\x8b"
                lines = gzip.GzipFile(fileobj=raw, mode="rb") if zipped else raw
                for number, text in enumerate(lines, start=1):
                    advance(raw.tell() - position)
                    position = raw.tell()
                    if text := text.removeprefix(b"\xef\xbb\xbf").strip():
                        yield Line(path, number, text)
        except EOFError as error:
            raise InputError(f"{path}: line {number + 1}", "a gzip file that is cut off", "all of it") from error
        except (OSError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path}: line {number + 1}", f"an unreadable file ({reason})", "JSON Lines") from error


def _files_at(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith((".", "_")))
