"""Request documents: resulting arrays, and messages for invalid ones."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.formats.request import TensorSpec, load_request, request_inputs
from serving.formats.tensors import STRING
from usr_tf.errors import InputError

SPECS = {
    "user_id": TensorSpec(STRING, (1,)),
    "age": TensorSpec(np.dtype(np.float32), (1,)),
    "tags": TensorSpec(STRING, (1, -1)),
    "item_id": TensorSpec(STRING, (-1,)),
    "price": TensorSpec(np.dtype(np.float32), (-1,)),
    "attributes": TensorSpec(STRING, (-1, -1)),
    "history_item_id": TensorSpec(STRING, (1, -1)),
    "history_attributes": TensorSpec(STRING, (1, -1, -1)),
    "history_age": TensorSpec(np.dtype(np.int64), (1, -1)),
}
VALUES = {
    "user_id": "u",
    "age": 33,
    "tags": ["x", "y"],
    "item_id": ["a", "b"],
    "price": [1.5, 2],
    "attributes": [["red"], ["blue", "new"]],
}
HISTORY = {"history_item_id": ["a", "b"], "history_attributes": [["red"], ["blue", "new"]], "history_age": [9, 5]}


# Document → arrays


def test_each_kind_of_input_becomes_its_array():
    arrays = request_inputs({**VALUES, **HISTORY}, SPECS)

    expected = {
        "user_id": [b"u"],
        "age": [33],
        "tags": [[b"x", b"y"]],
        "item_id": [b"a", b"b"],
        "price": [1.5, 2],
        "attributes": [[b"red", b""], [b"blue", b"new"]],
        "history_item_id": [[b"a", b"b"]],
        "history_attributes": [[[b"red", b""], [b"blue", b"new"]]],
        "history_age": [[9, 5]],
    }
    assert {name: array.tolist() for name, array in arrays.items()} == expected
    assert {name: array.dtype for name, array in arrays.items()} == {name: spec.dtype for name, spec in SPECS.items()}


def test_the_leading_one_may_be_spelt_out():
    spelt_out = {name: [value] if SPECS[name].shape[0] == 1 else value for name, value in (VALUES | HISTORY).items()}
    plain = request_inputs(VALUES | HISTORY, SPECS)
    for name, array in request_inputs(spelt_out, SPECS).items():
        assert array.tolist() == plain[name].tolist(), name


def test_no_history_at_all_is_an_empty_one():
    arrays = request_inputs(VALUES, SPECS)
    assert arrays["history_item_id"].shape == arrays["history_age"].shape == (1, 0)
    assert arrays["history_attributes"].shape == (1, 0, 1)
    assert arrays["history_age"].dtype == np.int64


def test_null_is_unknown():
    arrays = request_inputs({**VALUES, "user_id": None, "price": [None, 2]}, SPECS)
    assert arrays["user_id"].tolist() == [b""]
    np.testing.assert_array_equal(arrays["price"], [np.nan, 2])


def test_lists_that_are_all_empty_keep_one_place():
    assert request_inputs({**VALUES, "attributes": [[], []]}, SPECS)["attributes"].tolist() == [[b""], [b""]]


@settings(max_examples=50)  # the machine may be busy
@given(rows=st.lists(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), max_size=4), min_size=1, max_size=5))
def test_padding_loses_nothing(rows):
    array = request_inputs({"attributes": rows}, {"attributes": SPECS["attributes"]})["attributes"]
    assert array.shape == (len(rows), max(1, max(map(len, rows))))
    assert [[value.decode() for value in row if value] for row in array] == rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"brand": "x"}, "r.json: inputs.brand: found an unknown input, expected one of user_id, age, tags,"),
        (
            {"prize": [1, 2]},
            f"r.json: inputs.prize: found an unknown input, expected one of {', '.join(SPECS)}; did you mean price?",
        ),
        ({"user_id": 5}, "r.json: inputs.user_id: found 5, expected a string"),
        ({"user_id": ["u", "v"]}, 'r.json: inputs.user_id: found ["u", "v"], expected a string'),
        ({"user_id": "\ud800"}, "r.json: inputs.user_id: found half a surrogate pair, expected Unicode text"),
        ({"age": "33"}, 'r.json: inputs.age: found "33", expected a number'),
        ({"age": True}, "r.json: inputs.age: found true, expected a number"),
        ({"age": 1e300}, "r.json: inputs.age: found 1e+300, expected a number"),
        ({"age": 10**400}, "r.json: inputs.age: found 1000"),
        ({"tags": "x"}, 'r.json: inputs.tags: found "x", expected a list of strings'),
        ({"item_id": "a"}, 'r.json: inputs.item_id: found "a", expected a list of strings, one for each item'),
        ({"price": [1, "2"]}, 'r.json: inputs.price[1]: found "2", expected a number'),
        ({"price": [1]}, "r.json: inputs.price: found length 1, expected 2, one for each item of item_id"),
        ({"attributes": ["a", "b"]}, 'r.json: inputs.attributes[0]: found "a", expected a list of strings'),
        ({"attributes": [["a"], [1]]}, "r.json: inputs.attributes[1][0]: found 1, expected a string"),
        ({"item_id": [], "price": [], "attributes": []}, "r.json: inputs.item_id: found no item, expected at least"),
        ({"history_age": [1, 2.5]}, "r.json: inputs.history_age[1]: found 2.5, expected an integer"),
        ({"history_age": [1, None]}, "r.json: inputs.history_age[1]: found null, expected an integer"),
        ({"history_age": [1, 2**63]}, "r.json: inputs.history_age[1]: found 9223372036854775808, expected an integer"),
        ({"history_age": [1]}, "r.json: inputs.history_age: found length 1, expected 2, one for each action of hist"),
    ],
)
def test_a_bad_value_is_named(change, message):
    with pytest.raises(InputError) as caught:
        request_inputs(VALUES | HISTORY | change, SPECS, "r.json")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(VALUES | HISTORY))
def test_a_missing_input_is_named(name):
    values = VALUES | HISTORY
    del values[name]
    with pytest.raises(InputError, match=rf"r.json: inputs.{name}: found nothing, expected a "):
        request_inputs(values, SPECS, "r.json")


# The file


def test_load_request_reads_a_document(tmp_path):
    document = {"scenario": "search", "request_id": "r1", "inputs": {"query": "thé"}}
    path = tmp_path / "request.json"
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    assert load_request(path) == document


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "found no JSON"),
        (b"\xff", "found no JSON"),
        (b"[" * 200_000, "found no JSON"),
        (b"[]", "found a list at the top, expected an object with inputs"),
        (b"{}", ": inputs: found nothing, expected this required key"),
        (b'{"inputs": [1]}', ": inputs: found a list, expected an object of input names and values"),
        (
            b'{"inputs": {}, "request": 1}',
            ": request: found an unknown key, expected one of scenario, request_id, inputs; did you",
        ),
        (b'{"inputs": {}, "scenario": 1}', ": scenario: found a number, expected a string"),
    ],
)
def test_load_request_refuses(tmp_path, content, message):
    path = tmp_path / "request.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_request(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_load_request_refuses_an_absent_file(tmp_path):
    with pytest.raises(InputError, match=r"absent.json: found no readable file \(No such file or directory\)"):
        load_request(tmp_path / "absent.json")
