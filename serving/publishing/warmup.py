"""Warm-up records: requests that a server replays on a loaded version before it takes traffic.

TF Serving's own form: a TFRecord file of `PredictionLog`, `assets.extra/tf_serving_warmup_requests`.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.formats.logged_requests import LoggedRequest
from serving.formats.request import COUNTER_PREFIX, HISTORY_PREFIX, TensorSpec, request_inputs
from serving.formats.signatures import read_signatures, scenarios_of, signature_specs
from usr_tf.schema import EXAMPLES_SUFFIX

FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000
"""TF Serving refuses to load a version that has more."""
CANDIDATES = (1, 50, 200, 500, 2000)
"""Sizes of the requests that warm a scenario up. Kernels are prepared for the shapes that they meet, and memory grows
to the largest, so each size that users ask for should have one near it."""


def write_warmup_records(
    version_dir: str | Path, requests: Iterable[tuple[str, Mapping[str, np.ndarray]]], model_name: str = "usr"
) -> Path:
    """Writes one record per `(signature, inputs)` and returns the file.

    Args:
      version_dir: the SavedModel's folder, `SERVING/<version>`.
      requests: input arrays already of the signature's dtypes; strings as `object` or bytes arrays.
      model_name: the name that the records carry; a server replays them whatever name it serves under.

    Raises:
      ValueError: more records than TF Serving takes. Nothing is written then.
    """
    logs = []
    for signature, inputs in requests:
        log = prediction_log_pb2.PredictionLog()
        request = log.predict_log.request
        request.model_spec.name = model_name
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        logs.append(log.SerializeToString())
    if len(logs) > MAX_RECORDS:
        raise ValueError(f"TF Serving takes at most {MAX_RECORDS} warm-up records. Received: {len(logs)}")
    path = os.path.join(version_dir, FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        for log in logs:
            writer.write(log)
    return Path(path)


def read_prediction_logs(version_dir: str | Path) -> list[prediction_log_pb2.PredictionLog]:
    """Raw warm-up records; empty for a version without a warm-up file.

    Raises:
      tf.errors.DataLossError: the file is cut short or damaged.
      tf.errors.InvalidArgumentError: more records than `MAX_RECORDS`.
    """
    path = os.path.join(version_dir, FILE)
    if not tf.io.gfile.exists(path):
        return []
    records = tf.data.TFRecordDataset(path).take(MAX_RECORDS + 1).as_numpy_iterator()
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    if len(logs) > MAX_RECORDS:
        message = f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}"
        raise tf.errors.InvalidArgumentError(None, None, message)
    return logs


def write_warmup_requests(
    version_dir: str | Path,
    requests: Mapping[str, Sequence[LoggedRequest]],
    per_scenario: int = 20,
    candidates: Sequence[int] = CANDIDATES,
) -> int:
    """Writes warm-up records of every signature; returns their number.

    A scenario's own signature gets one of its requests again, that of the user with the longest history, with its items
    repeated to each number of `candidates`. Its `_examples` do not: they are for batches, whose first run may take its
    time.

    A signature without a request gets one with a single blank item, so that its graph is warm all the same:
    `serving_default` does, and a scenario that was never logged.

    Args:
      version_dir: the SavedModel's folder.
      requests: by scenario (`serving.publishing.synthetic`). They stay in the version, for everybody who has it.
      per_scenario: requests for each signature, at the most.
      candidates: numbers of items, from 1.

    Raises:
      InputError: a request does not suit the model.
    """
    signatures = signature_specs(read_signatures(version_dir))
    per_scenario = min(per_scenario, MAX_RECORDS // len(signatures) - len(candidates))
    records: list[tuple[str, Mapping[str, np.ndarray]]] = []
    for name, specs in signatures.items():
        is_default = name == tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
        scenario = scenarios_of(signatures)[0] if is_default else name.removesuffix(EXAMPLES_SUFFIX)
        chosen = () if is_default else requests.get(scenario, ())[:per_scenario]
        inputs = [
            request_inputs(request.inputs, signatures[scenario], f"request {request.request_id}") for request in chosen
        ] or [_blank(signatures[scenario])]
        if name == scenario:
            largest = max(inputs, key=lambda request: sum(request[name].size for name in _of_user(specs)))
            inputs += [_with_items(largest, specs, items) for items in candidates]
        else:
            inputs = [{next(iter(specs)): np.array(to_examples(request), dtype=object)} for request in inputs]
        records += [(name, request) for request in inputs]
    write_warmup_records(version_dir, records)
    return len(records)


def to_examples(request: Mapping[str, np.ndarray]) -> list[bytes]:
    """Request for `<scenario>_examples`: one serialized `tf.Example` per item, user side repeated.

    Args:
      request: arrays by `request.request_inputs`. Histories of lists as wide as the schema's `max_length`.
    """
    items = max(array.shape[0] for array in request.values())
    examples = []
    for row in range(items):
        example = tf.train.Example()
        for name, array in request.items():
            values = array[row if array.shape[0] == items else 0]
            _set_feature(example.features.feature[name], name, np.atleast_1d(values).ravel())
        examples.append(example.SerializeToString())
    return examples


def _set_feature(feature: tf.train.Feature, name: str, values: np.ndarray) -> None:
    if values.dtype.kind == "f":
        feature.float_list.value.extend(values[~np.isnan(values)])
    elif values.dtype.kind in "iu":
        feature.int64_list.value.extend(values)
    else:
        kept = values if name.startswith(HISTORY_PREFIX) or len(values) == 1 else [value for value in values if value]
        feature.bytes_list.value.extend(kept)


def _with_items(
    request: Mapping[str, np.ndarray], specs: Mapping[str, TensorSpec], items: int
) -> dict[str, np.ndarray]:
    """Request with a given number of items, by repeating its own."""
    shared = _of_user(specs)
    return {name: array if name in shared else array[np.arange(items) % len(array)] for name, array in request.items()}


def _of_user(specs: Mapping[str, TensorSpec]) -> set[str]:
    """Inputs that occur once per request."""
    return {name for name, spec in specs.items() if spec.shape[0] == 1}


def _blank(specs: Mapping[str, TensorSpec]) -> dict[str, np.ndarray]:
    """Request of one item and one user without known values, and with counts of 0, which a row may not lack."""

    def nothing(name: str, spec: TensorSpec) -> Any:
        rows, *places = spec.shape
        value = [0.0] * max(places[0], 0) if places else 0.0 if name.startswith(COUNTER_PREFIX) else None
        return value if rows == 1 else [value]

    values = {name: nothing(name, spec) for name, spec in specs.items() if not name.startswith(HISTORY_PREFIX)}
    return request_inputs(values, specs)
