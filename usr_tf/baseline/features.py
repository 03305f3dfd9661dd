"""Rows as a table for trees: a float32 matrix with a column for each id and number of a row.

| of a row | columns |
| --- | --- |
| the scenario | a category |
| a categorical feature | a category, or the count of the id in the training split |
| a list or a text | its length, and its first ids, each as a categorical feature |
| a number, its bucket, a signal, each place of a vector | the number as it is stored |
| the history, the past queries | their length and the age of the newest |

An id of a large vocabulary is a count, because a tree splits categories by their mean label, which is noise for an id
that has few rows. Position, oracle, keys and global labels are no columns.
"""

import dataclasses
from collections.abc import Callable, Container, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from usr_tf.data import Data, Split
from usr_tf.metrics.keys import hash_keys
from usr_tf.schema import (
    ACTION,
    PAST_QUERIES_AGE,
    REQUEST,
    SCENARIO,
    Schema,
    history_column,
)

LARGEST_CATEGORY = 20
"""Ids of the largest vocabulary whose columns are categories."""
FIRST_IDS = 4
"""Ids of a list that have a column each."""
_BATCH = 8192

Row = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the table."""

    name: str
    feature: str
    """The feature or signal that it is of."""
    family: str
    """What importances are grouped by: `match`, `history_match`, `counters`, `history`, or the feature's group."""
    source: str
    """The column of the parsed row that it is read from."""
    read: Callable[[np.ndarray], np.ndarray]
    """From the source's batch, `[B]` or `[B, n]`, to one value a row, `[B]`."""
    is_id: bool = False


class Rows(NamedTuple):
    """A split as a table, in the order of its files."""

    matrix: np.ndarray
    """float32 `[N, C]`."""
    labels: Mapping[str, np.ndarray]
    """Task → 0 or 1, float32 `[N]`."""
    scenario: np.ndarray
    """int `[N]`."""
    request: np.ndarray
    """uint64 `[N]`: hashes of the request ids."""


class Table:
    """The columns of a schema's rows, and their values of a batch.

    Args:
      counts: column → training rows of each of its ids, `[V]`. These columns are counts, other ids are categories.
      without: families of signals whose columns are left out.
    """

    def __init__(self, schema: Schema, counts: Mapping[str, np.ndarray], without: Container[str] = ()):
        self.columns = tuple(column for column in _columns(schema) if column.family not in without)
        self.counts = counts

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def categories(self) -> list[str]:
        """Names of the columns that LightGBM takes as categories."""
        return [column.name for column in self.columns if column.is_id and column.name not in self.counts]

    def fill(self, features: Row, out: np.ndarray) -> None:
        """Writes the table of a batch of parsed rows to `out`, float32 `[B, C]`."""
        for place, column in enumerate(self.columns):
            values = column.read(features[column.source])
            known = self.counts.get(column.name)
            out[:, place] = values if known is None else known[np.minimum(values, len(known) - 1)]

    def matrix(self, features: Row) -> np.ndarray:
        """The table of a batch of parsed rows, float32 `[B, C]`."""
        out = np.empty((len(features[SCENARIO]), len(self.columns)), np.float32)
        self.fill(features, out)
        return out


def count_ids(data: Data) -> dict[str, np.ndarray]:
    """Counts of each id in the training split, for the columns with more than `LARGEST_CATEGORY` ids.

    Raises:
      InputError: a file of the split is broken or gone.
    """
    sizes = data.vocabulary_sizes
    counted = [each for each in _columns(data.schema) if each.is_id and sizes.get(each.feature, 0) > LARGEST_CATEGORY]
    counts = {column.name: np.zeros(sizes[column.feature], np.int64) for column in counted}
    if counted:
        for features, _, _ in _batches(data, "train"):
            for column in counted:
                counts[column.name] += np.bincount(
                    column.read(features[column.source]), minlength=sizes[column.feature]
                )
    return counts


def read_rows(data: Data, split: Split, table: Table) -> Rows:
    """A split as a table. Memory holds the matrix and a batch: 4 bytes for each row and column.

    Raises:
      InputError: a file of the split is broken or gone.
    """
    count = data.rows(split)
    rows = Rows(
        np.empty((count, len(table.columns)), np.float32),
        {task: np.empty(count, np.float32) for task in data.schema.task_names},
        np.empty(count, np.int32),
        np.empty(count, np.uint64),
    )
    start = 0
    for features, labels, keys in _batches(data, split):
        part = slice(start, start + len(features[SCENARIO]))
        start = part.stop
        if start > count:
            break
        table.fill(features, rows.matrix[part])
        for task, values in rows.labels.items():
            values[part] = labels[task]
        rows.scenario[part] = features[SCENARIO]
        rows.request[part] = hash_keys(keys[REQUEST])
    if start != count:
        data.refuse_broken(split)
    return rows


def _batches(data: Data, split: Split) -> Iterator[tuple[Row, Row, Row]]:
    if data.rows(split):  # no files without rows
        with data.naming_broken(split):
            yield from data.evaluation(_BATCH, split).as_numpy_iterator()


def _columns(schema: Schema) -> Iterator[Column]:
    yield Column(SCENARIO, SCENARIO, "scenario", SCENARIO, _whole, is_id=True)
    for name, feature in schema.inputs.items():
        family = schema.signal_family(name) or feature.group
        if feature.is_list:
            yield Column(f"{name}.length", name, family, name, _length)
            for place in range(min(feature.length, FIRST_IDS)):
                yield Column(f"{name}.{place + 1}", name, family, name, partial(_at, place=place), is_id=True)
        elif feature.kind.input == "vector":
            for place in range(schema.number_columns[name]):
                yield Column(f"{name}.{place + 1}", name, family, name, partial(_at, place=place))
        else:
            is_id = feature.kind.input == "id" and name in schema.features  # buckets are in order
            yield Column(name, name, family, name, _whole, is_id=is_id)
    if schema.history_columns:
        yield Column("history.length", "history", "history", history_column(ACTION), _length)
        yield Column("history.age", "history", "history", history_column("age"), _newest)
    if schema.query_columns:
        yield Column("past_queries.length", "past_queries", "past_queries", PAST_QUERIES_AGE, _length)
        yield Column("past_queries.age", "past_queries", "past_queries", PAST_QUERIES_AGE, _newest)


def _whole(values: np.ndarray) -> np.ndarray:
    return values


def _at(values: np.ndarray, place: int) -> np.ndarray:
    """The value at a place, 0 where a batch's lists are all shorter."""
    return values[:, place] if place < values.shape[1] else np.zeros(len(values), values.dtype)


def _length(values: np.ndarray) -> np.ndarray:
    return np.count_nonzero(values, axis=1)


def _newest(values: np.ndarray) -> np.ndarray:
    """The last value that is no padding, 0 where there is none."""
    if not values.shape[1]:
        return np.zeros(len(values), values.dtype)
    last = values.shape[1] - 1 - np.argmax(values[:, ::-1] != 0, axis=1)
    return values[np.arange(len(values)), last]
