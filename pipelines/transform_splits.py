"""The second half of the job: joined rows → TensorFlow Transform → TFRecords, and the transform itself."""

import apache_beam as beam
import pyarrow as pa
import tensorflow_transform.beam as tft_beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import AsSingleton
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata

from pipelines.blocks import BlockStore, Handle, load
from pipelines.rows import passthrough_columns, tensor_adapter_config
from pipelines.shards import WriteShards
from pipelines.split import SPLITS
from pipelines.transform import preprocessing_fn, raw_feature_spec
from usr_tf.schema import Schema


class TransformSplits(beam.PTransform):
    """Analyses the training split alone, transforms every split, and writes rows and transform into `out`.

    Takes `{split: handles of blocks of rows.row_schema}`. A stage loads its blocks itself: were they loaded before it,
    a runner would keep what it loaded until the next stage wants it.

    Args:
      temp: a directory for what TensorFlow Transform writes in between.
      shards: files of the training split; the others have an eighth.
    """

    def __init__(self, schema: Schema, out: str, temp: str, shards: int, store: BlockStore):
        super().__init__()
        self._schema, self._out, self._temp, self._shards, self._store = schema, out, temp, shards, store

    def expand(self, splits):  # Beam warns of hints that are dictionaries
        config = tensor_adapter_config(self._schema)
        with tft_beam.Context(temp_dir=self._temp, passthrough_keys=set(passthrough_columns(self._schema))):
            train = splits["train"] | "LoadTrain" >> beam.Map(load)
            transform_fn = (train, config) | "Analyze" >> tft_beam.AnalyzeDataset(preprocessing_fn(self._schema))
            for split in SPLITS:
                batches = splits[split] | f"Load[{split}]" >> beam.Map(_load_after, AsSingleton(transform_fn[0]))
                rows, _ = ((batches, config), transform_fn) | f"Transform[{split}]" >> tft_beam.TransformDataset(
                    output_record_batches=True
                )
                shards = self._shards if split == "train" else max(1, self._shards // 8)
                _ = rows | f"Write[{split}]" >> WriteShards(FileSystems.join(self._out, split), shards, self._store)
            directory = FileSystems.join(self._out, "transform")
            written = transform_fn | "WriteTransform" >> tft_beam.WriteTransformFn(directory)
            raw = DatasetMetadata.from_feature_spec(raw_feature_spec(self._schema))
            _ = raw | "WriteRawMetadata" >> tft_beam.WriteMetadata(
                FileSystems.join(directory, "metadata"), pipeline=written.pipeline
            )


def _load_after(handle: Handle, _: object) -> pa.RecordBatch:
    """`load`, in the stage that comes after its second argument and not in the one that makes the handles."""
    return load(handle)
