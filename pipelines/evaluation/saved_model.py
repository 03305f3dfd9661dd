"""Exported model inside a Beam pipeline: its scores, and a check of its signatures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from pipelines.evaluation.row_scorer import Probabilities
from pipelines.transform.preprocessing_fn import raw_feature_spec
from usr_tf.errors import InputError
from usr_tf.schema import EXAMPLES_SUFFIX, Schema


def load_saved_model(model: str) -> Probabilities:
    """Scores of a SavedModel's `<scenario>_examples` signatures, from any file system that TensorFlow reads."""
    signatures = tf.saved_model.load(model).signatures

    def probabilities(examples: tf.Tensor, scenario: str) -> dict[str, np.ndarray]:
        outputs = signatures[scenario + EXAMPLES_SUFFIX](examples=examples)
        return {task: values.numpy() for task, values in outputs.items()}

    return probabilities


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
