"""Warm-up records: requests that a server replays on a freshly loaded version before it takes traffic.

TF Serving's own form: a TFRecord file of `PredictionLog`, `assets.extra/tf_serving_warmup_requests`.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000
"""TF Serving refuses to load a version that has more."""


def write_warmup_records(
    version_dir: str | Path, requests: Iterable[tuple[str, Mapping[str, np.ndarray]]], model_name: str = "usr"
) -> Path:
    """Writes one record for each `(signature, inputs)` and returns the file.

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


def read_warmup_records(version_dir: str | Path) -> list[tuple[str, dict[str, np.ndarray]]]:
    """What `write_warmup_records` was given: `(signature, inputs)` of each Predict record, strings as bytes."""
    requests = (log.predict_log.request for log in read_prediction_logs(version_dir) if log.HasField("predict_log"))
    return [
        (request.model_spec.signature_name, {name: tf.make_ndarray(value) for name, value in request.inputs.items()})
        for request in requests
    ]


def read_prediction_logs(version_dir: str | Path) -> list[prediction_log_pb2.PredictionLog]:
    """The records themselves; none when the version has no warm-up file.

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
