"""Vocabulary growth: new values are appended to an earlier transform's vocabularies, so ids are stable."""

import shutil
import uuid
from collections.abc import Callable, Iterator
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import TaggedOutput

from pipelines.join.rows import tensor_adapter_config
from pipelines.logs.rejected import COUNTS
from pipelines.transform.preprocessing_fn import vocabulary
from usr_tf.schema import Schema
from usr_tf.tokens import Values, normalized, tokens

_NOTHING = b"49d0cd50-04bb-48c0-bc6f-5b575dce351a\n"
"""The one line that TensorFlow Transform gives a vocabulary without a value."""


class Vocabulary(NamedTuple):
    """Vocabulary file and its number of values, one per line."""

    path: str
    size: int


class GrowVocabularies(beam.PTransform):
    """Appends the new values of the training split to the vocabularies of a copy of an earlier transform.

    New is what the earlier vocabulary lacks, seen at least `min_count` times: by falling count, then falling value,
    until there are `vocabulary_size` values. Nothing else of the transform changes: its graph holds no size.

    Takes the batches of the training split, inside a `tft_beam.Context`. Gives the transform to apply, as TensorFlow
    Transform passes one on, and counts: the `old` and the `new` size of each vocabulary.

    Args:
      vocabularies: those of the earlier transform, which stays as it is.
      directory: its copy.
      temp: a directory for unfinished files, on the file system of `directory`.
    """

    def __init__(self, schema: Schema, vocabularies: dict[str, Vocabulary], directory: str, temp: str):
        super().__init__()
        self._schema, self._vocabularies, self._directory, self._temp = schema, vocabularies, directory, temp

    def expand(self, batches):  # Beam warns of hints that are several outputs
        dataset = (batches, tensor_adapter_config(self._schema))
        find = _new_values_fn(self._schema, self._vocabularies)
        found, _ = dataset | "FindNewValues" >> tft_beam.AnalyzeDataset(find)
        copy = tft.TFTransformOutput(self._directory)
        append = _Append(self._vocabularies, copy.transform_savedmodel_dir, self._temp)
        grown = found | "Append" >> beam.ParDo(append).with_outputs(COUNTS, main="transform_fn")
        return (grown.transform_fn, copy.transformed_metadata), grown[COUNTS]


class CountAppended(beam.DoFn):
    """Counts per feature of `values` and `appended_values` in transformed training rows.

    Args:
      vocabularies: those before growth.
    """

    def __init__(self, schema: Schema, vocabularies: dict[str, Vocabulary]):
        self._first = {name: 1 + schema.features[name].oov_buckets + old.size for name, old in vocabularies.items()}

    def process(self, batch: pa.RecordBatch | tuple) -> Iterator[dict]:
        batch = batch[0] if isinstance(batch, tuple) else batch
        counts = {}
        for name, first in self._first.items():
            ids = batch.column(name).flatten().to_numpy(zero_copy_only=False)
            counts["growth", name, "values"] = int(np.count_nonzero(ids))
            counts["growth", name, "appended_values"] = int(np.count_nonzero(ids >= first))
        yield counts


def read_vocabularies(schema: Schema, transform: str) -> dict[str, Vocabulary]:
    """Vocabulary of each feature that has one."""
    output = tft.TFTransformOutput(transform)
    names = [name for name, feature in schema.features.items() if feature.has_vocabulary]
    return {
        name: Vocabulary(output.vocabulary_file_by_name(name), output.vocabulary_size_by_name(name)) for name in names
    }


def _new_values_fn(
    schema: Schema, vocabularies: dict[str, Vocabulary]
) -> Callable[[dict[str, Values]], dict[str, Values]]:
    """Preprocessing function that collects the new values of each vocabulary with room."""

    def find(inputs: dict[str, Values]) -> dict[str, Values]:
        for name, old in vocabularies.items():
            feature = schema.features[name]
            room = feature.vocabulary_size - old.size if feature.vocabulary_size else None
            if room is None or room > 0:
                values = tokens(normalized(inputs[name], name, schema), feature)
                strings = values.values if isinstance(values, tf.SparseTensor) else values
                lacked = tft.apply_vocabulary(strings, tf.constant(old.path)) < 0
                vocabulary(tf.boolean_mask(strings, lacked), feature, _file_of_new(name), room)
        return {name: tf.identity(inputs[name]) for name in list(inputs)[:1]}  # there must be one; nobody reads it

    return find


class _Append(beam.DoFn):
    """Appends the values in the SavedModel of new values to the vocabularies of the copy, with counts."""

    def __init__(self, vocabularies: dict[str, Vocabulary], transform_fn: str, temp: str):
        self._vocabularies, self._transform_fn, self._temp = vocabularies, transform_fn, temp

    def process(self, found: str) -> Iterator:
        for name, old in self._vocabularies.items():
            path = FileSystems.join(found, tf.saved_model.ASSETS_DIRECTORY, _file_of_new(name))
            new = _count_values(path) if tf.io.gfile.exists(path) else 0  # a full vocabulary was not looked at
            if new:
                self._write([old.path, path])
            yield TaggedOutput(COUNTS, {("growth", name, "old"): old.size, ("growth", name, "new"): old.size + new})
        yield self._transform_fn

    def _write(self, parts: list[str]) -> None:
        """Writes a vocabulary from its parts to a temporary file and renames it, so it can be retried."""
        name = FileSystems.split(parts[0])[1]
        aside = FileSystems.join(self._temp, uuid.uuid4().hex)
        with tf.io.gfile.GFile(aside, "wb") as sink:
            for part in parts:
                with tf.io.gfile.GFile(part, "rb") as source:
                    shutil.copyfileobj(source, sink, 1 << 20)
        target = FileSystems.join(self._transform_fn, tf.saved_model.ASSETS_DIRECTORY, name)
        tf.io.gfile.rename(aside, target, overwrite=True)


def _file_of_new(name: str) -> str:
    return f"{name}-new"  # no feature's name has a hyphen


def _count_values(path: str) -> int:
    with tf.io.gfile.GFile(path, "rb") as stream:
        return sum(line != _NOTHING for line in stream)
