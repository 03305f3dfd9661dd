"""Snapshot of counters inside a served model: raw counts by key, as of one moment."""

import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf

from usr_tf.errors import InputError
from usr_tf.run import Run
from usr_tf.schema import CANDIDATE_GROUPS, SCENARIO, Counter, Schema
from usr_tf.tokens import counter_keys, fingerprint

CounterSource = Literal["snapshot", "request"]

_FACTOR = 0x9E3779B97F4A7C1
"""An odd number without a pattern in its bits, so that keys spread over all of int64."""

_BLOCK = 16
"""Hashes that are searched together: two cache lines."""


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
        self._schema, self._counters = schema, schema.counters
        self._candidate_features = tuple(schema.features_of(*CANDIDATE_GROUPS))
        tables = [self._read(directory, name, counter) for name, counter in schema.counters.items()]
        width = max(counts.shape[1] for _, counts in tables)
        hashes = np.concatenate([hashes for hashes, _ in tables])
        counts = np.concatenate([np.pad(counts, [(0, 0), (0, width - counts.shape[1])]) for _, counts in tables])
        order = np.argsort(hashes)
        # Counts have one more row, that of an unknown key.
        last = np.iinfo(np.int64).max
        blocks = np.pad(hashes[order], (0, _BLOCK - len(hashes) % _BLOCK), constant_values=last).reshape(-1, _BLOCK)
        self._hashes = tf.Variable(blocks, trainable=False, name="hashes")
        self._firsts = tf.Variable(blocks[:, 0], trainable=False, name="firsts")
        self._unknown = len(hashes)
        self._counts = tf.Variable(np.pad(counts[order], [(0, 1), (0, 0)]).ravel(), trainable=False, name="counts")
        self._width = width

    def look_up(self, inputs: dict[str, tf.Tensor], scenario: str) -> dict[str, tf.Tensor]:
        """float32 `[N]` of each of `Schema.counter_columns`.

        Of a request, each distinct value of a candidate's feature is looked up once.

        Args:
          inputs: raw strings of the keys' features, `[N]`, or `[1]` of the request's side.
        """
        candidates = tf.shape(inputs[self._candidate_features[0]])[0]
        prints, places = {SCENARIO: fingerprint(tf.constant([scenario]))}, {}
        for name in dict.fromkeys(key for counter in self._counters.values() for key in counter.key):
            values = inputs[name]
            if values.shape[0] != 1:
                values, places[name] = tf.unique(values)
            keys_of_counters = counter_keys(values, name, self._schema)
            prints[name] = fingerprint(tf.ensure_shape(keys_of_counters, values.shape))  # `[1]` is told from `[N]`
        columns: dict[str, tf.Tensor] = {}
        for keys, names in self._by_keys(places).items():
            known = {key: prints[key] for name in names for key in self._counters[name].key_columns}
            if len(keys) > 1:
                known |= {key: tf.gather(prints[key], places[key]) for key in keys}
            rows = self._search(self._hash(names, known))
            of_counter = {name: self._counters[name].columns(name) for name in names}
            of_column = np.repeat(np.arange(len(names)), [len(each) for each in of_counter.values()])
            starts = np.concatenate([np.arange(len(each)) for each in of_counter.values()])[:, np.newaxis]
            counts = tf.gather(self._counts, tf.gather(rows * self._width, of_column) + starts)
            if len(keys) == 1:
                counts = tf.gather(counts, places[keys[0]], axis=1)
            counts = counts if keys else tf.broadcast_to(counts, [len(of_column), candidates])
            columns |= zip(itertools.chain(*of_counter.values()), tf.unstack(counts), strict=True)
        return {name: columns[name] for name in self._schema.counter_columns}

    def _by_keys(self, among: Collection[str]) -> dict[tuple[str, ...], list[str]]:
        """Counters by those features of their keys that are among some."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for name, counter in self._counters.items():
            groups.setdefault(tuple(key for key in counter.key if key in among), []).append(name)
        return groups

    def _search(self, hashes: tf.Tensor) -> tf.Tensor:
        """int64 rows of the counts of hashes of any shape.

        A binary search over the first hashes of the blocks stays in a CPU's cache, where one over all hashes waits for
        memory at each of its last steps.
        """
        flat = tf.reshape(hashes, [-1, 1])
        block = tf.maximum(tf.searchsorted(self._firsts, flat[:, 0], side="right") - 1, 0)
        known = tf.gather(self._hashes, block)  # [n, block]
        place = tf.minimum(tf.searchsorted(known, flat)[:, 0], _BLOCK - 1)
        numbers = tf.range(tf.size(block))
        found = tf.equal(tf.gather(tf.reshape(known, [-1]), numbers * _BLOCK + place), flat[:, 0])
        rows = tf.where(found, block * _BLOCK + place, self._unknown)
        return tf.cast(tf.reshape(rows, tf.shape(hashes)), tf.int64)

    def _hash(self, counters: Sequence[str], prints: dict[str, tf.Tensor]) -> tf.Tensor:
        """int64 hashes `[C, N]` of keys of these counters, of `[1]` or `[N]` fingerprints of each key column.

        No key of the snapshot has an empty value, so a key with one is unknown.
        """
        hashes = fingerprint(tf.constant([*counters]))[:, tf.newaxis]
        for size in dict.fromkeys(values.shape[0] for values in prints.values()):
            of_size = {name: values for name, values in prints.items() if values.shape[0] == size}
            factors = [[self._factor(counter, name) for name in of_size] for counter in counters]
            hashes += tf.matmul(tf.constant(factors, tf.int64), tf.stack([*of_size.values()]))  # wraps around
        return hashes

    def _factor(self, counter: str, name: str) -> int:
        """Factor of a key column's fingerprint in the hash of a counter's key; 0 where it is no part of the key."""
        columns = self._counters[counter].key_columns
        factor = pow(_FACTOR, 1 + columns.index(name), 2**64) if name in columns else 0
        return factor - 2**64 if factor >= 2**63 else factor  # as int64 has its bits

    def _read(self, directory: Path, name: str, counter: Counter) -> tuple[np.ndarray, np.ndarray]:
        """Hashes `[K]` and counts `[K, k]` of a counter's keys."""
        path, columns = directory / f"{name}.parquet", counter.columns(name)
        try:
            table = pq.read_table(path, columns=[*counter.key_columns, *columns])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(path, "no readable snapshot", "the counters of `usr-tf preprocess`") from error
        keys = {key: fingerprint(tf.constant(table.column(key).to_numpy(), tf.string)) for key in counter.key_columns}
        counts = [table.column(column).to_numpy().astype(np.float32) for column in columns]
        return self._hash([name], keys).numpy()[0], np.stack(counts, axis=1)


def open_snapshot(run: Run, counters: CounterSource | None = None) -> CounterSnapshot | None:
    """The snapshot of a run's counters; None where it has no counters, or each request brings them.

    Raises:
      InputError: the run has counters and no snapshot of them.
    """
    source = counters or run.config.export.counters
    return CounterSnapshot(run.counters, run.schema) if run.schema.counters and source == "snapshot" else None
