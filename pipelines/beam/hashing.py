"""Process-independent hashes of strings and rows."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa

_ODD = np.uint64(0x9E3779B97F4A7C15)


def hash_strings(values: pa.Array) -> np.ndarray:
    """`[values]` uint64 SipHash of strings, computed on their bytes, so invalid UTF-8 is accepted."""
    return pd.util.hash_array(values.cast(pa.binary()).to_numpy(zero_copy_only=False), categorize=False)


def hash_rows(batch: pa.RecordBatch, names: Iterable[str]) -> np.ndarray:
    """`[rows]` uint64 hash of columns whose lists hold one string each."""
    hashed = np.zeros(batch.num_rows, np.uint64)
    for name in names:
        hashed = hashed * _ODD + hash_strings(batch.column(name).flatten())
    return hashed
