"""Snapshot of counters inside a served model: raw counts by key, as of one moment."""

from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf

from usr_tf.errors import InputError
from usr_tf.run import Run
from usr_tf.schema import SCENARIO, Counter, Schema
from usr_tf.tokens import counter_keys, fingerprint

CounterSource = Literal["snapshot", "request"]

_FACTOR = 0x9E3779B97F4A7C1
"""An odd number without a pattern in its bits, so that keys spread over all of int64."""


class CounterSnapshot(tf.Module):
    """Raw counts of the keys of all counters, found by one binary search over their hashes.

    A key that the snapshot lacks has counts of 0. Hashes and counts are variables, so a SavedModel of any size holds
    them.

    Args:
      directory: holds `<counter>.parquet`: a column of `counter_keys` for each feature of the key, `scenario` where
        the counter is by scenario, and the raw counts by `usr_tf.schema.counter_column`.

    Raises:
      InputError: a file is missing or is not such a table.
    """

    def __init__(self, directory: Path, schema: Schema):
        super().__init__(name="counters")
        self._schema = schema
        tables = [self._read(directory, name, counter) for name, counter in schema.counters.items()]
        width = max(counts.shape[1] for _, counts in tables)
        hashes = np.concatenate([hashes for hashes, _ in tables])
        counts = np.concatenate([np.pad(counts, [(0, 0), (0, width - counts.shape[1])]) for _, counts in tables])
        order = np.argsort(hashes)
        # The last hash is larger than any other: every search ends at one.
        self._hashes = tf.Variable(np.append(hashes[order], np.iinfo(np.int64).max), trainable=False, name="hashes")
        self._counts = tf.Variable(np.pad(counts[order], [(0, 1), (0, 0)]), trainable=False, name="counts")
        places = [
            place * width + column for place, (_, counts) in enumerate(tables) for column in range(counts.shape[1])
        ]
        self._columns = np.array(places, np.int32)

    def look_up(self, inputs: dict[str, tf.Tensor], scenario: str) -> dict[str, tf.Tensor]:
        """float32 `[N]` of each of `Schema.counter_columns`.

        Args:
          inputs: raw strings of the keys' features, `[N]`, or `[1]` of the request's side.
        """
        counters = self._schema.counters
        names = dict.fromkeys(name for counter in counters.values() for name in counter.key)
        values = {name: fingerprint(counter_keys(inputs[name], name, self._schema)) for name in names}
        values[SCENARIO] = fingerprint(tf.constant([scenario]))
        rows = tf.reduce_max(tf.stack([tf.shape(value)[0] for value in values.values()]))
        hashes = tf.stack(
            [
                tf.broadcast_to(_combined(name, [values[key] for key in counter.key_columns]), [rows])
                for name, counter in counters.items()
            ]
        )  # [C, N]
        places = tf.searchsorted(self._hashes, tf.reshape(hashes, [-1]))
        known = tf.equal(tf.gather(self._hashes, places), tf.reshape(hashes, [-1]))
        counts = tf.where(known[:, tf.newaxis], tf.gather(self._counts, places), 0.0)  # [C N, W]
        counts = tf.transpose(tf.reshape(counts, [len(counters), rows, -1]), [0, 2, 1])
        counts = tf.gather(tf.reshape(counts, [-1, rows]), self._columns)
        return dict(zip(self._schema.counter_columns, tf.unstack(counts), strict=True))

    def _read(self, directory: Path, name: str, counter: Counter) -> tuple[np.ndarray, np.ndarray]:
        """Hashes `[K]` and counts `[K, k]` of a counter's keys."""
        path, columns = directory / f"{name}.parquet", counter.columns(name)
        try:
            table = pq.read_table(path, columns=[*counter.key_columns, *columns])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(path, "no readable snapshot", "the counters of `usr-tf preprocess`") from error
        keys = [tf.constant(table.column(key).to_numpy(), tf.string) for key in counter.key_columns]
        hashes = _combined(name, [fingerprint(values) for values in keys])
        counts = [table.column(column).to_numpy().astype(np.float32) for column in columns]
        return hashes.numpy(), np.stack(counts, axis=1)


def open_snapshot(run: Run, counters: CounterSource | None = None) -> CounterSnapshot | None:
    """The snapshot of a run's counters; None where it has no counters, or each request brings them.

    Raises:
      InputError: the run has counters and no snapshot of them.
    """
    source = counters or run.config.export.counters
    return CounterSnapshot(run.counters, run.schema) if run.schema.counters and source == "snapshot" else None


def _combined(counter: str, values: list[tf.Tensor]) -> tf.Tensor:
    """int64 hashes of a counter's keys, from the fingerprints of their values; the least one where a value is empty."""
    hashes = fingerprint(tf.constant([counter]))
    for value in values:
        hashes = hashes * _FACTOR + value  # wraps around
    known = tf.reduce_all(tf.stack([tf.broadcast_to(value > 0, tf.shape(hashes)) for value in values]), axis=0)
    return tf.where(known, hashes, tf.int64.min)
