import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that
from google.api_core.exceptions import NotFound
from google.cloud.bigquery import SchemaField

from pipelines.beam.blocks import BlockStore, load
from pipelines.logs import bigquery_read
from pipelines.logs.columns import PLACE
from pipelines.logs.inputs import check_tables, find_tables, partitions_for
from pipelines.logs.stage import reader
from pipelines.logs.tables import describe_place
from pipelines.quality import row_counts as stats
from tests.pipelines.tiny import write_table
from usr_tf.errors import InputError


@pytest.fixture
def folder(tmp_path):
    for table in ("impressions", "actions", "items"):
        write_table(tmp_path, table, [{"item_id": "i"}])
    return tmp_path


def test_a_table_named_apart_takes_the_place_of_the_directorys(folder, tmp_path):
    for day in ("01", "02"):
        (tmp_path / f"day={day}").mkdir()
        write_table(tmp_path / f"day={day}", "impressions", [{"item_id": "i"}])
    found = find_tables(str(folder), [f"impressions={tmp_path}/day=*/impressions*.jsonl"])
    assert found["impressions"] == [f"{tmp_path}/day={day}/impressions.jsonl" for day in ("01", "02")]
    assert found["items"] == [f"{folder}/items.jsonl"]
    assert found["users"] == []


def test_every_table_can_be_named_apart(folder):
    tables = [f"{table}={folder}/{table}.jsonl" for table in ("impressions", "actions", "items")]
    assert find_tables(None, tables)["actions"] == [f"{folder}/actions.jsonl"]
    with pytest.raises(InputError, match=r"--logs: found nothing, expected a log directory, or --table items=WHERE"):
        find_tables(None, tables[:2])


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (["clicks=x.jsonl"], "--table: found 'clicks=x.jsonl', expected TABLE=WHERE, TABLE one of impressions"),
        (["items"], "--table: found 'items'"),
        (["items=a.jsonl", "items=b.jsonl"], "--table: found items twice"),
        (["items=nowhere/*.jsonl"], "nowhere/.*: found no file, expected at least one of items"),
        (
            ["items={folder}/notes.txt"],
            "notes.txt: found another kind of file for items, expected one that ends in .jsonl",
        ),
        (["items={folder}/part-*.jsonl"], "found no shard 00001, expected all 2 shards"),
        (["items=bigquery:shop.items"], None),
    ],
)
def test_a_table_that_is_nowhere_is_refused(folder, tables, message):
    (folder / "notes.txt").touch()
    (folder / "part-00000-of-00002.jsonl").touch()
    tables = [table.format(folder=folder) for table in tables]
    if message is None:  # looked at when its columns are
        assert find_tables(str(folder), tables)["items"] == ["bigquery:shop.items"]
        with pytest.raises(InputError, match=r"bigquery:shop.items: found other parts, expected bigquery:PROJECT"):
            partitions_for({"items": ["bigquery:shop.items"]})
    else:
        with pytest.raises(InputError, match=message):
            find_tables(str(folder), tables)


class Table:
    num_bytes = 123

    def __init__(self, **fields):
        self.schema = [SchemaField(name, kind) for name, kind in fields.items()]


@pytest.fixture
def warehouse(monkeypatch):
    """Stands for BigQuery, which cannot be asked here: its tables by name, and the rows that Beam's connector reads."""
    tables, rows, asked = {}, [], {}

    class Client:
        def get_table(self, name):
            if name not in tables:
                raise NotFound(f"no table {name}")
            return tables[name]

    class Read(beam.PTransform):
        Method = bigquery_read.ReadFromBigQuery.Method

        def __init__(self, **arguments):
            super().__init__()
            asked.update(arguments)

        def expand(self, pipeline):
            return pipeline | beam.Create(rows)

    monkeypatch.setattr("google.cloud.bigquery.Client", Client)
    monkeypatch.setattr(bigquery_read, "ReadFromBigQuery", Read)
    return tables, rows, asked


NAME = "bigquery:acme.shop.actions"
COLUMNS = {"user_id": "STRING", "item_id": "STRING", "timestamp": "INTEGER", "action": "STRING"}


def test_bigquery_rows_are_checked_as_those_of_files(warehouse, shop):
    tables, rows, asked = warehouse
    tables["acme.shop.actions"] = Table(**COLUMNS, note="STRING")
    sound = {"user_id": "u", "item_id": "i", "timestamp": 5, "action": "click"}
    rows += [sound, {**sound, "timestamp": None}, {**sound, "item_id": "j"}]

    def sound_rows(batches):
        found = [row for batch in batches for row in batch.to_pylist()]
        assert sorted(row["item_id"] for row in found) == ["i", "j"]
        assert len({row[PLACE] for row in found}) == 2

    def one_rejected(blocks):
        [(table, handle)] = blocks
        [row] = load(handle).to_pylist()
        assert (table, row["reason"]) == ("actions", "missing_timestamp")
        assert describe_place(row["place"], [NAME]) == NAME

    def all_counted(counts):
        assert stats.add_counts(counts) == {
            ("rows", "actions", "read"): 3,
            ("rows", "actions", "rejected", "missing_timestamp"): 1,
        }

    with beam.Pipeline("FnApiRunner") as pipeline:
        read = pipeline | reader(shop.schema, "actions", [NAME], BlockStore())
        for name, check in {"rows": sound_rows, "rejected": one_rejected, "counts": all_counted}.items():
            assert_that(read[name], check, label=name)
    assert asked["table"] == "acme:shop.actions"
    assert asked["method"] == "DIRECT_READ"
    assert asked["selected_fields"] == list(COLUMNS)


def test_a_bigquery_rows_place_follows_from_what_it_holds():
    rows = [{"a": 1, "b": None}, {"b": None, "a": 1}, {"a": 2, "b": None}]
    first, same, other = bigquery_read._places(rows)
    assert first == same != other
    assert 0 <= first < 2**40


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({**COLUMNS, "timestamp": "TIMESTAMP"}, r"column 'timestamp': found TIMESTAMP, expected INT64, milliseconds"),
        ({"user_id": "STRING", "timestamp": "INTEGER"}, r"column 'item_id': found only timestamp, user_id, expected"),
    ],
)
def test_a_bigquery_table_without_the_columns_is_refused(warehouse, shop, columns, message):
    tables, _, _ = warehouse
    tables["acme.shop.actions"] = Table(**columns)
    with pytest.raises(InputError, match=message):
        check_tables(shop.schema, {"actions": [NAME]})


def test_a_bigquery_table_that_cannot_be_read_is_refused(warehouse, shop):
    with pytest.raises(InputError, match=r"bigquery:acme.shop.actions: found no way to read it"):
        check_tables(shop.schema, {"actions": [NAME]})
