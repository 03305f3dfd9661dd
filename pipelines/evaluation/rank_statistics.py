"""Exact rank statistics (AUC sums) of all rows without a global sort.

The order is cut at values of the score into buckets of some size. Each is sorted alone; what lies in the buckets below
and above it, counted before, gives its positives their exact share of AUC, of average precision and of deciles.

The cuts are at values of the upper half of a float32, which rises with the number where none is negative: counts of
its 32,768 values show where buckets of about equal size begin. Rows of equal score stay together, however many.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsSingleton

from pipelines.beam.blocks import BlockStore, Handle, divide, load
from pipelines.evaluation.row_blocks import pack, unpack
from usr_tf.metrics.cells import MODEL, ORACLE, Cell, Order, cells_of, orders_of, scores_of, tally_order
from usr_tf.metrics.metric import Sums
from usr_tf.metrics.predictions import Predictions
from usr_tf.metrics.resample import Resample
from usr_tf.metrics.sums import Outside
from usr_tf.schema import Schema

BUCKETS, BUCKET_ROWS = 256, 1 << 16
"""A bucket has some `BUCKET_ROWS` rows; more of them rather than more than some `BUCKETS` buckets."""
_SCORE = "score"

_Key = tuple[str, str, int]
"""The order's score and task, and the number of a bucket."""


class OrderSums(beam.PTransform):
    """Rank sums `(cell, sums)` of every score order, from blocks of `evaluated.pack`.

    Args:
      replicates, seed: of `Resample.of`.
    """

    def __init__(self, schema: Schema, store: BlockStore, replicates: int, seed: int):
        super().__init__()
        self._schema, self._store, self._draws = schema, store, (replicates, seed)

    def expand(self, handles: beam.PCollection) -> beam.PCollection:
        buckets = (
            handles
            | "Codes" >> beam.Map(_count_codes, self._schema)
            | "AllCodes" >> beam.CombineGlobally(_add)
            | "Buckets" >> beam.Map(_buckets)
        )
        divided = (
            handles
            | "Divide" >> beam.ParDo(_Divide(self._schema, self._store), AsSingleton(buckets))
            | "ByBucket" >> beam.GroupByKey()
        )
        below = (
            divided
            | "Count" >> beam.Map(_count, self._schema, *self._draws)
            | "AllCounts" >> beam.combiners.ToList()
            | "Below" >> beam.Map(_running)
        )
        return divided | "Tally" >> beam.FlatMap(_tally, self._schema, *self._draws, AsSingleton(below))


def _count_codes(handle: Handle, schema: Schema) -> dict[Order, np.ndarray]:
    """Row counts per value of the upper half of the score bits, for each order."""
    rows = unpack([load(handle)])
    return {order: np.bincount(_codes(scores), minlength=1 << 15) for order, scores in _orders(rows, schema)}


def _add(counts: Iterable[dict[Order, np.ndarray]]) -> dict[Order, np.ndarray]:
    total: dict[Order, np.ndarray] = {}
    for part in counts:
        for order, count in part.items():
            total[order] = total.get(order, 0) + count
    return total


def _buckets(counts: Mapping[Order, np.ndarray]) -> dict[Order, np.ndarray]:
    """Bucket of each value of the upper half of the score bits, named after its first row."""
    return {
        order: (np.cumsum(count) - count) // max(BUCKET_ROWS, -(-count.sum() // BUCKETS))
        for order, count in counts.items()
    }


class _Divide(beam.DoFn):
    """Splits a block by order and bucket, with the columns that the order needs."""

    def __init__(self, schema: Schema, store: BlockStore):
        self._schema, self._store = schema, store

    def process(self, handle: Handle, buckets: Mapping[Order, np.ndarray]) -> Iterator[tuple[_Key, Handle]]:
        rows = unpack([load(handle)])
        for order, scores in _orders(rows, self._schema):
            known = ~np.isnan(scores)
            needed = dataclasses.replace(
                rows,
                request=np.zeros(len(rows), np.int64),
                labels={order.task: rows.labels[order.task]},
                probabilities={},
                oracle={},
                baselines={_SCORE: scores},
                slices=rows.slices if _is_sliced(order) else {},
            ).only(known)
            for bucket, part in divide(pack(needed), buckets[order][_codes(scores)]):
                yield (*order, bucket), self._store.put(part)


def _count(element: tuple[_Key, Iterable[Handle]], schema: Schema, replicates: int, seed: int) -> tuple[_Key, dict]:
    """Negative and positive counts `[2, 1 + R]` of each cell in a bucket."""
    (score, task, bucket), handles = element
    rows = unpack(map(load, handles))
    resample = Resample.of(rows.user, 0 if score == ORACLE else replicates, seed)
    counts = {}
    for cell, chosen in cells_of(rows, schema, (task,), _is_sliced(Order(score, task))):
        labels = rows.labels[task][chosen]
        counts[cell] = resample.only(chosen).totals(1 - labels, labels)
    return (score, task, bucket), counts


@dataclasses.dataclass(frozen=True, eq=False)
class _Running:
    """Cumulative counts of one cell in an order: before each non-empty bucket, and in total."""

    buckets: np.ndarray
    before: np.ndarray
    """`[buckets + 1, 2, 1 + R]`."""

    def outside(self, bucket: int) -> Outside:
        place = int(np.searchsorted(self.buckets, bucket))
        return Outside(self.before[place], self.before[-1] - self.before[place + 1])


def _running(counts: Iterable[tuple[_Key, dict[Cell, np.ndarray]]]) -> dict[tuple[str, Cell], _Running]:
    """Cumulative counts per score and cell."""
    by_cell: dict[tuple[str, Cell], dict[int, np.ndarray]] = {}
    for (score, _, bucket), cells in counts:
        for cell, count in cells.items():
            by_cell.setdefault((score, cell), {})[bucket] = count
    running = {}
    for key, of_bucket in by_cell.items():
        buckets = np.array(sorted(of_bucket))
        steps = np.stack([of_bucket[bucket] for bucket in buckets.tolist()])
        running[key] = _Running(buckets, np.concatenate([np.zeros_like(steps[:1]), np.cumsum(steps, axis=0)]))
    return running


def _tally(
    element: tuple[_Key, Iterable[Handle]],
    schema: Schema,
    replicates: int,
    seed: int,
    running: Mapping[tuple[str, Cell], _Running],
) -> Iterator[tuple[tuple[str, ...], Sums]]:
    (score, task, bucket), handles = element
    rows, order = unpack(map(load, handles)), Order(score, task)
    cells = tally_order(
        rows,
        rows.baselines[_SCORE],
        schema,
        Resample.of(rows.user, replicates, seed),
        order,
        lambda cell: running[score, cell].outside(bucket),
    )
    yield from ((tuple(cell), sums) for cell, sums in cells.items())


def _orders(rows: Predictions, schema: Schema) -> Iterator[tuple[Order, np.ndarray]]:
    for order in orders_of(rows, schema):
        yield order, scores_of(rows, schema, order)


def _is_sliced(order: Order) -> bool:
    return order.score in (MODEL, ORACLE)


def _codes(scores: np.ndarray) -> np.ndarray:
    """Upper half of the bits of the defined scores, non-negative int64."""
    with np.errstate(over="ignore"):  # what float32 cannot hold is above all that it can
        bits = (scores[~np.isnan(scores)] + 0.0).astype(np.float32)
    return (bits.view(np.uint32) >> np.uint32(16)).astype(np.int64)
