"""Messages without TensorFlow against `tensorflow-serving-api`'s: the same fields, and the same bytes both ways."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2, predict_pb2

from serving.formats import messages
from serving.formats.signatures import read_signatures
from serving.formats.tensors import pack_tensor, tensor_array, write_tensor

PAIRS = {
    "TensorProto": tensor_pb2.TensorProto,
    "SignatureDef": meta_graph_pb2.SignatureDef,
    "SavedModel": saved_model_pb2.SavedModel,
    "ModelSpec": model_pb2.ModelSpec,
    "PredictRequest": predict_pb2.PredictRequest,
    "PredictResponse": predict_pb2.PredictResponse,
    "SignatureDefMap": get_model_metadata_pb2.SignatureDefMap,
    "GetModelMetadataRequest": get_model_metadata_pb2.GetModelMetadataRequest,
    "GetModelMetadataResponse": get_model_metadata_pb2.GetModelMetadataResponse,
}
DTYPES = (
    tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.bool, tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8,
    tf.uint16, tf.uint32, tf.uint64,
)  # fmt: skip


def fields(descriptor, seen=()):
    """Every field below a message: path → what decides how it is on the wire, and how it is told."""
    found = {}
    for field in descriptor.fields:
        oneof = field.containing_oneof and field.containing_oneof.name
        found[(*seen, field.name)] = (field.number, field.type, field.is_repeated, field.is_packed, oneof)
        if field.message_type and len(seen) < 8:
            found |= fields(field.message_type, (*seen, field.name))
    return found


@pytest.mark.parametrize("name", PAIRS)
def test_every_field_is_that_of_tf_serving(name):
    ours, theirs = getattr(messages, name).DESCRIPTOR, PAIRS[name].DESCRIPTOR
    assert ours.full_name == theirs.full_name
    assert fields(ours).items() <= fields(theirs).items()


def test_data_types_are_those_of_tensorflow():
    values = {value.name: value.number for value in messages.DataType.values}
    assert values.items() <= dict(types_pb2.DataType.items()).items()
    assert {dtype.as_datatype_enum for dtype in DTYPES} <= set(values.values())


def _arrays(dtype):
    if dtype == tf.string:
        texts = st.binary(max_size=5) | st.sampled_from([b"", b"\x00", b"\xff\xfe", "é".encode()])
        return hnp.arrays(object, hnp.array_shapes(min_dims=0, min_side=0, max_side=3), elements=texts)
    numpy = dtype.as_numpy_dtype
    shapes = hnp.array_shapes(min_dims=0, min_side=0, max_side=3)
    if dtype == tf.bfloat16:
        return hnp.arrays(np.uint16, shapes).map(lambda bits: bits.view(numpy))
    return hnp.arrays(numpy, shapes)


@st.composite
def named_arrays(draw):
    dtypes = draw(st.lists(st.sampled_from([*DTYPES, tf.string]), min_size=1, max_size=4))
    return {f"x{i}": draw(_arrays(dtype)) for i, dtype in enumerate(dtypes)}


def same(left, right):
    assert left.dtype == right.dtype
    assert left.shape == right.shape
    assert left.tolist() == right.tolist() or left.tobytes() == right.tobytes()  # NaN is like NaN


@settings(max_examples=100, deadline=None)
@example({"big": np.arange(200_000, dtype=np.float32)})
@example({"many": np.array([b"item"] * 20_000, object)})
@example({"empty": np.empty((1, 0, 3), object), "none": np.empty(0, np.int64)})
@given(named_arrays())
def test_a_request_of_ours_is_theirs(arrays):
    ours = messages.PredictRequest(model_spec=messages.ModelSpec(name="usr", version_label="stable"))
    ours.model_spec.signature_name = "search"
    for i, (name, array) in enumerate(arrays.items()):
        (write_tensor if i % 2 else pack_tensor)(ours.inputs[name], array)

    theirs = predict_pb2.PredictRequest.FromString(ours.SerializeToString())
    assert theirs.model_spec == model_pb2.ModelSpec(name="usr", version_label="stable", signature_name="search")
    assert theirs.SerializeToString(deterministic=True) == ours.SerializeToString(deterministic=True)
    for name, array in arrays.items():
        same(tf.make_ndarray(theirs.inputs[name]), array)


@settings(max_examples=100, deadline=None)
@example({"big": np.arange(200_000, dtype=np.float32)})
@given(named_arrays())
def test_an_answer_of_theirs_is_ours(arrays):
    theirs = predict_pb2.PredictResponse(model_spec=model_pb2.ModelSpec(name="usr"))
    theirs.model_spec.version.value = 3
    for name, array in arrays.items():
        theirs.outputs[name].CopyFrom(tf.make_tensor_proto(array))

    ours = messages.PredictResponse.FromString(theirs.SerializeToString())
    assert (ours.model_spec.name, ours.model_spec.version.value) == ("usr", 3)
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)
    for name, array in arrays.items():
        same(tensor_array(ours.outputs[name]), array)


def test_fields_that_ours_lacks_pass_through():
    theirs = predict_pb2.PredictRequest()
    theirs.inputs["x"].resource_handle_val.add(name="table")
    ours = messages.PredictRequest.FromString(theirs.SerializeToString())
    assert predict_pb2.PredictRequest.FromString(ours.SerializeToString()) == theirs


def test_metadata_in_an_any_is_unpacked():
    theirs = get_model_metadata_pb2.GetModelMetadataResponse()
    search = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    search.inputs["price"].dtype = types_pb2.DT_FLOAT
    signatures = get_model_metadata_pb2.SignatureDefMap(signature_def={"search": search})
    theirs.metadata["signature_def"].Pack(signatures)

    ours = messages.GetModelMetadataResponse.FromString(theirs.SerializeToString())
    unpacked = messages.SignatureDefMap()
    assert ours.metadata["signature_def"].Unpack(unpacked)
    assert unpacked.SerializeToString(deterministic=True) == signatures.SerializeToString(deterministic=True)


def test_signatures_of_a_saved_model_are_those_that_tensorflow_reads(toy_models):
    folder = toy_models[0.5]
    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    theirs = {name: each for name, each in model.meta_graphs[0].signature_def.items() if each.inputs}
    ours = read_signatures(folder)
    assert list(ours) == sorted(theirs)
    for name, signature in theirs.items():
        assert ours[name].SerializeToString(deterministic=True) == signature.SerializeToString(deterministic=True)
