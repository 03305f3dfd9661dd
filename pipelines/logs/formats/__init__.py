"""File formats of log tables: JSON Lines and other JSON, Parquet, CSV and Avro, each one module."""

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from pipelines.logs.files import COMPRESSIONS
from pipelines.logs.formats import avro, csv, json, parquet
from pipelines.logs.formats.block import Block
from usr_tf.errors import InputError


class Format(NamedTuple):
    suffixes: tuple[str, ...]
    read: Callable[[str, Sequence[str] | None], Generator[Block]]
    """Blocks of a file's columns of these names, where it has them."""
    partition_bytes: int
    """Bytes of a file for one partition of the join, about 80,000 impressions."""
    compressible: bool = True


FORMATS = (
    Format((".jsonl", ".ndjson", ".json"), json.read_blocks, 16 << 20),
    Format((".csv", ".tsv"), csv.read_blocks, 12 << 20),
    Format((".parquet",), parquet.read_blocks, 4 << 20, compressible=False),
    Format((".avro",), avro.read_blocks, 6 << 20, compressible=False),
)
_COMPRESSED = tuple(each.suffix for each in COMPRESSIONS)
_COMPRESSION_RATIO = 8
SUFFIXES = tuple(
    suffix + compressed
    for each in FORMATS
    for suffix in each.suffixes
    for compressed in ("", *(_COMPRESSED if each.compressible else ()))
)
"""Ends of the names of files that are read."""


def split_suffix(path: str) -> tuple[str, str]:
    """The path without the suffix of its format and compression, and that suffix, `""` if it is not in `SUFFIXES`."""
    name = path.lower()
    suffix = max((each for each in SUFFIXES if name.endswith(each)), key=len, default="")
    return path[: len(path) - len(suffix)], suffix


def read_blocks(path: str, columns: Sequence[str] | None) -> Generator[Block]:
    """Blocks of a file's rows.

    Args:
      columns: those to read, where the file has them; all by default. Blocks of JSON hold whole lines.

    Raises:
      InputError: the file is of no known format, or cannot be read to its end.
    """
    return format_of(path).read(path, columns)


def partitions_of(path: str, size: int) -> float:
    """How many partitions of the join a file of `size` bytes fills."""
    compressed = path.lower().endswith(_COMPRESSED)
    return size * (_COMPRESSION_RATIO if compressed else 1) / format_of(path).partition_bytes


def format_of(path: str) -> Format:
    """Format by the name.

    Raises:
      InputError: no format has such names.
    """
    _, suffix = split_suffix(path)
    found = next((each for each in FORMATS if suffix and suffix.startswith(each.suffixes)), None)
    if found is None:
        raise InputError(path, "another kind of file", f"one that ends in {describe_suffixes()}")
    return found


def describe_suffixes() -> str:
    """The suffixes in words, for errors."""
    plain = ", ".join(suffix for each in FORMATS for suffix in each.suffixes)
    return f"{plain}, all but Parquet and Avro also with {', '.join(_COMPRESSED)}"
