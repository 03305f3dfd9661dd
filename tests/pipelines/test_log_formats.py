"""Files of log tables: formats, compressions, names, folders and partitions, and what is refused."""

import bz2
import gzip
import json
import os

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pipelines.logs.checks import check_table
from pipelines.logs.files import MAX_LINE_BYTES
from pipelines.logs.locations import find_files, match_files
from pipelines.logs.tables import describe_place, partition_values, read_file
from usr_tf.errors import InputError
from usr_tf.schema import parse_schema

SCHEMA = parse_schema("""
scenarios: [search]
tasks: [{name: ctr, action: click}]
columns: {sku: item_id, when: timestamp}
features:
  item_id: {group: item, type: categorical}
  day: {group: item, type: categorical}
  price: {group: item, type: numeric}
  tags: {group: item, type: categorical_list}
""")
ITEMS = [
    {"item_id": "a", "day": "mon", "price": 1.5, "tags": ["x", "y"]},
    {"item_id": "b", "day": "", "price": None, "tags": None},
    {"item_id": 'ü\n"', "day": "tue", "price": 2.0, "tags": []},
]
LINES = "".join(json.dumps(item) + "\n" for item in ITEMS).encode()
COMPRESS = {".gz": gzip.compress, ".zst": zstandard.compress, ".bz2": bz2.compress}


def read(*paths, schema=SCHEMA):
    """Sound rows of the files of `items`, without places, and reasons of rejected ones by place."""
    check_table(schema, "items", [str(path) for path in paths])
    rows, rejected = [], {}
    for number, path in enumerate(paths):
        for batch, wrong in read_file(str(path), number, schema, "items"):
            rows += [{name: row[name] for name in ITEMS[0]} for row in batch.to_pylist()]
            rejected |= {describe_place(row["place"], [str(p) for p in paths]): row["reason"] for row in wrong}
    return rows, rejected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("items.jsonl", LINES),
        ("items-2.jsonl.zst", COMPRESS[".zst"](LINES[:50]) + COMPRESS[".zst"](LINES[50:])),
        ("items-3.ndjson.gz", COMPRESS[".gz"](LINES)),
        ("items-4.JSON.bz2", COMPRESS[".bz2"](LINES)),
        ("items-5.json", LINES),
        ("items.jsonl", COMPRESS[".gz"](LINES)),  # by its first bytes
        ("items.jsonl", COMPRESS[".zst"](LINES)),
        ("items.jsonl.gz", LINES),  # as some downloads leave it
        ("items.jsonl", json.dumps(ITEMS).encode()),
        ("items.json", b"\xef\xbb\xbf" + json.dumps(ITEMS, indent=2, ensure_ascii=False).encode()),
        ("items.json.gz", COMPRESS[".gz"](json.dumps(ITEMS, indent=1).encode())),
        ("items.json", "".join(json.dumps(item, indent=4) + "\n" for item in ITEMS).encode()),
        ("items.json", ",\n".join(json.dumps(item) for item in ITEMS).encode().join([b"[\n", b"\n]\n"])),
        ("items.json", "\n".join(json.dumps([item]) for item in ITEMS).encode()),  # an array a line
        ("items.json", LINES.replace(b'"price": ', b'"price":\n')),
        ("items.jsonl", b"\n  " + LINES.replace(b"\n", b" \n\n")),
    ],
)
def test_json_is_read_in_every_shape_and_compression(tmp_path, monkeypatch, name, content):
    for size in (1 << 20, 3):
        monkeypatch.setattr("pipelines.logs.formats.json._PIECE_BYTES", size)
        (tmp_path / name).write_bytes(content)
        paths = find_files(str(tmp_path), "items")
        assert read(*paths) == (ITEMS, {})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"item_id": "a"}', "the end of the file after 1 objects"),
        ('[{"item_id": "a"} {"item_id": "b"}]', "no comma after 1 objects"),
        ('[{"item_id": "a"}, {"item_id": ]', "no whole JSON after 1 objects"),
        ('[{"item_id": "a"}]\n]', "no whole JSON after 1 objects"),
        ('{\n"item_id": "a"\n}\n{\n"item_id":\n', "no whole JSON after 1 objects"),
    ],
)
def test_broken_json_documents_are_refused_with_how_many_came_before(tmp_path, text, found):
    path = tmp_path / "items.json"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"items\.json: found {found}, expected JSON"):
        list(read_file(str(path), 0, SCHEMA, "items"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("items.jsonl", LINES.decode().encode("utf-16"), "found text in UTF-16"),
        ("items.csv", "item_id,day".encode("utf-16-le"), "found bytes that are no text"),
        ("items.jsonl.gz", gzip.compress(gzip.compress(LINES)), "found gzip bytes, compressed twice"),
        ("items.json", b"PK\x03\x04", "found a zip archive"),
        ("items.csv", b"PAR1\x15\x04", "found a Parquet file"),
        ("items.jsonl", b"items\0\0\0ustar", "found bytes that are no text"),
        ("items.avro", LINES, "found no Avro file .its first bytes are b'{\"it'"),
        ("items.jsonl", b"{'item_id': 'a'}\n" * 2, ":1: found {'item_id': 'a'} .broken_json., none of 2 rows is sound"),
        ("items.jsonl", b"[1]\n", ":1: found .*not_an_object.*expected one JSON object a row"),
        (
            "items.csv",
            b"item_id,day,price,tags\na\nb\n",
            ":2: found a .wrong_number_of_fields.*expected as many fields as the head",
        ),
        ("items.jsonl", b" \n\n", "found no rows"),
    ],
)
def test_a_file_that_holds_no_rows_is_refused_by_what_it_holds(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / name)


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("damage", ["cut", "other", "empty"])
def test_a_broken_compressed_file_is_refused(tmp_path, suffix, damage):
    whole = COMPRESS[suffix](np.random.default_rng(0).bytes(1_500_000).hex().encode() + b"\n")
    path = tmp_path / f"items.jsonl{suffix}"
    path.write_bytes({"cut": whole[:-9], "other": b"\x00" + whole, "empty": b""}[damage])
    with pytest.raises(InputError, match=rf"items\.jsonl{suffix}: found .*, expected a whole (gzip|zstd|bzip2) file"):
        list(read_file(str(path), 0, SCHEMA, "items"))


def test_a_long_line_is_rejected_and_the_others_kept(tmp_path):
    path = tmp_path / "items.jsonl"
    long = b'{"item_id": "' + b"x" * (2 * MAX_LINE_BYTES) + b'"}\n'
    path.write_bytes(LINES + long + LINES + long[:-1])
    rows, rejected = read(path)
    assert rows == ITEMS * 2
    assert rejected == {"items.jsonl:4": "line_too_long", "items.jsonl:8": "line_too_long"}


@pytest.mark.parametrize(("name", "delimiter"), [("items.csv", ","), ("items.tsv.gz", "\t"), ("items.csv.zst", ";")])
def test_csv_takes_types_from_the_schema(tmp_path, name, delimiter):
    rows = [
        ["item_id", "day", "unread", "price", "tags"],
        ["a", "mon", "", "1.5", "x|y"],
        ["b", "", "3", "", ""],
        ['"ü\n"""', "tue", "", "2", "[]"],
        ["c", "cut"],
        ["d", "wed", "", "cheap", "x"],
    ]
    content = "\r\n".join(delimiter.join(row) for row in rows).encode()
    (tmp_path / name).write_bytes(COMPRESS.get("." + name.rpartition(".")[2], bytes)(content))
    rows, rejected = read(tmp_path / name)
    assert rows == ITEMS
    assert rejected == {f"{name}:5": "wrong_number_of_fields", f"{name}:6": "wrong_type_price"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"item_id,day,day\na,b,c\n", "column 'day': found it twice in the header"),
        (
            b"item_id,day,price,tags\n\xff,,,\n",
            "items.csv:2: column 'item_id': found \ufffd,,, .broken_text_item_id., none of 1",
        ),
        (b"item_id,day,price\na,b,1\n", "column 'tags': found only day, item_id, price"),
        (b"item_id,day,price,tags\n", "found no rows, expected at least one row of items"),
        (b"item_id,day,price,tags", "found no rows, expected at least one row of items"),
        (b"", "found no rows, expected at least one row of items"),
    ],
)
def test_csv_that_cannot_be_read_is_refused(tmp_path, content, message):
    (tmp_path / "items.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"items\.csv(: )?{message}" if "after" in message else message):
        read(tmp_path / "items.csv")


@pytest.mark.parametrize(
    "content",
    [
        b'\n\n"item_id" , day,price, tags \n00123,a,1,x\n',
        b"item_id\rday\rprice\rtags".replace(b"\r", b",") + b"\r00123,a,1,x\r",
        b"\xef\xbb\xbfitem_id,day,price,tags,,,other,other\r\n00123,a,TRUE,x,,,1,2\r\n",
        "item_id\tday\tprice\ttags\tähem\n00123\ta\t1\tx\té\n".encode(),
    ],
)
def test_csv_headers_of_every_shape(tmp_path, content):
    (tmp_path / "items.csv").write_bytes(content)
    assert read(tmp_path / "items.csv") == ([{"item_id": "00123", "day": "a", "price": 1.0, "tags": ["x"]}], {})


def test_csv_rows_that_are_not_utf8_are_set_aside(tmp_path, monkeypatch):
    for size in (1 << 20, 1):
        monkeypatch.setattr("pipelines.logs.formats.csv._PIECE_BYTES", size)
        rows = ["item_id,day,price,tags", "é,€,1,x", "a,caf\udce9,1,x", "b,mon,1,x,\udce9", "c,mon,1,\udce9", "😀,,,"]
        (tmp_path / "items.csv").write_bytes("\n".join(rows).encode("utf-8", "surrogateescape"))
        sound, rejected = read(tmp_path / "items.csv")
        assert [row["item_id"] for row in sound] == ["é", "😀"]
        assert rejected == {
            "items.csv:3": "broken_text_day",
            "items.csv:4": "wrong_number_of_fields",
            "items.csv:5": "broken_text_tags",
        }


def write_avro(path, rows, codec="deflate"):
    fields = [
        {"name": "item_id", "type": "string"},
        {"name": "day", "type": ["null", "string"]},
        {"name": "price", "type": ["null", "double"]},
        {"name": "tags", "type": ["null", {"type": "array", "items": "string"}]},
        {"name": "when", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
    ]
    with path.open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "Item", "fields": fields}, rows, codec)


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2"])
def test_avro_is_read_and_a_broken_file_refused(tmp_path, codec):
    path = tmp_path / "items.avro"
    write_avro(path, [{**item, "when": 1_760_000_000_123_456} for item in ITEMS], codec)
    assert read(path) == (ITEMS, {})
    [(batch, _)] = read_file(str(path), 0, SCHEMA, "items")
    assert batch.column("timestamp").to_pylist() == [1_760_000_000_123] * 3
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"items\.avro: found no Avro file"):
        read(path)


def test_an_avro_union_of_several_types_is_read_as_texts(tmp_path):
    several = ["null", "string", "long", {"type": "array", "items": "string"}]
    fields = [{"name": name, "type": several} for name in (*ITEMS[0], "unread")]
    rows = [
        {"item_id": 7, "day": "mon", "price": 2, "tags": ["x"], "unread": 1},
        {"item_id": "a", "day": None, "price": "1.5", "tags": None, "unread": ["y"]},
    ]
    with (tmp_path / "items.avro").open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "Item", "fields": fields}, rows)
    assert read(tmp_path / "items.avro") == (
        [
            {"item_id": "7", "day": "mon", "price": 2.0, "tags": ["x"]},
            {"item_id": "a", "day": None, "price": 1.5, "tags": None},
        ],
        {},
    )


def test_only_the_columns_of_the_schema_are_read_of_parquet(tmp_path):
    columns = {name: pa.array([row[name] for row in ITEMS]) for name in ITEMS[0]}
    vectors = pa.array([[1, 2], None, None], pa.list_(pa.int8(), 2))  # which Arrow writes and cannot read
    arrays = [*columns.values(), vectors, vectors]
    pq.write_table(pa.table(arrays, names=[*columns, "unread", "unread"]), tmp_path / "items.parquet")
    assert read(tmp_path / "items.parquet") == (ITEMS, {})
    pq.write_table(pa.table([*columns.values(), columns["day"]], names=[*columns, "day"]), tmp_path / "items.parquet")
    with pytest.raises(InputError, match="column 'day': found it twice, expected each column once"):
        read(tmp_path / "items.parquet")


def test_a_column_may_have_another_name_in_the_logs(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"sku": "a", "day": "mon", "price": 1, "tags": [], "when": 7}\n')
    (tmp_path / "b.jsonl").write_text(  # which has both, in turn
        '{"sku": "a", "item_id": null, "day": "mon", "price": 1, "tags": [], "when": 7}\n'
        '{"item_id": "b", "day": "mon", "price": 1, "tags": [], "timestamp": 8}\n'
    )
    pq.write_table(pa.table({"sku": [3], "day": ["mon"], "price": [1.0], "tags": [["x"]]}), tmp_path / "c.parquet")
    rows, _ = read(tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "c.parquet")
    assert [row["item_id"] for row in rows] == ["a", "a", "b", "3"]
    [(batch, _)] = read_file(str(tmp_path / "b.jsonl"), 0, SCHEMA, "items")
    assert batch.column("timestamp").to_pylist() == [7, 8]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("{ts: moment}", "columns.ts: found 'moment', expected one of"),
        ("{item_id: user_id}", "columns.item_id: found a column that is read by its own name"),
    ],
)
def test_a_renaming_that_fits_nothing_is_refused(columns, message):
    text = SCHEMA.to_yaml().replace("columns:\n  sku: item_id\n  when: timestamp", f"columns: {columns}")
    with pytest.raises(InputError, match=message):
        parse_schema(text)


def test_folders_of_partitions_give_columns(tmp_path):
    table = tmp_path / "logs" / "items"
    for day, name in (("mon", "part-00000-5f.c000.snappy.parquet"), ("t%20ue", "part-00003.parquet")):
        folder = table / f"day={day}" / "year=2026"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"item_id": [day], "price": [1.0], "tags": [["x"]]}), folder / name)
        (folder / f".{name}.crc").write_bytes(b"x")
    null = table / "day=__HIVE_DEFAULT_PARTITION__"
    null.mkdir()
    (null / "part-0.json").write_text('{"item_id": "n", "price": 2, "tags": null}\n')
    (table / "_SUCCESS").touch()
    paths = find_files(str(tmp_path / "logs"), "items")
    assert match_files(str(table), "items") == match_files(f"{table}/", "items") == paths
    rows, rejected = read(*paths)
    assert [(row["item_id"], row["day"]) for row in rows] == [("n", None), ("mon", "mon"), ("t%20ue", "t ue")]
    assert not rejected
    assert partition_values("/x=1/a/y=2/z=3.parquet") == {"x": "1", "y": "2"}
    (table / "_temporary" / "0").mkdir(parents=True)
    (table / "_temporary" / "0" / "part-1.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="_temporary: found the remains of an unfinished job"):
        find_files(str(tmp_path / "logs"), "items")


def test_files_of_a_table_are_found_in_order_whatever_their_format(tmp_path):
    folder = tmp_path / "logs [of*May]?"
    folder.mkdir()
    names = ["items-00001-of-00002.jsonl.gz", "items-00000-of-00002.jsonl.gz", "items.parquet", "items-late.csv"]
    for name in [*names, "itemsets.csv", "users.jsonl", "actions-00001-of-00001.jsonl", ".items.crc"]:
        (folder / name).write_bytes(b"")
    assert [path.rpartition("/")[2] for path in find_files(str(folder), "items")] == sorted(names)
    assert len(find_files(str(folder), "actions")) == 1  # numbered from 1
    with pytest.raises(InputError, match=r"found no impressions file, expected impressions\.jsonl"):
        find_files(str(folder), "impressions")
    (folder / "users.jsonl").unlink()
    assert find_files(str(folder), "users") == []


@pytest.mark.parametrize("name", ["items.parquet", "items-2026", "items"])
def test_a_folder_named_as_a_file_is_read(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "_SUCCESS").touch()
    pq.write_table(pa.table({"item_id": ["a"]}), tmp_path / name / "part-0.parquet")
    assert find_files(str(tmp_path), "items") == [f"{tmp_path}/{name}/part-0.parquet"]


@pytest.mark.parametrize("name", ["items.jsonl", "items-2.jsonl", "items/part-1.jsonl"])
def test_a_link_that_leads_nowhere_and_a_pipe_are_refused(tmp_path, name):
    (tmp_path / "items-1.jsonl").write_bytes(LINES)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(InputError, match=f"{name}: found a link that leads nowhere, expected a file"):
        find_files(str(tmp_path), "items")
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: found no readable file .a directory, a pipe or a device"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([f"items-{n:05}-of-00004.jsonl.gz" for n in (0, 1, 3)], r"items-\*-of-00004: found no shard 00002"),
        ([f"items-{n:05}-of-00002.csv" for n in (1,)], r"items-\*-of-00002: found no shard 00000"),
        (["items/p-00000-of-00002.parquet"], r"items/p-\*-of-00002: found no shard 00001"),
        (["items.jsonl", "items.xlsx"], r"items\.xlsx: found another kind of file for items"),
        (["items.jsonl", "items-2.jsonl.lz4"], r"items-2\.jsonl\.lz4: found another kind of file"),
        (["items.jsonl", "items.jsonl.partial"], "another kind of file"),
        (["items.jsonl", "items_2.jsonl"], r"items_2\.jsonl: found a file that may be of items"),
        (["items.jsonl", "items.jsonl.gz"], r"items\.jsonl\.gz: found items\.jsonl beside it"),
        (["items/a.parquet", "items_old/a.parquet"], "items_old/a.parquet: found a file that may be of items"),
        (["items/a.parquet", "items/notes.txt"], "items/notes.txt: found another kind of file"),
    ],
)
def test_files_that_would_be_lost_are_refused(tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=message):
        find_files(str(tmp_path), "items")
