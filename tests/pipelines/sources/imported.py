"""Imported logs, for the tests of the sources."""

import gzip
import json
from pathlib import Path

from pipelines.logs.checks import check_table
from pipelines.logs.locations import find_files
from pipelines.logs.tables import read_file
from pipelines.sources import Source, import_logs
from usr_tf.schema import TABLES, load_schema


def read_table(logs: Path, table: str) -> list[dict]:
    """The rows of a table, none where it is absent."""
    paths = sorted(logs.glob(f"{table}-*"))
    return [json.loads(line) for path in paths for line in gzip.decompress(path.read_bytes()).splitlines()]


class Imported:
    """Result of `import_logs` on a directory, in `logs` beside it."""

    def __init__(self, source: str | Source, inputs: Path, **options):
        self.logs = inputs.with_name(f"{inputs.name}-logs")
        self.report = import_logs(source, [str(inputs)], self.logs, progress=False, options=options)
        self.impressions = read_table(self.logs, "impressions")
        self.actions = read_table(self.logs, "actions")
        self.items = {item.pop("item_id"): item for item in read_table(self.logs, "items")}
        self.users = {user.pop("user_id"): user for user in read_table(self.logs, "users")}
        rejected = (self.logs / "rejected.jsonl").read_text().splitlines()
        self.rejected = [json.loads(line) for line in rejected]


def assert_preprocess_takes(logs: Path) -> None:
    """Asserts that preprocess reads the logs with every column and no rejected row."""
    schema = load_schema(logs / "schema.yaml")
    for table in TABLES:
        paths = find_files(str(logs), table)
        check_table(schema, table, paths)
        for number, path in enumerate(paths):
            for _, rejected in read_file(path, number, schema, table):
                assert rejected == []
    items = {row["item_id"] for row in read_table(logs, "items")}
    for table in ("impressions", "actions"):
        assert {row["item_id"] for row in read_table(logs, table)} <= items
    keys = [(row["user_id"], row["request_id"], row["item_id"]) for row in read_table(logs, "impressions")]
    assert len(set(keys)) == len(keys)
    assert {row["scenario"] for row in read_table(logs, "impressions")} == set(schema.scenarios)
    used = {*schema.history.actions, *(task.action for task in schema.tasks)}
    assert {row["action"] for row in read_table(logs, "actions")} == used
