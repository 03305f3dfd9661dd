"""Datasets of a data directory as `tf.data`."""

import contextlib
import dataclasses
import functools
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from usr_tf.data.parsing import Features, Spec, parse, row_spec
from usr_tf.errors import InputError
from usr_tf.metrics.keys import query_keys
from usr_tf.metrics.slices import Training
from usr_tf.schema import (
    IDS,
    POSITION,
    RAW_ITEM,
    RAW_USER,
    REQUEST,
    ROW_FORMAT,
    SCENARIO,
    SUCCESS,
    TIMESTAMP,
    Schema,
    load_schema,
    oracle_column,
)

Split = Literal["train", "valid", "test"]
Labels = dict[str, tf.Tensor]

_SHUFFLE_ROWS = 16_384
"""Rows of a block, which are shuffled among each other."""
_SAMPLE_BATCH = 1024
"""Rows that a sample takes from a file at a time."""
_OPEN_SHARDS = 4
"""Files that are read at the same time."""


class Shard(NamedTuple):
    """Result of reading a TFRecord file through."""

    file: str
    records: int
    """Whole records; those before the break of a broken file."""
    broken: str | None
    """What is wrong with the record after them; None where nothing is."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Data directory, as `preprocess` writes it."""

    directory: Path
    schema: Schema

    @functools.cached_property
    def stats(self) -> dict:
        """Contents of `stats.json`."""
        return json.loads((self.directory / "stats.json").read_text(encoding="utf-8"))

    @functools.cached_property
    def vocabulary_sizes(self) -> dict[str, int]:
        """Number of ids of each feature that has ids, including 0 for padding."""
        return vocabulary_sizes(self.schema, self.directory / "transform")

    def training(
        self,
        batch_size: int,
        seed: int = 0,
        with_position: bool = False,
        *,
        epochs: range | None = None,
        skip: int = 0,
        skip_corrupt: bool = False,
    ) -> tf.data.Dataset:
        """Shuffled training split: `(features, labels)` batches for `model.fit`, all full except the last.

        Args:
          with_position: whether features hold `position` too, int64 `[B]`, 0 where unknown: for a position tower.
          epochs: the epochs to yield, one after the other, each in an order that is a function of `seed` and its
            number: a run that was cut off goes on with the very batch that it had not seen. None: one epoch, in another
            order each time that the batches are gone through.
          skip: batches to leave out at the start of the first epoch; they are read but not parsed.
          skip_corrupt: whether the rest of a broken file is left out. Otherwise one raises `tf.errors.DataLossError`,
            and too few batches `tf.errors.FailedPreconditionError`: `refuse_broken` tells which file is to blame.
        """
        keys = {POSITION: tf.io.FixedLenFeature([], tf.int64)} if with_position else None

        whole = -(-self.rows("train") // batch_size)

        def counted(batches: tf.data.Dataset, count: int) -> tf.data.Dataset:
            """Raises where a lost file leaves fewer batches, which would go unnoticed."""
            return batches if skip_corrupt else batches.apply(tf.data.experimental.assert_cardinality(count))

        if epochs is None:
            numbers = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).take(1)
        else:
            numbers = tf.data.Dataset.range(epochs.start, epochs.stop)
        batches = numbers.flat_map(lambda epoch: counted(self._shuffled(batch_size, seed, skip_corrupt, epoch), whole))
        batches = counted(batches, whole * (1 if epochs is None else len(epochs)))
        return self._parsed(batches.skip(skip), keys).map(split_labels(self.schema), tf.data.AUTOTUNE)

    def validation(self, batch_size: int, split: Split = "valid") -> tf.data.Dataset:
        """A split in file order: `(features, labels)` batches."""
        return self._parsed(self._in_order(split, batch_size)).map(split_labels(self.schema), tf.data.AUTOTUNE)

    def sampled_numbers(self, rows: int) -> dict[str, np.ndarray]:
        """Numbers of about `rows` training rows, of many files; broken files are left out."""
        parts = []
        if self.schema.number_columns and self.rows("train"):
            batches = self._in_order("train", _SAMPLE_BATCH).ignore_errors().take(-(-rows // _SAMPLE_BATCH))
            parts = list(self._parsed(batches).as_numpy_iterator())
        return {name: np.concatenate([part[name] for part in parts]) for name in self.schema.number_columns if parts}

    def evaluation(self, batch_size: int, split: Split = "test") -> tf.data.Dataset:
        """A split with the keys of its rows: `(features, labels, keys)` batches.

        Keys: `request_id`, `raw_user_id`, `raw_item_id` string, `timestamp` int64 (ms), `position` int64 (0
        where unknown), and `oracle_<task>` float32 (NaN where unknown), each `[B]`.
        """
        keys = {name: tf.io.FixedLenFeature([], tf.string) for name in (REQUEST, RAW_USER, RAW_ITEM)}
        keys |= {name: tf.io.FixedLenFeature([], tf.int64) for name in (TIMESTAMP, POSITION)}
        keys |= {oracle_column(task): tf.io.FixedLenFeature([], tf.float32) for task in self.schema.task_names}
        divide = split_labels(self.schema)

        def with_keys(row: Features) -> tuple[Features, Labels, Features]:
            taken = {name: row.pop(name) for name in keys}
            return *divide(row), taken

        return self._parsed(self._in_order(split, batch_size), keys).map(with_keys, tf.data.AUTOTUNE)

    def selected(self, split: Split, rows: Sequence[int], batch_size: int) -> dict[int, dict[str, np.ndarray]]:
        """Features of a few rows, by their numbers in the order of `evaluation(batch_size, split)`.

        It reads the files up to the last of the rows, and parses no other row.

        Raises:
          InputError: a file of the split is broken or gone.
        """
        wanted, found, start = sorted(set(rows)), dict[int, dict[str, np.ndarray]](), 0
        spec = row_spec(self.schema)
        with self.naming_broken(split):
            for batch in self._in_order(split, batch_size):
                if len(found) == len(wanted):
                    break
                end = start + len(batch)
                numbers = [row for row in wanted if start <= row < end]
                if numbers:
                    places = [row - start for row in numbers]
                    features = parse(tf.gather(batch, places), spec, self.schema)
                    arrays = {name: values.numpy() for name, values in features.items()}
                    for place, row in enumerate(numbers):
                        found[row] = {name: values[place] for name, values in arrays.items()}
                start = end
        return found

    def rows(self, split: Split) -> int:
        """Number of rows of a split, as counted in `stats.json`."""
        return sum(scenario["impressions"] for scenario in self.stats["splits"][split].values())

    def rows_without(self, feature: str, split: Split) -> int:
        """Rows of a split without a value of a feature, as `stats.json` counts them."""
        scenarios = (found[feature] for found in self.stats.get("quality", {}).get(split, {}).values())
        return sum(round(found["rows"] * (1 - (found["coverage"] or 0))) for found in scenarios)

    def shown(self, split: Split = "train", skip_corrupt: bool = False) -> Training:
        """Impressions of each user, item and query in a split, and positives of the first task per item.

        Args:
          skip_corrupt: whether the rest of a broken file is left out, as in `training`.

        Raises:
          InputError: a file of the split is broken or gone.
        """
        task, whole = self.schema.task_names[0], row_spec(self.schema)
        spec: Spec = {name: tf.io.FixedLenFeature([], tf.string) for name in (RAW_USER, RAW_ITEM)}
        spec |= {name: whole[name] for name in (task, IDS, *self.schema.features_of("query")) if name in whole}
        users, items, clicks, queries = (Counter[Any]() for _ in range(4))
        files = tf.data.Dataset.from_tensor_slices(self._files(split))
        records = files.flat_map(lambda file: _records(file).ignore_errors() if skip_corrupt else _records(file))
        rows = records.batch(_SHUFFLE_ROWS).map(lambda batch: tf.io.parse_example(batch, spec), tf.data.AUTOTUNE)
        with self.naming_broken(split):
            for row in rows.as_numpy_iterator():
                if IDS in row:
                    row |= zip(self.schema.id_columns, row.pop(IDS).T, strict=True)
                users.update(row[RAW_USER].tolist())
                items.update(row[RAW_ITEM].tolist())
                clicks.update(row[RAW_ITEM][row[task] > 0].tolist())
                keys = query_keys(row, self.schema)
                queries.update(keys[keys != 0].tolist())
        if not skip_corrupt and users.total() != self.rows(split):
            self.refuse_broken(split)
        return Training(users, {item: (clicks[item], shown) for item, shown in items.items()}, queries)

    def read_through(self, split: Split) -> list[Shard]:
        """Reads every file of a split through, to locate damage."""
        return [_read_through(file) for file in self._files(split)]

    @contextlib.contextmanager
    def naming_broken(self, split: Split) -> Iterator[None]:
        """Context that turns read errors of `tf.data` into those of `refuse_broken`."""
        try:
            yield
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
            self.refuse_broken(split)
            raise

    def refuse_broken(self, split: Split) -> None:
        """Raises an `InputError` that names the damaged file, after `tf.data` has failed.

        Raises:
          InputError: a file breaks off, there are more or fewer rows than `stats.json` counts, or the schema lacks a
            row's scenario.
        """
        shards = self.read_through(split)
        for shard in shards:
            if shard.broken:
                expected = "whole records, as preprocess wrote them"
                if split == "train":
                    expected += "; train.skip_corrupt=true leaves out the rest of a broken file"
                raise InputError(shard.file, f"a break after record {shard.records} ({shard.broken})", expected)
        rows = sum(shard.records for shard in shards)
        if rows != self.rows(split):
            empty = "".join(f", none of them in {Path(shard.file).name}" for shard in shards if not shard.records)
            raise InputError(self.directory / split, f"{rows} rows{empty}", f"{self.rows(split)}, as stats.json says")
        spec = {SCENARIO: tf.io.FixedLenFeature([], tf.string, "")}
        for file in self._files(split):
            for batch in _records(file).batch(_SHUFFLE_ROWS):
                for name in np.unique(tf.io.parse_example(batch, spec)[SCENARIO]).tolist():
                    if name.decode("utf-8", "replace") not in self.schema.scenarios:
                        found = f"the scenario {name.decode('utf-8', 'replace')!r}"
                        raise InputError(file, found, f"one of {', '.join(self.schema.scenarios)}")

    def _files(self, split: Split) -> list[str]:
        files = sorted(str(path) for path in (self.directory / split).glob("*.tfrecord.gz"))
        if not files:
            raise InputError(self.directory / split, "no *.tfrecord.gz", "the split that preprocess wrote")
        return files

    def _in_order(self, split: Split, batch_size: int) -> tf.data.Dataset:
        """Batches `[B]` of serialized rows, formed within a file: interleaving single records is slow."""
        files = self._files(split)
        return tf.data.Dataset.from_tensor_slices(files).interleave(
            lambda file: _records(file).batch(batch_size),
            cycle_length=min(_OPEN_SHARDS, len(files)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    def _shuffled(self, batch_size: int, seed: int, skip_corrupt: bool, epoch: tf.Tensor) -> tf.data.Dataset:
        """Shuffled batches `[B]` of serialized rows of the training split.

        Files come in a random order. Each is shuffled in blocks of rows, and its batches alternate with those of the
        other files that are open. Files hold rows at random, so a batch of one file is as mixed as any.
        """
        files, fold_in = self._files("train"), tf.random.experimental.stateless_fold_in
        of_epoch = tf.stack([tf.constant(seed, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(tf.range(len(files)), of_epoch)

        def batches_of(file: tf.Tensor, shard: tf.Tensor) -> tf.data.Dataset:
            key = fold_in(of_epoch, shard)

            def shuffle(block: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
                return tf.random.experimental.stateless_shuffle(rows, fold_in(key, block))

            records = _records(file).ignore_errors() if skip_corrupt else _records(file)
            return records.batch(_SHUFFLE_ROWS).enumerate().map(shuffle).rebatch(batch_size)

        shards = tf.data.Dataset.from_tensor_slices((tf.gather(files, order), order))
        batches = shards.interleave(
            batches_of,
            cycle_length=min(_OPEN_SHARDS, len(files)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return batches.rebatch(batch_size)  # a file's last batch is filled up from the next one's

    def _parsed(self, batches: tf.data.Dataset, keys: Spec | None = None) -> tf.data.Dataset:
        """Parsed batches, prefetched."""
        spec = row_spec(self.schema) | (keys or {})
        parsed = batches.map(functools.partial(parse, spec=spec, schema=self.schema), tf.data.AUTOTUNE)
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        return parsed.prefetch(tf.data.AUTOTUNE).with_options(options)


def open_data(directory: str | Path) -> Data:
    """Opens a data directory of `usr-tf preprocess`.

    Raises:
      InputError: the directory is not there, was not written to its end, or has rows of another format.
    """
    directory = Path(directory)
    if not (directory / SUCCESS).exists():
        raise InputError(directory, f"no {SUCCESS}", "a directory that `usr-tf preprocess` finished")
    data = Data(directory, load_schema(directory / "schema.yaml"))
    if data.stats.get("format") != ROW_FORMAT:
        found = f"rows of another version (format {data.stats.get('format')} in stats.json)"
        raise InputError(directory, found, f"those of this one ({ROW_FORMAT}): run `usr-tf preprocess` again")
    return data


def vocabulary_sizes(schema: Schema, transform: Path) -> dict[str, int]:
    """Rows of each feature's embedding table: padding, out-of-vocabulary buckets and vocabulary."""
    output = tft.TFTransformOutput(str(transform))
    sizes = {}
    for name, feature in schema.inputs.items():
        if feature.has_vocabulary:
            sizes[name] = 1 + feature.oov_buckets + output.vocabulary_size_by_name(name)
        elif feature.hash_buckets:
            sizes[name] = 1 + feature.hash_buckets
    return sizes | {name: sizes[feature.shares] for name, feature in schema.features.items() if feature.shares}


def _records(files: str | Sequence[str] | tf.Tensor) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(files, compression_type="GZIP", buffer_size=1 << 20)


def _read_through(file: str) -> Shard:
    def count(records: tf.data.Dataset) -> int:
        return int(records.reduce(0, lambda total, _: total + 1))

    try:
        return Shard(file, count(_records(file)), _broken_end(file))
    except tf.errors.DataLossError as error:
        reason = re.sub(r"^\{\{.*?\}\} | \[Op:.*$", "", error.message)  # the name of the operation
        return Shard(file, count(_records(file).ignore_errors()), reason)


def _broken_end(file: str) -> str | None:
    """Damage of a file whose records are whole: TensorFlow takes a cut between records for the end."""
    try:
        with tf.io.gfile.GFile(file, "rb") as stream, gzip.GzipFile(fileobj=stream) as content:
            while content.read(1 << 20):
                pass
    except (EOFError, OSError, zlib.error) as error:
        return str(error)
    return None


def split_labels(schema: Schema):
    """Function from a parsed batch to `(features, labels)`, labels float32 `[B]`."""

    def divide(row: Features) -> tuple[Features, Labels]:
        labels = {name: tf.cast(row.pop(name), tf.float32) for name in schema.label_names}
        return row, labels

    return divide
