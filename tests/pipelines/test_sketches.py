"""Sketches: exact while small, within their error bounds beyond, equal for every order and partition."""

import math
import pickle
from fractions import Fraction
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.quality import sketches as sketch
from pipelines.quality.sketches import SIZE, Distinct, Moments, Sample

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def hashes_of(*numbers):
    return np.array(numbers, np.uint64)


def numbers_of(*numbers):
    return np.array(numbers, np.float32)


def test_distinct_values_are_counted_exactly_while_there_are_few():
    assert Distinct().count == 0
    assert Distinct.of(hashes_of(7, 7, 2**64 - 1)).count == 2
    assert (Distinct.of(hashes_of(7, 1)) + Distinct.of(hashes_of(7, 2**63))).count == 3


def test_the_estimate_is_what_its_formula_says(monkeypatch):
    monkeypatch.setattr(sketch, "SIZE", 3)
    counted = Distinct.of(hashes_of(2**63, 2**62 - 1, 2**60, 2**61, 2**61))
    assert counted.hashes.tolist() == [2**60, 2**61, 2**62 - 1]
    assert counted.count == 8  # (3 - 1) / (1 / 4)


def test_estimates_of_many_values_are_unbiased_and_as_far_off_as_they_say():
    draw = np.random.default_rng(0)
    off = [Distinct.of(draw.integers(0, 2**64, 20_000, np.uint64)).count / 20_000 - 1 for _ in range(200)]
    error = 1 / math.sqrt(SIZE - 2)
    assert abs(np.mean(off)) < 3 * error / math.sqrt(200)
    assert 0.8 * error < np.std(off) < 1.1 * error  # a little below: a tenth of the values is kept


def test_quantiles_of_few_rows_are_values_of_theirs():
    sample = Sample.of(hashes_of(4, 1, 3, 2) << np.uint64(32), numbers_of(40, -10, 30, 20))
    assert sorted(sample.values.tolist()) == [-10, 20, 30, 40]
    assert sample.quantiles((0.0, 0.25, 0.5, 0.51, 1.0)).tolist() == [-10, -10, 20, 30, 40]


def test_quantiles_of_many_rows_are_within_their_error():
    draw = np.random.default_rng(0)
    ranks = np.arange(100_000, dtype=np.float32) / 100_000
    medians = [
        Sample.of(draw.integers(0, 2**64, 100_000, np.uint64), ranks).quantiles((0.5,))[0] - 0.5 for _ in range(50)
    ]
    error = 0.5 / math.sqrt(SIZE)
    assert abs(np.mean(medians)) < 3 * error / math.sqrt(50)
    assert 0.7 * error < np.std(medians) < 1.3 * error


def test_rows_of_equal_keys_and_values_all_count():
    sample = Sample.of(hashes_of(5, 5), numbers_of(1, 1)) + Sample.of(hashes_of(5), numbers_of(9))
    assert sample.values.tolist() == [1, 1, 9]


@given(st.lists(FLOATS, min_size=1, max_size=30))
def test_moments_are_those_of_exact_arithmetic(numbers):
    moments = Moments.of(numbers_of(*numbers))
    exact = [Fraction(number) for number in numbers]
    mean = sum(exact) / len(exact)
    variance = sum(number**2 for number in exact) / len(exact) - mean**2
    assert moments.mean == float(mean)
    assert moments.std == math.sqrt(variance)
    assert (moments.minimum, moments.maximum) == (min(numbers), max(numbers))


def test_moments_of_nothing_have_no_mean():
    with pytest.raises(ZeroDivisionError):
        _ = (Moments() + Moments.of(numbers_of())).mean


@settings(max_examples=60)
@given(st.data(), st.lists(st.tuples(st.integers(0, 2**64 - 1), FLOATS), max_size=40), st.integers(1, 12))
def test_any_order_and_partition_gives_the_same_sketches(data, rows, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sketch, "SIZE", size)
        whole = _sketches(rows)
        shuffled = data.draw(st.permutations(rows))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=5)))
        parts = [shuffled[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
        sums = [reduce(add, sketches) for sketches in zip(*map(_sketches, parts), strict=True)]
    assert sums[0].hashes.tolist() == whole[0].hashes.tolist()
    assert sums[1].keys.tolist() == whole[1].keys.tolist()
    assert sums[2] == whole[2]


def test_a_full_sketch_takes_16_kilobytes_to_another_worker():
    many = np.arange(100_000, dtype=np.uint64)
    for full in (Distinct.of(many), Sample.of(many, many.astype(np.float32))):
        assert len(pickle.dumps(full)) < 8 * SIZE + 400


def _sketches(rows):
    hashes = np.array([row[0] for row in rows], np.uint64)
    numbers = np.array([row[1] for row in rows], np.float32) + np.float32(0)  # one zero, as quality.py has it
    return Distinct.of(hashes), Sample.of(hashes, numbers), Moments.of(numbers)
