"""Synthetic requests: the sizes of logged requests, and nothing of the people who made those."""

import json
from types import SimpleNamespace

import pytest

import serving.publishing.synthetic as module
from serving.formats.contract import schema_specs
from serving.formats.logged_requests import format_requests
from serving.formats.request import request_inputs
from serving.publishing.synthetic import synthetic_requests
from usr_tf.schema import parse_schema

SCHEMA = parse_schema(
    """\
scenarios: [search, home]
tasks: [{name: ctr, action: click}]
history: {actions: [click, buy], max_length: 5, queries: {max_length: 3}}
features:
  user_id: {group: user, type: categorical}
  interests: {group: user, type: categorical_list, hash_buckets: 9, weights: strengths}
  born: {group: user, type: numeric}
  profile: {group: user, type: vector, width: 2}
  query: {group: query, type: text}
  device: {group: context, type: categorical}
  item_id: {group: item, type: categorical, in_history: true}
  tags: {group: item, type: categorical_list, max_length: 2, in_history: true}
  stock: {group: candidate, type: numeric}
counters:
  seen: {key: [user_id, item_id], actions: [click]}
"""
)
VOCABULARIES = {"query": ["tea", "green"], "device": ["phone", "desktop"], "user_id": ["secret-user"]}
PEOPLE = (
    {"user_id": "secret-anna", "interests": ["secret-x", "secret-y"], "strengths": [0.3, 0.9], "born": 1971.0}
    | {"profile": [0.123, 0.456], "query": "secret words here", "device": "secret-phone"}
    | {"history_queries": ["secret wish"], "history_queries_age": [77_777]},
    {"user_id": "secret-bob", "interests": [], "strengths": [], "born": 1984.0, "profile": [0.789, 0.321]}
    | {"query": "", "device": "secret-tv", "history_queries": [], "history_queries_age": []},
)
CANDIDATES = {"item_id": ["a", "b", "c"], "tags": [["new"], [], ["new", "red"]], "stock": [1.0, None, 3.0]}
COUNTS = {"counter_seen_all_impression": [7001.0, 7003.0, 7005.0], "counter_seen_all_click": [9.0, 9.0, 9.0]}
HISTORY = {"history_item_id": ["secret-item"] * 2, "history_tags": [["new", ""]] * 2, "history_action": ["buy"] * 2}
HISTORY |= {"history_scenario": ["home"] * 2, "history_age": [55_555, 5_555]}


@pytest.fixture
def run(tmp_path, monkeypatch) -> SimpleNamespace:
    for name, values in VOCABULARIES.items():
        (tmp_path / name).write_text("".join(f"{value}\n" for value in values), encoding="utf-8")
    output = SimpleNamespace(vocabulary_file_by_name=lambda name: tmp_path / name)
    monkeypatch.setattr(module.tft, "TFTransformOutput", lambda _: output)
    lines = [
        {"request_id": f"secret-r{n}", "scenario": "search", "inputs": person | CANDIDATES | COUNTS | HISTORY}
        for n, person in enumerate(PEOPLE * 20)
    ]
    (tmp_path / "search.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return SimpleNamespace(schema=SCHEMA, transform=tmp_path, requests=tmp_path)


def test_nothing_of_a_logged_request_is_left_but_its_sizes_and_candidates(run):
    made = synthetic_requests(run)
    assert made.keys() == {"search"}  # home was never logged
    text = format_requests(made["search"])
    assert "secret" not in text
    assert not any({55_555, 5_555} & {*request.inputs["history_age"]} for request in made["search"])
    first, second = (request.inputs for request in made["search"][:2])
    assert (first["user_id"], second["user_id"]) == ("synthetic-1", "synthetic-2")
    assert len(first["query"].split()) == 3
    assert second["query"] == ""
    assert [len(first[name]) for name in ("interests", "strengths", "profile", "history_queries")] == [2, 2, 2, 1]
    assert [len(second[name]) for name in ("interests", "strengths", "profile", "history_queries")] == [0, 0, 2, 0]
    assert [len(first[name]) for name in HISTORY] == [2] * 5
    assert first["history_age"] == sorted(first["history_age"], reverse=True)
    rows = set(zip(CANDIDATES["item_id"], map(str, CANDIDATES["tags"]), CANDIDATES["stock"], strict=True))
    for request in made["search"]:
        of_request = (request.inputs["item_id"], map(str, request.inputs["tags"]), request.inputs["stock"])
        assert set(zip(*of_request, strict=True)) <= rows  # a candidate's values stay together


def test_values_are_known_and_unknown_ones_of_the_vocabulary(run):
    made = synthetic_requests(run)["search"]
    assert {"phone", "desktop"} < {request.inputs["device"] for request in made}
    words = {word for request in made for word in request.inputs["query"].split()}
    assert {"tea", "green"} < words
    assert all(word.startswith("synthetic-") for word in words - {"tea", "green"})
    born = {request.inputs["born"] for request in made}
    assert born == {1971.0, 1977.5, 1984.0}  # means of two


def test_they_are_requests_of_the_model_and_the_same_each_time(run):
    made = synthetic_requests(run)["search"]
    specs = schema_specs(SCHEMA, counters=True)
    assert all(request_inputs(request.inputs, specs)["tags"].shape[0] == 3 for request in made)
    assert format_requests(made) == format_requests(synthetic_requests(run)["search"])


def test_a_run_without_logged_requests_has_none(run):
    (run.requests / "search.jsonl").unlink()
    assert synthetic_requests(run) == {}
