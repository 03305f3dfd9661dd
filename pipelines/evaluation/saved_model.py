"""Exported model inside a Beam pipeline: signature check, one load per worker, scoring of joined rows.

Beam's `RunInference` loads the model once a process, shares it among the threads and counts time and failures. The
handler is our own, for rows come in Arrow blocks: tfx_bsl's RunInference takes one serialized example at a time and
gives each back inside a `PredictionLog`, with a signature and so a copy of the model for each scenario, and Beam's
`TFModelHandler` loads Keras models alone, through tensorflow_hub.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from apache_beam.ml.inference.base import ModelHandler
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from pipelines.beam.blocks import Handle, load
from pipelines.evaluation.score_files import scored_rows
from pipelines.transform.preprocessing_fn import raw_feature_spec
from pipelines.transform.tf_examples import encode_examples
from usr_tf.errors import InputError
from usr_tf.metrics.predictions import refuse_improbable
from usr_tf.schema import EXAMPLES_SUFFIX, RAW_ITEM, REQUEST, SCENARIO, Schema

_ROWS = 1024
"""Rows of one run: enough to keep the cores busy, few enough for the caches."""


class Scorer(ModelHandler[Handle, pa.RecordBatch, Any]):
    """Scores joined rows with the `<scenario>_examples` signature of each row's scenario.

    Args:
      model: folder of the SavedModel, on any file system that TensorFlow reads.
    """

    def __init__(self, model: str, schema: Schema):
        super().__init__(min_batch_size=1, max_batch_size=1)  # a block is a batch already
        self._model, self._schema = model, schema

    def load_model(self) -> Any:
        return tf.saved_model.load(self._model)

    def run_inference(
        self, batch: Sequence[Handle], model: Any, inference_args: dict | None = None
    ) -> Iterator[pa.RecordBatch]:
        for rows in map(load, batch):
            scenarios = rows.column(SCENARIO).flatten()
            for scenario in pc.unique(scenarios).to_pylist():
                places = np.flatnonzero(pc.equal(scenarios, scenario).to_numpy(zero_copy_only=False))
                for start in range(0, len(places), _ROWS):
                    part = rows.take(pa.array(places[start : start + _ROWS]))
                    yield self._score(part, model.signatures[scenario + EXAMPLES_SUFFIX])

    def _score(self, rows: pa.RecordBatch, signature: Any) -> pa.RecordBatch:
        examples = encode_examples(rows.select(raw_feature_spec(self._schema)))
        outputs = signature(examples=tf.constant(examples.to_pylist()))
        scores = {task: outputs[task].numpy() for task in self._schema.task_names}

        def keys(row: int) -> tuple[str, str, str]:
            return tuple(rows.column(name)[row].as_py()[0] for name in (RAW_ITEM, REQUEST, SCENARIO))

        refuse_improbable(scores, keys, self._model)
        return scored_rows(rows, scores, self._schema)


def read_signatures(model: str) -> dict[str, Any]:
    """Signatures of a SavedModel by name, from any Beam file system.

    Raises:
      InputError: there is no SavedModel.
    """
    try:
        with FileSystems.open(FileSystems.join(model, "saved_model.pb")) as stream:
            document = saved_model_pb2.SavedModel.FromString(stream.read())
        return dict(document.meta_graphs[0].signature_def)
    except (OSError, ValueError, IndexError, BeamIOError, DecodeError) as error:
        raise InputError(model, "no SavedModel", "SERVING/<version> of usr-tf export") from error


def check_model(model: str, signatures: Mapping[str, Any], schema: Schema, schema_path: str) -> None:
    """Checks before the job that a model was exported with this schema.

    Raises:
      InputError: a scenario or task that it does not know, or inputs that are not the schema's features.
    """
    known = [name for name in signatures if name + EXAMPLES_SUFFIX in signatures]
    features = {*raw_feature_spec(schema)} - {*schema.counter_columns}
    for scenario in schema.scenarios:
        if scenario not in known:
            raise InputError(f"{schema_path}: scenarios", repr(scenario), f"those of {model}: {', '.join(known)}")
        inputs, outputs = (
            {*signatures[scenario].inputs} - {*schema.counter_columns},
            sorted(signatures[scenario].outputs),
        )
        if inputs - features:
            raise InputError(f"{schema_path}: features", f"no {min(inputs - features)}", f"it, an input of {model}")
        if features - inputs:
            raise InputError(f"{schema_path}: features", min(features - inputs), f"inputs of {model} alone")
        if outputs != sorted(schema.task_names):
            raise InputError(f"{schema_path}: tasks", ", ".join(schema.task_names), f"{', '.join(outputs)}, as {model}")
