"""Types and units of log columns: what is taken for what, whole columns and single rows alike, and what is refused."""

import datetime
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.logs import tables
from pipelines.logs.checks import check_table
from pipelines.logs.columns import layout_of
from pipelines.logs.formats import Block
from pipelines.logs.rows import convert_row_by_row
from pipelines.logs.tables import read_file
from usr_tf.errors import InputError
from usr_tf.log_timestamps import parse_moment, unit_of
from usr_tf.schema import parse_schema

TEXT = """
scenarios: [search]
tasks: [{name: ctr, action: click}]
features:
  item_id: {group: item, type: categorical}
  price: {group: item, type: numeric}
  tags: {group: item, type: categorical_list}
  size: {group: item, type: vector, width: 2}
"""
SCHEMA = parse_schema(TEXT)
UTC = datetime.UTC
NOON = datetime.datetime(2025, 10, 9, 12, tzinfo=UTC)
NOON_MS = 1_760_011_200_000
DAY = datetime.date(2025, 10, 9)
DAY_MS = 1_759_968_000_000
ROW = {
    "impressions": {"request_id": "r", "scenario": "search", "user_id": "u", "item_id": "i", "timestamp": NOON_MS},
    "items": {"item_id": "i", "price": 1.5, "tags": ["a"], "size": [1.0, 2.0]},
}


def repeated(*lists):
    """Lists as `bq extract` writes a repeated field: structs around the list and around each element."""
    kind = pa.struct([("list", pa.list_(pa.struct([("element", pa.string())])))])
    return pa.array(
        [None if each is None else {"list": [{"element": element} for element in each]} for each in lists], kind
    )


def write(folder, table, column, values, schema=SCHEMA):
    """A Parquet file whose rows are sound but for `column`."""
    rows = [ROW[table]] * len(values)
    arrays = {name: pa.array([row[name] for row in rows]) for name in ROW[table]}
    path = folder / f"{table}.parquet"
    pq.write_table(pa.table({**arrays, column: values}), path)
    return path


def read(path, table, schema=SCHEMA):
    batches, rejected = zip(*read_file(str(path), 0, schema, table), strict=True)
    return pa.Table.from_batches(batches), [row["reason"] for rows in rejected for row in rows]


EXACT = [
    ("item_id", pa.array([1, 2], pa.int8()), ["1", "2"]),
    ("item_id", pa.array([2**64 - 1, 0], pa.uint64()), ["18446744073709551615", "0"]),
    ("item_id", pa.array([7.0, 8.0]), ["7", "8"]),  # as pandas has ids with gaps
    ("item_id", pa.array([Decimal(10**30), Decimal(7)], pa.decimal128(38, 0)), [str(10**30), "7"]),
    ("item_id", pa.array([Decimal("7.00"), Decimal("8.00")], pa.decimal128(9, 2)), ["7", "8"]),
    ("item_id", pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
    ("item_id", pa.array(["a", "é"], pa.large_string()), ["a", "é"]),
    ("item_id", pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
    ("item_id", pa.array([b"a", "é".encode()], pa.binary()), ["a", "é"]),
    ("item_id", pa.array([b"ab", b"cd"], pa.binary(2)), ["ab", "cd"]),
    ("item_id", pa.array([True, False]), ["true", "false"]),
    ("item_id", pa.array([DAY, DAY]), ["2025-10-09"] * 2),
    ("price", pa.array([1.25, 2], pa.float32()), [1.25, 2.0]),
    ("price", pa.array([1.25, 2], pa.float16()), [1.25, 2.0]),
    ("price", pa.array([Decimal("1.25"), None]), [1.25, None]),
    ("price", pa.array([1, None], pa.uint8()), [1.0, None]),
    ("price", pa.array([True, None]), [1.0, None]),
    ("price", pa.array(["1.25", ""]), [1.25, None]),
    ("price", pa.array(["+2", "NaN"]), [2.0, None]),
    ("price", pa.nulls(2), [None, None]),
    ("tags", pa.array([[1], None]), [["1"], None]),
    ("tags", pa.array([["a"], []], pa.large_list(pa.large_string())), [["a"], []]),
    ("tags", pa.array([["a"], ["b"]], pa.list_(pa.string(), 1)), [["a"], ["b"]]),
    ("tags", pa.array([["a"], ["b"]], pa.list_(pa.dictionary(pa.int32(), pa.string()))), [["a"], ["b"]]),
    ("tags", repeated(["a", "b"], []), [["a", "b"], []]),
    ("tags", repeated(None, ["c"]), [None, ["c"]]),
    ("tags", pa.array([[{"item": "a"}], []]), [["a"], []]),
    ("tags", pa.array(['["a", 1]', ""]), [["a", "1"], None]),
    ("size", pa.array([[1, 2], None]), [[1.0, 2.0], None]),
    ("size", pa.array([["1", "2"], None]), [[1.0, 2.0], None]),
    ("timestamp", pa.array([NOON, None], pa.timestamp("s", "UTC")), [NOON_MS, None]),
    ("timestamp", pa.array([NOON, None], pa.timestamp("ms")), [NOON_MS, None]),
    ("timestamp", pa.array([NOON, None], pa.timestamp("us", "Asia/Tokyo")), [NOON_MS, None]),
    ("timestamp", pa.array([NOON_MS * 10**6 + 999_999, None], pa.timestamp("ns")), [NOON_MS, None]),
    ("timestamp", pa.array([DAY, None]), [DAY_MS, None]),  # items may be valid from a day on
    ("timestamp", pa.array([str(NOON_MS), "7"]), [NOON_MS, 7]),
    ("timestamp", pa.array([float(NOON_MS), None]), [NOON_MS, None]),
    ("timestamp", pa.array(["2025-10-09T12:00:00Z", "2025-10-09 14:00:00+02:00"]), [NOON_MS, NOON_MS]),
    ("timestamp", pa.array(["2025-10-09 12:00:00.123456 UTC", "2025-10-09T12:00:00Z"]), [NOON_MS + 123, NOON_MS]),
    ("timestamp", pa.array(["2025-10-09T12:00", "2025-10-09"]), [NOON_MS, DAY_MS]),
]


@pytest.mark.parametrize(("column", "values", "wanted"), EXACT, ids=[f"{c}-{v.type}" for c, v, _ in EXACT])
def test_a_column_of_another_type_is_cast_without_loss_whole_or_row_by_row(tmp_path, column, values, wanted):
    path = write(tmp_path, "items", column, values)
    check_table(SCHEMA, "items", [str(path)])
    rows, rejected = read(path, "items")
    assert (rows.column(column).to_pylist(), rejected) == (wanted, [])
    plain = pq.read_table(path)
    bad = pa.Table.from_pylist([{**plain.slice(0, 1).to_pylist()[0], "item_id": None}], plain.schema)
    pq.write_table(pa.concat_tables([plain, bad]), path)  # so that each row is looked at
    rows, rejected = read(path, "items")
    assert (rows.column(column).to_pylist(), rejected) == (wanted, ["missing_item_id"])


REFUSED = [
    ("impressions", "timestamp", pa.array([DAY]), "the type date32", "a moment: a whole number of ms since 1970"),
    ("impressions", "timestamp", pa.array([True]), "the type bool", "a moment"),
    ("impressions", "timestamp", pa.array([datetime.timedelta(1)]), "the type duration", "a moment"),
    (
        "impressions",
        "timestamp",
        pa.array(["soon"]),
        r"soon \(wrong_type_timestamp\), none of 1 rows is sound",
        "a moment",
    ),
    ("impressions", "user_id", pa.array([{"id": "u", "kind": 1}]), "the type struct<id", "a text or a whole number"),
    ("impressions", "user_id", pa.array([1.5]), r"1.5 \(wrong_type_user_id\)", "a text or a whole number"),
    ("impressions", "user_id", pa.array([NOON]), "the type timestamp", "a text or a whole number"),
    ("items", "price", pa.array(["1,5"]), r"1,5 \(wrong_type_price\)", "a number"),
    ("items", "price", pa.array([[1.5]]), "the type list<", "a number"),
    ("items", "tags", pa.array([1]), "the type int64", "a list of texts or whole numbers"),
    ("items", "tags", pa.array([[{"a": 1, "b": 2}]]), "the type list<", "a list of texts"),
    ("items", "tags", pa.array(["a b"]), r"a b \(wrong_type_tags\)", "a list of texts"),
    ("items", "size", pa.array([[1.0]]), r"\[1.0\] \(wrong_width_size\)", "a list of 2 numbers"),
    ("items", "size", pa.array([1.0]), "the type double", "a list of 2 numbers"),
]


@pytest.mark.parametrize(("table", "column", "values", "found", "expected"), REFUSED)
def test_a_column_that_cannot_be_cast_is_refused_before_the_job(tmp_path, table, column, values, found, expected):
    path = write(tmp_path, table, column, values)
    with pytest.raises(InputError, match=f"column '{column}': found {found}.*, expected {expected}"):
        check_table(SCHEMA, table, [str(path)])


@pytest.mark.parametrize("seconds", [1_760_011_200, 946_684_800, 4_102_444_799])
@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_a_unit_is_told_by_its_range_and_refused_or_converted(tmp_path, seconds, unit, per_second):
    moments = pa.array([seconds * per_second, seconds * per_second])
    path = write(tmp_path, "impressions", "timestamp", moments)
    if unit != "ms":
        factor = {"s": "times 1,000", "us": "divided by 1,000", "ns": "divided by 1,000,000"}[unit]
        with pytest.raises(InputError, match=f"column 'timestamp'.*the number {factor}, or timestamp_unit: {unit}"):
            check_table(SCHEMA, "impressions", [str(path)])
        with pytest.raises(InputError, match=f"the number {factor}"):  # of a file that the checks did not look at
            read(path, "impressions")
    schema = parse_schema(f"{TEXT}\ntimestamp_unit: {unit}")
    check_table(schema, "impressions", [str(path)])
    rows, rejected = read(path, "impressions", schema)
    assert (rows.column("timestamp").to_pylist(), rejected) == ([seconds * 1_000] * 2, [])


def test_moments_that_are_no_numbers_have_no_unit(tmp_path):
    schema = parse_schema(f"{TEXT}\ntimestamp_unit: s")
    for values in (pa.array([NOON]), pa.array(["2025-10-09T12:00:00Z"])):
        rows, _ = read(write(tmp_path, "impressions", "timestamp", values), "impressions", schema)
        assert rows.column("timestamp").to_pylist() == [NOON_MS]
    rows, _ = read(
        write(tmp_path, "impressions", "timestamp", pa.array([NOON_MS / 1000 + 0.25])), "impressions", schema
    )
    assert rows.column("timestamp").to_pylist() == [NOON_MS + 250]


def test_numbers_of_no_unit_pass():
    assert unit_of([]) is None
    assert unit_of([0, 1_760_011_200]) is None  # a simulated clock
    assert unit_of([1_760_011_200, 1_760_011_200_000]) is None


@given(
    st.datetimes(datetime.datetime(1970, 1, 2), datetime.datetime(9999, 12, 30)), st.sampled_from(["Z", "+09:00", ""])
)
def test_iso_texts_are_moments(moment, zone):
    offset = datetime.timedelta(hours=9 if zone == "+09:00" else 0)
    wanted = (moment - offset - datetime.datetime(1970, 1, 1)) // datetime.timedelta(milliseconds=1)
    assert (
        parse_moment(f"{moment:%Y-%m-%dT%H:%M:%S.%f}{zone}".replace(f"{moment:%Y}", f"{moment.year:04}", 1), False)
        == wanted
    )


SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["1", "-2.5", "1e3", " 1", "NaN", "inf", "2025-10-09T12:00:00Z", "2025-10-09", "[1]", ""])
)
COLUMNS = st.sampled_from(["item_id", "price", "tags", "size", "timestamp"])


@settings(max_examples=150)
@given(
    COLUMNS, st.lists(SCALAR, min_size=1, max_size=3) | st.lists(st.lists(SCALAR, max_size=2), min_size=1, max_size=3)
)
def test_a_whole_block_gives_what_its_rows_give(column, values):
    rows = [{**ROW["items"], column: value} for value in values]
    try:
        block = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    except UnicodeEncodeError:
        return
    layout, places = layout_of(SCHEMA, "items"), np.arange(1, len(rows) + 1)
    slow, rejected = convert_row_by_row(block[:-1].split(b"\n"), places.tolist(), layout, {})
    fast = tables._convert_lines(block, places, layout, {})
    assert fast is None or (fast.equals(slow) and not rejected)
    scalars = [scalar for value in values for scalar in (value if isinstance(value, list) else [value])]
    if len({type(scalar) for scalar in scalars if scalar is not None}) > 1:  # which Arrow would make one type
        return
    try:
        batch = pa.RecordBatch.from_pylist(rows)
    except (pa.ArrowException, TypeError, OverflowError):
        return
    numbers = Block(batch, range(1, len(rows) + 1))
    found, wrong = tables.convert_block("x", numbers, places, layout, {})
    assert wrong == rejected or [row["reason"] for row in wrong] == [row["reason"] for row in rejected]
    assert found.equals(slow)
