"""A logged request of a chosen size, as the tensors of an exported signature."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from serving.formats.logged_requests import read_requests
from serving.formats.request import TensorSpec, request_inputs
from usr_tf.schema import ITEM


def newest_version(serving: str) -> Path:
    """Folder of the newest version in a directory of versions."""
    return max((path for path in Path(serving).iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def longest_history(path: Path, signature: tf.types.experimental.ConcreteFunction, items: int) -> dict[str, np.ndarray]:
    """Request of `<scenario>.jsonl` with the longest history, and candidates of it and of the others.

    Candidates are different items, as those of a real request are; only where the file has fewer than `items` do they
    repeat.
    """
    specs = {
        name: TensorSpec(np.dtype(spec.dtype.as_numpy_dtype), tuple(size or -1 for size in spec.shape.as_list()))
        for name, spec in signature.structured_input_signature[1].items()
    }
    documents = [request.inputs for request in read_requests(path)]
    documents.sort(key=lambda values: -sum(len(v) for n, v in values.items() if n.startswith("history_")))
    of_candidates = [name for name, spec in specs.items() if spec.shape[0] == -1]
    candidates = {}
    for document in documents:
        for row, item in enumerate(document[ITEM]):
            candidates.setdefault(item, [document[name][row] for name in of_candidates])
    columns = zip(*list(candidates.values())[:items], strict=True)
    document = {**documents[0], **{name: list(column) for name, column in zip(of_candidates, columns, strict=True)}}
    return {
        name: np.resize(values, (items, *values.shape[1:])) if name in of_candidates else values
        for name, values in request_inputs(document, specs, path).items()
    }
