"""Atomic file writes and strict JSON."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usr_tf.files import strict_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@given(VALUES)
def test_json_is_strict_and_holds_what_json_can(value):
    def expected(part):
        if isinstance(part, dict):
            return {key: expected(each) for key, each in part.items()}
        if isinstance(part, list):
            return list(map(expected, part))
        return None if isinstance(part, float) and not math.isfinite(part) else part

    assert json.loads(strict_json(value), parse_constant=refuse) == expected(value)


def test_numpy_and_tuples_and_the_options_of_json():
    document = {"ré": (np.float64("nan"), np.float64(0.5), -math.inf)}
    assert strict_json(document, ensure_ascii=False) == '{"ré": [null, 0.5, null]}'
    assert strict_json({"b": math.nan, "a": 1}, sort_keys=True, indent=1) == '{\n "a": 1,\n "b": null\n}'
    with pytest.raises(TypeError):
        strict_json({"a": object()})
    circular = []
    circular.append(circular)
    with pytest.raises((ValueError, RecursionError)):
        strict_json(circular)
