"""The client: what it makes of a request document, how it ranks, and what it says when something is wrong."""

import io
import json
import socket

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from serving.client import Client, TensorSpec, format_ranking, load_request, request_inputs
from serving.server import serve_in_background
from usr_tf.errors import InputError

SPECS = {
    "user_id": TensorSpec(tf.string, (1,)),
    "age": TensorSpec(tf.float32, (1,)),
    "tags": TensorSpec(tf.string, (1, -1)),
    "item_id": TensorSpec(tf.string, (-1,)),
    "price": TensorSpec(tf.float32, (-1,)),
    "attributes": TensorSpec(tf.string, (-1, -1)),
    "history_item_id": TensorSpec(tf.string, (1, -1)),
    "history_attributes": TensorSpec(tf.string, (1, -1, -1)),
    "history_age": TensorSpec(tf.int64, (1, -1)),
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
SEARCH_CTR = 1 / (1 + np.exp(-np.array([4.0, 3.0, 4.0])))  # conftest.search_inputs
SEARCH = {
    "user_id": "u",
    "query": "tea",
    "item_id": ["a", "b", "zzz"],
    "price": [0, -1, -4],
    "attributes": [["x"], [], ["x", "y"]],
    "history_item_id": ["a", "c"],
}


@pytest.fixture(scope="module")
def client(toy_models, tmp_path_factory):
    base = tmp_path_factory.mktemp("served")
    (base / "1").symlink_to(toy_models[0.5])
    with serve_in_background(base) as server, Client(server.address) as client:
        yield client


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
    assert {name: array.dtype for name, array in arrays.items()} == {
        name: spec.dtype.as_numpy_dtype for name, spec in SPECS.items()
    }


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
        (b'{"inputs": {}, "request": 1}', ": request: found an unknown key, expected one of scenario, request_id, inp"),
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


# Against a server


def test_metadata_lists_signatures_and_inputs(client):
    metadata = client.metadata()
    assert list(metadata) == ["recommendation", "search", "search_examples", "serving_default"]
    assert metadata["search"] == {
        "attributes": (tf.string, (-1, -1)),
        "history_item_id": (tf.string, (1, -1)),
        "item_id": (tf.string, (-1,)),
        "price": (tf.float32, (-1,)),
        "query": (tf.string, (1,)),
        "user_id": (tf.string, (1,)),
    }


def test_predict_sends_lists_and_arrays_alike(client, search_inputs):
    lists = {
        name: array.astype(str if array.dtype == object else float).tolist() for name, array in search_inputs.items()
    }
    wide = {**search_inputs, "price": search_inputs["price"].astype(np.float64)}
    for inputs in (search_inputs, lists, wide):
        outputs = client.predict("search", inputs)
        assert list(outputs) == ["ctcvr", "ctr"]
        np.testing.assert_allclose(outputs["ctr"], SEARCH_CTR, rtol=1e-6)
        assert outputs["ctr"].dtype == np.float32


def test_predict_takes_serialized_examples(client):
    example = tf.train.Example()
    example.features.feature["item_id"].bytes_list.value.append(b"c")
    example.features.feature["price"].float_list.value.append(-3.0)
    assert (
        client.predict("search_examples", {"examples": [example.SerializeToString()] * 2})["ctr"].tolist() == [0.5] * 2
    )


def test_score_ranks_the_items(client):
    rows = client.score("search", {"inputs": SEARCH})

    assert [(row["rank"], row["item_id"]) for row in rows] == [(1, "a"), (2, "zzz"), (3, "b")]  # a and zzz are equal
    assert list(rows[0]) == ["rank", "item_id", "ctr", "ctcvr"]
    np.testing.assert_allclose([row["ctr"] for row in rows], SEARCH_CTR[[0, 2, 1]], rtol=1e-6)
    np.testing.assert_allclose([row["ctcvr"] for row in rows], 0.5 * SEARCH_CTR[[0, 2, 1]], rtol=1e-6)


def test_score_without_history(client):
    inputs = {name: value for name, value in SEARCH.items() if name != "history_item_id"}
    rows = client.score("recommendation", {"scenario": "recommendation", "inputs": inputs})
    np.testing.assert_allclose([row["ctr"] for row in rows], 1 / (1 + np.exp([-1.0, -1.0, 0.0])), rtol=1e-6)


def test_score_by_another_output(client):
    rows = client.score("search", {"inputs": SEARCH}, by="ctcvr")
    assert list(rows[0]) == ["rank", "item_id", "ctcvr", "ctr"]
    with pytest.raises(InputError, match="by: found 'cvr', expected one of ctcvr, ctr"):
        client.score("search", {"inputs": SEARCH}, by="cvr")


@pytest.mark.parametrize("scenario", ["browse", "search_examples", "serving_default"])
def test_score_refuses_an_unknown_scenario(client, scenario):
    with pytest.raises(InputError, match=f"scenario: found '{scenario}', expected one of recommendation, search$"):
        client.score(scenario, {"inputs": SEARCH})


def test_score_refuses_a_document_for_another_scenario(client):
    with pytest.raises(InputError, match=r"r.json: scenario: found 'recommendation', expected 'search'"):
        client.score("search", {"scenario": "recommendation", "inputs": SEARCH}, place="r.json")


def test_score_names_the_file_and_key(client):
    with pytest.raises(InputError, match=r"r.json: inputs.price: found length 1, expected 3, one for each item"):
        client.score("search", {"inputs": SEARCH | {"price": [1]}}, place="r.json")


def test_predict_tells_what_the_server_refuses(client, search_inputs):
    del search_inputs["price"]
    with pytest.raises(InputError, match=rf"{client.address}: found a refusal \(.*Missing but required: {{price}}"):
        client.predict("search", search_inputs)
    with pytest.raises(InputError, match="signature: found 'browse', expected one of recommendation, search,"):
        client.predict("browse", search_inputs)


def test_predict_refuses_lists_that_make_no_array(client, search_inputs):
    for name, value in (("price", [[1], [2, 3]]), ("price", ["a"]), ("item_id", [1, 2])):
        with pytest.raises(InputError, match=rf"inputs.{name}: found .*, expected a rectangular array of "):
            client.predict("search", {**search_inputs, name: value})


def test_an_unknown_model_is_an_input_error(client):
    with Client(client.address, model="shop") as other, pytest.raises(InputError, match="no model 'shop'"):
        other.metadata()


def test_a_dead_port_is_an_input_error():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    with Client(address) as client, pytest.raises(InputError, match=f"^{address}: found no server") as caught:
        client.score("search", {"inputs": SEARCH})
    assert "\n" not in str(caught.value)


def test_a_server_that_never_answers_is_an_input_error():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with Client(address, timeout=0.3) as client, pytest.raises(InputError, match=r"no answer within 0.3 s"):
            client.metadata()


def test_a_timeout_is_above_zero():
    with pytest.raises(ValueError, match="Received: timeout=0"):
        Client("127.0.0.1:1", timeout=0)


# The table


def _printed(rows):
    console = Console(file=io.StringIO(), width=80)
    console.print(format_ranking(rows, title="search"))
    return console.file.getvalue()


def test_format_ranking_prints_every_row():
    text = _printed([{"rank": 1, "item_id": "[bold]a", "ctr": 0.25, "ctcvr": 0.125}])
    for cell in ("search", "rank", "[bold]a", "0.250000", "0.125000"):
        assert cell in text


def test_format_ranking_of_nothing():
    assert "0." not in _printed([])
