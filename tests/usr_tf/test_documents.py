import copy
import re
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from tests.usr_tf.test_schema import PYDANTIC, SIGNALS
from usr_tf.baseline.config import BaselineConfig
from usr_tf.config import Config
from usr_tf.documents import Mistake, StrictModel, parse_model, parse_yaml
from usr_tf.errors import InputError
from usr_tf.experiments.grid.spec import Spec
from usr_tf.experiments.search_space import Choices, Range
from usr_tf.schema import Schema


def lines(model, document) -> list[str]:
    """The lines of a document's refusal, without the place that each begins with."""
    with pytest.raises(InputError) as caught:
        parse_model(model, document, "a.yaml")
    assert [str(error) for error in caught.value.each] == str(caught.value).splitlines()
    return [line.removeprefix("a.yaml: ") for line in str(caught.value).splitlines()]


SCHEMA = """
history: {actions: [click, click], max_length: 0}
scenarios: [search, my feed, overall]
task: [{name: ctr, action: click}]
labels: {attribution: soon, global_window: 60}
features:
  user_id: {group: item, type: categorical}
  item_id: {group: item, type: categorical, in_history: true, min_cont: 2}
  city: {group: user, type: categorical, in_history: true, colour: red}
  brand: {group: item, type: categorial}
  maker: {group: item, type: categorical, shares: brand}
  title: {group: item, type: text, tokeniser: character, max_length: 1.5}
  9lives: {group: item, type: numeric, buckets: 1}
  stock:
  taste: {group: user, type: vector}
match:
  words: {features: [taste, titel], by: [coverage, fuzzy]}
history_match: [brand, title]
counters:
  shop: {key: [shop], actions: [click, impression], prior: .inf}
split: {valid: 0.5, test: 0.5}
"""


KEYS = ", ".join(sorted(Schema.model_fields["features"].annotation.__args__[1].model_fields))
DURATION = "a duration above zero, such as 30s, 15m, 1h or 1d"
NAME = "letters, digits and underscores, a letter first"


def test_all_mistakes_of_a_schema_are_reported_at_once_in_its_order():
    assert lines(Schema, parse_yaml(SCHEMA, "a.yaml")) == [
        "history.actions: found 'click' twice, expected each name once",
        "history.max_length: found 0, expected greater than or equal to 1",
        "scenarios: found the reserved name 'overall', expected a name other than serving_default, overall and not "
        "ending in _examples",
        f"scenarios.1: found 'my feed', expected {NAME}",
        f"task: found an unknown key, expected one of {', '.join(sorted(Schema.model_fields))}; did you mean tasks?",
        f"labels.attribution: found 'soon', expected {DURATION}",
        f"labels.global_window: found 60, expected {DURATION}",
        "features.user_id: found item categorical, expected user categorical",
        f"features.item_id.min_cont: found an unknown key, expected one of {KEYS}; did you mean min_count?",
        "features.city.in_history: found on a user feature of type categorical, expected an item feature of type "
        "categorical or categorical_list",
        f"features.city.colour: found an unknown key, expected one of {KEYS}",
        "features.brand.type: found 'categorial', expected 'categorical', 'categorical_list', 'numeric', 'text' or "
        "'vector'",
        f"features.title.tokeniser: found an unknown key, expected one of {KEYS}; did you mean tokenizer?",
        "features.title.max_length: found 1.5, expected a whole number",
        f"features.9lives: found '9lives', expected {NAME}",
        "features.9lives.buckets: found 1, expected greater than or equal to 2",
        "features.stock: found nothing, expected keys and values",
        "features.taste.width: found nothing, expected the numbers of a vector",
        "match.words.features: found 'titel', expected a feature of group item or candidate, and no number",
        "match.words.by.1: found 'fuzzy', expected 'overlap', 'coverage', 'ngram', 'bm25', 'cosine', 'latest', 'best' "
        "or 'recency'",
        "history_match: found 'title', expected features with in_history (item_id)",
        "counters.shop.key: found 'shop', expected a categorical feature or a text of group query",
        "counters.shop.actions: found 'impression', expected actions of the logs",
        "counters.shop.prior: found inf, expected a finite number",
        "split: found {'valid': 0.5, 'test': 0.5}, expected valid + test below 1",
    ]


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        (["features: 3"], ["features"]),
        (["features: {}"], ["features"]),
        (["tasks:"], ["tasks"]),
        (["history: {queries: {max_length: 0}, actions: [click]}"], ["history.queries.max_length"]),
        (["history: {action: [click], queries: {}}"], ["history.action"]),
        (["features.item_id: {group: item, type: id, in_history: true}"], ["features.item_id.type"]),
        (["features.query: {group: query, type: txt}"], ["features.query.type"]),
        (["features.look: {group: item, type: vector, widht: 3}"], ["features.look.widht"]),
        (["features.look.width: many"], ["features.look.width"]),
        (["features.price: {group: item, type: numeric, buckets: 0, embedding_size: 3}"], ["features.price.buckets"]),
        (["features.title: {group: itm, type: text}"], ["features.title.group"]),
        (["match.words: 5", "match.likeness.features: [taste]"], ["match.words", "match.likeness.features.1"]),
        (["counters.item: {key: [item_id]}", "match: [1]"], ["match", "counters.item.actions"]),
        (["scenarios: [search, 7, search, 8]"], ["scenarios", "scenarios.1", "scenarios.3"]),
        (["features.price.buckets: 1", "split: {valid: 1}"], ["features.price.buckets", "split.valid"]),
        (["features.price.buckets: 1", "split.valid: 0.95"], ["features.price.buckets", "split"]),
    ],
)
def test_a_mistake_is_reported_once_and_nothing_that_may_follow_from_it(change, keys):
    document = copy.deepcopy(SIGNALS) | {"split": {}}
    for line in change:
        place, _, value = line.partition(":")
        *parents, leaf = place.split(".")
        inner = document
        for parent in parents:
            inner = inner[parent]
        inner[leaf] = yaml.safe_load(value or "null")
    assert [line.partition(": found")[0] for line in lines(Schema, document)] == keys


class Odd(StrictModel):
    """Model with a field of every kind that the product's own have."""

    switch: bool = True
    whole: Annotated[int, Field(ge=2, le=5)] = 2
    even: Annotated[int, Field(multiple_of=2)] = 2
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    word: Annotated[str, Field(min_length=2, max_length=3)] = "ab"
    span: Annotated[str, Field(pattern="^[0-9]+$")] = "1"
    choice: Literal["a", "b"] | None = None
    pair: tuple[int, int] = (1, 2)
    few: Annotated[tuple[int, ...], Field(min_length=1, max_length=2)] = (1,)
    named: Annotated[dict[Literal["x", "y"], int], Field(min_length=1)] = {"x": 1}
    either: list[int] | dict[str, dict[str, int]] = []
    number: int | float = 1
    inner: Range | None = None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("switch: maybe", "switch: found 'maybe', expected true or false"),
        ("switch: [1]", "switch: found [1], expected true or false"),
        ("whole: 1", "whole: found 1, expected greater than or equal to 2"),
        ("even: 3", "even: found 3, expected a multiple of 2"),
        ("whole: 8", "whole: found 8, expected less than or equal to 5"),
        ("whole: 2.5", "whole: found 2.5, expected a whole number"),
        ("whole: .inf", "whole: found inf, expected a finite number"),
        ("whole:", "whole: found nothing, expected a whole number"),
        ("share: 0", "share: found 0, expected greater than 0"),
        ("share: 1", "share: found 1, expected less than 1"),
        ("share: half", "share: found 'half', expected a number"),
        ("share: .nan", "share: found nan, expected a finite number"),
        ("word: a", "word: found 'a', expected at least 2 characters"),
        ("word: abcd", "word: found 'abcd', expected at most 3 characters"),
        ("word: 12", "word: found 12, expected text"),
        (r'word: "\ud800a"', r"word: found '\ud800a', expected text that UTF-8 can hold"),
        ("span: x", "span: found 'x', expected text of the form ^[0-9]+$"),
        ("choice: c", "choice: found 'c', expected 'a' or 'b'"),
        ("pair: [1]", "pair.1: found nothing, expected a value"),
        ("pair: [1, 2, 3]", "pair: found [1, 2, 3], expected at most 2 values"),
        ("pair: 1", "pair: found 1, expected a list"),
        ("few: []", "few: found [], expected at least 1 value"),
        ("few: [1, 2, 3]", "few: found [1, 2, 3], expected at most 2 values"),
        ("named: {}", "named: found {}, expected at least 1 key"),
        ("named: {z: 1}", "named.z: found 'z', expected 'x' or 'y'"),
        ("named: 1", "named: found 1, expected keys and values"),
        ("either: 1", "either: found 1, expected a list or keys and values"),
        ("either: {a: 1}", "either.a: found 1, expected keys and values"),
        ("number: x", "number: found 'x', expected a number"),
        ("inner: 1", "inner: found 1, expected keys and values"),
        ("inner: {low: 1}", "inner.high: found nothing, expected this required key"),
        ("inner: {low: 2, high: 1}", "inner.high: found 1, expected more than low, 2"),
        ("1: 2", "1: found 1, expected a key that is text"),
        ("yes: 2", "True: found True, expected a key that is text"),
        ("swich: true", f"swich: found an unknown key, expected one of {', '.join(sorted(Odd.model_fields))}; did you "
        "mean switch?"),
        (f"choice: {'x' * 500}", f"choice: found '{'x' * 118}…, expected 'a' or 'b'"),
    ],
)  # fmt: skip
def test_every_kind_of_mistake_has_words_of_its_own(text, expected):
    assert lines(Odd, parse_yaml(text, "a.yaml")) == [expected]


def test_every_key_that_stands_twice_is_reported():
    with pytest.raises(InputError) as caught:
        parse_yaml("a: 1\nb: {c: 1, c: 2}\na: 2\n", "a.yaml")
    assert str(caught.value).splitlines() == [
        "a.yaml: found no YAML (key 'a' stands twice, line 3, column 1), expected a YAML document",
        "a.yaml: found no YAML (key 'c' stands twice, line 2, column 11), expected a YAML document",
    ]


class Pair(StrictModel):
    low: int
    high: int = 9
    note: str = ""

    def mistakes(self):
        if self.low > self.high:
            yield Mistake(("high",), str(self.high), f"{self.low} or more", needs=(("low",),))


def test_values_that_disagree_are_reported_beside_others_unless_they_follow_from_them():
    assert lines(Pair, {"low": 10, "note": 1}) == [
        "note: found 1, expected text", "high: found 9, expected 10 or more",
    ]  # fmt: skip
    assert lines(Pair, {"low": "x", "high": 3}) == ["low: found 'x', expected a whole number"]
    with pytest.raises(ValueError, match="found 9, expected 10 or more"):
        Pair(low=10)


SPEC = """
title: A title
question: Which is better?
shop: {impressions: [1000, 2000], similarity: 0.5}
seeds: [10, 11]
budget: {epochs: 1}
settings: {embedding_size: 8}
axes: {train.learning_rate: [0.1, 0.2], usr.ie: {"on": {usr.ie: true}, "off": {usr.ie: false}}}
variants: {A: {backbone: mmoe}, B: {backbone: ple}}
baseline: A
per_scenario: [B]
tune: {key: train.l2, values: [0.1, 0.2], variants: [A]}
slices: {user: [1, 5]}
"""
DOCUMENTS = {
    Schema: SIGNALS,
    Config: Config().model_dump(mode="json"),
    Spec: yaml.safe_load(SPEC),
    BaselineConfig: BaselineConfig().model_dump(mode="json"),
    Range: {"low": 1, "high": 2, "log": True},
    Choices: {"choices": [1, 2]},
}
JUNK = [
    None,
    True,
    -1,
    0,
    1.5,
    float("nan"),
    "",
    "x",
    "all",
    "1d",
    "item_id",
    "query",
    [],
    ["x", "x"],
    [3],
    {},
    {"x": 1},
]


def paths(document: Any, path: tuple = ()) -> list[tuple]:
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [place for key, value in items for place in [(*path, key), *paths(value, (*path, key))]]


@pytest.mark.parametrize("model", DOCUMENTS, ids=lambda model: model.__name__)
@given(data=st.data())
def test_no_document_gets_words_of_pydantic(model, data):
    document = copy.deepcopy(DOCUMENTS[model])
    for _ in range(data.draw(st.integers(1, 4))):
        *parents, leaf = data.draw(st.sampled_from(paths(document) or [("x",)]))
        inner = document
        for parent in parents:
            inner = inner[parent]
        change = data.draw(st.sampled_from(["replace", "delete", "rename", "add"]))
        if change == "replace" or isinstance(inner, list):
            inner[leaf] = copy.deepcopy(data.draw(st.sampled_from(JUNK)))
        elif change == "delete":
            inner.pop(leaf, None)
        elif change == "rename":
            inner[data.draw(st.sampled_from([f"{leaf}s", 1, "history_x"]))] = inner.pop(leaf, None)
        else:
            inner["another"] = copy.deepcopy(data.draw(st.sampled_from(JUNK)))
    try:
        parse_model(model, document, "a.yaml")
    except InputError as error:
        found = str(error).splitlines()
        assert len(found) == len(set(found))
        for line in found:
            assert re.match(r"a\.yaml(: .+)?: found .+, expected .+", line)
            assert not PYDANTIC.search(line)
