import copy
import re
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.usr_tf.fixtures import TOY_SCHEMA
from usr_tf.errors import InputError
from usr_tf.schema import Schema, load_schema, parse_schema

MINIMAL = {
    "scenarios": ["search"],
    "tasks": [{"name": "ctr", "action": "click"}],
    "features": {"item_id": {"group": "item", "type": "categorical"}},
}


def refused(document) -> str:
    text = document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False)
    with pytest.raises(InputError) as caught:
        parse_schema(text, "my/schema.yaml")
    lines = str(caught.value).splitlines()
    for line in lines:
        assert re.match(r"my/schema\.yaml: .*found .+, expected .+", line)
        assert not PYDANTIC.search(line)
    assert len(lines) == len(set(lines)) == len(caught.value.each)
    return str(caught.value)


PYDANTIC = re.compile(
    r"Input should|Value error|\[type=|validation error|valid (integer|number|boolean|string|list|tuple|dictionary)"
    r"|Field required|Extra inputs|after validation|another type"
)
"""Words of pydantic, and ours for an error that has no words of its own yet."""


def with_keys(**keys) -> dict:
    return {**copy.deepcopy(MINIMAL), **keys}


def with_feature(name: str, **feature) -> dict:
    return with_keys(features={**MINIMAL["features"], name: feature})


def test_the_least_schema_has_the_defaults_of_the_contract():
    schema = parse_schema(yaml.safe_dump(MINIMAL))
    assert schema.labels.attribution == 3_600_000
    assert schema.labels.global_window == 86_400_000
    assert (schema.split.valid, schema.split.test) == (0.1, 0.1)
    assert schema.history_columns == ()
    assert schema.features["item_id"].oov_buckets == 1


def test_names_of_labels_and_columns():
    schema = parse_schema(TOY_SCHEMA)
    assert schema.label_names == ("ctr", "ctcvr", "global_ctr", "global_ctcvr")
    assert schema.history_features == ("item_id", "tags")
    assert schema.history_columns == (
        "history_item_id", "history_tags", "history_action", "history_scenario", "history_age"
    )  # fmt: skip
    assert schema.history_width("history_tags") == 2
    assert schema.history_width("history_item_id") is None
    assert schema.history_width("history_age") is None
    assert tuple(schema.features_of("user", "context")) == ("user_id", "interests", "spend", "device")


def test_without_history_actions_no_feature_is_in_the_history():
    features = {"item_id": {"group": "item", "type": "categorical", "in_history": True}}
    schema = parse_schema(yaml.safe_dump(with_keys(features=features)))
    assert schema.history_features == ()
    assert schema.history_columns == ()


def test_length_of_lists_and_texts():
    features = {
        "item_id": {"group": "item", "type": "categorical"},
        "tags": {"group": "item", "type": "categorical_list"},
        "query": {"group": "query", "type": "text"},
        "short": {"group": "query", "type": "text", "max_length": 3},
    }
    schema = parse_schema(yaml.safe_dump(with_keys(features=features), sort_keys=False))
    assert [feature.length for feature in schema.features.values()] == [1, 8, 16, 3]
    assert [feature.is_list for feature in schema.features.values()] == [False, True, True, True]


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("5ms", 5), ("30s", 30_000), ("15m", 900_000), ("1h", 3_600_000), (" 2 d ", 172_800_000)]
)
def test_durations(text, milliseconds):
    schema = parse_schema(yaml.safe_dump(with_keys(labels={"attribution": text})))
    assert schema.labels.attribution == milliseconds
    assert parse_schema(schema.to_yaml()) == schema


CATEGORICAL = ["embedding_size", "hash_buckets", "min_count", "normalize", "oov_buckets", "shares", "vocabulary_size"]

MISTAKES = {
    "top: unknown key": (with_keys(scenario=["x"]), "scenario: found an unknown key, expected one of columns, "),
    "top: missing key": ({k: v for k, v in MINIMAL.items() if k != "tasks"}, "tasks: found nothing, expected this"),
    "top: a list": (["search"], "found list at the top, expected keys and values"),
    "top: empty": ("", "found NoneType at the top, expected keys and values"),
    "no YAML": ("a: [", "found no YAML"),
    "a key twice": ("scenarios: [a]\nscenarios: [b]\n", "key 'scenarios' stands twice"),
    "a feature twice": (
        yaml.safe_dump(MINIMAL, sort_keys=False) + "  item_id: {group: item, type: numeric}\n",
        "key 'item_id' stands twice",
    ),
    "a date that is none": ("scenarios: 2024-13-45", "found no YAML"),
    "a key that is a list": ("? [a, b]\n: 1\n", "found no YAML"),
    "scenarios: none": (with_keys(scenarios=[]), "scenarios: found []"),
    "scenarios: a string": (with_keys(scenarios="search"), "scenarios: found 'search'"),
    "scenarios: twice": (with_keys(scenarios=["a", "b", "a"]), "scenarios: found 'a' twice, expected each name once"),
    "scenarios: no name": (with_keys(scenarios=["my search"]), "scenarios.0: found 'my search', expected letters"),
    "tasks: none": (with_keys(tasks=[]), "tasks: found []"),
    "history.actions: twice": (
        with_keys(history={"actions": ["click", "click"]}),
        "history.actions: found 'click' twice, expected each name once",
    ),
    "scenarios: a signature's name": (
        with_keys(scenarios=["a", "a_examples"]),
        "scenarios: found the reserved name 'a_examples', expected a name other than serving_default, overall",
    ),
    "tasks: twice": (with_keys(tasks=MINIMAL["tasks"] * 2), "tasks: found 'ctr' twice"),
    "tasks: no action": (with_keys(tasks=[{"name": "ctr"}]), "tasks.0.action: found nothing, expected this required"),
    "tasks: unknown key": (
        with_keys(tasks=[{"name": "ctr", "action": "click", "weight": 1}]),
        "tasks.0.weight: found an unknown key, expected one of action, name",
    ),
    "labels: no duration": (with_keys(labels={"attribution": "soon"}), "labels.attribution: found 'soon', expected a"),
    "labels: a bare number": (with_keys(labels={"attribution": 60}), "labels.attribution: found 60, expected a dur"),
    "labels: zero": (with_keys(labels={"global_window": "0h"}), "labels.global_window: found '0h', expected a dur"),
    "labels: unknown key": (
        with_keys(labels={"window": "1h"}),
        "labels.window: found an unknown key, expected one of attribution, global_window",
    ),
    "split: nothing left": (with_keys(split={"valid": 0.5, "test": 0.5}), "split: found {'valid': 0.5, 'test': 0.5}"),
    "split: negative": (with_keys(split={"valid": -0.1}), "split.valid: found -0.1, expected greater than or equal to"),
    "split: at random": (with_keys(split={"seed": 1}), "split.seed: found an unknown key, expected one of test, valid"),
    "history: too short": (with_keys(history={"max_length": 0}), "history.max_length: found 0, expected greater than"),
    "history: nothing to show": (
        with_keys(history={"actions": ["click"]}),
        "history.actions: found actions but no feature with in_history, expected at least one",
    ),
    "features: none": (with_keys(features={}), "features: found no item feature"),
    "features: no item": (
        with_keys(features={"age": {"group": "user", "type": "numeric"}}),
        "features: found no item feature, expected at least one to rank by",
    ),
    "feature: no name": (with_feature("9lives", group="item", type="numeric"), "9lives"),
    "feature: unknown key": (
        with_feature("brand", group="item", type="categorical", size=4),
        "features.brand.size: found an unknown key, expected one of buckets, embedding_size, group, hash_buckets",
    ),
    "feature: no group": (with_feature("brand", type="numeric"), "features.brand.group: found nothing, expected this"),
    "feature: unknown group": (
        with_feature("brand", group="shop", type="numeric"),
        "features.brand.group: found 'shop', expected 'user', 'item', 'query', 'context' or 'candidate'",
    ),
    "feature: unknown type": (
        with_feature("brand", group="item", type="string"),
        "features.brand.type: found 'string', expected 'categorical', 'categorical_list', 'numeric', ",
    ),
    "feature: key of another type": (
        with_feature("price", group="item", type="numeric", min_count=2),
        "features.price.min_count: found on a numeric feature, expected one of ['buckets', ",
    ),
    "feature: normal form of a number": (
        with_feature("price", group="item", type="numeric", normalize="nfc"),
        "features.price.normalize: found on a numeric feature, expected one of ",
    ),
    "feature: unknown normal form": (
        with_feature("brand", group="item", type="categorical", normalize="NFD"),
        "features.brand.normalize: found 'NFD', expected 'nfc', 'nfkc' or 'none'",
    ),
    "feature: normal form of a key of the join": (
        with_feature("item_id", group="item", type="categorical", in_history=True, normalize="nfc"),
        "features.item_id.normalize: found 'nfc', expected 'none', as the tables of the logs are joined by item_id",
    ),
    "feature: normal form of shared ids": (
        with_feature("title", group="item", type="text", shares="query", normalize="nfkc"),
        "features.title.shares: found beside normalize, expected that key on query alone",
    ),
    "feature: tokenizer of a list": (
        with_feature("tags", group="item", type="categorical_list", tokenizer="character"),
        "features.tags.tokenizer: found on a categorical_list feature, expected one of ",
    ),
    "feature: max_length of one": (
        with_feature("brand", group="item", type="categorical", max_length=3),
        f"features.brand.max_length: found on a categorical feature, expected one of {CATEGORICAL}",
    ),
    "feature: transform of a text": (
        with_feature("query", group="query", type="text", transform="log"),
        "features.query.transform: found on a text feature",
    ),
    "feature: unknown transform": (
        with_feature("price", group="item", type="numeric", transform="sqrt"),
        "features.price.transform: found 'sqrt', expected 'standard', 'log' or 'none'",
    ),
    "feature: user in history": (
        with_feature("city", group="user", type="categorical", in_history=True),
        "features.city.in_history: found on a user feature of type categorical, expected an item feature",
    ),
    "feature: number in history": (
        with_feature("price", group="item", type="numeric", in_history=True),
        "features.price.in_history: found on a item feature of type numeric, expected an item feature",
    ),
    "feature: hash and vocabulary": (
        with_feature("brand", group="item", type="categorical", hash_buckets=9, min_count=2),
        "features.brand.hash_buckets: found beside a vocabulary key, expected one or the other",
    ),
    "feature: shares and a key of its own ids": (
        with_feature("brand", group="item", type="categorical", shares="item_id", min_count=2),
        "features.brand.shares: found beside min_count, expected that key on item_id alone",
    ),
    "feature: shares of nothing": (
        with_feature("brand", group="item", type="categorical", shares="maker"),
        "features.brand.shares: found 'maker', expected a feature with ids of its own",
    ),
    "feature: shares of itself": (
        with_feature("brand", group="item", type="categorical", shares="brand"),
        "features.brand.shares: found 'brand', expected a feature with ids of its own",
    ),
    "feature: shares of words by a value": (
        with_keys(
            features={
                "brand": {"group": "item", "type": "categorical", "shares": "query"},
                "query": {"group": "query", "type": "text"},
            }
        ),
        "features.brand.shares: found 'query', whose values are each a word, expected a feature whose values are each",
    ),
    "feature: one bucket": (
        with_feature("brand", group="item", type="categorical", hash_buckets=1),
        "features.brand.hash_buckets: found 1, expected greater than or equal to 2",
    ),
    "feature: count of zero": (
        with_feature("brand", group="item", type="categorical", min_count=0),
        "features.brand.min_count: found 0, expected greater than or equal to 1",
    ),
    "user_id of an item": (with_feature("user_id", group="item", type="categorical"), "features.user_id: found item"),
    "item_id that is numeric": (
        with_keys(features={"item_id": {"group": "item", "type": "numeric"}}),
        "features.item_id: found item numeric, expected item categorical",
    ),
} | {
    f"reserved name {name}": (
        with_feature(name, group="context", type="categorical"),
        f"features.{name}: found a reserved column, expected a name other than request_id, timestamp, scenario, ",
    )
    for name in (
        "request_id", "timestamp", "scenario", "position", "action", "packed_ids",
        "ctr", "history_x", "global_x", "oracle_x", "raw_x",
    )
}  # fmt: skip


SIGNALS = {
    "scenarios": ["search", "feed"],
    "tasks": [{"name": "ctr", "action": "click"}],
    "history": {"actions": ["click"], "queries": {"max_length": 5}},
    "features": {
        "user_id": {"group": "user", "type": "categorical"},
        "taste": {"group": "user", "type": "vector", "width": 3},
        "item_id": {"group": "item", "type": "categorical", "in_history": True},
        "tags": {"group": "item", "type": "categorical_list", "weights": "tag_weights"},
        "title": {"group": "item", "type": "text"},
        "look": {"group": "item", "type": "vector", "width": 3},
        "price": {"group": "candidate", "type": "numeric", "buckets": 4},
        "query": {"group": "query", "type": "text"},
    },
    "match": {
        "words": {"features": ["query", "title"], "by": ["coverage"]},
        "likeness": {"features": ["taste", "look"]},
    },
    "history_match": ["item_id"],
    "counters": {"item": {"key": ["item_id"], "actions": ["click"], "windows": ["7d", "all"], "delay": "0s"}},
}


def with_signals(*path: str, value: object) -> dict:
    """`SIGNALS` with another value of a key."""
    document = copy.deepcopy(SIGNALS)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return document


MISTAKES |= {
    "match: unknown feature": (
        with_signals("match", "words", "features", value=["query", "name"]),
        "match.words.features: found 'name', expected a feature of group item or candidate, and no number",
    ),
    "match: sides swapped": (
        with_signals("match", "words", "features", value=["title", "query"]),
        "match.words.features: found 'title', expected a feature of group user, query or context, and no number",
    ),
    "match: a number": (
        with_signals("match", "words", "features", value=["query", "price"]),
        "match.words.features: found 'price', expected",
    ),
    "match: a text and a vector": (
        with_signals("match", "words", "features", value=["query", "look"]),
        "match.words.features: found text and vector, expected two vectors of one width",
    ),
    "match: vectors of two widths": (
        with_signals("features", "look", "width", value=4),
        "match.likeness.features: found vector and vector, expected two vectors of one width",
    ),
    "match: similarity of another type": (
        with_signals("match", "words", "by", value=["cosine"]),
        "match.words.by: found 'cosine', expected some of overlap, coverage, ngram, bm25",
    ),
    "match: past queries without them": (
        with_signals("history", value={"actions": ["click"]})
        | {"match": {"past": {"features": ["history_queries", "title"]}}},
        "match.past.features: found 'history_queries', expected history.queries beside it",
    ),
    "history.queries: no text called query": (
        with_signals("features", "query", value={"group": "query", "type": "categorical"}),
        "history.queries: found no query feature of type text, expected one called query",
    ),
    "history_match: not in the history": (
        with_signals("history_match", value=["title"]),
        "history_match: found 'title', expected features with in_history (item_id)",
    ),
    "history_match: an action that is no name": (
        with_signals("history", "actions", value=["add to cart"]),
        "history.actions: found 'add to cart', expected letters, digits and underscores",
    ),
    "history_match: an action called as a scenario": (
        with_signals("history", "actions", value=["search"]),
        "signals of match, history_match and counters: found 'history_match_item_id_search_count' twice",
    ),
    "history: a feature whose column is that of past queries": (
        with_signals("features", "queries", value={"group": "item", "type": "categorical", "in_history": True}),
        "features.queries: found in_history beside history.queries, expected another name",
    ),
    "counters: unknown key": (
        with_signals("counters", "item", "key", value=["brand"]),
        "counters.item.key: found 'brand', expected a categorical feature or a text of group query",
    ),
    "counters: key of a title": (
        with_signals("counters", "item", "key", value=["title"]),
        "counters.item.key: found 'title', expected a categorical feature or a text of group query",
    ),
    "counters: three keys": (
        with_signals("counters", "item", "key", value=["user_id", "item_id", "query"]),
        "counters.item.key",
    ),
    "counters: the key twice": (
        with_signals("counters", "item", "key", value=["item_id", "item_id"]),
        "counters.item.key: found 'item_id' twice",
    ),
    "counters: an action that is no name": (
        with_signals("counters", "item", "actions", value=["add to cart"]),
        "counters.item.actions.0: found 'add to cart', expected letters, digits and underscores, a letter first",
    ),
    "counters: impressions as an action": (
        with_signals("counters", "item", "actions", value=["impression"]),
        "counters.item.actions: found 'impression', expected actions of the logs",
    ),
    "counters: a window twice": (
        with_signals("counters", "item", "windows", value=["1d", "24h"]),
        "signals of match, history_match and counters: found 'counter_item_1d_impressions' twice",
    ),
    "counters: no window": (with_signals("counters", "item", "windows", value=[]), "counters.item.windows: found []"),
    "counters: a delay without a unit": (
        with_signals("counters", "item", "delay", value="soon"),
        "counters.item.delay: found 'soon', expected a duration above zero",
    ),
    "a feature called as a signal": (
        with_signals("features", "match_words_coverage", value={"group": "item", "type": "numeric"}),
        "features.match_words_coverage: found the name of a signal, expected another name",
    ),
    "a feature called as a count": (
        with_signals("features", "counter_item_7d_click", value={"group": "item", "type": "numeric"}),
        "features.counter_item_7d_click: found the name of a signal, expected another name",
    ),
    "weights: the column of a feature": (
        with_signals("features", "tags", "weights", value="price"),
        "features.tags.weights: found 'price', expected a column of its own",
    ),
    "vector: no width": (
        with_signals("features", "taste", value={"group": "user", "type": "vector"}),
        "features.taste.width: found nothing, expected",
    ),
}


def test_signals_have_names_columns_and_families():
    schema = parse_schema(yaml.safe_dump(SIGNALS, sort_keys=False))
    history = [f"history_match_item_id_{figure}" for figure in (
        "click_count", "click_recency", "search_count", "feed_count", "share", "last"
    )]  # fmt: skip
    counters = [
        f"counter_item_{window}_{figure}" for window in ("7d", "all") for figure in ("impressions", "click_rate")
    ]
    assert schema.signals == ("match_words_coverage", "match_likeness_cosine", *history, *counters)
    assert {schema.signal_family(name) for name in schema.signals} == {"match", "history_match", "counters"}
    assert schema.signal_family("price") is None
    assert schema.counter_columns == (
        "counter_item_7d_impression", "counter_item_7d_click", "counter_item_all_impression", "counter_item_all_click"
    )  # fmt: skip
    assert schema.id_columns == ("user_id", "item_id", "bucket_price")
    assert list(schema.number_columns)[-2:] == ["taste", "look"]
    assert schema.columns_of("item") == ("item_id", "tags", "title", "look", "tag_weights")
    assert schema.counters["item"].delay == 0
    assert parse_schema(schema.to_yaml()) == schema


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_refused_with_file_key_found_and_expected(mistake):
    document, expected = MISTAKES[mistake]
    assert expected in refused(document)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"nowhere/schema.yaml: found no readable file \(No such file.*expected a schema"
    ):
        load_schema(tmp_path / "nowhere" / "schema.yaml")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "schema.yaml"
    path.write_bytes(b"scenarios: [\xff\xfe]")
    with pytest.raises(InputError, match=r"schema.yaml: found no UTF-8 .*, expected a schema.yaml"):
        load_schema(path)


def test_the_toy_schema_comes_back_from_its_own_file(tmp_path):
    schema = parse_schema(TOY_SCHEMA)
    (tmp_path / "schema.yaml").write_text(schema.to_yaml(), encoding="utf-8")
    assert load_schema(tmp_path / "schema.yaml") == schema


def test_features_may_share_keys_by_yaml_anchors():
    text = """
scenarios: [search]
tasks: [{name: ctr, action: click}]
features:
  item_id: &id {group: item, type: categorical, min_count: 2}
  brand: {<<: *id, min_count: 3}
"""
    brand = parse_schema(text).features["brand"]
    assert (brand.group, brand.type, brand.min_count) == ("item", "categorical", 3)


names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
vocabulary = st.fixed_dictionaries(
    {},
    optional={"min_count": st.integers(1, 9), "vocabulary_size": st.integers(1, 99), "oov_buckets": st.integers(1, 9)},
)
hashed = st.fixed_dictionaries({"hash_buckets": st.integers(2, 99)})
ids = st.one_of(vocabulary, hashed)


@st.composite
def documents(draw) -> dict:
    features = {"item_id": {"group": "item", "type": "categorical", "in_history": True}}
    for name in draw(st.lists(names, unique=True, max_size=4)):
        kind = draw(st.sampled_from(["categorical", "categorical_list", "numeric", "text"]))
        keys = {"transform": draw(st.sampled_from(["standard", "log", "none"]))} if kind == "numeric" else draw(ids)
        if kind in ("categorical_list", "text"):
            keys = {**keys, "max_length": draw(st.integers(1, 40))}
        group = draw(st.sampled_from(["user", "item", "query", "context"]))
        features[f"f_{name}"] = {"group": group, "type": kind, **keys}
    return {
        "scenarios": [f"s_{name}" for name in draw(st.lists(names, unique=True, min_size=1, max_size=4))],
        "tasks": [{"name": f"t_{name}", "action": name} for name in draw(st.lists(names, unique=True, min_size=1))],
        "labels": {"attribution": f"{draw(st.integers(1, 10**6))}ms", "global_window": f"{draw(st.integers(1, 99))}h"},
        "history": {"actions": draw(st.lists(names, unique=True, max_size=3)), "max_length": draw(st.integers(1, 99))},
        "split": {"valid": draw(st.floats(0, 0.49)), "test": draw(st.floats(0, 0.5))},
        "features": features,
    }


@given(documents())
def test_every_schema_comes_back_from_its_own_yaml(document):
    schema = Schema.model_validate(document)
    again = parse_schema(schema.to_yaml())
    assert again == schema
    assert list(again.features) == list(schema.features)  # the order of the columns
    assert again.to_yaml() == schema.to_yaml()


def test_needs_no_tensorflow():
    code = "import sys, usr_tf.schema, usr_tf.config, usr_tf.errors; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
