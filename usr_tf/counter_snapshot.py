"""Snapshot of counters inside a served model: raw counts by key, as of one moment."""

from collections.abc import Container
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf

from usr_tf.errors import InputError
from usr_tf.run import Run
from usr_tf.schema import Counter, Schema
from usr_tf.tokens import fingerprint

CounterSource = Literal["snapshot", "request"]

_SEPARATOR = "\x1f"


class CounterSnapshot(tf.Module):
    """Raw counts of each counter's keys, found by hash.

    A key that the snapshot lacks has counts of 0. Keys and counts are variables, so a SavedModel of any size holds
    them.

    Args:
      directory: holds `<counter>.parquet`: a column for each feature of the key, `scenario` where the counter is by
        scenario, and the raw counts by `usr_tf.schema.counter_column`.

    Raises:
      InputError: a file is missing or is not such a table.
    """

    def __init__(self, directory: Path, schema: Schema):
        super().__init__(name="counters")
        self._schema = schema
        queries = schema.features_of("query")
        self._tables = {
            name: _CounterTable(directory, name, counter, queries) for name, counter in schema.counters.items()
        }

    def look_up(self, inputs: dict[str, tf.Tensor], scenario: str) -> dict[str, tf.Tensor]:
        """float32 `[N]` of each of `Schema.counter_columns`.

        Args:
          inputs: raw strings of the keys' features, `[N]`, or `[1]` of the request's side.
        """
        found = [table.look_up(inputs, scenario) for table in self._tables.values()]  # `[N, k]`, or `[1, k]`
        rows = tf.reduce_max(tf.stack([tf.shape(counts)[0] for counts in found]))
        columns = [tf.broadcast_to(counts, [rows, counts.shape[1]]) for counts in found]
        return dict(zip(self._schema.counter_columns, tf.unstack(tf.concat(columns, axis=1), axis=1), strict=True))


class _CounterTable(tf.Module):
    """The snapshot of one counter.

    Args:
      queries: features whose strings are compared as `normalized`.
    """

    def __init__(self, directory: Path, name: str, counter: Counter, queries: Container[str]):
        super().__init__(name=name)
        self._counter = counter
        self._queries = queries
        path, columns = directory / f"{name}.parquet", counter.columns(name)
        try:
            table = pq.read_table(path, columns=[*counter.key_columns, *columns])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(path, "no readable snapshot", "the counters of `usr-tf preprocess`") from error
        hashes = _hash([tf.constant(table.column(key).to_numpy(), tf.string) for key in counter.key_columns]).numpy()
        order = np.argsort(hashes)
        counts = [table.column(column).to_numpy().astype(np.float32) for column in columns]
        # The last key is larger than any hash: every search ends at a key.
        self._keys = tf.Variable(np.append(hashes[order], np.iinfo(np.int64).max), trainable=False, name="keys")
        values = np.pad(np.stack(counts, axis=1)[order], [(0, 1), (0, 0)])
        self._counts = tf.Variable(values, trainable=False, name="counts")

    def look_up(self, inputs: dict[str, tf.Tensor], scenario: str) -> tf.Tensor:
        """float32 `[N, k]`, by `Counter.columns`; `[1, k]` where the whole key is the request's."""
        keys = [normalized(inputs[name]) if name in self._queries else inputs[name] for name in self._counter.key]
        rows = tf.reduce_max(tf.stack([tf.shape(key)[0] for key in keys]))
        keys = [tf.broadcast_to(key, [rows]) for key in keys]
        known = tf.reduce_all(tf.stack([tf.not_equal(key, "") for key in keys]), axis=0)
        hashes = _hash([*keys, tf.fill([rows], scenario)] if self._counter.by_scenario else keys)
        places = tf.searchsorted(self._keys, hashes)
        known &= tf.equal(tf.gather(self._keys, places), hashes)
        return tf.where(known[:, tf.newaxis], tf.gather(self._counts, places), 0.0)


def open_snapshot(run: Run, counters: CounterSource | None = None) -> CounterSnapshot | None:
    """The snapshot of a run's counters; None where it has no counters, or each request brings them.

    Raises:
      InputError: the run has counters and no snapshot of them.
    """
    source = counters or run.config.export.counters
    return CounterSnapshot(run.counters, run.schema) if run.schema.counters and source == "snapshot" else None


def normalized(queries: tf.Tensor) -> tf.Tensor:
    """Queries as counters compare them: lower-cased, without blanks at the ends."""
    return tf.strings.strip(tf.strings.lower(queries, encoding="utf-8"))


def _hash(keys: list[tf.Tensor]) -> tf.Tensor:
    return fingerprint(tf.strings.join(keys, _SEPARATOR))
