"""Predict records of a version's warm-up file, for tests."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from serving.publishing.warmup import read_prediction_logs


def read_warmup_records(version_dir: str | Path) -> list[tuple[str, dict[str, np.ndarray]]]:
    """What `write_warmup_records` was given: `(signature, inputs)` of each Predict record, strings as bytes."""
    requests = (log.predict_log.request for log in read_prediction_logs(version_dir) if log.HasField("predict_log"))
    return [
        (request.model_spec.signature_name, {name: tf.make_ndarray(value) for name, value in request.inputs.items()})
        for request in requests
    ]
