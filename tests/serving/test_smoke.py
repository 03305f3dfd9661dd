"""`python -m serving.publishing.smoke` against the local server: every check passes, and each can fail."""

import shutil

import numpy as np
import pytest

from serving.formats.logged_requests import LoggedRequest
from serving.local_server import serve_in_background
from serving.publishing import smoke as module
from serving.publishing.golden import write_golden
from serving.publishing.smoke import main, smoke

CTR = 1 / (1 + np.exp(-np.array([1.0, -1.0])))
GOLDEN = LoggedRequest(
    "r1",
    "search",
    {
        "user_id": "u",
        "query": "tea",
        "item_id": ["a", "b"],
        "price": [0.0, -3.0],
        "attributes": [[], []],
        "history_item_id": [],
    },
    {"ctr": CTR.tolist(), "ctcvr": (0.5 * CTR).tolist()},
)


@pytest.fixture(scope="module")
def served(toy_models, tmp_path_factory):
    """The gRPC and REST addresses of a server of version 7, and the version's folder."""
    folder = tmp_path_factory.mktemp("served") / "7"
    shutil.copytree(toy_models[0.5], folder)
    write_golden(folder, [GOLDEN])
    with serve_in_background(folder.parent, rest_port=0) as server:
        yield server.address, server.rest_address, folder


def test_every_check_of_a_good_server_passes(served, capsys):
    address, rest, folder = served
    assert main([f"--address={address}", f"--rest={rest}", f"--model_dir={folder}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "ok    status",
        "ok    metadata",
        "ok    request signatures",
        "ok    example signatures",
        "ok    unknown model",
        "ok    unknown signature",
        "ok    missing input",
        "ok    REST status",
        "ok    REST scores",
        "ok    REST unknown model",
    ]
    assert lines[0].endswith("version 7 is AVAILABLE")
    assert lines[1].endswith("recommendation, search, search_examples, serving_default")
    assert lines[2].startswith("ok    request signatures: 1 golden requests, off by ")


def test_other_scores_fail(served, tmp_path, capsys, monkeypatch):
    address, rest, folder = served
    other = LoggedRequest("r1", "search", GOLDEN.inputs, {"ctr": [float(CTR[0]), 0.3]})
    monkeypatch.setattr(module, "read_golden", lambda _: [other])
    assert main([f"--address={address}", f"--rest={rest}", f"--model_dir={folder}"]) == 2
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 3  # the request's signature, that of examples, and REST
    assert "request signatures: found a score off by 3.1e-02 (ctr of item b in request r1 of search: " in failed[0]
    assert failed[0].endswith("expected offline scores to 1e-05")


def test_a_version_that_is_not_there_and_no_server_fail(served, tmp_path):
    address, rest, folder = served
    other = shutil.copytree(folder, tmp_path / "8")
    results = {result.check: result for result in smoke(address, other, rest=rest)}
    assert not results["status"].passed
    assert results["status"].found == "NOT_FOUND Could not find version 8 of model usr"
    assert not results["missing input"].passed
    assert results["unknown model"].passed
    assert not results["REST status"].passed
    nobody = "127.0.0.1:1"
    assert not any(result.passed for result in smoke(nobody, folder, rest=nobody, timeout=5))


def test_a_folder_that_was_not_published_is_refused(served, capsys):
    address, _, folder = served
    assert main([f"--address={address}", f"--model_dir={folder.parent}"]) == 2
    assert "found no SavedModel of a version, expected SERVING/<version>" in capsys.readouterr().err


def test_a_check_that_fails_through_a_proxy_names_it(served, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    results = list(smoke("models.example:8500", served[2], rest="models.example:8501", timeout=1))
    assert not any(result.passed for result in results)
    calls = [result.found for result in results if "found" not in result.found]
    assert len(calls) >= 6
    assert all(call.endswith(", through the proxy 127.0.0.1:9 of http_proxy") for call in calls)
