"""Transform stage: joined rows → TensorFlow Transform → TFRecords and the transform itself."""

from typing import Any

import apache_beam as beam
import pyarrow as pa
import tensorflow_transform.beam as tft_beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import AsSingleton
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata

from pipelines.beam.blocks import BlockStore, Handle, load
from pipelines.beam.output import TEMP, TRANSFORM
from pipelines.beam.progress import TRANSFORM_ROWS, Progress
from pipelines.join.rows import passthrough_columns, tensor_adapter_config, without_history
from pipelines.join.split import SPLITS
from pipelines.transform.preprocessing_fn import preprocessing_fn, raw_feature_spec
from pipelines.transform.previous import Earlier
from pipelines.transform.shards import WriteShards
from pipelines.transform.vocabulary_growth import CountAppended, GrowVocabularies, read_vocabularies
from usr_tf.schema import Schema


class TransformSplits(beam.PTransform):
    """Analyses the training split, transforms every split, and writes rows and transform.

    With an `earlier` transform, of which `out` holds a copy, that one is applied; or its vocabularies grow by what is
    new in the training split, and nothing else of it changes.

    Takes `{split: handles of blocks of rows.row_schema}`. A stage loads its blocks itself: were they loaded before it,
    a runner would keep what it loaded until the next stage wants it. Gives `{split: transformed batches}`, and `counts`
    of growth.

    Args:
      out: the data directory; what is written in between goes to its `TEMP`.
      shards: files of the training split; the others have an eighth.
    """

    def __init__(self, schema: Schema, out: str, shards: int, store: BlockStore, earlier: Earlier | None = None):
        super().__init__()
        self._schema, self._out, self._shards, self._store, self._earlier = schema, out, shards, store, earlier
        self._temp, self._directory = FileSystems.join(out, TEMP), FileSystems.join(out, TRANSFORM)

    def expand(self, splits):  # Beam warns of hints that are dictionaries
        with tft_beam.Context(temp_dir=self._temp, passthrough_keys=set(passthrough_columns(self._schema))):
            if self._earlier is None:
                transform_fn = self._make(splits["train"])
            elif not self._earlier.grow:
                transform_fn = splits["train"].pipeline | "Read" >> tft_beam.ReadTransformFn(self._directory)
            else:
                vocabularies = read_vocabularies(self._schema, self._earlier.transform)
                grow = GrowVocabularies(self._schema, vocabularies, self._directory, self._temp)
                transform_fn, sizes = self._load_candidates(splits["train"]) | "Grow" >> grow
            rows = {split: self._transform(split, splits[split], transform_fn) for split in SPLITS}
        for split, shards in zip(SPLITS, (self._shards, *[max(1, self._shards // 8)] * 2), strict=True):
            write = WriteShards(FileSystems.join(self._out, split), self._schema, shards, self._store)
            _ = rows[split] | f"Write[{split}]" >> write
        if self._earlier is None or not self._earlier.grow:
            counts = splits["train"].pipeline | "NoCounts" >> beam.Create([])
        else:
            appended = rows["train"] | "CountAppended" >> beam.ParDo(CountAppended(self._schema, vocabularies))
            counts = (sizes, appended) | "Counts" >> beam.Flatten()
        return {**rows, "counts": counts}

    def _make(self, train: beam.PCollection) -> Any:
        dataset = (self._load_candidates(train), tensor_adapter_config(self._schema))
        transform_fn = dataset | "Analyze" >> tft_beam.AnalyzeDataset(preprocessing_fn(self._schema))
        written = transform_fn | "WriteTransform" >> tft_beam.WriteTransformFn(self._directory)
        raw = DatasetMetadata.from_feature_spec(raw_feature_spec(self._schema))
        _ = raw | "WriteRawMetadata" >> tft_beam.WriteMetadata(
            FileSystems.join(self._directory, "metadata"), pipeline=written.pipeline
        )
        return transform_fn

    def _load_candidates(self, handles: beam.PCollection) -> beam.PCollection:
        return handles | "LoadTrain" >> beam.Map(lambda handle: without_history(load(handle), self._schema))

    def _transform(self, split: str, handles: beam.PCollection, transform_fn: Any) -> beam.PCollection:
        batches = handles | f"Load[{split}]" >> beam.Map(
            _load_after, AsSingleton(transform_fn[0]), self._store.progress
        )
        dataset = (batches, tensor_adapter_config(self._schema))
        transform = tft_beam.TransformDataset(output_record_batches=True)
        rows, _ = (dataset, transform_fn) | f"Transform[{split}]" >> transform
        return rows


def _load_after(handle: Handle, _: object, progress: Progress) -> pa.RecordBatch:
    """Loads blocks in the stage after its second argument, not in the one that makes the handles."""
    batch = load(handle)
    progress.add(TRANSFORM_ROWS, batch.num_rows)
    return batch
