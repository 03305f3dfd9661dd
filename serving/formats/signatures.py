"""Signatures of a SavedModel, read without loading it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from serving.formats.messages import SavedModel
from serving.formats.request import TensorSpec
from usr_tf.columns import EXAMPLES_SUFFIX

DEFAULT_SIGNATURE = "serving_default"
"""Signature of requests that name none."""
Specs = Mapping[str, Mapping[str, TensorSpec]]
"""Signature → input → dtype and shape."""


def read_signatures(version_dir: str | Path) -> dict[str, Any]:
    """`SignatureDef`s of a version by name, from `saved_model.pb`, except those without inputs.

    Raises:
      OSError: there is no such file.
    """
    model = SavedModel.FromString(Path(version_dir, "saved_model.pb").read_bytes())
    return {
        name: signature for name, signature in sorted(model.meta_graphs[0].signature_def.items()) if signature.inputs
    }


def signature_specs(signatures: Mapping[str, Any]) -> Specs:
    """Inputs of each signature by name, except signatures without inputs."""
    return {
        name: {alias: TensorSpec.of(info) for alias, info in sorted(signature.inputs.items())}
        for name, signature in signatures.items()
        if signature.inputs
    }


def scenarios_of(signatures: Iterable[str]) -> list[str]:
    """Signature names that are scenarios: neither `<scenario>_examples` nor `serving_default`."""
    return [name for name in signatures if name != DEFAULT_SIGNATURE and not name.endswith(EXAMPLES_SUFFIX)]
