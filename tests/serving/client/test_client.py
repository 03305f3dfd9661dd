"""Clients against a live server: equal responses and errors over gRPC, asyncio and REST."""

import asyncio
import concurrent.futures
import functools
import json
import math
import socket
import time

import numpy as np
import pytest
import tensorflow as tf

from serving.client import AsyncRanker, Ranker, RestRanker
from serving.client.errors import DeadlineExceeded, NotFound, Refused, ServingError, Unavailable
from serving.local_server import serve_in_background
from serving.network.tls import ServerTls, Tls
from tests.serving.certificates import Authority
from tests.serving.rankers import KINDS
from usr_tf.cli import main
from usr_tf.errors import InputError

SEARCH_CTR = 1 / (1 + np.exp(-np.array([4.0, 3.0, 4.0])))  # conftest.search_inputs
SEARCH = {
    "user_id": "u",
    "query": "tea",
    "item_id": ["a", "b", "zzz"],
    "price": [0, -1, -4],
    "attributes": [["x"], [], ["x", "y"]],
    "history_item_id": ["a", "c"],
}
CONFIG = """
model_config_list {{ config {{
  name: "usr" base_path: "{base}" model_platform: "tensorflow"
  model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
  version_labels {{ key: "stable" value: 1 }}
  version_labels {{ key: "canary" value: 2 }}
}} }}
"""
BIAS = {1: 0.25, 2: 0.5}


@pytest.fixture(scope="module")
def server(toy_models, tmp_path_factory):
    base = tmp_path_factory.mktemp("served")
    for version, bias in BIAS.items():
        (base / str(version)).symlink_to(toy_models[bias])
    config = base / "models.config"
    config.write_text(CONFIG.format(base=base))
    with serve_in_background(model_config_file=config, rest_port=0) as running:
        yield running


@pytest.fixture(scope="module", params=KINDS)
def connect(request, server):
    """`connect(...)` makes a ranker of each kind for the server."""
    address = server.rest_address if request.param == "rest" else server.address
    return functools.partial(KINDS[request.param], address)


@pytest.fixture(scope="module")
def ranker(connect):
    with connect() as made:
        yield made


# Answers


def test_metadata_lists_signatures_and_inputs(ranker):
    metadata = ranker.metadata()
    assert list(metadata) == ["recommendation", "search", "search_examples", "serving_default"]
    assert metadata["search"] == {
        "attributes": (tf.string, (-1, -1)),
        "history_item_id": (tf.string, (1, -1)),
        "item_id": (tf.string, (-1,)),
        "price": (tf.float32, (-1,)),
        "query": (tf.string, (1,)),
        "user_id": (tf.string, (1,)),
    }


def test_predict_sends_lists_and_arrays_alike(ranker, search_inputs):
    lists = {
        name: array.astype(str if array.dtype == object else float).tolist() for name, array in search_inputs.items()
    }
    wide = {**search_inputs, "price": search_inputs["price"].astype(np.float64)}
    for inputs in (search_inputs, lists, wide):
        outputs = ranker.predict("search", inputs)
        assert list(outputs) == ["ctcvr", "ctr"]
        np.testing.assert_allclose(outputs["ctr"], SEARCH_CTR, rtol=1e-6)
        assert outputs["ctr"].dtype == np.float32


def test_predict_takes_serialized_examples(ranker):
    example = tf.train.Example()
    example.features.feature["item_id"].bytes_list.value.append(b"c")
    example.features.feature["price"].float_list.value.append(-3.0)
    outputs = ranker.predict("search_examples", {"examples": [example.SerializeToString()] * 2})
    assert outputs["ctr"].tolist() == [0.5] * 2


def test_numbers_that_are_none_travel(ranker, search_inputs):
    search_inputs["price"][:] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(ranker.predict("search", search_inputs)["ctr"], np.float32([np.nan, 1, 0]))


def test_score_ranks_the_items(ranker):
    rows = ranker.score("search", {"inputs": SEARCH})

    assert [(row["rank"], row["item_id"]) for row in rows] == [(1, "a"), (2, "zzz"), (3, "b")]  # a and zzz are equal
    assert list(rows[0]) == ["rank", "item_id", "ctr", "ctcvr"]
    np.testing.assert_allclose([row["ctr"] for row in rows], SEARCH_CTR[[0, 2, 1]], rtol=1e-6)
    np.testing.assert_allclose([row["ctcvr"] for row in rows], 0.5 * SEARCH_CTR[[0, 2, 1]], rtol=1e-6)


def test_score_without_history(ranker):
    inputs = {name: value for name, value in SEARCH.items() if name != "history_item_id"}
    rows = ranker.score("recommendation", {"scenario": "recommendation", "inputs": inputs})
    np.testing.assert_allclose([row["ctr"] for row in rows], 1 / (1 + np.exp([-1.0, -1.0, 0.0])), rtol=1e-6)


def test_score_by_a_formula_over_outputs_and_the_items_numbers(ranker):
    rows = ranker.score("search", {"inputs": SEARCH}, by="ctcvr * -price + 5 * ctr")
    scores = 0.5 * SEARCH_CTR * [0, 1, 4] + 5 * SEARCH_CTR
    assert [row["item_id"] for row in rows] == ["zzz", "b", "a"]
    np.testing.assert_allclose([row["score"] for row in rows], scores[[2, 1, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "bias"), [({}, 0.5), ({"version": 1}, 0.25), ({"label": "stable"}, 0.25), ({"label": "canary"}, 0.5)]
)
def test_a_version_or_a_label_may_be_asked(connect, search_inputs, options, bias):
    with connect(**options) as ranker:
        outputs = ranker.predict("search", search_inputs)
    np.testing.assert_allclose(outputs["ctcvr"], bias * SEARCH_CTR, rtol=1e-6)


def test_the_three_give_the_same_rankings(server):
    def ask(kind, address):
        with KINDS[kind](address) as ranker:
            return [
                ranker.score(scenario, {"inputs": SEARCH}, by)
                for scenario in ("search", "recommendation")
                for by in (None, "ctcvr", "ctr + 5 * ctcvr", "log(ctcvr) * price")
            ]

    rankings = ask("grpc", server.address)
    assert ask("asyncio", server.address) == rankings
    assert ask("rest", server.rest_address) == rankings


@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_threads_share_a_ranker(kind, server, search_inputs):
    with (
        KINDS[kind](server.rest_address if kind == "rest" else server.address) as ranker,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(lambda _: ranker.predict("search", search_inputs)["ctr"], range(40)))
    for answer in answers:
        np.testing.assert_allclose(answer, SEARCH_CTR, rtol=1e-6)


def test_coroutines_share_a_ranker(server, search_inputs):
    async def ask():
        async with AsyncRanker(server.address) as ranker:
            return await asyncio.gather(*(ranker.predict("search", search_inputs) for _ in range(20)))

    for answer in asyncio.run(ask()):
        np.testing.assert_allclose(answer["ctr"], SEARCH_CTR, rtol=1e-6)


# Errors


def test_an_unknown_model_is_not_found(connect):
    with connect("a shop/é?") as ranker, pytest.raises(NotFound) as caught:
        ranker.metadata()
    assert str(caught.value).startswith(f"{ranker.address}: GetModelMetadata of a shop/é?, within ")
    said = "found NOT_FOUND (Servable not found for request: Latest(a shop/é?))"
    assert str(caught.value).endswith(f": {said}, expected a model and version that it serves")
    assert isinstance(caught.value, InputError)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            {"version": 9},
            NotFound,
            r"of usr, version 9, within .*: found NOT_FOUND \(Servable not found for .*\(usr, 9\)",
        ),
        (
            {"label": "old"},
            Refused,
            "of usr, label old, within .*: found INVALID_ARGUMENT \\(Unrecognized servable version label",
        ),
    ],
)
def test_an_unknown_version_is_told(connect, options, kind, message):
    with connect(**options) as ranker, pytest.raises(kind, match=message):
        ranker.score("search", {"inputs": SEARCH})


def test_what_the_server_refuses_is_told(ranker):
    told = rf"^{ranker.address}: Predict search_examples of usr, within .*: found INVALID_ARGUMENT \(.*parse"
    with pytest.raises(Refused, match=told):
        ranker.predict("search_examples", {"examples": [b"no example"]})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("price", None, "found nothing, expected a list of numbers, one for each item"),
        ("prise", [1, 2, 3], r"found an unknown input, expected one of attributes, .*; did you mean price\?"),
        ("price", [1, 2], "found length 2, expected 3, one for each item of item_id"),
        ("attributes", [[b"x"], [b""]], "found length 2, expected 3, one for each item of item_id"),
        ("price", [[1, 2, 3]], r"found shape \[1, 3\], expected shape \[any\]"),
        ("query", ["tea", "cup"], r"found shape \[2\], expected shape \[1\]"),
    ],
)
def test_arrays_that_are_not_the_signatures_are_named(ranker, search_inputs, name, value, message):
    inputs = {key: each for key, each in (search_inputs | {name: value}).items() if each is not None}
    with pytest.raises(InputError, match=f"^inputs.{name}: {message}"):
        ranker.predict("search", inputs)


def test_predict_refuses_an_unknown_signature(ranker, search_inputs):
    with pytest.raises(InputError, match="signature: found 'browse', expected one of recommendation, search,"):
        ranker.predict("browse", search_inputs)


def test_predict_refuses_lists_that_make_no_array(ranker, search_inputs):
    for name, value in (("price", [[1], [2, 3]]), ("price", ["a"]), ("item_id", [1, 2])):
        with pytest.raises(InputError, match=rf"inputs.{name}: found .*, expected a rectangular array of "):
            ranker.predict("search", {**search_inputs, name: value})


@pytest.mark.parametrize("scenario", ["browse", "search_examples", "serving_default"])
def test_score_refuses_an_unknown_scenario(ranker, scenario):
    with pytest.raises(InputError, match=f"scenario: found '{scenario}', expected one of recommendation, search$"):
        ranker.score(scenario, {"inputs": SEARCH})


def test_score_refuses_a_document_for_another_scenario(ranker):
    with pytest.raises(InputError, match=r"r.json: scenario: found 'recommendation', expected 'search'"):
        ranker.score("search", {"scenario": "recommendation", "inputs": SEARCH}, place="r.json")


def test_score_names_the_file_and_key(ranker):
    with pytest.raises(InputError, match=r"r.json: inputs.price: found length 1, expected 3, one for each item"):
        ranker.score("search", {"inputs": SEARCH | {"price": [1]}}, place="r.json")


def test_score_names_what_a_formula_cannot_hold(ranker):
    with pytest.raises(InputError, match=r"column 7: found the name 'cvr', expected one of ctcvr, ctr, price$"):
        ranker.score("search", {"inputs": SEARCH}, by="ctr + cvr")
    with pytest.raises(InputError, match=r"by 'ctr \+', column"):
        ranker.score("search", {"inputs": SEARCH}, by="ctr +")


@pytest.mark.parametrize("kind", KINDS)
def test_a_dead_port_is_unavailable(kind):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    with (
        KINDS[kind](address) as ranker,
        pytest.raises(Unavailable, match=f"^{address}: .*: found UNAVAILABLE") as caught,
    ):
        ranker.score("search", {"inputs": SEARCH})
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, InputError)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_never_answers_is_given_up_at_the_deadline(kind):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with KINDS[kind](address, timeout=30) as ranker:
            start = time.monotonic()
            with pytest.raises(DeadlineExceeded, match=r"within 0.\d* s: found DEADLINE_EXCEEDED"):
                ranker.metadata(timeout=0.3)
            assert time.monotonic() - start > 0.25


def test_rest_of_another_server_is_refused(server):
    with RestRanker(server.address) as ranker, pytest.raises(ServingError):  # gRPC's port
        ranker.metadata(timeout=5)


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_that_make_no_sense_are_refused(kind):
    for options, message in (
        ({"timeout": 0}, "Received: timeout=0"),
        ({"timeout": math.inf}, "Received: timeout=inf"),
        ({"timeout": math.nan}, "Received: timeout=nan"),
        ({"retries": 5}, "Received: retries=5"),
        ({"retries": 0.5}, "Received: retries=0.5"),
        ({"version": -1}, "Received: version=-1"),
        ({"version": "3"}, "Received: version='3'"),
        ({"model": ""}, "Received: address='127.0.0.1:1', model=''"),
        ({"version": 3, "label": "canary"}, "version: found 3, and the label 'canary', expected one of the two"),
    ):
        with pytest.raises(ValueError, match=message):
            KINDS[kind]("127.0.0.1:1", **options)


# A new version


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_version_with_other_signatures_is_understood(kind, tmp_path, toy_models):
    """The client has kept the signatures of a version that has since gone."""

    class Other(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "item_id"), tf.TensorSpec([1], name="age")])
        def score(self, item_id, age):
            return {"ctr": tf.strings.to_number(item_id) * age}

    (tmp_path / "1").symlink_to(toy_models[0.5])
    with serve_in_background(tmp_path, rest_port=0, poll_seconds=0.02) as server:
        address = server.rest_address if kind == "rest" else server.address
        with KINDS[kind](address) as ranker:
            assert len(ranker.score("search", {"inputs": SEARCH})) == 3
            other = Other()
            tf.saved_model.save(other, str(tmp_path / "staged"), signatures={"search": other.score})
            (tmp_path / "staged").rename(tmp_path / "2")
            deadline = time.monotonic() + 20
            while server.version != 2:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            rows = ranker.score("search", {"inputs": {"item_id": ["2", "3"], "age": 5}})
    assert rows == [{"rank": 1, "item_id": "3", "ctr": 15.0}, {"rank": 2, "item_id": "2", "ctr": 10.0}]


# TLS


@pytest.fixture(scope="module")
def guarded(toy_models, tmp_path_factory, authority):
    base = tmp_path_factory.mktemp("guarded")
    (base / "1").symlink_to(toy_models[0.5])
    with serve_in_background(base, tls=ServerTls(*authority.files("server"), authority.ca), rest_port=0) as running:
        yield running


@pytest.mark.parametrize("kind", KINDS)
def test_with_mutual_tls_each_end_knows_the_other(kind, guarded, authority, tmp_path, search_inputs):
    address = guarded.rest_address if kind == "rest" else guarded.address
    with KINDS[kind](address, tls=Tls(authority.ca, *authority.files("client"))) as ranker:
        np.testing.assert_allclose(ranker.predict("search", search_inputs)["ctr"], SEARCH_CTR, rtol=1e-6)
    stranger = Authority(tmp_path, "stranger")
    for tls in (None, Tls(authority.ca), Tls(stranger.ca, *authority.files("client"))):
        with KINDS[kind](address, tls=tls, retries=0) as ranker, pytest.raises(Unavailable):
            ranker.metadata()


def test_files_that_are_no_certificates_are_named(authority, tmp_path):
    cert, key = authority.files("client")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    for tls, message in (
        (Tls(tmp_path / "absent.pem"), r"absent.pem: found a file that does not load \(No such file or directory\)"),
        (Tls(nonsense), "nonsense.pem: found a file that does not load .*, expected certificates in PEM"),
        (Tls(authority.ca, cert), "TLS: found the certificate alone, expected both, or neither"),
        (Tls(authority.ca, key=key), "TLS: found the key alone"),
        (Tls(authority.ca, cert, nonsense), "client.pem: found a file that does not load .*nonsense.pem"),
        (Tls(authority.ca, cert, authority.files("server")[1]), "client.pem: found a file that does not load"),
    ):
        for kind in (Ranker, RestRanker):
            with pytest.raises(InputError, match=message):
                kind("127.0.0.1:1", tls=tls)


# The command


@pytest.fixture
def request_file(tmp_path):
    path = tmp_path / "request.json"
    path.write_text(json.dumps({"request_id": "r1", "inputs": SEARCH}))
    return f"--request={path}"


def test_the_command_prints_a_table(server, request_file, capsys):
    assert main(["score", f"--address={server.address}", "--scenario=search", request_file]) == 0
    out = capsys.readouterr().out
    assert "search r1" in out
    assert out.index(" a ") < out.index(" zzz ") < out.index(" b ")


@pytest.mark.parametrize("rest", [False, True])
def test_the_command_prints_json_to_pipe(server, request_file, capsys, rest):
    address = [f"--address={server.rest_address}", "--rest"] if rest else [f"--address={server.address}"]
    options = ["--scenario=search", request_file, "--by=log(price)", "--label=stable", "--json"]
    assert main(["score", *address, *options]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["item_id"] for row in rows] == ["a", "b", "zzz"]
    assert [row["score"] for row in rows] == [None] * 3  # JSON has no -inf and no NaN
    np.testing.assert_allclose([row["ctcvr"] for row in rows], BIAS[1] * SEARCH_CTR, rtol=1e-6)


def test_the_command_takes_certificates(guarded, authority, request_file, capsys):
    cert, key = authority.files("client")
    options = [f"--tls_ca={authority.ca}", f"--tls_cert={cert}", f"--tls_key={key}", "--scenario=search", request_file]
    assert main(["score", f"--address={guarded.address}", *options]) == 0
    assert main(["score", f"--address={guarded.rest_address}", "--rest", *options]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by=ctr; ctcvr"], "by 'ctr; ctcvr', column 4: found no formula"),
        (["--version=9"], "found NOT_FOUND (Servable not found for request: Specific(usr, 9))"),
        (["--version=1", "--label=stable"], "version: found 1, and the label 'stable', expected one of the two"),
        (["--model=shop"], "NOT_FOUND"),
        (["--tls_ca=absent.pem"], "absent.pem: found a file that does not load"),
    ],
)
def test_the_command_names_what_is_wrong(server, request_file, capsys, options, message):
    assert main(["score", f"--address={server.address}", "--scenario=search", request_file, *options]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
