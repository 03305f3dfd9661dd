"""Signatures of a SavedModel, read without loading it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from serving.formats.request import TensorSpec
from usr_tf.request_spec import request_spec
from usr_tf.schema import EXAMPLES_SUFFIX, Schema

Specs = Mapping[str, Mapping[str, TensorSpec]]
"""Signature → input → dtype and shape."""


def read_signatures(version_dir: str | Path) -> dict[str, SignatureDef]:
    """Signatures of a version by name, from `saved_model.pb`, except those without inputs.

    Raises:
      OSError: there is no such file.
    """
    model = saved_model_pb2.SavedModel.FromString(Path(version_dir, "saved_model.pb").read_bytes())
    return {
        name: signature for name, signature in sorted(model.meta_graphs[0].signature_def.items()) if signature.inputs
    }


def signature_specs(signatures: Mapping[str, SignatureDef]) -> Specs:
    """Inputs of each signature by name, except signatures without inputs."""
    return {
        name: {alias: TensorSpec.of(info) for alias, info in sorted(signature.inputs.items())}
        for name, signature in signatures.items()
        if signature.inputs
    }


def schema_specs(schema: Schema, counters: bool = False) -> dict[str, TensorSpec]:
    """Inputs of a scenario's signature, derived from the schema before export.

    Args:
      counters: whether requests bring the raw counts of counters.
    """
    return {
        name: TensorSpec(spec.dtype, tuple(-1 if size is None else size for size in spec.shape))
        for name, spec in sorted(request_spec(schema, counters).items())
    }


def scenarios_of(signatures: Iterable[str]) -> list[str]:
    """Signature names that are scenarios: neither `<scenario>_examples` nor `serving_default`."""
    default = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
    return [name for name in signatures if name != default and not name.endswith(EXAMPLES_SUFFIX)]
