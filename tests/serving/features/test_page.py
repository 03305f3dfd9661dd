"""`docs/features.md`: its backends work, and its flags and keys are there."""

import re
from pathlib import Path

import pytest

from serving.features import FeatureStore, RequestBuilder
from tests.pipelines.random_logs import did, shown
from tests.serving.features.test_ingest import SCHEMA
from tests.serving.features.test_states import events_of
from usr_tf.cli import VERBS
from usr_tf.feature_states import Limits
from usr_tf.schema import parse_schema

PAGE = (Path(__file__).parents[3] / "docs/features.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


class Answer:
    def __init__(self, columns: dict):
        self.to_dict = lambda: columns


class StandInOfFeast:
    """The two calls of `feast.FeatureStore` that the page makes."""

    def __init__(self):
        self.rows: dict[str, bytes] = {}

    def get_online_features(self, features, entity_rows):
        assert features == ["usr:value"]
        keys = [row["key"] for row in entity_rows]
        return Answer({"key": keys, "value": [self.rows.get(key) for key in keys]})

    def write_to_online_store(self, view, df):
        assert (view, list(df)) == ("usr", ["key", "value", "event_timestamp"])
        self.rows |= dict(zip(df["key"], df["value"], strict=True))


@pytest.mark.parametrize("name", ["DictionaryBackend", "FeastBackend"])
def test_the_backends_of_the_page_keep_a_store(name):
    [block] = [block for block in BLOCKS if f"class {name}" in block]
    defined: dict = {}
    exec(block, defined)
    backend = defined[name](*[StandInOfFeast()] * (name == "FeastBackend"))
    store = FeatureStore(backend, parse_schema(SCHEMA))
    row = {**shown("r", 5), "query": "tea", "device": None, "stock": None}
    tables = {
        "items": [{"item_id": "a", "category": "c", "price": 1.0}],
        "impressions": [row, row],
        "actions": [did("click", 6, request="r")],
    }
    events = events_of(tables, store.schema, "items", "impressions", "actions")
    assert store.apply(events, {"stream": (0, 4)}) == {"written": 3, "duplicate": 1}
    assert FeatureStore(backend).offsets(["stream"]) == [4]
    inputs = RequestBuilder(FeatureStore(backend)).build("search", "u", "tea", ["a", "b"], moment=20)["inputs"]
    assert (inputs["history_scenario"], inputs["history_queries"], inputs["price"]) == (
        ["search"],
        ["tea"],
        [1.0, None],
    )
    assert inputs["counter_query_item_all_click"] == [1.0, 0.0]


def test_flags_and_limits_are_those_of_the_page():
    flags = VERBS["features"].flags()
    for flag in flags:
        assert flag == "action" or f"`--{flag}" in PAGE or f"--{flag}`" in PAGE, flag
    table = PAGE[PAGE.index("## Limits") :].split("##")[1]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(Limits.model_fields)
