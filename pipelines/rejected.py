"""Rows that are set aside: why, where they stood, and what they held."""

import json
from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import TaggedOutput

from pipelines import logs
from pipelines.blocks import Block, BlockStore, load
from pipelines.logs import PLACE

COUNTS, REJECTED = "counts", "rejected"
"""Tags of the outputs that every stage of the join has beside its rows."""

_LAYOUT = pa.schema({"place": pa.int64(), "reason": pa.string(), "row": pa.string()})
_BLOCK_ROWS = 16_384


def set_aside(rejected: Iterable[dict], table: str, store: BlockStore) -> Iterator[TaggedOutput]:
    """`{place, reason, row}` dictionaries as a block on its way out, and their counts by reason."""
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
    """The rows that `mask` marks, set aside for one reason."""
    for batch in rows.filter(pa.array(mask)).to_batches(_BLOCK_ROWS):
        entries = ({"place": row.pop(PLACE), "reason": reason, "row": row} for row in batch.to_pylist())
        yield from set_aside(entries, table, store)


class WriteRejected(beam.PTransform):
    """Writes `(table, rejected rows)` blocks as JSON Lines: table, place, reason and row.

    Args:
      names: the inputs of each table, by the numbers in `place`.
      directory: where to write.
    """

    def __init__(self, names: dict[str, list[str]], directory: str):
        super().__init__()
        self._names, self._directory = names, directory

    def expand(self, blocks: beam.PCollection) -> beam.PCollection:
        return (
            blocks
            | "Describe" >> beam.FlatMap(_lines, self._names)
            | "Write" >> beam.io.WriteToText(FileSystems.join(self._directory, "rows"), ".jsonl")
        )


def _lines(block: Block, names: dict[str, list[str]]) -> Iterator[str]:
    table, handle = block
    for entry in load(handle).to_pylist():
        place = logs.describe_place(entry["place"], names[table])
        told = json.dumps({"table": table, "place": place, "reason": entry["reason"]}, ensure_ascii=False)
        yield f'{told[:-1]}, "row": {entry["row"]}}}'


def _to_json(row: object) -> str:
    """JSON that UTF-8 can hold, though the row may hold half a surrogate."""
    text = json.dumps(row, ensure_ascii=False, default=str)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
