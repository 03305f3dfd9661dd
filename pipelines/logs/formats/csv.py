"""CSV files of log tables, with a header. Every value is a text, of which the schema says what it stands for."""

import csv
from collections import deque
from collections.abc import Generator, Sequence

import pyarrow as pa
import pyarrow.csv as pa_csv

from pipelines.logs.files import MAX_LINE_BYTES, open_bytes
from pipelines.logs.formats.block import Block
from usr_tf.errors import InputError

LIST_SEPARATOR = "|"
"""Between the values of a list that is no JSON."""
_DELIMITERS = ",;\t|"
_HEADER_BYTES = 1 << 16


def read_blocks(path: str, columns: Sequence[str] | None) -> Generator[Block]:
    """Blocks of a file's columns, all of texts. The header is row 1; a quoted text may hold line ends.

    Raises:
      InputError: the file is unreadable, has a column twice, or is no CSV in UTF-8.
    """
    with open_bytes(path) as stream:
        names, delimiter = _header(path, stream.peek(_HEADER_BYTES))  # type: ignore[attr-defined]
        if not names:
            return
        wrong: deque[pa_csv.InvalidRow] = deque()

        def skip(row: pa_csv.InvalidRow) -> str:
            wrong.append(row)
            return "skip"

        number = 2
        try:
            reader = pa_csv.open_csv(
                stream,
                pa_csv.ReadOptions(use_threads=False, block_size=MAX_LINE_BYTES),
                pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip),
                pa_csv.ConvertOptions(
                    include_columns=[name for name in names if columns is None or name in columns],
                    column_types=dict.fromkeys(names, pa.string()),
                    strings_can_be_null=False,
                ),
            )
            for batch in reader:
                rejected, skipped = [], set()
                while wrong and wrong[0].number - number < batch.num_rows + len(skipped):
                    row = wrong.popleft()
                    skipped.add(row.number)
                    rejected.append((row.number, "wrong_number_of_fields", row.text))
                last = number + batch.num_rows + len(skipped)
                yield Block(
                    batch, [n for n in range(number, last) if n not in skipped], tuple(rejected), LIST_SEPARATOR
                )
                number = last
        except pa.ArrowInvalid as error:
            expected = f"CSV in UTF-8 with a header, no row longer than {MAX_LINE_BYTES >> 20} MiB"
            raise InputError(f"{path}: after row {number - 1}", str(error), expected) from error
        if wrong:
            empty = pa.RecordBatch.from_pylist([], pa.schema([]))
            yield Block(empty, [], tuple((row.number, "wrong_number_of_fields", row.text) for row in wrong))


def _header(path: str, start: bytes) -> tuple[list[str], str]:
    """Names of the columns, and the delimiter: the one that the header has most of."""
    try:
        line = start.partition(b"\n")[0].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(path, f"text that is not UTF-8 ({error})", "CSV in UTF-8 with a header") from error
    delimiter = max(_DELIMITERS, key=line.count)
    names = next(csv.reader([line], delimiter=delimiter), [])
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: column {name!r}", "it twice in the header", "each column once")
    return names, delimiter
