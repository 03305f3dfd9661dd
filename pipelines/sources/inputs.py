"""Input files of an import, from any Beam file system, and BigQuery tables.

Lines, records and blocks of CSV come out, one file after the other, none of them held as a whole.
"""

import glob
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from pipelines.logs import bigquery
from pipelines.logs.files import line_blocks, open_bytes, open_parquet
from pipelines.logs.formats import avro, csv, json
from usr_tf.errors import InputError

_RECORDS = 4_096


class InputFile(NamedTuple):
    path: str
    """As Beam's file systems have it, or `bigquery:PROJECT.DATASET.TABLE`."""
    size: int
    """In bytes."""

    @property
    def name(self) -> str:
        """Last part of the path, without `.gz`."""
        return self.path.rpartition("/")[2].removesuffix(".gz")


class Record(NamedTuple):
    path: str
    number: int
    """Its line, row or object, from 1."""
    value: Any


class CsvBlock(NamedTuple):
    path: str
    numbers: np.ndarray
    """`[rows]` int64: each row's place in the file; the header is 1."""
    rows: pd.DataFrame
    """Text, as it stands in the file: an empty field is an empty string."""


class Inputs:
    """Input files of one import.

    Args:
      files: In the order in which they are read.
      advance: Called with the number of bytes read since the last call.
      on_reject: Called with path, line and reason of each unreadable row.
    """

    def __init__(
        self,
        files: Sequence[InputFile],
        advance: Callable[[int], object] = lambda size: None,
        on_reject: Callable[[str, int, str], object] = lambda path, number, reason: None,
    ):
        self.files = tuple(files)
        self.rejected: Counter[str] = Counter()
        """How many rows were rejected, by reason."""
        self.first_rejected: dict[str, tuple[str, int]] = {}
        """Path and line of the first row that was rejected for a reason."""
        self._advance = advance
        self._on_reject = on_reject

    def reject(self, path: str, number: int, reason: str) -> None:
        """Counts and reports an unreadable row."""
        self.rejected[reason] += 1
        self.first_rejected.setdefault(reason, (path, number))
        self._on_reject(path, number, reason)

    @property
    def most_frequent_reason(self) -> str:
        """Of the rejected rows, the earliest of equals; empty if there are none."""
        return max(self.rejected, key=self.rejected.__getitem__, default="")

    def file(self, name: str) -> InputFile:
        """The one file with this name, plain or gzip.

        Raises:
          InputError: there is none, or more than one.
        """
        found = [file for file in self.files if file.name == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError("--input", f"{name} at {' and at '.join(file.path for file in found)}", "it once")
        raise InputError("--input", f"no {name}", "the directory that holds it, or the file itself")

    def lines(self) -> Iterator[Record]:
        """Non-blank lines of all files as bytes; gzip is detected by its first bytes.

        Raises:
          InputError: a file is unreadable, or its gzip stream is cut off or damaged.
        """
        for file in self.files:
            yield from self._lines_of(file)

    def records(self, columns: Sequence[str] | None = None) -> Iterator[Record]:
        """Records of all files, whose first bytes tell what they are.

        JSON comes as bytes, also the elements of arrays and objects over several lines; rows of Parquet, Avro and
        BigQuery come as dictionaries.

        Args:
          columns: The top-level columns to read of tables, where they exist; all by default. JSON is left whole.

        Raises:
          InputError: as `lines`, and a file or a table that cannot be read as what it is.
        """
        for file in self.files:
            if bigquery.is_table(file.path):
                yield from _rows_of(file, bigquery.read_table(file.path, columns, self._advance))
                continue
            magic = _first_bytes(file)
            if magic == b"PAR1":
                yield from _rows_of(file, self._parquet_batches(file, columns))
            elif magic == b"Obj\x01":
                yield from self._avro_rows(file)
            else:
                yield from self._json_of(file)

    def csv_blocks(self, file: InputFile, columns: Sequence[str], delimiter: str = ",") -> Iterator[CsvBlock]:
        """Blocks of a CSV file with a header; rows with a wrong number of fields or broken text are rejected.

        Raises:
          InputError: a column is missing, or the file is unreadable, empty or no CSV.
        """
        block = None
        for block in csv.read_blocks(file.path, columns, delimiter, self._advance):
            for name in columns:
                if name not in (block.columns or ()):
                    raise InputError(f"{file.path}: column {name!r}", "none in its header", ", ".join(columns))
            for number, reason, _ in block.rejected:
                self.reject(file.path, number, reason)
            rows = block.rows.select(list(columns)).to_pandas()  # type: ignore[union-attr]  # of CSV
            yield CsvBlock(file.path, np.asarray(block.numbers, np.int64), rows)
        if block is None:
            raise InputError(file.path, "an empty file", f"CSV with the columns {', '.join(columns)}")

    def csv_rows(self, columns: Sequence[str], delimiter: str = ",") -> Iterator[Record]:
        """Rows of all CSV files, each a dictionary of text."""
        for file in self.files:
            for block in self.csv_blocks(file, columns, delimiter):
                for number, row in zip(block.numbers.tolist(), tuples(block.rows, *columns), strict=True):
                    yield Record(file.path, number, dict(zip(columns, row, strict=True)))

    def sound(self, block: CsvBlock, wrong: Mapping[str, Any]) -> pd.DataFrame:
        """Valid rows of a block; the others are rejected.

        Args:
          wrong: `{reason: [rows] bool}`; a row is rejected for the first reason that holds.
        """
        masks = {reason: np.asarray(mask, bool) for reason, mask in wrong.items()}
        any_wrong = np.logical_or.reduce(list(masks.values()))
        for row in np.flatnonzero(any_wrong).tolist():
            reason = next(reason for reason, mask in masks.items() if mask[row])
            self.reject(block.path, int(block.numbers[row]), reason)
        return block.rows[~any_wrong]

    def _lines_of(self, file: InputFile) -> Iterator[Record]:
        for number, line in _numbered_lines(line_blocks(file.path, advance=self._advance)):
            yield Record(file.path, number, line)

    def _json_of(self, file: InputFile) -> Iterator[Record]:
        for block in json.read_blocks(file.path, None, self._advance):
            lines = block.rows[:-1].split(b"\n")  # type: ignore[union-attr]  # of JSON
            for number, line in zip(block.numbers, lines, strict=True):
                if text := line.removeprefix(b"\xef\xbb\xbf").strip():
                    yield Record(file.path, number, text)

    def _avro_rows(self, file: InputFile) -> Iterator[Record]:
        rows = (row for rows in avro.read_rows(file.path, self._advance) for row in rows)
        for number, row in enumerate(rows, start=1):
            yield Record(file.path, number, row)

    def _parquet_batches(self, file: InputFile, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        with open_parquet(file.path) as parquet:
            wanted = [name for name in parquet.schema_arrow.names if columns is None or name in columns]
            rows, read = max(parquet.metadata.num_rows, 1), 0
            for batch in parquet.iter_batches(_RECORDS, columns=wanted):
                yield batch
                before, read = read, read + batch.num_rows
                self._advance(file.size * read // rows - file.size * before // rows)


def find_inputs(names: Iterable[str]) -> list[InputFile]:
    """Input files of `names`, each once: files, patterns such as `ga_sessions_*`, directories, tables.

    A name with a scheme (`gs://…`, `s3://…`) is matched by Beam's file system for it, and `bigquery:` by BigQuery.
    Of a directory, all files count but those whose names start with `.` or `_`.

    Raises:
      InputError: a name stands for no file at all.
    """
    files: dict[Any, InputFile] = {}
    for name in names:
        if bigquery.is_table(name):
            found = [(path, InputFile(path, size)) for path, size in bigquery.find_tables(name)]
        else:
            found = _remote_files(name) if "://" in name else _local_files(name)
        if not found:
            raise InputError(name, "no file", "a file, a pattern that matches some, or a directory that holds some")
        for identity, file in found:
            files.setdefault(identity, file)
    if not files:
        raise InputError("--input", "nothing", "at least one file, pattern or directory")
    return list(files.values())


def tuples(rows: pd.DataFrame, *names: str) -> Iterator[tuple[Any, ...]]:
    """Rows of these columns of a block."""
    return zip(*(rows[name].tolist() for name in names), strict=True)


def to_integers(texts: pd.Series, least: int) -> tuple[np.ndarray, np.ndarray]:
    """`[rows]` int64, truncated, and `[rows]` bool mask of numeric texts between `least` and 2**53."""
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy("float64", na_value=np.nan)
    return np.nan_to_num(numbers).clip(least, 2**53).astype("int64"), (numbers >= least) & (numbers <= 2**53)


def _local_files(name: str) -> list[tuple[Path, InputFile]]:
    paths = [Path(name)] if Path(name).exists() else [Path(match) for match in glob.glob(name, recursive=True)]
    files: list[Path] = []
    for path in sorted(paths):
        inside = (file for file in path.iterdir() if file.is_file()) if path.is_dir() else ()
        files += sorted(file for file in inside if _is_data(file.name)) if path.is_dir() else [path]
    return [(file.resolve(), InputFile(str(file), file.stat().st_size)) for file in files]


def _remote_files(name: str) -> list[tuple[str, InputFile]]:
    file_systems = _beam_file_systems()
    try:
        matches = [] if name.endswith("/") else file_systems.match([name])[0].metadata_list
        inside = [] if matches else file_systems.match([file_systems.join(name, "*")])[0].metadata_list
    except (ValueError, OSError) as error:
        raise InputError(name, f"no way to look there ({error})", "a path of a file system that Beam has") from error
    matches = matches or [file for file in inside if _is_data(file.path.rpartition("/")[2])]
    files = sorted((file.path, file.size_in_bytes) for file in matches)
    return [(path, InputFile(path, size)) for path, size in files]


def _is_data(name: str) -> bool:
    return bool(name) and not name.startswith((".", "_"))


def _first_bytes(file: InputFile) -> bytes:
    with open_bytes(file.path, decompress=False) as stream:
        return stream.read(4)


def _numbered_lines(blocks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Non-blank lines without space around them, by their numbers from 1."""
    lines = (line for block in blocks for line in block[:-1].split(b"\n"))
    for number, line in enumerate(lines, start=1):
        if text := line.removeprefix(b"\xef\xbb\xbf").strip():
            yield number, text


def _rows_of(file: InputFile, batches: Iterable[pa.RecordBatch]) -> Iterator[Record]:
    before = 0
    for batch in batches:
        try:
            rows = batch.to_pylist()
        except (ValueError, OverflowError) as error:  # broken text is a ValueError
            raise _unreadable_value(file, batch, before) from error
        yield from (Record(file.path, number, row) for number, row in enumerate(rows, start=before + 1))
        before += batch.num_rows


def _unreadable_value(file: InputFile, batch: pa.RecordBatch, before: int) -> InputError:
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        for row, value in enumerate(values, start=before + 1):
            try:
                value.as_py()
            except UnicodeDecodeError:
                return InputError(f"{file.path}: row {row}, column {name!r}", "text that is not UTF-8", "UTF-8")
            except (ValueError, OverflowError) as error:
                return InputError(f"{file.path}: row {row}, column {name!r}", f"a bad value ({error})", "another")
    raise AssertionError("one of the values cannot be read")


def _beam_file_systems() -> Any:
    """Beam's file systems, imported lazily, with the options that some of them require."""
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    FileSystems.set_options(PipelineOptions([]))
    return FileSystems
