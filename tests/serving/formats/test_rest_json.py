"""REST JSON: round trips, exact forms, and messages for unreadable bodies."""

import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from serving.formats.rest_json import (
    HTTP_STATUS,
    STATUS_CODE,
    read_answer,
    read_error,
    read_metadata,
    write_request,
)
from serving.local_server.rest_json import parse_request, read_request, write_answer, write_error
from usr_tf.errors import InputError

_DTYPES = [np.float32, np.float64, np.int8, np.int16, np.int32, np.uint8, np.uint32, np.int64, np.uint64, np.bool_]
_SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4)
_NUMBERS = st.sampled_from(_DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, _SHAPES))


@st.composite
def _strings(draw):
    shape = draw(_SHAPES)
    values = draw(st.lists(st.binary(max_size=8), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    array = np.empty(shape, object)
    array.flat = values
    return array


def infos(arrays):
    return {name: TensorInfo(dtype=tf.as_dtype(array.dtype).as_datatype_enum) for name, array in arrays.items()}


def request_of(arrays):
    request = PredictRequest()
    request.model_spec.signature_name = "search"
    for name, array in arrays.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return request


def response_of(arrays):
    response = PredictResponse()
    for name, array in arrays.items():
        response.outputs[name].CopyFrom(tf.make_tensor_proto(array))
    return response


def read(document, dtypes):
    """The tensors of a request as arrays, and whether it came by rows."""
    request = PredictRequest()
    inputs = {name: TensorInfo(dtype=dtype.as_datatype_enum) for name, dtype in dtypes.items()}
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    rows = read_request(parse_request(body), inputs, request)
    return {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}, rows


def same(left, right):
    assert left.dtype == right.dtype
    assert left.shape == right.shape
    np.testing.assert_array_equal(left, right)


@settings(max_examples=150)
@given(st.dictionaries(st.text(min_size=1, max_size=5), _NUMBERS | _strings(), min_size=1, max_size=3))
def test_a_request_is_the_same_behind_json(arrays):
    body = write_request(request_of(arrays))
    request = PredictRequest()
    document = parse_request(body)
    assert document["signature_name"] == "search"
    assert not read_request(document, infos(arrays), request)
    assert set(request.inputs) == set(arrays)
    for name, array in arrays.items():
        same(tf.make_ndarray(request.inputs[name]), array)


@settings(max_examples=150)
@given(st.dictionaries(st.text(min_size=1, max_size=5), _NUMBERS, min_size=1, max_size=3))
def test_an_answer_is_the_same_behind_json(arrays):
    body = write_answer(response_of(arrays), rows=False)
    answer = read_answer(body, SignatureDef(outputs=infos(arrays)))
    for name, array in arrays.items():
        same(tf.make_ndarray(answer.outputs[name]), array)


@pytest.mark.parametrize("shape", [(0,), (1, 0), (2, 0)])
def test_an_empty_last_axis_is_told(shape):
    array = np.empty(shape, object)
    request = PredictRequest()
    read_request(parse_request(write_request(request_of({"x": array}))), infos({"x": array}), request)
    same(tf.make_ndarray(request.inputs["x"]), array)


def test_json_cannot_tell_what_is_below_an_empty_axis():
    with pytest.raises(InputError, match=r"inputs.tags: found an empty array of shape \[1, 0, 1\], expected one with"):
        write_request(request_of({"tags": np.empty((1, 0, 1), object)}))


def test_a_request_has_tf_servings_form():
    arrays = {"id": np.array([b"a", b"\xff"], object), "price": np.array([0.5, np.nan, -np.inf], np.float32)}
    assert json.loads(write_request(request_of(arrays)), parse_constant=str) == {
        "signature_name": "search",
        "inputs": {"id": ["a", {"b64": "/w=="}], "price": [0.5, "NaN", "-Infinity"]},
    }


def test_an_answer_has_tf_servings_form():
    ctr, raw = np.array([0.2, 1, np.nan], np.float32), np.array([b"a", b"b", b"\xff"], object)
    columns = json.loads(write_answer(response_of({"ctr": ctr, "raw_bytes": raw}), rows=False), parse_constant=str)
    assert columns == {
        "outputs": {"ctr": [0.2, 1.0, "NaN"], "raw_bytes": [{"b64": "YQ=="}, {"b64": "Yg=="}, {"b64": "/w=="}]}
    }
    rows = json.loads(write_answer(response_of({"ctr": ctr, "raw_bytes": raw}), rows=True), parse_constant=str)
    assert rows["predictions"][0] == {"ctr": 0.2, "raw_bytes": {"b64": "YQ=="}}
    # One output goes without its name. Bytes that are no text pass as they are where the name does not say bytes.
    assert json.loads(write_answer(response_of({"ctr": ctr[:2]}), rows=False)) == {"outputs": [0.2, 1.0]}
    assert json.loads(write_answer(response_of({"ctr": ctr[:2]}), rows=True)) == {"predictions": [0.2, 1.0]}
    assert b'"\xff"' in write_answer(response_of({"raw": raw}), rows=False)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "Cannot convert empty tensor map to JSON"),
        ({"a": np.float32(1)}, "Tensor name: a has no shape information "),
        ({"a": np.ones(2), "b": np.ones(3)}, "Tensor name: b has inconsistent batch size: 3 expecting: 2"),
        ({"a": np.ones(2, np.float16)}, "Failed to write JSON value for tensor type: half"),
    ],
)
def test_what_rows_cannot_tell_is_refused(arrays, message):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        write_answer(response_of(arrays), rows=True)
    assert caught.value.message == message


TWO = {"id": tf.string, "price": tf.float32}


@pytest.mark.parametrize(
    ("document", "dtypes", "expected", "by_rows"),
    [
        ({"inputs": {"id": ["a", "b"], "price": [1, 2.5], "more": 1}}, TWO, {"id": [b"a", b"b"], "price": [1, 2.5]}, 0),
        ({"instances": [{"id": "", "price": 1}, {"id": "", "price": 2}]}, TWO, {"id": [b""] * 2, "price": [1, 2]}, 1),
        ({"instances": [["a"], ["b"]]}, {"id": tf.string}, {"id": [[b"a"], [b"b"]]}, 1),
        ({"instances": [{"b64": "YQ=="}]}, {"id": tf.string}, {"id": [b"a"]}, 1),
        ({"inputs": [{"b64": "YQ"}]}, {"id": tf.string}, {"id": [b"a"]}, 0),
        ({"inputs": 5}, {"n": tf.int64}, {"n": 5}, 0),
        (b'\n{"inputs": [NaN, Infinity, 1e300]} and more', {"x": tf.float32}, {"x": [np.nan, np.inf, np.inf]}, 0),
        (b'{"inputs": ["\xff"]}', {"id": tf.string}, {"id": [b"\xff"]}, 0),
    ],
)  # fmt: skip
def test_requests_are_read_as_tf_serving_reads_them(document, dtypes, expected, by_rows):
    arrays, rows = read(document, dtypes)
    assert rows == bool(by_rows)
    assert arrays.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(arrays[name], np.array(values, dtypes[name].as_numpy_dtype))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b'{"inputs"', "JSON Parse error: "),
        (b"[" * 100_000, "JSON Parse error: "),
        ([1, 2], "JSON Value: [1, 2] Is not object"),
        ({"signature_name": 1}, "JSON Value: {\"signature_name\": 1} not formatted correctly. 'signature_name' key"),
        ({}, "Missing 'inputs' or 'instances' key"),
        ({"inputs": 1, "instances": []}, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys"),
        ({"inputs": {"id": ["a"]}}, "Missing named input: price in 'inputs' object."),
        ({"inputs": [1]}, "inputs is a plain value/list, but expecting an object as multiple input tensors required"),
        ({"inputs": {"id": [1], "price": [1]}}, "JSON Value: 1 Type: Number is not of expected type: string"),
        ({"inputs": {"id": ["a"], "price": ["1"]}}, 'JSON Value: "1" Type: String is not of expected type: float'),
        ({"inputs": {"id": ["a"], "price": [True]}}, "JSON Value: true Type: True is not of expected type: float"),
        ({"inputs": {"id": ["a"], "price": [None]}}, "JSON Value: null Type: Null is not of expected type: float"),
        ({"inputs": {"id": ["a"], "price": [{"b64": "YQ=="}]}}, "Type: Object is not of expected type: float"),
        ({"inputs": {"id": [{"b46": "x"}], "price": [1]}}, "not formatted correctly for base64 data"),
        ({"inputs": {"id": [{"b64": "?"}], "price": [1]}}, "Unable to base64 decode"),
        ({"inputs": {"id": ["\ud800"], "price": [1]}}, "JSON Parse error: The surrogate pair in string is invalid."),
        ({"inputs": {"id": [["a", "b"], ["c"]], "price": [1]}}, "at unexpected size: 1 at level: 1 expected size: 2"),
        ({"inputs": {"id": ["a", ["b"]], "price": [1]}}, "Encountered list at unexpected level: 1 expected < 1"),
        ({"inputs": {"id": [["a"], "b"], "price": [1]}}, 'JSON Value: "b" found at incorrect level: 2'),
        ({"instances": 1}, "Expecting 'instances' to be an list/array"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"instances": [1]}, "instances is a plain list, but expecting list of objects as multiple input tensors"),
        ({"instances": [{"id": "a", "price": 1}, 1]}, "Expecting object but got list at item 1 of input list"),
        ({"instances": [{"id": "a", "cost": 1}]}, "Failed to process element: 0 key: cost of 'instances' list. Error"),
        ({"instances": [{"id": "a"}]}, "Failed to process element: 0 of 'instances' list. JSON object"),
        ({"instances": [{"id": "a", "price": 1}, {"id": ["b"], "price": 1}]}, "Expecting shape [] but got: [1]"),
        ({"instances": [{"id": "a", "price": 1}, {"id": ["b", "c"]}]}, "Expecting tensor size: 1 but got: 2"),
    ],
)  # fmt: skip
def test_bad_requests_are_refused_as_tf_serving_does(document, message):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        read(document, TWO)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(2**31, tf.int32), (2**63, tf.int64), (-1, tf.uint64), (1.0, tf.int64), (300, tf.int8), (10**400, tf.float32)],
)
def test_numbers_that_do_not_fit_are_refused(value, dtype):
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not of expected type"):
        read({"inputs": [value]}, {"x": dtype})


def test_a_dtype_that_json_does_not_have_is_unimplemented():
    with pytest.raises(tf.errors.UnimplementedError, match="Conversion of JSON Value: 1 to type: half"):
        read({"inputs": [1]}, {"x": tf.float16})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=200)
@given(
    st.binary(max_size=20)
    | st.fixed_dictionaries({}, optional={"inputs": _JSON, "instances": _JSON}).map(lambda d: json.dumps(d).encode())
)
def test_any_body_is_a_request_or_refused(body):
    try:
        arrays, _ = read(body, {"id": tf.string})
    except tf.errors.InvalidArgumentError:
        return
    assert arrays["id"].dtype == object


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"outputs": 1}', b'{"outputs": {"ctr": ["x"]}}'])
def test_another_kind_of_server_is_seen_through(body):
    with pytest.raises(ValueError, match="no TF Serving answer"):
        read_answer(body, SignatureDef(outputs=infos({"ctr": np.ones(1), "ctcvr": np.ones(1)})))
    with pytest.raises(ValueError, match="no TF Serving answer"):
        read_metadata(body)


def test_an_error_tells_what_the_server_said():
    assert read_error(write_error('half "é"')) == 'half "é"'
    assert read_error(b"<html>502 Bad Gateway") == "no TF Serving answer (<html>502 Bad Gateway)"


def test_every_http_status_is_the_code_that_means_it():
    assert {HTTP_STATUS[STATUS_CODE[status]] for status in HTTP_STATUS.values()} == set(HTTP_STATUS.values())
    assert {STATUS_CODE[status].name for status in (400, 404, 429, 500, 503, 504)} == {
        "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED",
    }  # fmt: skip
