"""SQL for BigQuery against the import: DuckDB runs it, translated, on the same events."""

import json
from collections import Counter

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot
from sqlglot import exp

from pipelines.sources import import_logs
from pipelines.sources.ga4.sql import print_sql
from tests.pipelines.sources.generated import write_ga4
from tests.pipelines.sources.imported import read_table
from tests.pipelines.sources.test_ga4 import SAMPLE, needs_sample
from usr_tf import cli
from usr_tf.errors import InputError

TABLES = ("impressions", "actions", "items")
INPUT = "bigquery:p.d.events_*"


def run(script, events):
    """Rows of each table that the script makes of a Parquet file."""
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'; CREATE SCHEMA logs")
    database.execute(f"CREATE VIEW exported AS SELECT * FROM read_parquet('{events}')")
    for statement in sqlglot.parse(script, read="bigquery", error_level=sqlglot.ErrorLevel.RAISE):
        if isinstance(statement, exp.Create):
            database.execute(statement.transform(_in_duckdb).sql(dialect="duckdb"))
    return {table: database.sql(f"SELECT * FROM logs.{table}").to_arrow_table().to_pylist() for table in TABLES}


def _in_duckdb(node):
    if isinstance(node, exp.Table) and node.catalog == "p":
        table = exp.table_("exported") if node.db == "d" else exp.table_(node.name, db=node.db)
        return exp.alias_(table, node.alias) if node.alias else table
    return node


def comparable(rows):
    return sorted(json.dumps({name: row[name] for name in sorted(row) if row[name] not in (None, "")}) for row in rows)


def assert_same(events, folder, **options):
    import_logs("ga4", [str(events)], folder / "logs", progress=False, options=options)
    found = run(print_sql("ga4", [INPUT], "p.logs", options), events)
    for table in TABLES:
        assert comparable(found[table]) == comparable(read_table(folder / "logs", table))
    return found


def test_the_sql_makes_the_tables_of_the_import(tmp_path):
    lines = [line for path in write_ga4(tmp_path / "in").iterdir() for line in path.read_text().splitlines()]
    events = [json.loads(line) for line in lines]
    empty = dict.fromkeys(("string_value", "int_value", "float_value", "double_value"))
    for event in events:
        event["event_timestamp"] = int(event["event_timestamp"])
        event["event_params"] = [{**param, "value": empty | param["value"]} for param in event["event_params"]]
        event["items"] = [
            dict.fromkeys(("item_category3", "item_category4", "item_category5"))
            | item
            | {"quantity": 1 if item["quantity"] else None}
            for item in event["items"]
        ]
    layout = pa.Table.from_pylist(events).schema
    items = layout.field("items").type.value_type
    texts = [pa.field(field.name, pa.string() if pa.types.is_null(field.type) else field.type) for field in items]
    layout = layout.set(layout.get_field_index("items"), pa.field("items", pa.list_(pa.struct(texts))))
    values = pa.struct(
        {
            "string_value": pa.string(),
            "int_value": pa.string(),
            "float_value": pa.float64(),
            "double_value": pa.float64(),
        }
    )
    params = pa.list_(pa.struct({"key": pa.string(), "value": values}))
    layout = layout.set(layout.get_field_index("event_params"), pa.field("event_params", params))
    pq.write_table(pa.Table.from_pylist(events, layout), tmp_path / "events")
    found = assert_same(tmp_path / "events", tmp_path)
    assert all(len(rows) >= 30 for rows in found.values())
    assert len({row["query"] for row in found["impressions"]}) == 3


@needs_sample
def test_the_sql_makes_the_tables_of_the_import_of_the_public_sample(tmp_path):
    found = assert_same(
        SAMPLE,
        tmp_path,
        shown=["view_item"],
        actions={"view_item": "click"},
        several=["extra", "first"],
        lists={"page:/store.html": "home", "page:*": "category"},
    )
    counts = Counter(row["scenario"] for row in found["impressions"])
    assert counts == {"home": 1_235, "category": 12_761}
    assert Counter(row["action"] for row in found["actions"]) == {"click": 1_336, "cart": 305, "purchase": 1_769}
    assert sum(row["request_id"] is not None for row in found["actions"]) == 502
    positions = [row["position"] for row in found["impressions"]]
    assert (min(positions), max(positions)) == (2, 12)


def test_the_command_prints_the_sql_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["import", "--source=ga4", "--print_sql", f"--input={INPUT}", "--out=p.logs"]
    assert cli.main([*arguments, "--list", "it's [a-c]?.*=search", "--timezone=Asia/Tokyo"]) == 0
    script = capsys.readouterr().out
    assert "REGEXP_CONTAINS(list_id, '(?is)^it\\'s\\\\ [a-c].\\\\..*$')" in script
    assert "AT TIME ZONE 'Asia/Tokyo'" in script
    assert '-- scenarios: ["search"]' in script
    assert list(tmp_path.iterdir()) == []
    statements = [each for each in sqlglot.parse(script, read="bigquery") if isinstance(each, exp.Create)]
    assert [each.this.sql("bigquery") for each in statements if each.args.get("replace")] == [
        f"`p.logs.{table}`" for table in TABLES
    ]


@pytest.mark.parametrize(
    ("source", "name", "out", "found"),
    [
        ("ga360", INPUT, "p.logs", "--print_sql: found --source ga360, expected --source ga4"),
        ("ga4", "events.json", "p.logs", "--input: found 'events.json', expected bigquery:PROJECT"),
        ("ga4", "bigquery:p.d.events_*_x", "p.logs", "a pattern whose only \\* is its last character"),
        ("ga4", INPUT, "logs", "--out: found 'logs', expected PROJECT.DATASET"),
    ],
)
def test_what_no_sql_can_be_made_of(source, name, out, found):
    with pytest.raises(InputError, match=found):
        print_sql(source, [name], out, {})
