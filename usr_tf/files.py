"""Files that nobody reads half of."""

import uuid
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Writes a file aside and gives it its name when it is whole."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
