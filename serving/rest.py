"""The local server's REST API: the paths, forms and HTTP codes of TF Serving's port 8501.

| request | answer |
| --- | --- |
| `GET /v1/models/NAME`, and `/versions/N` or `/labels/L` after it | the state of the versions |
| the same, and `/metadata` after it | the signatures of one |
| `POST` of the same, and `:predict` after it | its scores, of `inputs` by column or of `instances` by row |
| `GET /monitoring/prometheus/metrics` | the metrics |

Classify and Regress are UNIMPLEMENTED, as they are over gRPC.
"""

import asyncio
import re
from typing import Protocol
from urllib.parse import unquote

import grpc
import tensorflow as tf
from aiohttp import web
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, GetModelMetadataResponse
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, GetModelStatusResponse
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from serving.models import Models
from serving.rest_json import (
    HTTP_STATUS,
    parse_request,
    read_request,
    write_answer,
    write_error,
    write_metadata,
    write_status,
)
from serving.status import code_of, invalid

METRICS_PATH = "/monitoring/prometheus/metrics"
_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>classify|regress|predict)", re.IGNORECASE)
_GET = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?P<metadata>/metadata)?", re.IGNORECASE)


class Server(Protocol):
    """What the REST API needs of a server. Its methods raise `tf.errors.OpError`."""

    models: Models
    max_request_bytes: int

    async def predict(self, request: PredictRequest, peer: str) -> PredictResponse: ...

    def get_model_metadata(self, request: GetModelMetadataRequest, peer: str) -> GetModelMetadataResponse: ...

    def get_model_status(self, request: GetModelStatusRequest, peer: str) -> GetModelStatusResponse: ...

    def metrics_text(self) -> bytes: ...


def rest_application(server: Server) -> web.Application:
    """The REST API of a server, to run on its event loop."""

    async def answer(request: web.Request) -> web.Response:
        try:
            body, status = await _answer(server, request), HTTP_STATUS[grpc.StatusCode.OK]
        except tf.errors.OpError as error:
            body, status = write_error(error.message), HTTP_STATUS[code_of(error)]
        except web.HTTPRequestEntityTooLarge as error:
            body, status = write_error(error.text), error.status
        return web.Response(body=body, status=status, content_type="application/json")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=server.metrics_text(), content_type="text/plain")

    application = web.Application(client_max_size=server.max_request_bytes)
    application.router.add_get(METRICS_PATH, metrics)
    application.router.add_route("*", "/{api:[vV]1}/{path:.*}", answer)
    return application


async def _answer(server: Server, request: web.Request) -> bytes:
    path, peer = request.rel_url.raw_path, request.remote or ""
    match = {"GET": _GET, "POST": _POST}[request.method].fullmatch(path) if request.method in ("GET", "POST") else None
    if match is None:
        raise invalid(f"Malformed request: {request.method} {path}")
    spec = _model_spec(match)
    if request.method == "POST":
        if match["method"].lower() != "predict":
            raise tf.errors.UnimplementedError(None, None, f"{match['method']} is not implemented")
        return await _predict(server, spec, await request.read(), peer)
    if match["metadata"]:
        asked = GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        return write_metadata(server.get_model_metadata(asked, peer))
    return write_status(server.get_model_status(GetModelStatusRequest(model_spec=spec), peer))


async def _predict(server: Server, spec: ModelSpec, body: bytes, peer: str) -> bytes:
    # JSON takes as long as the model, and the event loop has others to attend to.
    request, rows = await asyncio.to_thread(_read_predict, server.models, spec, body)
    response = await server.predict(request, peer)
    return await asyncio.to_thread(write_answer, response, rows)


def _read_predict(models: Models, spec: ModelSpec, body: bytes) -> tuple[PredictRequest, bool]:
    document = parse_request(body)
    request = PredictRequest(model_spec=spec)
    request.model_spec.signature_name = document.get("signature_name", "")
    name = request.model_spec.signature_name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
    signature = models.find(spec).signatures.get(name)
    if signature is None:
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {request.model_spec.signature_name or 'DEFAULT'}")
    return request, read_request(document, signature.inputs, request)


def _model_spec(match: re.Match) -> ModelSpec:
    if not match["name"]:
        raise invalid("Missing model name in request.")
    spec = ModelSpec(name=unquote(match["name"]))
    if match["label"]:
        spec.version_label = unquote(match["label"])
    if match["version"]:
        try:
            spec.version.value = int(match["version"])
        except ValueError as error:  # beyond 64 bits
            raise invalid(f"Failed to convert version: {match['version']} to numeric.") from error
    return spec
