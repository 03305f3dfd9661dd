"""A logged request of a chosen size, as the tensors of an exported signature."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from serving.formats.logged_requests import read_requests
from serving.formats.request import TensorSpec, request_inputs


def newest_version(serving: str) -> Path:
    """Folder of the newest version in a directory of versions."""
    return max((path for path in Path(serving).iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def longest_history(path: Path, signature: tf.types.experimental.ConcreteFunction, items: int) -> dict[str, np.ndarray]:
    """Request of `<scenario>.jsonl` with the longest history, its items repeated to `items`."""
    specs = {
        name: TensorSpec(np.dtype(spec.dtype.as_numpy_dtype), tuple(size or -1 for size in spec.shape.as_list()))
        for name, spec in signature.structured_input_signature[1].items()
    }
    documents = [request.inputs for request in read_requests(path)]
    document = max(documents, key=lambda values: sum(len(v) for n, v in values.items() if n.startswith("history_")))
    arrays = request_inputs(document, specs, path)
    return {
        name: np.resize(values, (items, *values.shape[1:])) if specs[name].shape[0] == -1 else values
        for name, values in arrays.items()
    }
