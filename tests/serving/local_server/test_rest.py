"""The local server's REST API, over real HTTP on loopback, answers as TF Serving's does."""

import concurrent.futures
import gzip
import json

import httpx
import numpy as np
import pytest

from serving.local_server import serve_in_background

CONFIG = """
model_config_list {{ config {{
  name: "usr" base_path: "{base}" model_platform: "tensorflow"
  model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
  version_labels {{ key: "stable" value: 1 }}
  version_labels {{ key: "canary" value: 2 }}
}} }}
"""
SEARCH = {
    "user_id": ["u"],
    "query": ["tea"],
    "item_id": ["a", "b", {"b64": "enp6"}],
    "price": [0, -1, -4],
    "attributes": [["x", ""], ["", ""], ["x", "y"]],
    "history_item_id": [["a", "c"]],
}
CTR = 1 / (1 + np.exp(-np.array([4.0, 3.0, 4.0])))  # conftest.search_inputs


@pytest.fixture(scope="module")
def http(toy_models, tmp_path_factory):
    base = tmp_path_factory.mktemp("served")
    for version, bias in ((1, 0.5), (2, 0.25)):
        (base / str(version)).symlink_to(toy_models[bias])
    config = base / "models.config"
    config.write_text(CONFIG.format(base=base))
    with (
        serve_in_background(model_config_file=config, rest_port=0, max_request_bytes=2**20) as server,
        httpx.Client(base_url=f"http://{server.rest_address}", trust_env=False, timeout=20) as client,
    ):
        yield client


def error(response, status):
    assert response.status_code == status
    assert response.headers["Content-Type"].startswith("application/json")
    (key,) = response.json()
    assert key == "error"
    return response.json()["error"]


# Predict


@pytest.mark.parametrize(
    ("path", "bias"),
    [("", 0.25), ("/versions/1", 0.5), ("/versions/2", 0.25), ("/labels/stable", 0.5), ("/labels/canary", 0.25)],
)
def test_predict_asks_the_version_of_the_path(http, path, bias):
    response = http.post(f"/v1/models/usr{path}:predict", json={"signature_name": "search", "inputs": SEARCH})
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("application/json")
    outputs = response.json()["outputs"]
    np.testing.assert_allclose(outputs["ctr"], CTR, rtol=1e-6)
    np.testing.assert_allclose(outputs["ctcvr"], bias * CTR, rtol=1e-6)


def test_predict_takes_rows(http):
    row = {"user_id": "u", "query": "tea", "item_id": "a", "price": 0, "attributes": ["x"], "history_item_id": ["a"]}
    response = http.post("/v1/models/usr:predict", json={"signature_name": "search", "instances": [row]})
    (prediction,) = response.json()["predictions"]
    np.testing.assert_allclose(prediction["ctr"], 1 / (1 + np.exp(-3)), rtol=1e-6)


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/models/shop:predict", {"inputs": SEARCH}, 404, "Servable not found for request: Latest(shop)"),
        ("/v1/models/usr/versions/9:predict", {"inputs": 1}, 404, "Servable not found for request: Specific(usr, 9)"),
        ("/v1/models/usr/labels/old:predict", {"inputs": 1}, 400, "Unrecognized servable version label: old"),
        (
            "/v1/models/usr:predict",
            {"signature_name": "browse", "inputs": 1},
            400,
            'Serving signature name: "browse" not found in signature def',
        ),
        ("/v1/models/usr:predict", {"signature_name": "search"}, 400, "Missing 'inputs' or 'instances' key"),
        (
            "/v1/models/usr:predict",
            {"signature_name": "search", "inputs": {**SEARCH, "price": ["x", "y", "z"]}},
            400,
            'JSON Value: "x" Type: String is not of expected type: float',
        ),
        (f"/v1/models/usr/versions/{2**63}:predict", {}, 400, f"Failed to convert version: {2**63} to numeric."),
        ("/v1/models/usr:classify", {}, 501, "classify is not implemented"),
        ("/v1/models/usr:explain", {}, 400, "Malformed request: POST /v1/models/usr:explain"),
        ("/v1/models/usr", {}, 400, "Malformed request: POST /v1/models/usr"),
    ],
)
def test_what_cannot_be_predicted_is_told(http, path, body, status, message):
    assert error(http.post(path, json=body), status) == message


def test_what_the_model_refuses_is_told(http):
    inputs = {**SEARCH, "price": [0, 0]}
    message = error(http.post("/v1/models/usr:predict", json={"signature_name": "search", "inputs": inputs}), 400)
    assert "ncompatible shapes" in message


def test_a_body_that_is_too_large_is_refused(http):
    error(http.post("/v1/models/usr:predict", content=b'{"inputs": "' + b"x" * 2**20), 413)


def test_a_body_may_be_compressed(http):
    body, gzipped = json.dumps({"signature_name": "search", "inputs": SEARCH}).encode(), {"Content-Encoding": "gzip"}
    answer = http.post("/v1/models/usr:predict", content=gzip.compress(body), headers=gzipped)
    np.testing.assert_allclose(answer.json()["outputs"]["ctr"], CTR, rtol=1e-6)
    bomb = gzip.compress(bytes(2**21))
    assert len(bomb) < 2**12
    error(http.post("/v1/models/usr:predict", content=bomb, headers=gzipped), 413)
    for _ in range(2):  # the connection is none to go on with, and the client is told so
        answer = http.post("/v1/models/usr:predict", content=body, headers=gzipped)
        assert error(answer, 400) == "The body cannot be read"


def test_a_body_that_is_no_json_is_refused(http):
    message = error(http.post("/v1/models/usr:predict", content=b'{"inputs": [1, '), 400)
    assert message.startswith("JSON Parse error: ")


@pytest.mark.parametrize(
    "body",
    [
        b'{"signature_name": "\\ud800", "inputs": 1}',
        b'{"signature_name": "\xff", "inputs": 1}',
        b'{"signature_name": "search", "instances": [{"\\ud800": 1}]}',
    ],
)
def test_a_name_that_is_no_text_is_refused(http, body):
    assert error(http.post("/v1/models/usr:predict", content=body), 400)


def test_many_may_ask_at_a_time(http):
    body = {"signature_name": "search", "inputs": SEARCH}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: http.post("/v1/models/usr:predict", json=body).json(), range(40)))
    assert all(answer == answers[0] for answer in answers)


# Status and metadata


def test_status_lists_the_versions(http):
    assert http.get("/v1/models/usr").json() == {
        "model_version_status": [
            {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            for version in ("1", "2")
        ]
    }
    (only,) = http.get("/v1/models/usr/versions/2").json()["model_version_status"]
    assert only["version"] == "2"


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v1/models/shop", 404, "Could not find any versions of model shop"),
        ("GET", "/v1/models/usr/versions/9", 404, "Could not find version 9 of model usr"),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/usr/versions/x", 400, "Malformed request: GET /v1/models/usr/versions/x"),
        ("GET", "/v1/models/usr:predict", 400, "Malformed request: GET /v1/models/usr:predict"),
        ("PUT", "/v1/models/usr", 400, "Malformed request: PUT /v1/models/usr"),
        ("GET", "/v1/models/a%2Fb/metadata", 404, "Servable not found for request: Latest(a/b)"),
        ("GET", "/v1/models/usr/labels/old/metadata", 400, "Unrecognized servable version label: old"),
    ],
)
def test_what_cannot_be_found_is_told(http, method, path, status, message):
    assert error(http.request(method, path), status) == message


def test_metadata_describes_the_signatures(http):
    document = http.get("/v1/models/usr/labels/stable/metadata").json()
    assert document["model_spec"] == {"name": "usr", "signature_name": "", "version": "1"}
    search = document["metadata"]["signature_def"]["signature_def"]["search"]
    assert search["method_name"] == "tensorflow/serving/predict"
    assert search["inputs"]["price"]["dtype"] == "DT_FLOAT"
    assert search["inputs"]["price"]["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}


# The rest


def test_the_path_is_read_without_regard_to_case(http):
    assert http.get("/V1/Models/usr").status_code == 200


def test_other_paths_are_not_found(http):
    assert http.get("/metrics").status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [({"signature_name": "search", "inputs": SEARCH}, "OK"), ("no object", "INVALID_ARGUMENT")],
)
def test_the_metrics_count_what_came_by_rest(http, body, status):
    def count():
        lines = http.get("/monitoring/prometheus/metrics").text.splitlines()
        wanted = f':tensorflow:serving:request_count{{model_name="usr",status="{status}"}} '
        return sum(float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted))

    before = count()
    http.post("/v1/models/usr:predict", json=body)
    assert count() == before + 1
