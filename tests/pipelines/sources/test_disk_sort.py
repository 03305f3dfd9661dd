"""External sort against Python's sort."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.disk_sort import DiskSort
from usr_tf.errors import InputError

ROWS = st.lists(st.tuples(st.text(max_size=3), st.integers(-(2**63), 2**63 - 1), st.one_of(st.none(), st.binary())))


@given(ROWS, ROWS)
def test_rows_come_in_the_order_of_their_keys_and_equal_ones_as_they_were_added(first, second):
    rows = DiskSort(columns=3, keys=2)
    rows.add(first)
    rows.add(iter(second))
    in_order = sorted(first + second, key=lambda row: (row[0].encode(), row[1]))
    assert list(rows) == in_order


def test_a_full_disk_is_told():
    rows = DiskSort(columns=1, keys=1)
    rows._database.execute("PRAGMA max_page_count = 9")
    with pytest.raises(InputError, match=r"TMPDIR: found no room to sort in \(database or disk is full\)"):
        rows.add((number,) for number in range(10**5))
