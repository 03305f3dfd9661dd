"""REST API of the local server: paths, forms and HTTP codes of TF Serving's port 8501.

| request | answer |
| --- | --- |
| `GET /v1/models/NAME`, and `/versions/N` or `/labels/L` after it | the state of the versions |
| the same, and `/metadata` after it | the signatures of one |
| `POST` of the same, and `:predict` after it | its scores, of `inputs` by column or of `instances` by row |
| `GET /monitoring/prometheus/metrics` | the metrics |

Classify and Regress are UNIMPLEMENTED, as they are over gRPC.
"""

import re
from collections.abc import Callable
from typing import Protocol
from urllib.parse import unquote

import grpc
import tensorflow as tf
from aiohttp import web
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from serving.formats.rest_json import HTTP_STATUS
from serving.local_server.call import Call
from serving.local_server.models import Models
from serving.local_server.rest_json import (
    parse_request,
    read_request,
    write_answer,
    write_error,
    write_metadata,
    write_status,
)
from serving.local_server.service import Service
from serving.local_server.status import code_of, invalid

METRICS_PATH = "/monitoring/prometheus/metrics"
_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>classify|regress|predict)", re.IGNORECASE)
_GET = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?P<metadata>/metadata)?", re.IGNORECASE)


class Server(Protocol):
    """Interface that the REST API requires of a server."""

    service: Service
    models: Models
    max_request_bytes: int

    async def answer(self, call: Call, work: Callable[[], bytes]) -> bytes: ...

    def metrics_text(self) -> bytes: ...


def rest_application(server: Server) -> web.Application:
    """aiohttp application of the REST API, to run on the server's event loop."""

    async def answer(request: web.Request) -> web.Response:
        try:
            body, status = await _answer(server, request), HTTP_STATUS[grpc.StatusCode.OK]
        except tf.errors.OpError as error:
            body, status = write_error(error.message), HTTP_STATUS[code_of(error)]
        except web.HTTPRequestEntityTooLarge as error:
            body, status = write_error(error.text), error.status
        except web.RequestPayloadError:  # it is not in its Content-Encoding, or breaks off
            body, status = write_error("The body cannot be read"), HTTP_STATUS[grpc.StatusCode.INVALID_ARGUMENT]
        response = web.Response(body=body, status=status, content_type="application/json")
        if request.content.exception():
            response.force_close()  # where the next request would begin is not known
        return response

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=server.metrics_text(), content_type="text/plain")

    application = web.Application(client_max_size=server.max_request_bytes)
    application.router.add_get(METRICS_PATH, metrics)
    application.router.add_route("*", "/{api:[vV]1}/{path:.*}", answer)
    return application


async def _answer(server: Server, request: web.Request) -> bytes:
    path = request.rel_url.raw_path
    match = {"GET": _GET, "POST": _POST}[request.method].fullmatch(path) if request.method in ("GET", "POST") else None
    if match is None:
        raise invalid(f"Malformed request: {request.method} {path}")
    spec = _model_spec(match)
    body = await request.read()
    call = Call(_method(match), "REST", request.remote or "")
    call.ask(spec.name)
    if call.method == "Predict":
        return await server.answer(call, lambda: _predict(server, spec, body, call))
    if call.method == "GetModelMetadata":
        asked = GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        return await server.answer(call, lambda: write_metadata(server.service.get_model_metadata(asked, call)))
    status = GetModelStatusRequest(model_spec=spec)
    return await server.answer(call, lambda: write_status(server.service.get_model_status(status, call)))


def _method(match: re.Match) -> str:
    if match.re is _GET:
        return "GetModelMetadata" if match["metadata"] else "GetModelStatus"
    if match["method"].lower() != "predict":
        raise tf.errors.UnimplementedError(None, None, f"{match['method']} is not implemented")
    return "Predict"


def _predict(server: Server, spec: ModelSpec, body: bytes, call: Call) -> bytes:
    document = parse_request(body)
    signature_name = document.get("signature_name", "")
    call.ask(spec.name, signature_name)
    name = signature_name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
    signature = server.models.find(spec).signatures.get(name)
    if signature is None:
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {signature_name or 'DEFAULT'}")
    request = PredictRequest(model_spec=spec)
    request.model_spec.signature_name = signature_name
    rows = read_request(document, signature.inputs, request)
    return write_answer(server.service.predict(request, call), rows)


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
