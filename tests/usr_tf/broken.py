"""Damaged TFRecord files, and an independent reader of their whole records."""

import gzip
import struct
from pathlib import Path


def break_off(file: Path, share: float) -> None:
    """Truncates the file to `share` of its bytes."""
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])


def whole_records(file: Path) -> int:
    """Whole records before the end or the damage."""
    content = b""
    with gzip.open(file) as stream:
        try:
            while piece := stream.read1(1 << 12):
                content += piece
        except EOFError:
            pass
    records = place = 0
    while place + 8 <= len(content):
        (size,) = struct.unpack_from("<Q", content, place)
        place += size + 16
        records += place <= len(content)
    return records
