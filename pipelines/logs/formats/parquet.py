"""Parquet files of log tables."""

from collections import Counter
from collections.abc import Generator, Sequence

from pipelines.logs.files import open_parquet
from pipelines.logs.formats.block import Block
from usr_tf.errors import InputError

_BLOCK_ROWS = 32_768


def read_blocks(path: str, columns: Sequence[str] | None) -> Generator[Block]:
    """Blocks of a file's columns, with their types; a file without rows has one empty block.

    Raises:
      InputError: the file is no whole Parquet file, or has one of these columns twice.
    """
    with open_parquet(path) as file:
        found = file.schema_arrow.names
        names = [name for name in found if columns is None or name in columns]
        for name, count in Counter(names).items():
            if count > 1:
                raise InputError(f"{path}: column {name!r}", "it twice", "each column once")
        number = 1
        for batch in file.iter_batches(_BLOCK_ROWS, columns=names):
            yield Block(batch, range(number, number + batch.num_rows), columns=tuple(found))
            number += batch.num_rows
