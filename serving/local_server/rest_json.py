"""JSON of TF Serving's REST API, the server's side; what cannot be read raises `tf.errors.InvalidArgumentError`.

The forms, and the messages of what is refused, are those of `tensorflow_serving/util/json_tensor.cc` and
`model_servers/http_rest_api_util.cc`. `serving.formats.rest_json` describes the forms.
"""

import base64
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from google.protobuf.message import Message
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from serving.formats.rest_json import base64_object, is_base64, nested_lists
from serving.formats.tensors import write_tensor
from serving.local_server.status import invalid

_INTEGERS = (tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint32, tf.uint64)
_KINDS: dict[tf.DType, tuple[type, ...]] = {
    **dict.fromkeys((tf.float32, tf.float64), (int, float)),
    **dict.fromkeys(_INTEGERS, (int,)),
    tf.bool: (bool,),
    tf.string: (str, dict),
}
"""The dtypes that TF Serving has in JSON, and what stands for them there."""
_LIMITS = {dtype: (int(dtype.min), int(dtype.max)) for dtype in _INTEGERS}
_BINARY_SUFFIX = "_bytes"
"""An output of this name is written in base64."""
_MAX_QUOTED = 256
_INDENT = 4
"""As the container indents, but for scores: those are many, and no one reads them so."""
_Inputs = Mapping[str, meta_graph_pb2.TensorInfo]


def parse_request(body: bytes) -> dict[str, Any]:
    """Parses the JSON object of a `:predict` request."""
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    text = body.decode(errors="surrogateescape").removeprefix("\ufeff").lstrip()
    try:
        document, _ = json.JSONDecoder().raw_decode(text)  # the container too ignores what follows
    except json.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {_quote(document)} Is not object")
    if not isinstance(document.get("signature_name", ""), str):
        raise invalid(
            f"JSON Value: {_quote(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return document


def read_request(document: Mapping[str, Any], inputs: _Inputs, request: predict_pb2.PredictRequest) -> bool:
    """Fills `request.inputs` from a parsed request; returns whether it has the row form.

    Args:
      document: by `parse_request`.
      inputs: those of the signature asked for, whose dtypes the values take.
      request: to fill.
    """
    rows = "instances" in document
    if rows and "inputs" in document:
        message = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        raise invalid(f"JSON Value: {_quote(document)} {message}")
    if not rows and "inputs" not in document:
        raise invalid("Missing 'inputs' or 'instances' key")
    for name, tensor in (_read_rows if rows else _read_columns)(document, inputs):
        request.inputs[name].CopyFrom(tensor)
    return rows


def write_answer(response: predict_pb2.PredictResponse, rows: bool) -> bytes:
    """Response in the form of the request."""
    if not response.outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    columns, sizes = {}, {}
    for name, proto in sorted(response.outputs.items()):
        array = tf.make_ndarray(proto)
        if tf.as_dtype(proto.dtype) not in _KINDS:
            raise invalid(f"Failed to write JSON value for tensor type: {_type_name(proto.dtype)}")
        array = _short(array) if array.dtype == np.float32 else array
        columns[name] = nested_lists(array, base64_object if name.endswith(_BINARY_SUFFIX) else _raw_text)
        sizes[name] = array.shape[:1]
    if not rows:
        return _dump({"outputs": columns if len(columns) > 1 else next(iter(columns.values()))})
    for name, size in sizes.items():
        if not size:
            raise invalid(f"Tensor name: {name} has no shape information ")
        expected = next(iter(sizes.values()))
        if size != expected:
            message = f"has inconsistent batch size: {size[0]} expecting: {expected[0]}"
            raise invalid(f"Tensor name: {name} {message}")
    if len(columns) == 1:
        return _dump({"predictions": next(iter(columns.values()))})
    return _dump({"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]})


def write_metadata(response: get_model_metadata_pb2.GetModelMetadataResponse) -> bytes:
    """Response to `GET …/metadata`."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    return _dump(
        {"model_spec": _fields(response.model_spec), "metadata": {"signature_def": _fields(signatures)}}, _INDENT
    )


def write_status(response: get_model_status_pb2.GetModelStatusResponse) -> bytes:
    """Response to `GET /v1/models/NAME`."""
    return _dump(_fields(response), _INDENT)


def write_error(message: str) -> bytes:
    """Error response. It may quote request bytes that are not valid UTF-8."""
    return json.dumps({"error": message}, ensure_ascii=False).encode(errors="replace")


def _read_columns(document: Mapping[str, Any], inputs: _Inputs) -> Iterator[tuple[str, TensorProto]]:
    value = document["inputs"]
    if not isinstance(value, dict) or is_base64(value):
        if len(inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        value = dict.fromkeys(inputs, value)
    for name, info in inputs.items():
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        yield name, _tensor(value[name], tf.as_dtype(info.dtype))


def _read_rows(document: Mapping[str, Any], inputs: _Inputs) -> Iterator[tuple[str, TensorProto]]:
    elements = document["instances"]
    if not isinstance(elements, list):
        raise invalid(f"JSON Value: {_quote(document)} Expecting 'instances' to be an list/array")
    if not elements:
        raise invalid(f"JSON Value: {_quote(document)} No values in 'instances' array")
    if not isinstance(elements[0], dict) and len(inputs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    named = _is_object(elements[0])
    dtypes = {name: tf.as_dtype(info.dtype) for name, info in inputs.items()}
    columns: dict[str, list[Any]] = {name: [] for name in inputs}
    shapes: dict[str, list[int]] = {}
    for i, element in enumerate(elements):
        if _is_object(element) != named:
            kinds = "object but got list" if named else "value/list but got object"
            raise invalid(f"Expecting {kinds} at item {i} of input list")
        for name, value in element.items() if named else [(next(iter(inputs)), element)]:
            try:
                if name not in dtypes:  # unlike `inputs` it can be asked for what is no UTF-8
                    raise invalid(f"JSON object: does not have named input: {name}")
                values, shape = _flatten(value, dtypes[name])
                _check_shape(shape, shapes.setdefault(name, shape))
            except tf.errors.InvalidArgumentError as error:
                key = f" key: {name}" if named else ""
                raise invalid(
                    f"Failed to process element: {i}{key} of 'instances' list. Error: INVALID_ARGUMENT: {error.message}"
                ) from error
            columns[name] += values
        if named and element.keys() != inputs.keys():
            raise invalid(
                f"Failed to process element: {i} of 'instances' list. JSON object: {_quote(element)} keys must be "
                f"equal to: {','.join(sorted(inputs))}"
            )
    for name, values in columns.items():
        yield name, _build(values, [len(elements), *shapes[name]], dtypes[name])


def _check_shape(shape: list[int], first: list[int]) -> None:
    if math.prod(shape) != math.prod(first):
        raise invalid(f"Expecting tensor size: {math.prod(first)} but got: {math.prod(shape)}")
    if shape != first:
        raise invalid(f"Expecting shape {_brackets(first)} but got: {_brackets(shape)}")


def _tensor(value: Any, dtype: tf.DType) -> TensorProto:
    return _build(*_flatten(value, dtype), dtype)


def _flatten(value: Any, dtype: tf.DType) -> tuple[list[Any], list[int]]:
    """Values of nested lists in order, and their shape, inferred from the first element of each level."""
    shape, inner = [], value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    values = [value]
    for level, size in enumerate(shape):
        for inner in values:
            if not isinstance(inner, list):
                raise invalid(
                    f"JSON Value: {_quote(inner)} found at incorrect level: {level + 1} in the JSON DOM. "
                    f"Expected at level: {len(shape)}"
                )
            if len(inner) != size:
                raise invalid(
                    f"Encountered list at unexpected size: {len(inner)} at level: {level} expected size: {size}"
                )
        values = list(itertools.chain.from_iterable(values))
    return _read_values(values, dtype, len(shape)), shape


def _read_values(values: list[Any], dtype: tf.DType, rank: int) -> list[Any]:
    name = _type_name(dtype.as_datatype_enum)
    if dtype not in _KINDS:
        message = f"Conversion of JSON Value: {_quote(next(iter(values), None))} to type: {name}"
        raise tf.errors.UnimplementedError(None, None, message)
    kinds, limits = _KINDS[dtype], _LIMITS.get(dtype)
    for value in values:
        if type(value) is list:
            raise invalid(f"Encountered list at unexpected level: {rank} expected < {rank}")
        if type(value) not in kinds or (limits and not limits[0] <= value <= limits[1]):
            raise invalid(f"JSON Value: {_quote(value)} Type: {_kind(value)} is not of expected type: {name}")
    return [_read_string(value) for value in values] if dtype == tf.string else values


def _read_string(value: str | dict[str, Any]) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode(errors="surrogateescape")
        except UnicodeEncodeError as error:
            raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from error
    if not is_base64(value):
        raise invalid(f"JSON Value: {_quote(value)} not formatted correctly for base64 data")
    try:
        return base64.b64decode(value["b64"] + "=" * (-len(value["b64"]) % 4), validate=True)
    except ValueError as error:
        raise invalid("Unable to base64 decode") from error


def _build(values: list[Any], shape: list[int], dtype: tf.DType) -> TensorProto:
    try:
        with np.errstate(over="ignore"):  # 1e300 is infinite in float32
            array = np.array(values, dtype.as_numpy_dtype).reshape(shape)
    except (ValueError, OverflowError) as error:  # more axes than NumPy has, or a number of 400 digits
        raise invalid(f"JSON Value: {error} Type: Array is not of expected type: {dtype.name}") from error
    proto = TensorProto()
    write_tensor(proto, array)
    return proto


def _short(array: np.ndarray) -> np.ndarray:
    """Float32 as TF Serving prints it: 0.2 rather than 0.20000000298. Both read back equal."""
    values = array.ravel().tolist()
    short = np.array([float(f"{value:.6g}") for value in values])
    exact = np.array([float(f"{value:.9g}") for value in values])
    return np.where(short.astype(np.float32) == array.ravel(), short, exact).reshape(array.shape)


def _raw_text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")  # which _dump undoes: the container writes the bytes as they are


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _fields(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(
        message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
    )


def _dump(document: Any, indent: int | None = None) -> bytes:
    return json.dumps(document, indent=indent, ensure_ascii=False).encode(errors="surrogateescape")


def _type_name(dtype: int) -> str:
    return types_pb2.DataType.Name(dtype).removeprefix("DT_").lower()


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "Null" if value is None else str(value)
    return {dict: "Object", list: "Array", str: "String"}.get(type(value), "Number")


def _brackets(shape: list[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _quote(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "..."
    return text[:_MAX_QUOTED].encode(errors="replace").decode()
