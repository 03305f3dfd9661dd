"""Exports in the shapes that other tools give them: read as the export itself is, or refused in one line."""

import datetime
import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources import import_logs
from tests.pipelines.sources.generated import write_diginetica, write_ga4, write_kuaisar
from tests.pipelines.sources.imported import Imported
from usr_tf import cli
from usr_tf.errors import InputError

SESSION = {
    "fullVisitorId": "u",
    "visitStartTime": 1_500_000_000,
    "hits": [
        {
            "hitNumber": 1,
            "time": 0,
            "page": {"pagePath": "/a/b"},
            "eCommerceAction": {"action_type": "0"},
            "product": [
                {"productSKU": "A", "v2ProductName": "a", "productListName": "Category", "isImpression": True},
                {"productSKU": "B", "v2ProductName": "b", "productListName": "Category", "isImpression": True},
            ],
        },
        {
            "hitNumber": 2,
            "time": 900,
            "page": {"pagePath": "/a/c"},
            "eCommerceAction": {"action_type": "3"},
            "product": [{"productSKU": "B", "v2ProductName": "b", "productListName": "(not set)"}],
        },
    ],
}


def events_of(folder):
    lines = [line for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def written(logs):
    return logs.impressions, logs.actions, logs.items


def nested(*names):
    """Repeated fields in groups with these names, as writers of Parquet leave them."""
    outer, *inner = names
    return lambda rows: {outer: [{inner[0]: row} if inner else row for row in rows]}


def key_values(params):
    return {param["key"]: param["value"].get("string_value") or param["value"].get("int_value") for param in params}


def as_moment(text):
    return datetime.datetime.fromtimestamp(int(text) // 1_000_000, datetime.UTC) + datetime.timedelta(
        microseconds=int(text) % 1_000_000
    )


PARQUET = {
    "list.element": {"items": nested("list", "element"), "event_params": nested("list", "element")},
    "list.item": {"items": nested("list", "item"), "event_params": nested("list", "item")},
    "bag.array_element": {"items": nested("bag", "array_element"), "event_params": nested("bag", "array_element")},
    "JSON text": dict.fromkeys(("items", "event_params", "device", "geo", "ecommerce"), json.dumps),
    "map as JSON text": {"event_params": lambda params: json.dumps(key_values(params))},
    "struct": {"event_params": key_values},
    "map": {"event_params": lambda params: list(key_values(params).items())},
    "TIMESTAMP": {"event_timestamp": as_moment},
    "INT64": {"event_timestamp": int},
    "bytes": {"event_name": str.encode, "user_pseudo_id": str.encode, "platform": str.encode},
}


@pytest.mark.parametrize("shape", PARQUET)
def test_ga4_parquet_in_any_shape(tmp_path, shape):
    lines = Imported("ga4", write_ga4(tmp_path / "lines", users=4))
    events = events_of(tmp_path / "lines")
    for event in events:
        event |= {name: change(event[name]) for name, change in PARQUET[shape].items()}
    table = pa.Table.from_pylist(events)
    if shape == "map":
        at = table.schema.get_field_index("event_params")
        params = pa.array([event["event_params"] for event in events], pa.map_(pa.string(), pa.string()))
        table = table.set_column(at, "event_params", params)
    (tmp_path / "table").mkdir()
    pq.write_table(table, tmp_path / "table/events")
    assert written(Imported("ga4", tmp_path / "table")) == written(lines)
    assert len(lines.impressions) > 20


JSON = {
    "array": json.dumps,
    "pretty array": lambda events: json.dumps(events, indent=2, ensure_ascii=False),
    "array of lines": lambda events: "[" + ",\n".join(map(json.dumps, events)) + "]\n",
    "pretty objects": lambda events: "\n".join(json.dumps(event, indent=4) for event in events),
    "JSON text in JSON": lambda events: "\n".join(
        json.dumps(event | {"event_params": json.dumps(event["event_params"])}) for event in events
    ),
    "times as text": lambda events: "\n".join(
        json.dumps(event | {"event_timestamp": str(as_moment(event["event_timestamp"])).replace("+00:00", " UTC")})
        for event in events
    ),
}


@pytest.mark.parametrize("shape", JSON)
def test_ga4_json_in_any_shape(tmp_path, shape):
    lines = Imported("ga4", write_ga4(tmp_path / "lines", users=4))
    (tmp_path / "other").mkdir()
    text = JSON[shape](events_of(tmp_path / "lines")).encode()
    (tmp_path / "other/events.json").write_bytes(gzip.compress(text) if shape == "array" else text)
    (tmp_path / "other/README").write_text("what lies\nbeside\n")  # a stray file
    other = Imported("ga4", tmp_path / "other")
    assert written(other) == written(lines)
    assert other.report["rejected"] == {"no JSON": 2}


def ga360(folder, rows, **options):
    (folder / "in").mkdir(parents=True)
    if options.get("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), folder / "in/sessions")
    else:
        (folder / "in/sessions").write_text(json.dumps(rows, indent=1))
    return Imported("ga360", folder / "in")


def test_ga360_in_any_shape(tmp_path):
    array = ga360(tmp_path / "array", [SESSION])
    assert [row["item_id"] for row in array.impressions] == ["A", "B"]
    assert [(row["action"], row["item_id"], row["timestamp"]) for row in array.actions] == [
        ("cart", "B", 1_500_000_000_900)
    ]
    wrap = nested("list", "item")
    started = datetime.datetime(2017, 7, 14, 2, 40, tzinfo=datetime.UTC)
    hits = [hit | {"product": wrap(hit["product"])} for hit in SESSION["hits"]]
    shapes = [{"hits": json.dumps(SESSION["hits"])}, {"hits": wrap(hits)}, {"visitStartTime": started}]
    for number, shape in enumerate(shapes):
        assert written(ga360(tmp_path / str(number), [SESSION | shape], parquet=True)) == written(array)


def refusal(source, path, out):
    with pytest.raises(InputError) as refused:
        import_logs(source, [str(path)], out, progress=False)
    assert not out.exists()
    assert not list(out.parent.glob(".*.partial"))
    message = str(refused.value)
    assert "\n" not in message
    return message


EVENT = {"event_name": "view_item_list", "event_timestamp": 1_700_000_000_000_000, "user_pseudo_id": "u", "items": []}


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (["event_name,event_timestamp,items", "view_item_list,1,[]", "purchase,2,[]"], "3 of 3 rejected rows: no JSON"),
        ([EVENT | {"event_params": 5}, EVENT | {"event_params": 5}, "{"], "2 of 3 rejected rows: event_params: Input"),
        ([EVENT | {"items": "[{"}], "1 of 1 rejected rows: items: Input should be a valid"),
        ([{"hits": []}], "1 of 1 rejected rows: event_name: Field required"),
        (
            [EVENT | {"event_timestamp": 1_700_000_000_000}],
            "event_timestamp: Input should be microseconds of a time from 2000 to 2099",
        ),
    ],
)
def test_where_all_is_rejected_the_error_tells_why_and_lists_the_rows(tmp_path, monkeypatch, rows, reason):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "in").write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    message = refusal("ga4", tmp_path / "in", tmp_path / "out/logs")
    assert reason in message
    kept = re.fullmatch(rf".*, such as {tmp_path}/in:1; listed in (.*)", message)[1]
    listed = [json.loads(line) for line in Path(kept).read_text().splitlines()]
    assert [row["line"] for row in listed] == list(range(1, len(rows) + 1))
    assert listed[0]["file"] == str(tmp_path / "in")


@pytest.mark.parametrize("source", ["ga4", "ga360"])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "found no rows"),
        (b'[{"a": 1},\n {"a": 2},\n {"a": ', "in: found no whole JSON after 2 objects"),
        (b'[{"a": 1},\n {"a" 2},\n {"a": 3}]', "in: found no whole JSON after 1 objects"),
        (b'[{"a": "caf\xe9"}]', "in: found text that is not UTF-8"),
        (b"PAR1 is no Parquet", "in: found no whole Parquet file"),
        (b"Obj\x01 is no Avro", "in: found no Avro file that can be read"),
        ("\ufeff[]".encode("utf-16"), "in: found text in UTF-16"),
    ],
)
def test_what_is_no_export_is_refused(tmp_path, source, content, found):
    (tmp_path / "in").write_bytes(content)
    assert found in refusal(source, tmp_path / "in", tmp_path / "out/logs")


@pytest.mark.parametrize("source", ["ga4", "ga360"])
def test_broken_text_in_parquet_is_refused_with_its_place(tmp_path, source):
    row = EVENT if source == "ga4" else SESSION
    good = pa.Table.from_pylist([row | {"platform": name, "channelGrouping": name} for name in "abc"])
    broken = pa.array([b"a", b"Caf\xe9", b"c"]).view(pa.string())
    name = "platform" if source == "ga4" else "channelGrouping"
    pq.write_table(good.set_column(good.schema.get_field_index(name), name, broken), tmp_path / "in")
    message = refusal(source, tmp_path / "in", tmp_path / "out/logs")
    assert message == f"{tmp_path / 'in'}: row 2, column '{name}': found text that is not UTF-8, expected UTF-8"
    assert cli.main(["import", f"--source={source}", f"--input={tmp_path / 'in'}", f"--out={tmp_path / 'logs'}"]) == 2


@pytest.mark.parametrize("write", [write_kuaisar, write_diginetica])
@pytest.mark.parametrize("content", [b"", b'[{"user_id": 1}]', b"PAR1\x00\xff", "a,b\n1,2\n".encode("utf-16")])
def test_what_is_no_csv_of_the_source_is_refused(tmp_path, write, content):
    write(tmp_path / "in")
    spoilt = next(
        path for path in sorted((tmp_path / "in").iterdir()) if path.name in ("rec_inter.csv", "train-queries.csv")
    )
    spoilt.write_bytes(content)
    assert str(spoilt) in refusal(write.__name__.removeprefix("write_"), tmp_path / "in", tmp_path / "out/logs")
