"""Request contract: templates that are valid, what each input is said to be, and the page of the demo's."""

import json
import re
from pathlib import Path

import pytest

from pipelines.simulator.simulate import simulate
from serving.formats.contract import (
    SCHEMA_FILE,
    Contract,
    describe_contract,
    open_contract,
    request_template,
    schema_specs,
    template_json,
)
from serving.formats.request import load_request, request_inputs
from usr_tf.cli import main
from usr_tf.errors import InputError
from usr_tf.schema import load_schema, parse_schema

ROOT = Path(__file__).parents[3]
SCHEMA = """\
scenarios: [search, feed]
tasks: [{name: ctr, action: click}]
history: {actions: [click, cart], max_length: 9, queries: {max_length: 5, tokens: 3}}
features:
  user_id:   {group: user, type: categorical}
  taste:     {group: user, type: vector, width: 3}
  interests: {group: user, type: categorical_list, max_length: 6, weights: interest}
  query:     {group: query, type: text, max_length: 4}
  hour:      {group: context, type: numeric}
  item_id:   {group: item, type: categorical, in_history: true}
  tags:      {group: item, type: categorical_list, in_history: true, weights: tag_weight}
  look:      {group: item, type: vector, width: 2}
  distance:  {group: candidate, type: numeric}
descriptions: {distance: kilometres to the shop, tag_weight: confidence of the tag}
counters:
  item: {key: [item_id], actions: [click], windows: [7d, all], delay: 2h}
"""
CONTRACT = Contract(parse_schema(SCHEMA), counters=True)
INPUTS = CONTRACT.inputs


@pytest.mark.parametrize("counters", [False, True])
@pytest.mark.parametrize("scenario", ["search", "feed"])
def test_a_template_is_a_valid_request_with_every_input(scenario, counters, tmp_path):
    contract = CONTRACT._replace(counters=counters)
    path = tmp_path / "r.json"
    path.write_text(template_json(request_template(contract, scenario)))
    document, specs = load_request(path), schema_specs(contract.schema, counters)
    assert document["scenario"] == scenario
    assert document["inputs"].keys() == specs.keys() == contract.inputs.keys()
    arrays = request_inputs(document["inputs"], specs, path)
    sizes = {"candidates": 2, "actions": 2}
    assert arrays["look"].shape == (sizes["candidates"], 2)
    assert arrays["tag_weight"].shape == arrays["tags"].shape == (2, 1)
    assert arrays["history_tags"].shape == (1, sizes["actions"], 1)
    assert arrays["taste"].shape == (1, 3)
    assert arrays["history_age"].tolist() == [[7_200_000, 3_600_000]]  # newest last
    assert ("counter_item_7d_click" in arrays) == counters


@pytest.mark.parametrize("name", [name for name, each in INPUTS.items() if each.side not in ("history", "counters")])
def test_what_is_said_to_be_missing_is_accepted(name):
    inputs = request_template(CONTRACT, "search")["inputs"]
    spelt = re.findall("`(.+?)`", INPUTS[name].missing)
    assert bool(spelt) == (INPUTS[name].side != "past queries")
    for text in spelt:
        value = json.loads(text)
        given = inputs[name]
        if value == 0:  # of a vector or weights: of each of its numbers
            missing = json.loads(re.sub(r"[0-9.]+", "0", json.dumps(given)))
        else:
            missing = [value] * len(given) if INPUTS[name].shape[0] is None else value
        request_inputs(inputs | {name: missing}, schema_specs(CONTRACT.schema, counters=True))


def test_inputs_are_described_with_unit_order_and_window():
    assert INPUTS["distance"].meaning == "kilometres to the shop; a number, in the unit of the logs"
    assert INPUTS["tag_weight"].meaning == "confidence of the tag"
    assert INPUTS["interest"].meaning == "weight of each value of `interests`, in its order"
    assert INPUTS["interests"].meaning == "categories; the first 6 are read"
    assert INPUTS["query"].meaning == "text; its first 4 words are read"
    assert INPUTS["counter_item_7d_click"].meaning == (
        "number of events `click` with this `item_id`, in the 7d until 2h before the request"
    )
    assert INPUTS["history_age"].meaning == "milliseconds from the action to this request"
    page = describe_contract(CONTRACT, "feed")
    for line in (
        "| `taste` | `number [3]` | 3 numbers | all `0` |",
        "| `look` | `number [N][2]` | 2 numbers | all `0` |",
        "| `history_tags` | `string [L][]` | `tags` of the item | `[]` |",
        "| `history_queries` | `string [Q]` | text of an earlier query of this user | never missing |",
        "The 9 newest actions are read.",
        "The 5 newest queries are read.",
    ):
        assert line in page
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == INPUTS.keys()


def test_the_page_is_that_of_the_demo(tmp_path):
    """To write it: `usr-tf request --model demo_out/serving --scenario search --describe > docs/request.md`."""
    simulate(tmp_path / "logs", impressions=20, progress=False)
    page = describe_contract(Contract(load_schema(tmp_path / "logs" / "schema.yaml"), counters=False), "search")
    assert (ROOT / "docs" / "request.md").read_text(encoding="utf-8") == page


def _version(folder, toy):
    """A version of the toy model with a schema beside it."""
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").symlink_to(toy / "saved_model.pb")
    (folder / "assets.extra").mkdir()
    (folder / SCHEMA_FILE).write_text(SCHEMA)
    return folder


def test_the_newest_version_is_opened_or_the_one_named(tmp_path, toy_models):
    for version in ("9", "10"):
        _version(tmp_path / version, toy_models[0.5])
    text = SCHEMA.replace("feed", "home")
    (tmp_path / "9" / SCHEMA_FILE).write_text(text)
    assert open_contract(tmp_path).schema.scenarios == ("search", "feed")
    assert open_contract(tmp_path / "9").schema.scenarios == ("search", "home")
    assert not open_contract(tmp_path).counters  # the signatures have no counts


def test_the_command_prints_a_template_or_a_page(tmp_path, toy_models, capsys):
    _version(tmp_path / "1", toy_models[0.5])
    assert main(["request", f"--model={tmp_path}", "--scenario=feed"]) == 0
    assert json.loads(capsys.readouterr().out) == request_template(CONTRACT._replace(counters=False), "feed")
    assert main(["request", f"--model={tmp_path}/1", "--scenario=feed", "--describe"]) == 0
    assert capsys.readouterr().out == describe_contract(CONTRACT._replace(counters=False), "feed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=absent", "--scenario=feed"], "absent: found no version, expected a directory of versions"),
        (
            ["--model=SERVING", "--scenario=fed"],
            "usr-tf request: --scenario: found 'fed', expected one of search, feed; did",
        ),
        (["--model=SERVING/1"], "usr-tf request: --scenario: found nothing, expected this required flag"),
        (["--model=OTHER", "--scenario=feed"], "schema.yaml: found no readable file (No such file or directory)"),
    ],
)
def test_the_command_names_what_is_wrong(tmp_path, toy_models, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    _version(tmp_path / "SERVING" / "1", toy_models[0.5])
    (tmp_path / "OTHER" / "1").mkdir(parents=True)
    (tmp_path / "OTHER" / "1" / "saved_model.pb").touch()
    assert main(["request", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("key", "near"), [("xyz", "distance$"), ("distanse", r"; did you mean distance\?$")])
def test_a_description_of_no_feature_is_refused(key, near):
    with pytest.raises(InputError, match=rf"descriptions.{key}: found no such feature, expected one of .*{near}"):
        parse_schema(SCHEMA.replace("descriptions: {distance", f"descriptions: {{{key}"))
