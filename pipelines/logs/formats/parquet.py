"""Parquet files of log tables."""

from collections.abc import Generator, Sequence

from pipelines.logs.files import open_parquet
from pipelines.logs.formats.block import Block

_BLOCK_ROWS = 32_768


def read_blocks(path: str, columns: Sequence[str] | None) -> Generator[Block]:
    """Blocks of a file's columns, with their types; a file without rows has one empty block."""
    with open_parquet(path) as file:
        names = [name for name in file.schema_arrow.names if columns is None or name in columns]
        number = 1
        for batch in file.iter_batches(_BLOCK_ROWS, columns=names):
            yield Block(batch, range(number, number + batch.num_rows))
            number += batch.num_rows
