"""`TensorProto` codec that matches TensorFlow's C++ runtime, and NumPy dtypes of its data types. Needs no TensorFlow.

`tf.make_ndarray` takes longer, and refuses or reads otherwise some of what the runtime takes: strings in
`tensor_content`, more values than elements, no value at all.
"""

import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from serving.formats.messages import DataType

try:
    from ml_dtypes import bfloat16  # comes with TensorFlow; a model of ours has no tensor of it
except ImportError:
    bfloat16 = None

STRING = np.dtype(object)
"""Dtype of strings: arrays of `bytes`."""
NO_DTYPE = np.dtype(np.void)
"""Dtype of a data type that NumPy lacks, such as DT_VARIANT."""


class _Kind(NamedTuple):
    dtype: np.dtype
    field: str
    wire: np.dtype
    """What a value of `field` is cut down to: `half_val` holds the 16 bits of a number, `int_val` also small ones."""


def _kind(dtype: Any, field: str) -> _Kind:
    array = np.dtype(dtype)
    return _Kind(array, field, np.dtype(np.uint16) if field == "half_val" else array)


_KINDS = {
    DataType.values_by_name[name].number: _kind(dtype, field)
    for name, dtype, field in (
        ("DT_HALF", np.float16, "half_val"),
        ("DT_BFLOAT16", bfloat16, "half_val"),
        ("DT_FLOAT", np.float32, "float_val"),
        ("DT_DOUBLE", np.float64, "double_val"),
        ("DT_BOOL", np.bool_, "bool_val"),
        ("DT_STRING", STRING, "string_val"),
        ("DT_INT8", np.int8, "int_val"),
        ("DT_INT16", np.int16, "int_val"),
        ("DT_INT32", np.int32, "int_val"),
        ("DT_UINT8", np.uint8, "int_val"),
        ("DT_UINT16", np.uint16, "int_val"),
        ("DT_INT64", np.int64, "int64_val"),
        ("DT_UINT32", np.uint32, "uint32_val"),
        ("DT_UINT64", np.uint64, "uint64_val"),
    )
    if dtype is not None
}
_DATA_TYPES = {kind.dtype: number for number, kind in _KINDS.items()}
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


def tensor_array(proto: Any) -> np.ndarray:
    """Array of a `TensorProto` of someone trusted, however large.

    Raises:
      ValueError: as `read_tensor`.
    """
    return read_tensor(proto, sys.maxsize)[0]


def write_tensor(proto: Any, array: np.ndarray) -> None:
    """Fills `proto` in the typed field, as the container does: many clients read `float_val` directly.

    Raises:
      ValueError: an array of a dtype that has no such field here.
      TypeError: an array of strings with an element that is not `bytes`.
    """
    kind = _write_header(proto, array)
    getattr(proto, kind.field).extend(array.ravel().view(kind.wire).tolist())


def pack_tensor(proto: Any, array: np.ndarray) -> None:
    """Fills `proto` as servers read it fastest: numbers as the array's own bytes, in `tensor_content`.

    Raises:
      ValueError, TypeError: as `write_tensor`.
    """
    if array.dtype == STRING:
        write_tensor(proto, array)
    else:
        _write_header(proto, array)
        proto.tensor_content = array.tobytes()


def dtype_of(data_type: int) -> np.dtype:
    """Dtype of a `DataType`: objects for strings (`STRING`), `NO_DTYPE` where NumPy has none."""
    return _KINDS[data_type].dtype if data_type in _KINDS else NO_DTYPE


def dtype_name(dtype: np.dtype) -> str:
    """Name of a dtype for messages, as TensorFlow has it: `string` rather than `object`."""
    return "string" if dtype == STRING else dtype.name


def is_floating(dtype: np.dtype) -> bool:
    """Whether it is a dtype of floating-point numbers, bfloat16 too."""
    return dtype.kind == "f" or dtype == bfloat16


def _write_header(proto: Any, array: np.ndarray) -> _Kind:
    if array.dtype not in _DATA_TYPES:
        raise ValueError(f"no data type of {array.dtype}")
    proto.dtype = _DATA_TYPES[array.dtype]
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    return _KINDS[proto.dtype]


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
