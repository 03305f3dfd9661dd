"""Training data as `tf.data`: reads what `usr-tf preprocess` wrote."""

import dataclasses
import functools
import json
from collections import Counter
from pathlib import Path
from typing import Literal

import tensorflow as tf
import tensorflow_transform as tft

from usr_tf.errors import InputError
from usr_tf.schema import (
    POSITION,
    RAW_ITEM,
    RAW_USER,
    REQUEST,
    SCENARIO,
    SUCCESS,
    TIMESTAMP,
    Schema,
    load_schema,
    oracle_column,
)

Split = Literal["train", "valid", "test"]
Features = dict[str, tf.Tensor]
Labels = dict[str, tf.Tensor]

_SHUFFLE_ROWS = 16_384


@dataclasses.dataclass(frozen=True)
class Data:
    """A directory of training data."""

    directory: Path
    schema: Schema

    @functools.cached_property
    def vocabulary_sizes(self) -> dict[str, int]:
        """Ids of each feature that has any, 0 for padding included."""
        return vocabulary_sizes(self.schema, self.directory / "transform")

    def training(self, batch_size: int, seed: int = 0, with_position: bool = False) -> tf.data.Dataset:
        """The training split, shuffled anew in every epoch: `(features, labels)` batches for `model.fit`.

        Args:
          with_position: whether features hold `position` too, int64 `[B]`, 0 where unknown: for a position tower.
        """
        keys = {POSITION: tf.io.FixedLenFeature([], tf.int64)} if with_position else None
        return self._batches("train", batch_size, keys, seed).map(split_labels(self.schema), tf.data.AUTOTUNE)

    def validation(self, batch_size: int, split: Split = "valid") -> tf.data.Dataset:
        """A split in the order of its files: `(features, labels)` batches."""
        return self._batches(split, batch_size).map(split_labels(self.schema), tf.data.AUTOTUNE)

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

        return self._batches(split, batch_size, keys).map(with_keys, tf.data.AUTOTUNE)

    def rows(self, split: Split) -> int:
        """Rows of a split, as `stats.json` counts them."""
        stats = json.loads((self.directory / "stats.json").read_text(encoding="utf-8"))
        return sum(scenario["impressions"] for scenario in stats["splits"][split].values())

    def item_clicks(self, split: Split = "train") -> dict[bytes, tuple[int, int]]:
        """Each item's first-task positives and its impressions in a split, by its raw id."""
        task = self.schema.task_names[0]
        spec = {RAW_ITEM: tf.io.FixedLenFeature([], tf.string), task: tf.io.FixedLenFeature([], tf.int64)}
        records = tf.data.TFRecordDataset(self._files(split), "GZIP", buffer_size=1 << 20).batch(_SHUFFLE_ROWS)
        counts = Counter(), Counter()
        for row in records.map(lambda batch: tf.io.parse_example(batch, spec), tf.data.AUTOTUNE).as_numpy_iterator():
            for count, items in zip(counts, (row[RAW_ITEM][row[task] > 0], row[RAW_ITEM]), strict=True):
                count.update(items.tolist())
        clicks, impressions = counts
        return {item: (clicks[item], shown) for item, shown in impressions.items()}

    def _files(self, split: Split) -> list[str]:
        files = sorted(str(path) for path in (self.directory / split).glob("*.tfrecord.gz"))
        if not files:
            raise InputError(self.directory / split, "no *.tfrecord.gz", "the split that preprocess wrote")
        return files

    def _batches(
        self,
        split: Split,
        batch_size: int,
        keys: dict[str, tf.io.FixedLenFeature] | None = None,
        seed: int | None = None,
    ) -> tf.data.Dataset:
        """Parsed batches. Rows are shuffled where there is a seed.

        Batches are formed inside a shard, which spares an interleave of single records. Shards hold rows at
        random, so a batch of one shard is as mixed as any.
        """
        files = self._files(split)
        spec = {**_parse_spec(self.schema), **(keys or {})}
        shards = tf.data.Dataset.from_tensor_slices(files)
        if seed is not None:
            shards = shards.shuffle(len(files), seed=seed)
        # `Dataset.shuffle` inside an interleave would start from its seed in every epoch: the same order each time.
        seeds = tf.data.Dataset.random(seed or 0, rerandomize_each_iteration=True)

        def batches_of(shard: tf.Tensor, shard_seed: tf.Tensor) -> tf.data.Dataset:
            records = tf.data.TFRecordDataset(shard, compression_type="GZIP", buffer_size=1 << 20)
            if seed is None:
                return records.batch(batch_size)
            blocks = records.batch(_SHUFFLE_ROWS)
            mixed = blocks.map(lambda block: tf.random.experimental.stateless_shuffle(block, [shard_seed, 0]))
            return mixed.rebatch(batch_size)

        batches = tf.data.Dataset.zip((shards, seeds)).interleave(
            batches_of, cycle_length=min(4, len(files)), num_parallel_calls=tf.data.AUTOTUNE
        )
        parsed = batches.map(functools.partial(_parse, spec=spec, schema=self.schema), tf.data.AUTOTUNE)
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        return parsed.prefetch(tf.data.AUTOTUNE).with_options(options)


def open_data(directory: str | Path) -> Data:
    """Opens what `usr-tf preprocess --out DIRECTORY` wrote.

    Raises:
      InputError: the directory is not there, or was not written to its end.
    """
    directory = Path(directory)
    if not (directory / SUCCESS).exists():
        raise InputError(directory, f"no {SUCCESS}", "a directory that `usr-tf preprocess` finished")
    return Data(directory, load_schema(directory / "schema.yaml"))


def vocabulary_sizes(schema: Schema, transform: Path) -> dict[str, int]:
    """Rows that each feature's embedding table needs: padding, out-of-vocabulary buckets and vocabulary."""
    output = tft.TFTransformOutput(str(transform))
    sizes = {}
    for name, feature in schema.features.items():
        if feature.has_vocabulary:
            sizes[name] = 1 + feature.oov_buckets + output.vocabulary_size_by_name(name)
        elif feature.hash_buckets:
            sizes[name] = 1 + feature.hash_buckets
    return sizes | {name: sizes[feature.shares] for name, feature in schema.features.items() if feature.shares}


def split_labels(schema: Schema):
    """A function from a parsed row batch to `(features, labels)`, labels float32 `[B]`."""

    def divide(row: Features) -> tuple[Features, Labels]:
        labels = {name: tf.cast(row.pop(name), tf.float32) for name in schema.label_names}
        return row, labels

    return divide


def densify(transformed: Features, schema: Schema) -> Features:
    """Transformed features as the model takes them: lists dense, 0 where they are shorter.

    `[B]` ids and numbers stay; lists become `[B, n]`, histories `[B, L]` and histories of lists `[B, L, n]`.
    """
    dense: Features = {}
    for name, values in transformed.items():
        if isinstance(values, tf.SparseTensor):
            values = tf.sparse.to_dense(values)
        elif isinstance(values, tf.RaggedTensor):
            values = values.to_tensor()
        dense[name] = values
    for name in schema.history_columns:
        width = schema.history_width(name)
        if width:
            shape = tf.shape(dense[name])
            dense[name] = tf.reshape(dense[name], [shape[0], shape[1] // width, width])
    return dense


def _parse_spec(schema: Schema) -> dict[str, tf.io.FixedLenFeature | tf.io.RaggedFeature]:
    spec: dict[str, tf.io.FixedLenFeature | tf.io.RaggedFeature] = {SCENARIO: tf.io.FixedLenFeature([], tf.string)}
    for name, feature in schema.features.items():
        if feature.type == "numeric":
            spec[name] = tf.io.FixedLenFeature([], tf.float32)
        elif feature.is_list:
            spec[name] = tf.io.RaggedFeature(tf.int64)
        else:
            spec[name] = tf.io.FixedLenFeature([], tf.int64)
    spec |= {name: tf.io.RaggedFeature(tf.int64) for name in schema.history_columns}
    return spec | {name: tf.io.FixedLenFeature([], tf.int64) for name in schema.label_names}


def _parse(records: tf.Tensor, spec: dict, schema: Schema) -> Features:
    row = densify(tf.io.parse_example(records, spec), schema)
    names = tf.constant(schema.scenarios)
    row[SCENARIO] = tf.argmax(tf.equal(row[SCENARIO][:, tf.newaxis], names), axis=1, output_type=tf.int32)
    return row
