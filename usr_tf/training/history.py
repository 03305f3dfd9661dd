"""Epoch history of a run: one JSON line of metrics per epoch."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from usr_tf.files import strict_json, write_whole


def read_history(path: Path) -> list[dict[str, Any]]:
    """Epochs of a file in order; empty without a file. An undefined metric is None."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def write_history(path: Path, epochs: Iterable[Mapping[str, Any]]) -> None:
    """Writes the metrics of epochs, numbered from 1 under `epoch`. Non-finite values are null.

    Raises:
      OSError: the file cannot be written.
    """
    lines = (
        strict_json({"epoch": number} | {name: _number(figures[name]) for name in sorted(figures)})
        for number, figures in enumerate(epochs, start=1)
    )
    write_whole(path, "".join(f"{line}\n" for line in lines))


def _number(value: Any) -> float | int | None:
    return value if value is None or isinstance(value, int) else float(value)
