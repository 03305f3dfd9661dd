"""Keys of users, requests and queries, as dense codes and as process-independent hashes."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from usr_tf.schema import Schema


def codes_of(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dense codes `[N]` of keys, and the distinct keys in order of appearance."""
    return pd.factorize(keys, use_na_sentinel=False)


def hash_keys(keys: np.ndarray) -> np.ndarray:
    """uint64 hashes `[N]` of keys, equal for a text and its UTF-8. Hashes stay as they are."""
    if keys.dtype == np.uint64:
        return keys
    codes, distinct = codes_of(keys)
    if distinct.dtype.kind in "US":  # which pandas does not hash
        distinct = distinct.astype(object)
    return pd.util.hash_array(distinct, categorize=False)[codes]


def query_keys(row: Mapping[str, np.ndarray], schema: Schema) -> np.ndarray:
    """uint64 query keys `[B]` from the ids of the query features; 0 without any id.

    Args:
      row: the query's features with ids among others, `[B]` or `[B, n]` each, 0 pads.
    """
    names = [name for name, feature in schema.features_of("query").items() if feature.has_ids]
    keys = np.zeros(len(next(iter(row.values()))), np.uint64)
    places = mix(np.arange(len(names), dtype=np.uint64))
    for place, name in zip(places, names, strict=True):
        for ids in row[name].reshape(len(keys), -1).T.astype(np.uint64):
            keys = np.where(ids == 0, keys, mix(keys ^ mix(ids ^ place)) | np.uint64(1))
    return keys


def mix(bits: np.ndarray) -> np.ndarray:
    """Bijective mixer of uint64: the finaliser of SplitMix64 (Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        bits = bits + np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
