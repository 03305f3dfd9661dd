"""TFRecord files that break off, and what is left of them by another reader than TensorFlow's."""

import gzip
import struct
from pathlib import Path


def break_off(file: Path, share: float) -> None:
    """Leaves the first `share` of the file's bytes."""
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])


def whole_records(file: Path) -> int:
    """Records before the end or the break: each is a length, its checksum, the bytes, and theirs."""
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
