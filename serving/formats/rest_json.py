"""JSON of TF Serving's REST API, the client's side. Needs no TensorFlow.

Tensors are nested lists. A string is JSON text, or `{"b64": …}` where its bytes are not UTF-8; `NaN`, `Infinity` and
`-Infinity` stand bare, which JSON proper has no word for. `serving.local_server.rest_json` is the server's side.
"""

import base64
import json
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format

from serving.formats.messages import GetModelMetadataResponse, PredictResponse, SignatureDefMap
from serving.formats.tensors import STRING, dtype_of, tensor_array, write_tensor
from usr_tf.errors import InputError

HTTP_STATUS = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
STATUS_CODE = {
    **{http: code for code, http in reversed(HTTP_STATUS.items())},
    413: grpc.StatusCode.INVALID_ARGUMENT,  # these two come from a proxy in between, or from the local server
    502: grpc.StatusCode.UNAVAILABLE,
}
"""The other way: of several codes the first, and so the one that is met."""

_MAX_QUOTED = 256
_TYPES: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}
"""NumPy's kind of a dtype → what stands for its values in JSON."""


def write_request(request: Any) -> bytes:
    """Body of a `:predict` request in the columnar form, because inputs differ in their first size.

    Args:
      request: a `PredictRequest`.

    Raises:
      InputError: an empty array that nested lists cannot tell the shape of.
    """
    inputs = {}
    for name, proto in request.inputs.items():
        array = tensor_array(proto)
        if 0 in array.shape[:-1]:
            expected = "one with values: lists in JSON cannot tell the sizes below an empty one"
            raise InputError(f"inputs.{name}", f"an empty array of shape {list(array.shape)}", expected)
        inputs[name] = nested_lists(array, _text)
    document = {"signature_name": request.model_spec.signature_name, "inputs": inputs}
    return json.dumps(document).encode()


def read_answer(body: bytes, signature: Any) -> Any:
    """`PredictResponse` to `write_request`; names and dtypes that JSON omits come from the `SignatureDef`.

    Raises:
      ValueError: the body is no such answer.
    """
    try:
        outputs = json.loads(body)["outputs"]
        if len(signature.outputs) == 1:  # TF Serving leaves its name out
            outputs = dict.fromkeys(signature.outputs, outputs)
        response = PredictResponse()
        for name, info in signature.outputs.items():
            write_tensor(response.outputs[name], _array(outputs[name], dtype_of(info.dtype)))
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"no TF Serving answer ({type(error).__name__}: {error})") from error
    return response


def read_metadata(body: bytes) -> Any:
    """`GetModelMetadataResponse` of `GET …/metadata`.

    Raises:
      ValueError: the body is no such answer.
    """
    response, signatures = GetModelMetadataResponse(), SignatureDefMap()
    try:
        document = json.loads(body)
        json_format.ParseDict(document["model_spec"], response.model_spec, ignore_unknown_fields=True)
        json_format.ParseDict(document["metadata"]["signature_def"], signatures, ignore_unknown_fields=True)
    except (ValueError, LookupError, TypeError, RecursionError, json_format.Error) as error:
        raise ValueError(f"no TF Serving answer ({type(error).__name__}: {error})") from error
    response.metadata["signature_def"].Pack(signatures)
    return response


def read_error(body: bytes) -> str:
    """Message of an error response; for another kind of server, the start of its body."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return f"no TF Serving answer ({body[:_MAX_QUOTED].decode(errors='replace')})"


def nested_lists(array: np.ndarray, text: Callable[[bytes], Any]) -> Any:
    """Nested lists of an array; `text` encodes bytes as JSON."""
    if array.dtype == STRING:
        texts = np.empty(array.shape, object)
        texts.flat = [text(value) for value in array.flat]
        array = texts
    return array.tolist()


def base64_object(value: bytes) -> dict[str, str]:
    """Bytes as a JSON object."""
    return {"b64": base64.b64encode(value).decode()}


def is_base64(value: Any) -> bool:
    """Whether a value has the form of `base64_object`."""
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _array(value: Any, dtype: np.dtype) -> np.ndarray:
    """Array of nested lists, which hold what JSON has for the dtype."""
    values = np.array(value, object)  # the elements of ragged lists are lists
    if dtype == STRING:
        values.flat = [_read_string(each) for each in values.flat]
        return values
    found = set(map(type, values.ravel().tolist()))
    if not found <= _TYPES.get(dtype.kind, set()):
        raise ValueError(f"{', '.join(sorted(kind.__name__ for kind in found))} where {dtype} was expected")
    with np.errstate(over="ignore"):  # 1e300 is infinite in float32
        return np.array(value, dtype)


def _read_string(value: Any) -> bytes:
    if is_base64(value):
        return base64.b64decode(value["b64"])
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} where a string was expected")
    return value.encode(errors="surrogateescape")


def _text(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64_object(value)
