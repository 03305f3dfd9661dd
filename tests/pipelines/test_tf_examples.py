import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.transform.tf_examples import encode_examples

COLUMNS = {
    "ids": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "Ångström": (pa.float32(), st.floats(width=32, allow_nan=False)),
    "words": (pa.string(), st.text(st.characters(exclude_categories=["Cs"]))),
    "raw": (pa.binary(), st.binary(max_size=300)),
}
ROWS = st.lists(st.fixed_dictionaries({name: st.lists(value, max_size=4) for name, (_, value) in COLUMNS.items()}))


def batch_of(rows):
    schema = pa.schema({name: pa.list_(kind) for name, (kind, _) in COLUMNS.items()})
    return pa.RecordBatch.from_pylist(rows, schema=schema)


def values_of(example, name):
    feature = example.features.feature[name]
    return list(getattr(feature, feature.WhichOneof("kind")).value)


@settings(max_examples=60)
@given(ROWS)
def test_a_row_comes_back_as_it_was(rows):
    encoded = encode_examples(batch_of(rows)).to_pylist()
    assert len(encoded) == len(rows)
    for row, serialized in zip(rows, encoded, strict=True):
        example = tf.train.Example.FromString(serialized)
        assert set(example.features.feature) == set(COLUMNS)
        for name, values in row.items():
            expected = [value.encode() if isinstance(value, str) else value for value in values]
            assert values_of(example, name) == expected


def test_an_example_is_these_bytes():
    """By the wire format: field and length, innermost last. 300 takes two bytes of seven bits: 0xAC 0x02."""
    batch = pa.RecordBatch.from_pylist(
        [{"b": [1, 300], "a": ["hi"]}], pa.schema({"b": pa.list_(pa.int64()), "a": pa.list_(pa.string())})
    )
    a = b"\x0a\x0b" + b"\x0a\x01a" + b"\x12\x06" + b"\x0a\x04" + b"\x0a\x02hi"
    b = b"\x0a\x0c" + b"\x0a\x01b" + b"\x12\x07" + b"\x1a\x05" + b"\x0a\x03" + b"\x01\xac\x02"
    assert encode_examples(batch).to_pylist() == [b"\x0a" + bytes([len(a + b)]) + a + b]


def test_a_slice_of_a_batch_is_its_rows():
    rows = [{"ids": list(range(n)), "Ångström": [n / 2], "words": ["é"] * n, "raw": []} for n in range(9)]
    assert encode_examples(batch_of(rows).slice(3, 4)).to_pylist() == encode_examples(batch_of(rows)).to_pylist()[3:7]


@pytest.mark.parametrize("bits", [7, 14, 21, 28, 35, 42, 49, 56, 63])
def test_numbers_on_both_sides_of_a_longer_varint(bits):
    numbers = [(1 << bits) - 1, -1] + ([1 << bits] if bits < 63 else [])
    row = {"ids": numbers, "Ångström": [], "words": [], "raw": []}
    assert values_of(tf.train.Example.FromString(encode_examples(batch_of([row]))[0].as_py()), "ids") == numbers


def test_long_values_have_long_lengths():
    row = {"ids": list(range(40_000)), "Ångström": np.zeros(5000).tolist(), "words": ["x" * 70_000], "raw": [b""]}
    example = tf.train.Example.FromString(encode_examples(batch_of([row]))[0].as_py())
    assert values_of(example, "ids") == row["ids"]
    assert values_of(example, "Ångström") == row["Ångström"]
    assert values_of(example, "words") == [b"x" * 70_000]
    assert values_of(example, "raw") == [b""]
