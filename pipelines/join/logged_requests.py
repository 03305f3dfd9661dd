"""Sample of logged requests of the test split, as request documents for serving.

They warm up a server, load-test it, and prove that served scores equal offline ones.
"""

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystems import FileSystems

from pipelines.beam.blocks import Handle, load
from pipelines.beam.hashing import hash_rows
from usr_tf.files import strict_json
from usr_tf.schema import CANDIDATE_GROUPS, POSITION, RAW_ITEM, REQUEST, SCENARIO, Schema

REQUESTS_PER_SCENARIO = 200
_CANDIDATES = 4
"""Requests that are looked at for each one that is wanted: some may not be one moment of one user."""

_Key = tuple[int, str]
"""Hash of a request id, and the id."""


class SampleRequests(beam.PTransform):
    """Writes sampled requests to `DIRECTORY/<scenario>.jsonl` from handles of row blocks.

    Takes the requests with the smallest hashes, so a rerun takes the same.

    Args:
      count: requests of each scenario, at the most.
    """

    def __init__(self, schema: Schema, directory: str, count: int = REQUESTS_PER_SCENARIO):
        super().__init__()
        self._schema, self._directory, self._count = schema, directory, count

    def expand(self, handles: beam.PCollection) -> beam.PCollection:
        chosen = (
            handles
            | "Keys" >> beam.FlatMap(_request_keys)
            | "DistinctKeys" >> beam.Distinct()
            | "Candidates" >> beam.combiners.Top.SmallestPerKey(_CANDIDATES * self._count)
            | "Ids" >> beam.FlatMapTuple(lambda _, keys: [request for _, request in keys])
        )
        return (
            handles
            | "RowsOfChosen" >> beam.FlatMap(_rows_of, beam.pvalue.AsList(chosen))
            | "ByRequest" >> beam.GroupByKey()
            | "Request" >> beam.FlatMap(_to_request, self._schema)
            | "Smallest" >> beam.combiners.Top.SmallestPerKey(self._count)
            | "Write" >> beam.Map(_write, self._directory)
        )


def _request_keys(handle: Handle) -> Iterator[tuple[str, _Key]]:
    batch = load(handle)
    scenarios, requests = (batch.column(name).flatten().to_pylist() for name in (SCENARIO, REQUEST))
    hashes = hash_rows(batch, [REQUEST]).view(np.int64).tolist()  # signed, as Beam codes integers
    yield from set(zip(scenarios, zip(hashes, requests, strict=True), strict=True))


def _rows_of(handle: Handle, chosen: list[str]) -> Iterator[tuple[str, dict]]:
    batch = load(handle)
    requests = batch.column(REQUEST).flatten()
    for row in batch.filter(pc.is_in(requests, pa.array(chosen, pa.string()))).to_pylist():
        yield row[REQUEST][0], row


def _to_request(element: tuple[str, Iterable[dict]], schema: Schema) -> Iterator[tuple[str, tuple[int, str]]]:
    """Request document of the rows of one request: `(scenario, (hash, JSON))`.

    A request whose rows differ in more than their items is left out: it is not one moment of one user, and could
    not be served as it was logged.
    """
    request, rows = element
    rows = sorted(rows, key=lambda row: (row[POSITION], row[RAW_ITEM]))
    items = schema.features_of(*CANDIDATE_GROUPS)
    of_request = [name for name in schema.features if name not in items]
    weights = {column: name in items for column, name in schema.weight_columns.items()}
    sequences = (*schema.query_columns, *schema.history_columns)
    shared = [SCENARIO, *of_request, *(name for name, of_item in weights.items() if not of_item), *sequences]
    first = rows[0]
    if any(row[name] != first[name] for row in rows for name in shared):
        return
    inputs: dict[str, Any] = {}
    for name, feature in schema.features.items():
        values = [row[name] if feature.kind.several else _one(row[name]) for row in rows]
        inputs[name] = values if name in items else values[0]
    for name, of_item in weights.items():
        inputs[name] = [row[name] for row in rows] if of_item else first[name]
    for name in schema.counter_columns:
        inputs[name] = [_one(row[name]) for row in rows]
    inputs |= {name: first[name] for name in schema.query_columns}
    for name in schema.history_columns:
        values, width = first[name], schema.history_width(name)
        if width:
            values = [values[start : start + width] for start in range(0, len(values), width)]
        inputs[name] = values
    scenario = first[SCENARIO][0]
    document = {"request_id": request, "scenario": scenario, "inputs": inputs}
    yield scenario, (zlib.crc32(request.encode("utf-8")), strict_json(document, ensure_ascii=False))


def _one(values: list) -> Any:
    return values[0] if values else None


def _write(element: tuple[str, list[tuple[int, str]]], directory: str) -> None:
    scenario, documents = element
    lines = sorted(f"{line}\n" for _, line in documents)
    with FileSystems.create(FileSystems.join(directory, f"{scenario}.jsonl"), "application/json") as stream:
        stream.write("".join(lines).encode("utf-8"))
