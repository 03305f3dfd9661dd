"""Hashes of strings and of rows: the same in every process and run."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa

_ODD = np.uint64(0x9E3779B97F4A7C15)


def hash_strings(values: pa.Array) -> np.ndarray:
    """`[values]` uint64 SipHash of strings. As bytes they need no decoding, sound UTF-8 or not."""
    return pd.util.hash_array(values.cast(pa.binary()).to_numpy(zero_copy_only=False), categorize=False)


def hash_rows(batch: pa.RecordBatch, names: Iterable[str]) -> np.ndarray:
    """`[rows]` uint64 hash of columns that are lists of one string each."""
    hashed = np.zeros(batch.num_rows, np.uint64)
    for name in names:
        hashed = hashed * _ODD + hash_strings(batch.column(name).flatten())
    return hashed
