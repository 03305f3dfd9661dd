"""Reader of raw logs: valid rows, rejected rows with reasons, refused files."""

import gzip
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.logs import tables as logs
from pipelines.logs.checks import check_table
from pipelines.logs.columns import PLACE, columns_of, layout_of, table_schema
from pipelines.logs.rows import convert_row_by_row
from pipelines.logs.tables import describe_place, read_file
from usr_tf.errors import InputError
from usr_tf.schema import parse_schema

SCHEMA = parse_schema("""
scenarios: [search, recommendation]
tasks: [{name: ctr, action: click}]
history: {actions: [click, cart]}
features:
  user_id: {group: user, type: categorical}
  age_band: {group: user, type: categorical}
  item_id: {group: item, type: categorical, in_history: true}
  price: {group: item, type: numeric}
  words: {group: item, type: categorical_list}
  query: {group: query, type: text}
  place: {group: context, type: categorical}
""")
IMPRESSION = {"request_id": "r", "scenario": "search", "user_id": "u", "item_id": "i", "timestamp": 5}
ACTION = {"user_id": "u", "item_id": "i", "timestamp": 5, "action": "click"}
ITEM = {"item_id": "i", "price": 1.5, "words": ["x"]}
WHOLE = {"impressions": IMPRESSION, "actions": ACTION, "items": ITEM, "users": {"user_id": "u"}}


def read(path, table, schema=SCHEMA):
    """All sound rows of a file without their nulls, and all rejected ones."""
    sound, rejected = [], []
    for batch, aside in read_file(str(path), 0, schema, table):
        assert batch.schema == table_schema(schema, table)
        batch.validate(full=True)
        sound += [{name: value for name, value in row.items() if value is not None} for row in batch.to_pylist()]
        rejected += aside
    return sound, rejected


def write(folder, table, *lines, end="\n", suffix=".jsonl"):
    """A file of rows, or of lines given as text."""
    path = folder / f"{table}{suffix}"
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + end for line in lines)
    data = text.encode("utf-8")
    path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    return path


def write_parquet(folder, table, columns):
    path = folder / f"{table}.parquet"
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("table", "change", "reason"),
    [
        *(
            (table, {name: value}, f"missing_{name}")
            for table, row in WHOLE.items()
            for name in row
            if name not in ("price", "words")
            for value in (None, "")
        ),
        ("impressions", {"request_id": ["r"]}, "wrong_type_request_id"),
        ("impressions", {"request_id": 1.5}, "wrong_type_request_id"),
        ("impressions", {"scenario": "feed"}, "unknown_scenario"),
        ("impressions", {"timestamp": -1}, "negative_timestamp"),
        ("impressions", {"timestamp": 253_402_300_800_000}, "timestamp_beyond_year_9999"),
        ("impressions", {"timestamp": "soon"}, "wrong_type_timestamp"),
        ("impressions", {"timestamp": "2024-01-01"}, "wrong_type_timestamp"),
        ("impressions", {"timestamp": 5.5}, "wrong_type_timestamp"),
        ("impressions", {"timestamp": True}, "wrong_type_timestamp"),
        ("impressions", {"timestamp": 1e30}, "wrong_type_timestamp"),
        ("impressions", {"timestamp": 2**63}, "wrong_type_timestamp"),
        ("impressions", {"timestamp": math.nan}, "missing_timestamp"),
        ("impressions", {"position": 0}, "position_below_1"),
        ("impressions", {"position": "first"}, "wrong_type_position"),
        ("impressions", {"oracle_ctr": "high"}, "wrong_type_oracle_ctr"),
        ("impressions", {"query": {"text": "tea"}}, "wrong_type_query"),
        ("impressions", {"query": "\ud83d"}, "broken_text_query"),
        ("actions", {"scenario": "feed"}, "unknown_scenario"),
        ("actions", {"action": "view"}, "action_not_in_schema"),
        ("actions", {"timestamp": -1}, "negative_timestamp"),
        ("items", {"price": "1,5"}, "wrong_type_price"),
        ("items", {"price": [1.5]}, "wrong_type_price"),
        ("items", {"price": 10**400}, "wrong_type_price"),
        ("items", {"words": "x"}, "wrong_type_words"),
        ("items", {"words": [1.5]}, "wrong_type_words"),
        ("items", {"words": ["\udc00"]}, "broken_text_words"),
        ("users", {"age_band": [1]}, "wrong_type_age_band"),
    ],
)
def test_a_bad_row_is_set_aside_with_its_reason_and_the_others_are_kept(tmp_path, table, change, reason):
    whole, bad = WHOLE[table], {**WHOLE[table], **change}
    path = write(tmp_path, table, whole, bad, whole)
    sound, rejected = read(path, table)
    assert sound == [{**whole, PLACE: 1}, {**whole, PLACE: 3}]
    [row] = rejected
    assert (row["place"], row["reason"]) == (2, reason)
    assert repr(row["row"]) == repr(bad)


def test_a_moment_beyond_all_times_is_set_aside_and_one_before_1970_is_kept(tmp_path):
    schema = parse_schema("""
scenarios: [search]
tasks: [{name: ctr, action: click}]
features: {age: {group: item, type: numeric, since: listed_at}}
""")
    moments = [-(10**12), 5, None, 10**15, "1999-01-01", "soon"]
    path = write(tmp_path, "items", *({"item_id": str(place), "listed_at": at} for place, at in enumerate(moments)))
    sound, rejected = read(path, "items", schema)
    assert [row.get("listed_at") for row in sound] == [*moments[:3], 915_148_800_000]
    assert [row["reason"] for row in rejected] == ["listed_at_beyond_year_9999", "wrong_type_listed_at"]
    with pytest.raises(
        InputError, match=r"column .listed_at.: found only item_id .*, expected it, for features.age of"
    ):
        check_table(schema, "items", [str(write(tmp_path, "items", {"item_id": "a"}))])
    seconds = write(tmp_path, "items", {"item_id": "a", "listed_at": 1_700_000_000})
    with pytest.raises(InputError, match=r"column .listed_at.: found seconds since 1970 .* expected milliseconds: "):
        check_table(schema, "items", [str(seconds)])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"item_id": "i"', "broken_json"),
        ('{"item_id": "i"} {"item_id": "j"}', "broken_json"),
        ('{"item_id": 5, "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "broken_json"),
        ('["i"]', "not_an_object"),
        ("3", "not_an_object"),
        ("null", "not_an_object"),
    ],
)
def test_a_line_that_is_no_row_is_set_aside_with_its_file_and_line(tmp_path, line, reason):
    path = write(tmp_path, "items", ITEM, "", line, ITEM)
    sound, [rejected] = read(path, "items")
    assert [row[PLACE] for row in sound] == [1, 4]
    assert rejected["reason"] == reason
    assert describe_place(rejected["place"], [str(path)]) == "items.jsonl:3"
    assert len(str(rejected["row"])) <= 1_000


def test_bytes_that_are_not_utf8_are_set_aside(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_bytes(b'{"item_id": "a"}\n{"item_id": "b\xff"}\n')
    sound, rejected = read(path, "items")
    assert [row["item_id"] for row in sound] == ["a"]
    assert [(row["place"], row["reason"]) for row in rejected] == [(2, "broken_json")]


def test_blank_lines_carriage_returns_and_a_missing_last_newline_lose_nothing(tmp_path):
    expected = [{**ITEM, PLACE: 1}, {**ITEM, PLACE: 2}]
    for number, text in enumerate(("{0}\n{0}\n", "{0}\r\n{0}\r\n", "{0}\n{0}", "{0}\r\n{0}", "\ufeff{0}\n{0}\n")):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = write(folder, "items", text.format(json.dumps(ITEM)), end="")
        assert read(path, "items") == (expected, []), text
    path = write(tmp_path, "items", "", ITEM, "  ", "\t\r", ITEM, "")
    assert read(path, "items") == ([{**ITEM, PLACE: 2}, {**ITEM, PLACE: 5}], [])
    assert read(write(tmp_path, "items", "", "", end="\n"), "items") == ([], [])
    assert read(write(tmp_path, "items"), "items") == ([], [])


def test_whole_numbers_and_booleans_pass_for_strings_and_whole_floats_for_integers(tmp_path):
    path = write(
        tmp_path,
        "impressions",
        {
            **IMPRESSION,
            "user_id": 7,
            "item_id": 2**70,
            "place": True,
            "timestamp": 5.0,
            "position": 2.0,
            "query": False,
        },
    )
    [row], rejected = read(path, "impressions")
    assert rejected == []
    assert row["user_id"] == "7"
    assert row["item_id"] == str(2**70)
    assert (row["place"], row["query"]) == ("true", "false")
    assert (row["timestamp"], row["position"]) == (5, 2)
    [item], _ = read(write(tmp_path, "items", {"item_id": 3, "price": 2, "words": [1, None, "", True]}), "items")
    assert item == {"item_id": "3", "price": 2.0, "words": ["1", "", "true"], PLACE: 1}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "null"])
def test_a_number_that_is_none_is_missing(tmp_path, number):
    path = write(tmp_path, "items", f'{{"item_id": "i", "price": {number}}}', ITEM)
    assert read(path, "items") == ([{"item_id": "i", PLACE: 1}, {**ITEM, PLACE: 2}], [])


def test_a_block_whose_ids_are_all_whole_numbers_needs_no_closer_look(tmp_path, monkeypatch):
    rows = [{**IMPRESSION, "item_id": number, "query": "2024-01-01" if number == 2 else None} for number in range(3)]
    path = write(tmp_path, "impressions", *rows, {**IMPRESSION, "item_id": -7, "query": "tea"})
    monkeypatch.setattr(logs, "convert_row_by_row", None)
    sound, rejected = read(path, "impressions")
    assert [row["item_id"] for row in sound] == ["0", "1", "2", "-7"]
    assert [row.get("query") for row in sound] == [None, None, "2024-01-01", "tea"]
    assert not rejected


@pytest.mark.parametrize("query", ["2024-01-01", "2024-01-01T10:00:00"])
def test_numbers_for_ids_let_no_text_become_a_date(tmp_path, query):
    sound, _ = read(write(tmp_path, "impressions", {**IMPRESSION, "item_id": 1, "query": query}), "impressions")
    assert (sound[0]["item_id"], sound[0]["query"]) == ("1", query)


def test_an_empty_request_or_scenario_of_an_action_is_none(tmp_path):
    empty = {**ACTION, "request_id": "", "scenario": ""}
    expected = [{**ACTION, PLACE: 1}]
    assert read(write(tmp_path, "actions", empty), "actions") == (expected, [])
    sound, _ = read(write(tmp_path, "actions", empty, "3"), "actions")  # row by row
    assert sound == expected


TEXT = st.text(st.characters(codec="utf-8"), max_size=4)
KEY = st.text(st.characters(codec="utf-8"), min_size=1, max_size=3)
NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
MOMENT = st.integers(4_102_444_800, 253_402_300_799_999)  # seconds would be refused
ROWS = {
    "impressions": st.fixed_dictionaries(
        {"request_id": KEY, "scenario": st.sampled_from(SCHEMA.scenarios), "user_id": KEY, "item_id": KEY}
        | {"timestamp": MOMENT},
        optional={"position": st.none() | st.integers(1, 9), "oracle_ctr": NUMBER, "query": st.none() | TEXT}
        | {"place": st.none() | TEXT, "unread": st.none() | st.integers() | st.lists(TEXT, max_size=2)},
    ),
    "actions": st.fixed_dictionaries(
        {"user_id": KEY, "item_id": KEY, "timestamp": MOMENT, "action": st.sampled_from(["click", "cart"])},
        optional={"request_id": st.none() | TEXT, "scenario": st.sampled_from([None, "", *SCHEMA.scenarios])},
    ),
    "items": st.fixed_dictionaries(
        {"item_id": KEY}, optional={"price": NUMBER, "words": st.none() | st.lists(TEXT, max_size=3)}
    ),
    "users": st.fixed_dictionaries({"user_id": KEY}, optional={"age_band": st.none() | TEXT}),
}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(ROWS)), st.data())
def test_whole_blocks_single_rows_and_parquet_give_the_same_table(tmp_path, table, data):
    rows = data.draw(st.lists(ROWS[table], min_size=1, max_size=5))
    text = "".join(json.dumps(row, ensure_ascii=data.draw(st.booleans())) + "\n" for row in rows)
    block = text.encode("utf-8")
    places, layout = np.arange(1, len(rows) + 1), layout_of(SCHEMA, table)
    fast = logs._convert_lines(block, places, layout, {})
    slow, rejected = convert_row_by_row(block[:-1].split(b"\n"), places.tolist(), layout, {})
    assert fast is not None  # clean rows never take the slow way
    assert rejected == []
    assert fast.equals(slow)
    known = columns_of(SCHEMA, table)
    columns = {
        name: pa.array([row.get(name) for row in rows], column.type)
        for name, column in known.items()
        if any(name in row for row in rows)
    }
    [(parquet, rejected)] = read_file(str(write_parquet(tmp_path, table, columns)), 0, SCHEMA, table)
    assert rejected == []
    assert parquet.equals(fast)


def test_a_parquet_file_without_our_columns_has_its_rows_set_aside(tmp_path):
    sound, rejected = read(write_parquet(tmp_path, "items", {"sku": [1, 2]}), "items")
    assert sound == []
    assert [row["reason"] for row in rejected] == ["missing_item_id"] * 2


def test_parquet_is_read_in_blocks_with_places_that_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.logs.formats.parquet._BLOCK_ROWS", 4)
    ids = [f"i{number}" if number != 6 else "" for number in range(10)]
    blocks = list(read_file(str(write_parquet(tmp_path, "items", {"item_id": ids})), 3, SCHEMA, "items"))
    assert [batch.num_rows for batch, _ in blocks] == [4, 3, 2]
    places = [place for batch, _ in blocks for place in batch.column(PLACE).to_pylist()]
    assert places == [(3 << 40) + line for line in range(1, 11) if line != 7]
    assert [row["place"] for _, aside in blocks for row in aside] == [(3 << 40) + 7]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
@pytest.mark.parametrize("size", [1, 7, 64, 333])
def test_places_are_right_across_blocks_of_any_size(tmp_path, monkeypatch, suffix, size):
    monkeypatch.setattr("pipelines.logs.files._BLOCK_BYTES", size)
    lines = [{"item_id": f"i{number}"} for number in range(40)]
    lines[7] = lines[8] = ""
    lines[20] = "{"
    path = write(tmp_path, "items", *lines, suffix=suffix)
    sound, rejected = read(path, "items")
    assert sound == [{"item_id": f"i{n}", PLACE: n + 1} for n in range(40) if n not in (7, 8, 20)]
    assert [(row["place"], row["reason"]) for row in rejected] == [(21, "broken_json")]


def test_a_gzip_file_cut_off_is_refused_with_its_name_and_lines(tmp_path):
    rows = [{"item_id": f"{number * 7919 % 10_007:x}"} for number in range(20_000)]
    path = write(tmp_path, "items", *rows, suffix=".jsonl.gz")
    whole = path.read_bytes()
    for cut in (len(whole) // 2, len(whole) - 4):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError) as refused:
            read(path, "items")
        place, _, rest = str(refused.value).partition(": found a broken gzip stream after ")
        assert place == str(path)
        lines = int(rest.split()[0].replace(",", ""))
        assert (lines == 20_000) if cut > len(whole) - 10 else (5_000 < lines < 15_000)


@pytest.mark.parametrize("damage", ["empty", "no gzip", "bit"])
def test_other_broken_gzip_files_are_refused(tmp_path, damage):
    path = write(tmp_path, "items", *[ITEM] * 100, suffix=".jsonl.gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # of the checksum
    path.write_bytes({"empty": b"", "no gzip": b"\x00\x01\x02\x03", "bit": bytes(data)}[damage])
    with pytest.raises(InputError, match=r"items\.jsonl\.gz: found .*, expected a whole gzip file"):
        read(path, "items")


@pytest.mark.parametrize("damage", ["empty", "cut", "page", "text"])
def test_broken_parquet_files_are_refused(tmp_path, damage):
    path = write_parquet(tmp_path, "items", {"item_id": [f"i{number * 7919 % 10_007}" for number in range(20_000)]})
    data = bytearray(path.read_bytes())
    data[1_000:3_000] = b"\xaa" * 2_000
    path.write_bytes({"empty": b"", "cut": path.read_bytes()[:-9], "page": bytes(data), "text": b"x"}[damage])
    if damage == "text":
        offsets, letters = pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff")
        write_parquet(tmp_path, "items", {"item_id": pa.StringArray.from_buffers(1, offsets, letters)})
    with pytest.raises(InputError, match=r"items\.parquet: found "):
        read(path, "items")


def test_the_missing_column_of_a_feature_is_refused(tmp_path):
    path = write(tmp_path, "items", {"item_id": "a", "price": 1}, {"item_id": "b", "sku": 1})
    with pytest.raises(InputError) as refused:
        check_table(SCHEMA, "items", [str(path)])
    assert str(refused.value) == (
        f"{path}: column 'words': found only item_id, price, sku in its first 10,000 rows, "
        "expected it, for features.words of the schema"
    )
    path = write_parquet(tmp_path, "items", {"item_id": ["a"], "words": [["x"]]})
    with pytest.raises(InputError, match=r"items\.parquet: column 'price': found only item_id, words"):
        check_table(SCHEMA, "items", [str(path)])


def test_a_missing_key_column_is_refused(tmp_path):
    path = write(tmp_path, "actions", {"user_id": "u", "item_id": "a", "action": "click"})
    with pytest.raises(InputError, match=r"column .timestamp.: found only .*, expected this required column"):
        check_table(SCHEMA, "actions", [str(path)])


def test_a_column_that_a_few_rows_have_is_enough(tmp_path):
    check_table(SCHEMA, "items", [str(write(tmp_path, "items", "{", "3", {"item_id": "a"}, ITEM))])


def test_an_empty_first_file_is_passed_over_and_an_empty_table_refused(tmp_path):
    empty = write(tmp_path, "items")
    full = write_parquet(tmp_path, "items", {"item_id": ["a"], "price": [1.0], "words": [["x"]]})
    check_table(SCHEMA, "items", [str(empty), str(full)])
    with pytest.raises(InputError, match=r"items\.jsonl: found no rows, expected at least one row of items"):
        check_table(SCHEMA, "items", [str(empty)])


def test_users_may_be_absent_unless_a_feature_is_theirs():
    with pytest.raises(InputError, match=r"features\.age_band: found no users file among the logs"):
        check_table(SCHEMA, "users", [])
    features = {name: feature for name, feature in SCHEMA.features.items() if name != "age_band"}
    check_table(SCHEMA.model_copy(update={"features": features}), "users", [])
