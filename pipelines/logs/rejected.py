"""Rejected rows: reason, place and content."""

import json
from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import TaggedOutput

from pipelines.beam.blocks import Block, BlockStore, load
from pipelines.logs.columns import PLACE
from pipelines.logs.tables import describe_place
from usr_tf.files import strict_json
from usr_tf.schema import TIMESTAMP

COUNTS, REJECTED = "counts", "rejected"
"""Tags of the outputs that every stage of the join has beside its rows."""

Examples = dict[str, dict[str, list[dict[str, str]]]]
"""By table and reason, the first rejected rows: `{"place", "row"}`, or `{"place"}` where rows are not quoted."""

EXAMPLES, EXAMPLE_CHARACTERS = 3, 300
_LAYOUT = pa.schema({"place": pa.int64(), "reason": pa.string(), "row": pa.string()})
_BLOCK_ROWS = 16_384


def set_aside(rejected: Iterable[dict], table: str, store: BlockStore) -> Iterator[TaggedOutput]:
    """Block of rejected rows from `{place, reason, row}` dictionaries, and their counts by reason."""
    entries = [{**entry, "row": _to_json(entry["row"])} for entry in rejected]
    if not entries:
        return
    batch = pa.RecordBatch.from_pylist(entries, _LAYOUT)
    yield TaggedOutput(REJECTED, (table, store.put(batch)))
    reasons, counts = np.unique(batch.column("reason").to_numpy(zero_copy_only=False), return_counts=True)
    yield TaggedOutput(
        COUNTS, {("rows", table, "rejected", str(reason)): int(n) for reason, n in zip(reasons, counts, strict=True)}
    )


def set_aside_marked(rows: pa.Table, mask: np.ndarray, reason: str, table: str, store: BlockStore) -> Iterator:
    """Rejected rows selected by `mask`, all for one reason."""
    rows = rows.filter(pa.array(mask))
    if TIMESTAMP in rows.column_names and rows.column(TIMESTAMP).null_count == len(rows):  # attributes without times
        rows = rows.drop_columns(TIMESTAMP)
    for batch in rows.to_batches(_BLOCK_ROWS):
        entries = ({"place": row.pop(PLACE), "reason": reason, "row": row} for row in batch.to_pylist())
        yield from set_aside(entries, table, store)


class WriteRejected(beam.PTransform):
    """Writes `(table, rejected rows)` blocks as JSON Lines: table, place, reason and row.

    Args:
      names: the inputs of each table, by the numbers in `place`.
      directory: where to write.
      quoted: whether to write the rows too, which may hold personal data; else what they were rejected for alone.
    """

    def __init__(self, names: dict[str, list[str]], directory: str, quoted: bool = True):
        super().__init__()
        self._names, self._directory, self._quoted = names, directory, quoted

    def expand(self, blocks: beam.PCollection) -> beam.PCollection:
        return (
            blocks
            | "Describe" >> beam.FlatMap(_lines, self._names, self._quoted)
            | "Write" >> beam.io.WriteToText(FileSystems.join(self._directory, "rows"), ".jsonl")
        )


class FindExamples(beam.CombineFn):
    """First rejected rows by place for each reason, truncated, from `(table, rejected rows)` blocks.

    Args:
      names: the inputs of each table, by the numbers in `place`.
      quoted: whether the rows themselves are among the examples, or their places alone.
    """

    def __init__(self, names: dict[str, list[str]], quoted: bool = True):
        super().__init__()
        self._names, self._quoted = names, quoted

    def create_accumulator(self) -> dict:
        return {}

    def add_input(self, accumulator: dict, block: Block) -> dict:
        table, handle = block
        rows = pa.table(load(handle))
        found = {}
        for reason in rows.column("reason").unique().to_pylist():
            first = rows.filter(pc.equal(rows.column("reason"), reason)).sort_by("place").slice(0, EXAMPLES)
            found[table, reason] = [(row["place"], row["row"][:EXAMPLE_CHARACTERS]) for row in first.to_pylist()]
        return self.merge_accumulators([accumulator, found])

    def merge_accumulators(self, accumulators: Iterable[dict]) -> dict:
        merged: dict = {}
        for accumulator in accumulators:
            for key, rows in accumulator.items():
                merged[key] = sorted([*merged.get(key, []), *rows])[:EXAMPLES]
        return merged

    def extract_output(self, accumulator: dict) -> Examples:
        examples: Examples = {}
        for (table, reason), rows in sorted(accumulator.items()):
            examples.setdefault(table, {})[reason] = [
                {"place": describe_place(place, self._names[table])} | ({"row": row} if self._quoted else {})
                for place, row in rows
            ]
        return examples


def _lines(block: Block, names: dict[str, list[str]], quoted: bool) -> Iterator[str]:
    table, handle = block
    for entry in load(handle).to_pylist():
        place = describe_place(entry["place"], names[table])
        told = json.dumps({"table": table, "place": place, "reason": entry["reason"]}, ensure_ascii=False)
        yield f'{told[:-1]}, "row": {entry["row"]}}}' if quoted else told


def _to_json(row: object) -> str:
    """JSON bytes in valid UTF-8, also for rows with lone surrogates or non-finite numbers."""
    text = strict_json(row, default=str, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
