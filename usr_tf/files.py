"""Atomic file writes, folder creation, and strict JSON."""

import contextlib
import json
import math
import uuid
from pathlib import Path
from typing import Any

from usr_tf.errors import InputError


def replace_text(path: Path, text: str) -> None:
    """Writes a text file atomically: to a temporary file that is then renamed.

    Raises:
      InputError: it cannot be written.
    """
    try:
        write_whole(path, text)
    except OSError as error:
        raise InputError(path, f"no writable file ({error.strerror})", "one that can be written") from error


def write_new_text(path: str | Path, text: str) -> None:
    """Atomic write of a text file that does not exist yet.

    Raises:
      InputError: it exists, or it cannot be written.
    """
    if Path(path).exists():
        raise InputError(path, "a file there already", "a path where there is none")
    replace_text(Path(path), text)


def write_whole(path: Path, text: str) -> None:
    """Atomic write that raises OSError, for callers with a message of their own."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    finally:
        with contextlib.suppress(OSError):  # such as that there is no folder
            aside.unlink()


def make_folder(path: str | Path) -> Path:
    """Creates a folder and its parents if missing.

    Raises:
      InputError: it cannot be.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(path, f"no writable directory ({error.strerror})", "one that can be written") from error
    return path


def strict_json(document: Any, **options: Any) -> str:
    """JSON text with null for NaN and infinities, which JSON lacks.

    Args:
      document: of Python's own types and `numpy.float64`, as `json.dumps` takes them.
      options: of `json.dumps`.
    """
    try:
        return json.dumps(document, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_finite(document), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
