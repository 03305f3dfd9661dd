"""From a user id, a query and item ids to a ranking, by every client, of the toy model."""

import json

import numpy as np
import pytest

from serving.features import RequestBuilder, open_store
from serving.features.event import EventReader
from serving.local_server import serve_in_background
from tests.serving.conftest import toy_models  # noqa: F401  (a fixture)
from tests.serving.rankers import KINDS
from usr_tf.errors import InputError
from usr_tf.schema import parse_schema

SCHEMA = """
scenarios: [search, recommendation]
tasks: [{name: ctr, action: click}]
history: {actions: [click], max_length: 5}
features:
  user_id: {group: user, type: categorical}
  item_id: {group: item, type: categorical, in_history: true}
  price: {group: item, type: numeric}
  attributes: {group: item, type: categorical_list}
  query: {group: query, type: text}
"""
EVENTS = [
    {"item_id": "a", "price": 0, "attributes": ["x"]},
    {"item_id": "b", "price": -1},
    {"item_id": "c", "price": -4, "attributes": ["x", "y"]},
    *({"user_id": "u", "item_id": item, "timestamp": 1000, "action": "click"} for item in "ac"),
]


class ToyBuilder(RequestBuilder):
    """Builder without the parts of the history that the toy model lacks."""

    def build(self, *arguments, **options):
        document = super().build(*arguments, **options)
        for name in ("action", "scenario", "age"):
            del document["inputs"][f"history_{name}"]
        return document


@pytest.mark.parametrize("kind", KINDS)
def test_ids_become_a_ranking(toy_models, tmp_path, kind):  # noqa: F811
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "1").symlink_to(toy_models[0.5])
    with (
        open_store(tmp_path / "store", parse_schema(SCHEMA)) as store,
        serve_in_background(tmp_path / "served", rest_port=0) as server,
        KINDS[kind](server.rest_address if kind == "rest" else server.address) as ranker,
    ):
        reader = EventReader(store.schema)
        store.apply(reader.parse(json.dumps(event).encode()) for event in EVENTS)
        ranking = ranker.rank(ToyBuilder(store), "search", "u", "tea", ["a", "b", "c"], moment=2000)
        assert [(row["rank"], row["item_id"]) for row in ranking] == [(1, "a"), (2, "b"), (3, "c")]
        # logit: vocabulary, price, non-empty attributes, actions in the history, and 1 in search
        logits = np.array([0 + 0 + 1 + 2 + 1, 1 - 1 + 0 + 2 + 1, 2 - 4 + 2 + 2 + 1])
        np.testing.assert_allclose([row["ctr"] for row in ranking], 1 / (1 + np.exp(-logits)), atol=1e-6)
        by_price = ranker.rank(ToyBuilder(store), "search", None, None, ["b", "a"], by="price", moment=2000)
        assert [row["item_id"] for row in by_price] == ["a", "b"]
        with pytest.raises(InputError, match=r"context\.colour"):
            ranker.rank(ToyBuilder(store), "search", "u", "tea", ["a"], {"colour": "red"})
