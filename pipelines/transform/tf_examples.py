"""Columnar encoder of Arrow rows to serialized `tf.Example`s.

Features stand in the order of their names, so the same rows are the same bytes. TFX-BSL's encoder puts them in
another order for every row and run.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = b"\x0a", b"\x12", b"\x1a"  # the tags of `tf.train.Feature`
_FIRST, _SECOND = b"\x0a", b"\x12"  # the tags of a message's fields 1 and 2, when they have a length


def encode_examples(batch: pa.RecordBatch) -> pa.BinaryArray:
    """`[rows]` serialized examples of a batch whose columns are lists of int64, float32, string or binary."""
    pieces: list[pa.Array] = []
    for name in sorted(batch.schema.names):
        pieces += _entry(name, batch.column(name))
    features = pc.binary_join_element_wise(*pieces, b"")
    sizes = _sizes(features)
    return pc.binary_join_element_wise(_by_size(sizes, lambda size: _FIRST + _varint(size)), features, b"")


def _entry(name: str, column: pa.ListArray) -> tuple[pa.Array, pa.Array]:
    """Map entry of a feature: `[rows]` headers and the `[rows]` values after them."""
    kind, values = column.type.value_type, column.flatten()
    rows = column.offsets.to_numpy() - column.offsets[0].as_py()
    if pa.types.is_int64(kind):
        tag, packed, (data, ends) = _INT64_LIST, True, _varints(values.to_numpy())
    elif pa.types.is_float32(kind):
        floats = values.to_numpy()
        tag, packed, data, ends = (
            _FLOAT_LIST,
            True,
            np.ascontiguousarray(floats).view(np.uint8),
            4 * np.arange(len(floats) + 1),
        )
    else:
        strings = values.cast(pa.binary())
        headers = _by_size(_sizes(strings), lambda size: _FIRST + _varint(size))
        joined = pc.binary_join_element_wise(headers, strings, b"")
        tag, packed, data, ends = _BYTES_LIST, False, joined.buffers()[2] or b"", _offsets(joined)
    offsets = ends[rows]
    of_rows = pa.BinaryArray.from_buffers(
        pa.binary(), len(column), [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data)]
    )
    key = _FIRST + _varint(len(name.encode())) + name.encode() + _SECOND

    def header(size: int) -> bytes:
        before = (_FIRST + _varint(size) if size else b"") if packed else b""
        feature = tag + _varint(len(before) + size) + before
        entry = key + _varint(len(feature) + size) + feature
        return _FIRST + _varint(len(entry) + size) + entry

    return _by_size(np.diff(offsets), header), of_rows


def _by_size(sizes: np.ndarray, header: Callable[[int], bytes]) -> pa.Array:
    """Cached `header(size)` of every size that occurs."""
    distinct, index = np.unique(sizes, return_inverse=True)
    return pa.array([header(int(size)) for size in distinct], pa.binary()).take(pa.array(index))


def _varints(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Protobuf varints of int64 values, concatenated, and their offsets."""
    rest = values.view(np.uint64)
    sizes = np.ones(len(rest), np.int64)
    for bits in range(7, 64, 7):
        longer = rest >= np.uint64(1 << bits)
        if not longer.any():
            break
        sizes += longer
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    data = np.empty(offsets[-1], np.uint8)
    for place in range(sizes.max(initial=0)):
        has = sizes > place
        here = (rest[has] >> np.uint64(7 * place)) & np.uint64(0x7F)
        data[offsets[:-1][has] + place] = here | (np.uint64(0x80) * (sizes[has] > place + 1))
    return data, offsets


def _varint(value: int) -> bytes:
    """Protobuf varint of one non-negative value."""
    low, rest = value & 0x7F, value >> 7
    return bytes([0x80 | low]) + _varint(rest) if rest else bytes([low])


def _sizes(values: pa.BinaryArray) -> np.ndarray:
    return np.diff(_offsets(values))


def _offsets(values: pa.BinaryArray) -> np.ndarray:
    """`[values + 1]` offsets of the values in the data buffer."""
    return np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1].astype(
        np.int64
    )
