"""Snapshot of counters inside a served model: raw counts by key, as of one moment."""

from collections.abc import Container
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf

from usr_tf.errors import InputError
from usr_tf.run import Run
from usr_tf.schema import IMPRESSION, SCENARIO, Counter, Schema, counter_column

CounterSource = Literal["snapshot", "request"]

_FINGERPRINTS = 2**62
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
        counts: dict[str, tf.Tensor] = {}
        for table in self._tables.values():
            counts |= table.look_up(inputs, scenario)
        rows = tf.reduce_max(tf.stack([tf.shape(values)[0] for values in counts.values()]))
        return {name: values if values.shape[0] != 1 else tf.repeat(values, rows) for name, values in counts.items()}


class _CounterTable(tf.Module):
    """The snapshot of one counter.

    Args:
      queries: features whose strings are compared as `normalized`.
    """

    def __init__(self, directory: Path, name: str, counter: Counter, queries: Container[str]):
        super().__init__(name=name)
        self._counter = counter
        self._queries = queries
        events = (IMPRESSION, *counter.actions)
        self._columns = [counter_column(name, window, event) for window in counter.windows for event in events]
        path = directory / f"{name}.parquet"
        names = [*([SCENARIO] if counter.by_scenario else []), *counter.key]
        try:
            table = pq.read_table(path, columns=[*names, *self._columns])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(path, "no readable snapshot", "the counters of `usr-tf preprocess`") from error
        keys = [tf.constant(table.column(key).to_pylist(), tf.string, [table.num_rows]) for key in names]
        hashes = _hash(keys).numpy()
        order = np.argsort(hashes)
        counts = [table.column(column).to_numpy().astype(np.float32) for column in self._columns]
        # The last key is larger than any hash: every search ends at a key.
        self._keys = tf.Variable(np.append(hashes[order], np.iinfo(np.int64).max), trainable=False, name="keys")
        values = np.stack(counts, axis=1)[order] if table.num_rows else np.zeros((0, len(counts)), np.float32)
        self._counts = tf.Variable(
            np.concatenate([values, np.zeros((1, len(counts)), np.float32)]), trainable=False, name="counts"
        )

    def look_up(self, inputs: dict[str, tf.Tensor], scenario: str) -> dict[str, tf.Tensor]:
        keys = [normalized(inputs[name]) if name in self._queries else inputs[name] for name in self._counter.key]
        rows = tf.reduce_max(tf.stack([tf.shape(key)[0] for key in keys]))
        keys = [tf.broadcast_to(key, [rows]) for key in keys]
        known = tf.reduce_all(tf.stack([tf.not_equal(key, "") for key in keys]), axis=0)
        hashes = _hash([*([tf.fill([rows], scenario)] if self._counter.by_scenario else []), *keys])
        places = tf.searchsorted(self._keys, hashes)
        known &= tf.equal(tf.gather(self._keys, places), hashes)
        counts = tf.where(known[:, tf.newaxis], tf.gather(self._counts, places), 0.0)
        return dict(zip(self._columns, tf.unstack(counts, axis=1), strict=True))


def open_snapshot(run: Run, counters: CounterSource | None = None) -> CounterSnapshot | None:
    """The snapshot of a run's counters; None where it has no counters, or each request brings them.

    Raises:
      InputError: the run has counters and no snapshot of them.
    """
    source = counters or run.config.export.counters
    return CounterSnapshot(run.counters, run.schema) if run.schema.counters and source == "snapshot" else None


def normalized(key: tf.Tensor) -> tf.Tensor:
    """Queries as counters compare them: lower-cased, without blanks at the ends."""
    return tf.strings.strip(tf.strings.lower(key, encoding="utf-8"))


def _hash(keys: list[tf.Tensor]) -> tf.Tensor:
    return tf.strings.to_hash_bucket_fast(tf.strings.join(keys, _SEPARATOR), _FINGERPRINTS)
