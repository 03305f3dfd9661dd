"""`TensorProto` codec that matches TensorFlow's C++ runtime.

`tf.make_ndarray` takes longer, and refuses or reads otherwise some of what the runtime takes: strings in
`tensor_content`, more values than elements, no value at all.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf


class _Kind(NamedTuple):
    dtype: np.dtype
    field: str
    wire: np.dtype
    """What a value of `field` is cut down to: `half_val` holds the 16 bits of a number, `int_val` also small ones."""


def _kind(dtype: tf.DType, field: str) -> _Kind:
    array = np.dtype(dtype.as_numpy_dtype)
    return _Kind(array, field, np.dtype(np.uint16) if field == "half_val" else array)


_KINDS = {
    dtype.as_datatype_enum: _kind(dtype, field)
    for field, dtypes in {
        "half_val": (tf.float16, tf.bfloat16),
        "float_val": (tf.float32,),
        "double_val": (tf.float64,),
        "bool_val": (tf.bool,),
        "string_val": (tf.string,),
        "int_val": (tf.int8, tf.int16, tf.int32, tf.uint8, tf.uint16),
        "int64_val": (tf.int64,),
        "uint32_val": (tf.uint32,),
        "uint64_val": (tf.uint64,),
    }.items()
    for dtype in dtypes
}
_MAX_ELEMENTS = 2**63 - 1
_STRING_BYTES = 32
"""What a string takes here and in the runtime beside its text, of which a request may have as little as a byte."""


def read_tensor(proto: Any, spare: int) -> tuple[np.ndarray, int]:
    """Array of a `TensorProto`, and the remaining byte budget.

    A proto of few values may stand for a large array: the last value repeats, and none at all means zeros.

    Args:
      proto: a `TensorProto`; its typed field is read, or `tensor_content` where there is some.
      spare: bytes that arrays may take beyond the values that are written out; every string takes some of them.

    Raises:
      ValueError: what the runtime cannot parse either.
      MemoryError: `spare` does not suffice.
    """
    shape = _read_shape(proto.tensor_shape)
    if proto.dtype not in _KINDS:
        raise ValueError(f"no tensor of data type {proto.dtype}")
    kind = _KINDS[proto.dtype]
    size = math.prod(shape)
    if kind.dtype.kind == "O":
        spare -= size * _STRING_BYTES
        if spare < 0:
            raise MemoryError(f"{size} strings")
    if size == 0:
        flat = np.empty(0, kind.dtype)
    elif proto.tensor_content:
        flat = _read_content(proto.tensor_content, kind.dtype, size)
    else:
        flat = _read_values(getattr(proto, kind.field)[:size], kind)
        if len(flat) < size:
            spare -= size * kind.dtype.itemsize
            if spare < 0:
                raise MemoryError(f"{size} elements of a few values")
            flat = _repeat_last(flat, size)
    return flat.reshape(shape), spare


def write_tensor(proto: Any, array: np.ndarray) -> None:
    """Fills `proto` in the typed field, as the container does: many clients read `float_val` directly.

    Raises:
      KeyError: an array of a dtype that has no such field here.
    """
    proto.dtype = tf.as_dtype(array.dtype).as_datatype_enum
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    kind = _KINDS[proto.dtype]
    getattr(proto, kind.field).extend(array.ravel().view(kind.wire).tolist())


def _read_shape(proto: Any) -> tuple[int, ...]:
    shape = tuple(dim.size for dim in proto.dim)
    elements = 1
    for size in shape:
        elements *= size
        if size < 0 or elements > _MAX_ELEMENTS:
            raise ValueError(f"shape {shape}")
    return shape


def _read_values(values: Sequence[Any], kind: _Kind) -> np.ndarray:
    if kind.field in ("half_val", "int_val"):  # wider on the wire than in the array: cut, as C++ does
        return np.array(values, np.int32).astype(kind.wire).view(kind.dtype)
    return np.array(values, kind.dtype)


def _repeat_last(values: np.ndarray, size: int) -> np.ndarray:
    nothing = b"" if values.dtype.kind == "O" else values.dtype.type(0)
    flat = np.full(size, values[-1] if len(values) else nothing, values.dtype)
    flat[: len(values)] = values
    return flat


def _read_content(content: bytes, dtype: np.dtype, size: int) -> np.ndarray:
    flat = np.array(_split_strings(content, size), object) if dtype.kind == "O" else np.frombuffer(content, dtype)
    if len(flat) != size:
        raise ValueError(f"content of {len(flat)} elements where the shape has {size}")
    return flat


def _split_strings(content: bytes, count: int) -> list[bytes]:
    """Parses `count` varint lengths and the bytes of each string."""
    if count > len(content):
        raise ValueError(f"{count} strings in {len(content)} bytes")
    lengths, start = [], 0
    for _ in range(count):
        length, start = _read_varint(content, start)
        lengths.append(length)
    if start + sum(lengths) != len(content):
        raise ValueError(f"{sum(lengths)} bytes of strings where {len(content) - start} follow")
    strings = []
    for length in lengths:
        strings.append(content[start : start + length])
        start += length
    return strings


def _read_varint(content: bytes, start: int) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(content[start : start + 5]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value & 0xFFFFFFFF, start + i + 1
    raise ValueError("a varint without end")
