"""Counter keys: columns of strings and their 64-bit hash.

The strings go along once each, for the snapshot and the state.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.beam.hashing import hash_strings
from pipelines.transform.arrow_strings import map_strings
from usr_tf.schema import Counter, Schema
from usr_tf.tokens import counter_keys

KEY = "key"
_ODD = np.uint64(0x9E3779B97F4A7C15)


def key_schema(counter: Counter) -> pa.Schema:
    """Arrow schema of keys: each hash with its strings."""
    return pa.schema({KEY: pa.uint64(), **dict.fromkeys(counter.key_columns, pa.string())})


class KeyColumn:
    """One column of keys.

    Attributes:
      strings: `[rows]`.
      hashes: `[rows]` uint64; any where there is no value.
      valid: `[rows]` bool: whether there is a value, neither null nor "".
    """

    def __init__(self, strings: pa.Array):
        codes = strings.dictionary_encode()
        of_string = hash_strings(codes.dictionary) if len(codes.dictionary) else np.zeros(1, np.uint64)
        self.strings = strings
        self.hashes = of_string[pc.fill_null(codes.indices, 0).to_numpy()]
        self.valid = pc.fill_null(pc.not_equal(strings, ""), False).to_numpy(zero_copy_only=False)


def hash_keys(columns: Sequence[KeyColumn]) -> np.ndarray:
    """`[rows]` uint64: the hash of each row's key."""
    hashed = np.zeros(len(columns[0].hashes), np.uint64)
    for column in columns:
        hashed = hashed * _ODD + column.hashes
    return hashed


def distinct_keys(
    hashed: np.ndarray, rows: np.ndarray, columns: Sequence[KeyColumn], counter: Counter
) -> pa.RecordBatch:
    """The keys of some rows, each once, by rising hash: `key_schema`.

    Args:
      hashed: `[rows]` uint64, of these rows.
      rows: `[rows]`, their indices in `columns`.
    """
    distinct, first = np.unique(hashed, return_index=True)
    strings = [column.strings.take(pa.array(rows[first])) for column in columns]
    return pa.RecordBatch.from_arrays([pa.array(distinct), *strings], schema=key_schema(counter))


def strings_of(hashed: np.ndarray, keys: pa.Table, counter: Counter) -> list[pa.Array]:
    """The strings of each hash, by `Counter.key_columns`, from keys that hold each at least once."""
    place = pc.index_in(pa.array(hashed), keys.column(KEY).combine_chunks())
    return [keys.column(name).combine_chunks().take(place) for name in counter.key_columns]


def normalized_keys(strings: pa.Array, name: str, schema: Schema) -> pa.Array:
    """Raw strings of a feature as counters compare them, by the function of the served look-up."""
    return map_strings(lambda distinct: counter_keys(distinct, name, schema), strings)
