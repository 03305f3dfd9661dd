"""TensorProto reader against TensorFlow's C++ reader, for valid and invalid protos."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2

from serving.formats.tensors import read_tensor, write_tensor

SPARE = 10_000
FIELDS = {
    tf.float16: ("half_val", st.integers(0, 2**16 - 1)),
    tf.bfloat16: ("half_val", st.integers(0, 2**16 - 1)),
    tf.float32: ("float_val", st.floats(width=32)),
    tf.float64: ("double_val", st.floats()),
    tf.bool: ("bool_val", st.booleans()),
    tf.string: ("string_val", st.binary(max_size=3)),
    tf.int8: ("int_val", st.integers(-(2**31), 2**31 - 1)),
    tf.uint8: ("int_val", st.integers(-(2**31), 2**31 - 1)),
    tf.int16: ("int_val", st.integers(-(2**31), 2**31 - 1)),
    tf.uint16: ("int_val", st.integers(-(2**31), 2**31 - 1)),
    tf.int32: ("int_val", st.integers(-(2**31), 2**31 - 1)),
    tf.uint32: ("uint32_val", st.integers(0, 2**32 - 1)),
    tf.int64: ("int64_val", st.integers(-(2**63), 2**63 - 1)),
    tf.uint64: ("uint64_val", st.integers(0, 2**64 - 1)),
}


@st.composite
def protos(draw):
    dtype = draw(st.sampled_from(list(FIELDS)))
    shape = draw(st.lists(st.integers(-1, 3) | st.sampled_from([2**31, 2**62]), max_size=3))
    proto = tensor_proto(dtype, shape)
    proto.tensor_shape.unknown_rank = draw(st.booleans())
    if draw(st.booleans()):
        field, values = FIELDS[dtype]
        getattr(proto, field).extend(draw(st.lists(values, max_size=10)))
    else:
        # 0 and 1 make a boolean, a number, and the length of a string alike.
        proto.tensor_content = bytes(draw(st.lists(st.integers(0, 1), max_size=30)))
    return proto


def tensor_proto(dtype, shape, **fields):
    dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in shape]
    return tensor_pb2.TensorProto(
        dtype=dtype.as_datatype_enum, tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=dims), **fields
    )


@settings(max_examples=200, deadline=None)
@example(tensor_proto(tf.string, [2], tensor_content=b"\x01\x03abcd"))
@example(tensor_proto(tf.string, [1], tensor_content=b"\x81\x00a"))
@example(tensor_proto(tf.string, [1], tensor_content=b"\x81\x80\x80\x80\x80\x01a"))
@example(tensor_proto(tf.string, [3], string_val=[b"a", b"b"]))
@given(protos())
def test_a_tensor_is_read_as_the_runtime_reads_it(proto):
    sizes = [dim.size for dim in proto.tensor_shape.dim]
    assume(0 not in sizes or max(sizes) < 2**31)  # NumPy has no array of size [0, 2**62]
    if min(sizes, default=1) > 0 and np.prod([float(size) for size in sizes]) > SPARE / 8:
        with pytest.raises((ValueError, MemoryError)):  # the runtime would go and allocate it
            read_tensor(proto, SPARE)
        return
    try:
        expected = tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype)).numpy()
    except tf.errors.InvalidArgumentError:
        with pytest.raises(ValueError, match=r"shape|content|strings|varint|buffer"):
            read_tensor(proto, SPARE)
        return
    array, _ = read_tensor(proto, SPARE)
    assert array.shape == np.shape(expected)
    assert str(array.tolist()) == str(np.array(expected, array.dtype).tolist())  # NaN is like NaN


@pytest.mark.parametrize("dtype", FIELDS)
def test_what_is_written_is_read_again(dtype):
    values = [[b"", b"\xff"]] if dtype == tf.string else [[0, 1]]
    array = np.array(values, dtype.as_numpy_dtype)
    proto = tensor_pb2.TensorProto()
    write_tensor(proto, array)

    assert not proto.tensor_content
    np.testing.assert_array_equal(read_tensor(proto, SPARE)[0], array)
    np.testing.assert_array_equal(tf.make_ndarray(proto), array)


def test_few_values_stand_for_as_many_elements_as_there_are_bytes_to_spare():
    two = tensor_proto(tf.float32, [4], float_val=[1, 2])
    array, spare = read_tensor(two, 20)
    assert array.tolist() == [1, 2, 2, 2]
    assert spare == 4
    with pytest.raises(MemoryError, match="4 elements"):
        read_tensor(two, spare)
    # What is written out costs the sender as much as the server.
    assert read_tensor(tensor_proto(tf.float32, [2], float_val=[1, 2]), spare)[1] == spare


@pytest.mark.parametrize("values", [{"string_val": [b""] * 4}, {"tensor_content": bytes(4)}])
def test_a_string_takes_more_than_its_text(values):
    empty = tensor_proto(tf.string, [4], **values)
    array, spare = read_tensor(empty, 150)
    assert array.tolist() == [b""] * 4
    assert spare == 150 - 4 * 32
    with pytest.raises(MemoryError, match="4 strings"):
        read_tensor(empty, spare)


@pytest.mark.parametrize("dtype", [0, 8, 20, 21, 101, 999])
def test_a_dtype_that_has_no_values_is_refused(dtype):
    with pytest.raises(ValueError, match=f"data type {dtype}"):
        read_tensor(tensor_pb2.TensorProto(dtype=dtype), SPARE)
