"""Record of a served `Predict` call for the request log: tensors as the request document that they came from."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from serving.formats.tensors import read_tensor
from serving.local_server.call import Call
from serving.local_server.servable import Servable
from serving.request_log import Record, make_record
from usr_tf.schema import EXAMPLES_SUFFIX

_SPARE_BYTES = 2**26


def is_scenario(signature: str) -> bool:
    """Whether a signature takes requests rather than serialized rows."""
    return signature != "serving_default" and not signature.endswith(EXAMPLES_SUFFIX)


def served_record(
    servable: Servable, request: PredictRequest, response: PredictResponse, call: Call
) -> Callable[[], Record]:
    """Function that makes the record, for the log's thread. The order is unknown: it is the client that ranks."""
    moment, seconds = time.time_ns() // 1_000_000, time.monotonic() - call.arrived
    signature = servable.signatures[call.signature]

    def record() -> Record:
        inputs = {
            name: _to_document(_array(proto), request_side=signature.inputs[name].tensor_shape.dim[0].size == 1)
            for name, proto in request.inputs.items()
        }
        outputs = {name: _array(proto).tolist() for name, proto in response.outputs.items()}
        return make_record(
            call.signature,
            inputs,
            outputs,
            model=request.model_spec.name,
            version=call.version,
            latency_seconds=seconds,
            timestamp=moment,
        )

    return record


def _array(proto: TensorProto) -> np.ndarray:
    array, _ = read_tensor(proto, _SPARE_BYTES)
    return array


def _to_document(array: np.ndarray, request_side: bool) -> Any:
    """Value of an input in a request document."""
    if array.dtype == object:
        texts = [text.decode("utf-8", "replace") for text in array.reshape(-1)]
        array = np.array(texts, dtype=object).reshape(array.shape)
    value = array.tolist()
    return value[0] if request_side else value
