"""Delta and Iceberg tables: the files of the newest snapshot, and tables whose files alone do not tell their rows."""

import pyarrow as pa
import pytest

from pipelines.logs.locations import find_files, match_files
from pipelines.logs.tables import read_file
from usr_tf.errors import InputError
from usr_tf.schema import parse_schema

SCHEMA = parse_schema("""
scenarios: [search]
tasks: [{name: ctr, action: click}]
features:
  item_id: {group: item, type: categorical}
  day: {group: item, type: categorical}
""")
FIRST = pa.table({"item_id": ["a", "b"], "day": ["mon", "t ue"]})
SECOND = pa.table({"item_id": ["c"], "day": ["mon"]})


def rows(paths):
    batches = [batch for path in paths for batch, rejected in read_file(path, 0, SCHEMA, "items") if not rejected]
    return sorted((row["item_id"], row["day"]) for batch in batches for row in batch.to_pylist())


@pytest.fixture
def delta(tmp_path):
    deltalake = pytest.importorskip("deltalake")
    path = tmp_path / "logs of é" / "items"
    deltalake.write_deltalake(str(path), FIRST, partition_by=["day"])
    return path


def test_a_delta_table_is_its_newest_snapshot(delta):
    import deltalake

    assert rows(find_files(str(delta.parent), "items")) == [("a", "mon"), ("b", "t ue")]
    deltalake.write_deltalake(str(delta), SECOND, mode="overwrite")  # whose older files are still there
    assert len(list(delta.rglob("*.parquet"))) == 3
    assert rows(match_files(str(delta), "items")) == [("c", "mon")]
    deltalake.DeltaTable(str(delta)).delete()
    with pytest.raises(InputError, match="items: found a Delta table without rows"):
        find_files(str(delta.parent), "items")


def test_a_delta_table_that_cannot_be_read_is_refused(delta, monkeypatch):
    import deltalake

    for log in (delta / "_delta_log").iterdir():
        log.write_text("{")
    with pytest.raises(InputError, match="items: found no readable Delta table"):
        find_files(str(delta.parent), "items")
    monkeypatch.setitem(__import__("sys").modules, "deltalake", None)
    with pytest.raises(InputError, match=r"found a Delta table, expected deltalake installed .*usr-tf\[lakehouse\]"):
        find_files(str(delta.parent), "items")
    assert deltalake


@pytest.fixture
def iceberg(tmp_path):
    catalogs = pytest.importorskip("pyiceberg.catalog.memory", exc_type=ImportError)
    catalog = catalogs.InMemoryCatalog("shop", warehouse=f"file://{tmp_path}")
    catalog.create_namespace("logs")
    table = catalog.create_table("logs.items", FIRST.schema)
    table.append(FIRST)
    return tmp_path / "logs" / "items", table


def test_an_iceberg_table_is_its_newest_snapshot(iceberg):
    path, table = iceberg
    assert rows(find_files(str(path.parent), "items")) == [("a", "mon"), ("b", "t ue")]
    table.overwrite(SECOND)
    assert rows(match_files(str(path), "items")) == [("c", "mon")]
    with table.update_schema() as update:
        update.rename_column("day", "weekday")
    with pytest.raises(InputError, match="found an Iceberg table whose column is named day and weekday"):
        find_files(str(path.parent), "items")


def test_an_iceberg_column_that_was_dropped_and_added_again_is_refused(iceberg):
    from pyiceberg.types import StringType

    path, table = iceberg
    for change in ("delete", "add"):
        with table.update_schema() as update:
            _ = update.delete_column("day") if change == "delete" else update.add_column("day", StringType())
    with pytest.raises(InputError, match="found an Iceberg table whose column day was dropped and added again"):
        find_files(str(path.parent), "items")
