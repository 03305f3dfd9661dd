"""Smoke test of a live server (container or `usr-tf serve`) against the golden requests of a version.

    python -m serving.publishing.smoke --address localhost:8500 --rest localhost:8501 --model_dir SERVING/1700000000

Prints a line for each check, and exits with 2 where one failed.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import grpc
import httpx
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.client.transport import proxy_options
from serving.formats.logged_requests import LoggedRequest
from serving.formats.rest_json import read_answer, write_request
from serving.formats.signatures import read_signatures, signature_specs
from serving.network.address import parse_address
from serving.network.proxy import Proxy, grpc_proxy, rest_proxy
from serving.publishing.golden import TOLERANCE, largest_difference, predict_requests, read_golden, response_scores
from usr_tf.errors import InputError
from usr_tf.schema import EXAMPLES_SUFFIX
from usr_tf.streams import accept_any_text

_State = get_model_status_pb2.ModelVersionStatus.State


class Result(NamedTuple):
    """Result of one check: name, finding, and whether it passed."""

    check: str
    found: str
    passed: bool

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'}  {self.check}: {self.found}"


def smoke(
    address: str, model_dir: str | Path, model: str = "usr", rest: str | None = None, timeout: float = 10.0
) -> Iterator[Result]:
    """Runs every check of a server in order.

    Args:
      address: `host:port` of its gRPC.
      model_dir: the version's folder, `SERVING/<version>`, published by `usr-tf publish`.
      rest: `host:port` of its REST API, to check that too.
      timeout: seconds that any one call may take.

    Raises:
      InputError: the folder is no published version, or an address is none.
    """
    version = _Version(Path(model_dir), model, timeout)
    checks: dict[str, Callable[[], str]] = {}
    grpc_at, rest_at = parse_address(address), parse_address(rest) if rest else None
    grpc_by, http_by = grpc_proxy(grpc_at), rest_proxy(rest_at, "http") if rest_at else None
    with (
        grpc.insecure_channel(str(grpc_at), proxy_options(grpc_by)) as channel,
        httpx.Client(timeout=timeout, proxy=http_by.url if http_by else None, trust_env=False) as http,
    ):
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        checks["status"] = functools.partial(version.status, model_service_pb2_grpc.ModelServiceStub(channel))
        checks["metadata"] = functools.partial(version.metadata, predict)
        checks["request signatures"] = functools.partial(version.scores, predict, "")
        checks["example signatures"] = functools.partial(version.scores, predict, EXAMPLES_SUFFIX)
        for name, (code, request) in version.mistakes().items():
            checks[name] = functools.partial(version.refused, predict, code, request)
        if rest_at:
            root = f"http://{rest_at}"
            checks["REST status"] = functools.partial(version.rest_status, http, root)
            checks["REST scores"] = functools.partial(version.rest_scores, http, root)
            checks["REST unknown model"] = functools.partial(version.rest_refused, http, root)
        for name, check in checks.items():
            try:
                yield Result(name, check(), True)
            except _Failed as failure:
                yield Result(name, str(failure), False)
            except grpc.RpcError as error:
                reason = " ".join(str(error.details()).split())
                yield Result(name, f"{error.code().name} {reason}{_through(grpc_by)}", False)
            except (httpx.HTTPError, ValueError) as error:
                yield Result(name, f"{type(error).__name__} {error}{_through(http_by)}", False)


def _through(proxy: Proxy | None) -> str:
    return f", through {proxy}" if proxy else ""


class _Failed(Exception):
    """Failure of a check."""

    def __init__(self, found: str, expected: str):
        super().__init__(f"found {found}, expected {expected}")


class _Version:
    """Published version and the checks of a server against it. Each returns its finding or raises `_Failed`."""

    def __init__(self, folder: Path, model: str, timeout: float):
        if not (folder.name.isascii() and folder.name.isdigit() and (folder / "saved_model.pb").exists()):
            raise InputError(folder, "no SavedModel of a version", "SERVING/<version>, the version a number")
        self.number, self.model, self.timeout = int(folder.name), model, timeout
        self.golden = read_golden(folder)
        self.signatures = read_signatures(folder)
        self.specs = signature_specs(self.signatures)

    def status(self, stub: model_service_pb2_grpc.ModelServiceStub) -> str:
        request = get_model_status_pb2.GetModelStatusRequest()
        self._fill(request.model_spec)
        (status,) = stub.GetModelStatus(request, timeout=self.timeout).model_version_status
        if status.state != _State.AVAILABLE:
            raise _Failed(f"{_State.Name(status.state)} {status.status.error_message}".strip(), "AVAILABLE")
        return f"version {status.version} is AVAILABLE"

    def metadata(self, stub: prediction_service_pb2_grpc.PredictionServiceStub) -> str:
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._fill(request.model_spec)
        served = get_model_metadata_pb2.SignatureDefMap()
        stub.GetModelMetadata(request, timeout=self.timeout).metadata["signature_def"].Unpack(served)
        for name, signature in self.signatures.items():
            if _described(served.signature_def[name]) != _described(signature):
                raise _Failed(f"{name} with {_described(served.signature_def[name])}", f"{_described(signature)}")
        return ", ".join(sorted(self.signatures))

    def scores(self, stub: prediction_service_pb2_grpc.PredictionServiceStub, suffix: str) -> str:
        asked = map(self._address, predict_requests(self.golden, self.specs, suffix))
        served = [response_scores(stub.Predict(request, timeout=self.timeout)) for request in asked]
        return _agreement(self.golden, served)

    def mistakes(self) -> dict[str, tuple[grpc.StatusCode, predict_pb2.PredictRequest]]:
        """Invalid requests with the code of TF Serving for each."""
        other, signature, fewer = (self._address(next(predict_requests(self.golden, self.specs))) for _ in range(3))
        other.model_spec.name = f"not_{self.model}"
        signature.model_spec.signature_name = "not_a_signature"
        del fewer.inputs[next(iter(fewer.inputs))]
        return {
            "unknown model": (grpc.StatusCode.NOT_FOUND, other),
            "unknown signature": (grpc.StatusCode.FAILED_PRECONDITION, signature),
            "missing input": (grpc.StatusCode.INVALID_ARGUMENT, fewer),
        }

    def refused(
        self,
        stub: prediction_service_pb2_grpc.PredictionServiceStub,
        code: grpc.StatusCode,
        request: predict_pb2.PredictRequest,
    ) -> str:
        try:
            stub.Predict(request, timeout=self.timeout)
        except grpc.RpcError as error:
            if error.code() != code:
                raise _Failed(f"{error.code().name} ({error.details()})", code.name) from error
            return code.name
        raise _Failed("an answer", code.name)

    def rest_status(self, http: httpx.Client, root: str) -> str:
        (status,) = http.get(self._url(root)).raise_for_status().json()["model_version_status"]
        if status["state"] != "AVAILABLE":
            raise _Failed(status["state"], "AVAILABLE")
        return f"version {status['version']} is AVAILABLE"

    def rest_scores(self, http: httpx.Client, root: str) -> str:
        asked, served = [], []
        for request, message in zip(self.golden, predict_requests(self.golden, self.specs), strict=True):
            try:
                body = write_request(message)
            except InputError:  # an empty history of lists: JSON cannot tell its shape
                continue
            answer = http.post(f"{self._url(root)}:predict", content=body).raise_for_status().content
            asked.append(request)
            served.append(response_scores(read_answer(answer, self.signatures[message.model_spec.signature_name])))
        return _agreement(asked, served)

    def rest_refused(self, http: httpx.Client, root: str) -> str:
        status = http.get(f"{root}/v1/models/not_{self.model}").status_code
        if status != 404:
            raise _Failed(str(status), "404")
        return "404"

    def _address(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictRequest:
        self._fill(request.model_spec)
        return request

    def _fill(self, spec: model_pb2.ModelSpec) -> None:
        spec.name = self.model
        spec.version.value = self.number

    def _url(self, root: str) -> str:
        return f"{root}/v1/models/{self.model}/versions/{self.number}"


def _agreement(requests: Sequence[LoggedRequest], served: Sequence[Mapping[str, np.ndarray]]) -> str:
    if not requests:
        return "no request that JSON can hold"
    worst = largest_difference(requests, served)
    if worst.value > TOLERANCE:
        raise _Failed(f"a score off by {worst}", f"offline scores to {TOLERANCE:g}")
    return f"{len(requests)} golden requests, off by {worst.value:.1e} at the most"


def _described(signature: meta_graph_pb2.SignatureDef) -> dict[str, tuple[str, list[int]]]:
    """Inputs and outputs by name, without tensor names."""
    return {
        name: (tf.as_dtype(info.dtype).name, [dim.size for dim in info.tensor_shape.dim])
        for side in (signature.inputs, signature.outputs)
        for name, info in sorted(side.items())
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", required=True, help="HOST:PORT of the server's gRPC")
    parser.add_argument("--rest", help="HOST:PORT of its REST API")
    parser.add_argument("--model_dir", required=True, help="SERVING/<version>, as published")
    parser.add_argument("--model", default="usr", help="name that the model is served under")
    arguments = parser.parse_args(argv)
    accept_any_text()
    failed = 0
    try:
        for result in smoke(arguments.address, arguments.model_dir, arguments.model, arguments.rest):
            print(result, flush=True)
            failed += not result.passed
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
