"""The second half of the job: joined rows → TensorFlow Transform → TFRecords, and the transform itself."""

import apache_beam as beam
import pyarrow as pa
import tensorflow_transform.beam as tft_beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import AsSingleton
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata

from pipelines.blocks import BlockStore, Handle, load
from pipelines.earlier import Earlier
from pipelines.growth import CountAppended, GrowVocabularies, known_values
from pipelines.output import TEMP, TRANSFORM
from pipelines.rejected import COUNTS
from pipelines.rows import passthrough_columns, tensor_adapter_config, without_history
from pipelines.shards import WriteShards
from pipelines.split import SPLITS
from pipelines.transform import preprocessing_fn, raw_feature_spec
from usr_tf.schema import Schema

TransformFn = tuple[beam.PCollection, DatasetMetadata]
"""The path of a SavedModel, and the metadata of what it transforms to."""


class TransformSplits(beam.PTransform):
    """Makes the transform of the training split alone, transforms every split, and writes rows and transform.

    With an `earlier` transform, of which `out` holds a copy, that one is applied; or its vocabularies grow, and nothing
    else of it changes.

    Takes `{split: handles of blocks of rows.row_schema}`. A stage loads its blocks itself: were they loaded before it,
    a runner would keep what it loaded until the next stage wants it. Gives counts: of growth, else none.

    Args:
      out: the data directory; its `TEMP` takes what is written in between.
      shards: files of the training split; the others have an eighth.
    """

    def __init__(self, schema: Schema, out: str, shards: int, store: BlockStore, earlier: Earlier | None = None):
        super().__init__()
        self._schema, self._out, self._shards, self._store, self._earlier = schema, out, shards, store, earlier
        self._temp, self._directory = FileSystems.join(out, TEMP), FileSystems.join(out, TRANSFORM)

    def expand(self, splits):  # Beam warns of hints that are dictionaries
        pipeline, config = splits["train"].pipeline, tensor_adapter_config(self._schema)
        counts: list[beam.PCollection] = []
        with tft_beam.Context(temp_dir=self._temp, passthrough_keys=set(passthrough_columns(self._schema))):
            if self._earlier:
                transform_fn = pipeline | "ReadTransform" >> tft_beam.ReadTransformFn(self._directory)
            else:
                transform_fn = self._analyze(splits["train"])
            if self._earlier and self._earlier.grow:
                vocabularies = read_vocabularies(self._schema, self._earlier.transform)
                grow = GrowVocabularies(self._schema, vocabularies, self._directory, self._temp)
                grown = splits["train"] | "LoadTrain" >> beam.Map(_load_candidates, self._schema) | "Grow" >> grow
                transform_fn = grown.transform_fn, transform_fn[1]
                counts += [grown[COUNTS]]
            for split in SPLITS:
                batches = splits[split] | f"Load[{split}]" >> beam.Map(_load_after, AsSingleton(transform_fn[0]))
                rows, _ = ((batches, config), transform_fn) | f"Transform[{split}]" >> tft_beam.TransformDataset(
                    output_record_batches=True
                )
                shards = self._shards if split == "train" else max(1, self._shards // 8)
                _ = rows | f"Write[{split}]" >> WriteShards(FileSystems.join(self._out, split), shards, self._store)
def _load_after(handle: Handle, _: object) -> pa.RecordBatch:
    """`load`, in the stage that comes after its second argument and not in the one that makes the handles."""
    return load(handle)
