"""Slices of a split by features of the schema, with raw values as their names."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from usr_tf.data import Data, Split
from usr_tf.data.parsing import Features
from usr_tf.data.raw_values import RawValues
from usr_tf.errors import InputError
from usr_tf.metrics import feature_slices as slices
from usr_tf.metrics.feature_slices import FEATURE
from usr_tf.schema import Schema


def check_features(names: Sequence[str], schema: Schema) -> None:
    """Refuses names of no feature.

    Raises:
      InputError: a name that the schema lacks.
    """
    for name in names:
        if name not in schema.features:
            raise InputError("--slice", repr(name), f"one of {', '.join(schema.features)}")


def slice_columns(features: Features, names: Sequence[str], schema: Schema) -> dict[str, np.ndarray]:
    """What each feature divides a batch of rows by, `[B]`: an id, a scaled number, or how many ids a list holds."""
    columns = {name: features[name].numpy() for name in names}
    lists = schema.list_features
    return {name: np.count_nonzero(values, axis=1) if name in lists else values for name, values in columns.items()}


def feature_slices(
    columns: Mapping[str, np.ndarray], data: Data, split: Split, raw: RawValues
) -> dict[str, pd.Categorical]:
    """Slices of a whole split, by the columns of `slice_columns`."""
    return {FEATURE + name: _slice(name, values, data, split, raw) for name, values in columns.items()}


def _slice(name: str, values: np.ndarray, data: Data, split: Split, raw: RawValues) -> pd.Categorical:
    if data.schema.features[name].is_list:
        return slices.length_slice(values)
    if data.schema.features[name].kind.input == "number":
        return _number_slice(name, values, data, split, raw)
    return slices.value_slice(values, lambda number: raw.word(name, number) or slices.UNKNOWN)


def _number_slice(name: str, values: np.ndarray, data: Data, split: Split, raw: RawValues) -> pd.Categorical:
    """Rows without a number hold 0, the mean: `stats.json` tells how many of those that hold it have none."""
    none = data.rows_without(name, split)
    missing = values == 0 if none else np.zeros(len(values), bool)
    missing_name = slices.MISSING
    if np.count_nonzero(missing) > none:
        missing_name = f"{slices.MISSING} or {slices.number_text(raw.numbers(name, np.zeros(1, np.float32))[0])}"
    return slices.number_slice(values, missing, lambda scaled: raw.numbers(name, scaled), missing_name)
