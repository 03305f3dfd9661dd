import itertools

import numpy as np
import pytest

from pipelines.join.split import MINUTE, CountMinutes, boundaries, count_minutes
from usr_tf.schema import Split

NEVER = np.iinfo(np.int64).max


def cut(timestamps, valid, test):
    return boundaries(count_minutes(np.array(timestamps, np.int64)), Split(valid=valid, test=test))


def test_the_boundaries_are_the_ends_of_the_minutes_in_which_the_shares_are_reached():
    ten = [minute * MINUTE + 7 for minute in range(10)]
    assert cut(ten, 0.2, 0.2) == (6 * MINUTE, 8 * MINUTE)
    assert cut(ten, 0.25, 0.2) == (6 * MINUTE, 8 * MINUTE)  # train holds at least its 5.5 rows
    assert cut(ten, 0.1, 0.0) == (9 * MINUTE, NEVER)
    assert cut(ten, 0.0, 0.3) == (7 * MINUTE, 7 * MINUTE)
    assert cut(ten, 0.0, 0.0) == (NEVER, NEVER)


def test_a_minute_is_never_divided():
    assert cut([0] * 8 + [MINUTE] * 2, 0.4, 0.4) == (MINUTE, MINUTE)
    assert cut([MINUTE - 1] * 5, 0.2, 0.2) == (MINUTE, MINUTE)  # all train
    assert cut([], 0.2, 0.2) == (NEVER, NEVER)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.7])
def test_shares_that_no_float_holds_exactly_take_no_row_too_many(share):
    thousand = [minute * MINUTE for minute in range(1000)]
    assert cut(thousand, 0.0, share)[1] == round(1000 * (1 - share)) * MINUTE


def test_counts_add_up_in_any_order():
    parts = [[0, 1, MINUTE], [5 * MINUTE, 0], [], [MINUTE + 1]]
    combine = CountMinutes()
    for order in itertools.permutations(parts):
        counts = combine.create_accumulator()
        for part in order:
            counts = combine.add_input(counts, count_minutes(np.array(part, np.int64)))
        minutes, rows = combine.extract_output(combine.merge_accumulators([combine.create_accumulator(), counts]))
        assert (minutes.tolist(), rows.tolist()) == ([0, 1, 5], [3, 2, 1])
