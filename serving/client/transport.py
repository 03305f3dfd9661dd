"""Transports of the clients: gRPC, gRPC on asyncio, and REST, all with TF Serving's protos.

A transport's calls are coroutines. Those of `GrpcTransport` and `RestTransport` never wait: they block.
"""

import asyncio
import contextlib
import json
import random
import time
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, unquote

import grpc
import grpc.aio
import httpx
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis import model_pb2, prediction_service_pb2_grpc
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, GetModelMetadataResponse
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from serving.client.errors import Unavailable, serving_error
from serving.formats.rest_json import STATUS_CODE, read_answer, read_error, read_metadata, write_request
from serving.network.address import Address, parse_address
from serving.network.proxy import Proxy, grpc_proxy, rest_proxy
from serving.network.tls import Tls
from usr_tf.errors import InputError

MAX_RETRIES = 4
"""gRPC's own maximum."""
_INT32_MAX = 2**31 - 1
_GRPC_SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "vsock:", "xds:")


class Retry(NamedTuple):
    """Retry policy: exponential backoff after UNAVAILABLE.

    That is safe, as every call here only reads. The deadline of a call holds for all its attempts together.

    RESOURCE_EXHAUSTED is not tried again: by it a server refuses what is too large, which fails each time, and what it
    has no room for, which more attempts make worse.
    """

    retries: int = 3
    first_pause: float = 0.05
    """Seconds. Each pause is up to a fifth shorter or longer, so that clients do not come back together."""
    growth: float = 2.0
    longest_pause: float = 1.0

    def service_config(self) -> str:
        """The policy as a gRPC service config, which gRPC applies itself."""
        name = [{"service": "tensorflow.serving.PredictionService"}]
        policy = {
            "maxAttempts": 1 + self.retries,
            "initialBackoff": f"{self.first_pause}s",
            "maxBackoff": f"{self.longest_pause}s",
            "backoffMultiplier": self.growth,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
        # With the tokens half gone retries stop until calls succeed: a server in trouble is not asked still more.
        throttling = {"maxTokens": 10, "tokenRatio": 0.1}
        return json.dumps({"methodConfig": [{"name": name, "retryPolicy": policy}], "retryThrottling": throttling})

    def pauses(self) -> Iterator[float]:
        """The pauses in seconds, for a transport without retries of its own."""
        pause = self.first_pause
        for _ in range(self.retries):
            yield pause * random.uniform(0.8, 1.2)
            pause = min(pause * self.growth, self.longest_pause)


class Transport(Protocol):
    """Persistent connection to one server.

    Its calls raise `ServingError`, after `timeout` seconds at the latest. `signature` tells the names and dtypes of
    what is answered, which JSON does not. `describe` describes a request for a message.
    """

    address: str

    def __init__(self, address: str, tls: Tls | None, retry: Retry): ...

    async def metadata(self, request: GetModelMetadataRequest, timeout: float) -> GetModelMetadataResponse: ...

    async def predict(self, request: PredictRequest, signature: SignatureDef, timeout: float) -> PredictResponse: ...

    async def pause(self, seconds: float) -> None: ...

    def describe(self, request: Any, timeout: float) -> str: ...

    def close(self) -> Any: ...  # on asyncio to be awaited


class GrpcTransport:
    """Blocking gRPC calls over one channel, thread-safe.

    The address is `HOST:PORT`, or a name in one of gRPC's schemes, such as `dns:///HOST:PORT` or `unix:PATH`.
    """

    _channels: types.ModuleType = grpc

    def __init__(self, address: str, tls: Tls | None, retry: Retry):
        if address.startswith(_GRPC_SCHEMES):
            target = _target(address)
        else:
            target = parse_address(address)
            address = str(target)
        self._proxy = grpc_proxy(target) if target else None
        self.address = address
        options = [*proxy_options(self._proxy), *_channel_options(retry)]
        self.channel = (
            self._channels.secure_channel(address, tls.credentials(), options)
            if tls
            else self._channels.insecure_channel(address, options)
        )
        stub = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self._metadata, self._predict = stub.GetModelMetadata, stub.Predict

    async def metadata(self, request: GetModelMetadataRequest, timeout: float) -> GetModelMetadataResponse:
        return await self._call(self._metadata, request, timeout)

    async def predict(self, request: PredictRequest, signature: SignatureDef, timeout: float) -> PredictResponse:
        return await self._call(self._predict, request, timeout)

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def describe(self, request: Any, timeout: float) -> str:
        return _describe(request, timeout, self._proxy)

    def close(self) -> Any:
        self.channel.close()

    async def _call(self, method: Callable, request: Any, timeout: float) -> Any:
        with self._typed_errors(request, timeout):
            return method(request, timeout=timeout)

    @contextlib.contextmanager
    def _typed_errors(self, request: Any, timeout: float) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            call = self.describe(request, timeout)
            raise serving_error(error.code(), error.details() or "", self.address, call) from error


class AioTransport(GrpcTransport):
    """gRPC calls on asyncio. Create and use it on one event loop."""

    _channels = grpc.aio

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        await self.channel.close()

    async def _call(self, method: Callable, request: Any, timeout: float) -> Any:
        with self._typed_errors(request, timeout):
            return await method(request, timeout=timeout)


class RestTransport:
    """Blocking REST calls over persistent connections, thread-safe.

    The deadline bounds each wait, for the connection, to send and for the answer. One that trickles in may take longer.
    """

    def __init__(self, address: str, tls: Tls | None, retry: Retry):
        parsed = parse_address(address)
        self.address = str(parsed)
        self._retry = retry
        scheme, verify = ("https", tls.context()) if tls else ("http", False)  # False saves reading authorities
        self._proxy = rest_proxy(parsed, scheme)
        try:
            self._client = httpx.Client(
                base_url=f"{scheme}://{parsed}",
                verify=verify,
                proxy=self._proxy.url if self._proxy else None,
                trust_env=False,
            )
        except httpx.InvalidURL as error:
            raise InputError(repr(address), f"no address ({error})", "HOST:PORT") from error
        except (ValueError, ImportError) as error:
            raise InputError(self._proxy, f"no proxy to use ({error})", "http://HOST:PORT") from error

    async def metadata(self, request: GetModelMetadataRequest, timeout: float) -> GetModelMetadataResponse:
        path = f"{_path(request.model_spec)}/metadata"
        return self._call("GET", path, None, read_metadata, self.describe(request, timeout), timeout)

    async def predict(self, request: PredictRequest, signature: SignatureDef, timeout: float) -> PredictResponse:
        path, body = f"{_path(request.model_spec)}:predict", write_request(request)
        call = self.describe(request, timeout)
        return self._call("POST", path, body, lambda answer: read_answer(answer, signature), call, timeout)

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def describe(self, request: Any, timeout: float) -> str:
        return _describe(request, timeout, self._proxy)

    def close(self) -> None:
        self._client.close()

    def _call(
        self, method: str, path: str, body: bytes | None, read: Callable[[bytes], Any], call: str, timeout: float
    ) -> Any:
        deadline = time.monotonic() + timeout
        for pause in (*self._retry.pauses(), None):
            try:
                answer = self._send(method, path, body, call, deadline)
                break
            except Unavailable:
                if pause is None or time.monotonic() + pause >= deadline:
                    raise
                time.sleep(pause)
        try:
            return read(answer)
        except ValueError as error:
            raise serving_error(grpc.StatusCode.UNIMPLEMENTED, str(error), self.address, call) from error

    def _send(self, method: str, path: str, body: bytes | None, call: str, deadline: float) -> bytes:
        try:
            response = self._client.request(
                method,
                path,
                content=body,
                headers={"Content-Type": "application/json"},
                extensions={"timeout": _TimeLeft(deadline)},
            )
        except httpx.TimeoutException as error:
            raise serving_error(grpc.StatusCode.DEADLINE_EXCEEDED, str(error), self.address, call) from error
        except httpx.TransportError as error:
            raise serving_error(grpc.StatusCode.UNAVAILABLE, str(error), self.address, call) from error
        if response.status_code == httpx.codes.OK:
            return response.content
        code = STATUS_CODE.get(response.status_code, grpc.StatusCode.UNKNOWN)
        raise serving_error(code, read_error(response.content), self.address, call)


class _TimeLeft(dict):
    """httpx timeouts per step, derived from the time left until one deadline."""

    def __init__(self, deadline: float):
        super().__init__()
        self._deadline = deadline

    def get(self, *_: Any) -> float:
        return max(self._deadline - time.monotonic(), 1e-3)  # 0 would mean without blocking


def _target(name: str) -> Address | None:
    """First address in a name of a scheme of gRPC, such as `dns:///HOST:PORT`; None where no network leads there."""
    scheme, _, rest = name.partition(":")
    if scheme not in ("dns", "ipv4", "ipv6"):
        return None
    with contextlib.suppress(InputError):  # gRPC refuses it in its own words
        return parse_address(unquote(rest).rpartition("/")[2].split(",")[0])
    return None


def proxy_options(proxy: Proxy | None) -> list[tuple[str, Any]]:
    """gRPC channel options that select this proxy, or none regardless of the environment."""
    return [("grpc.http_proxy", proxy.url)] if proxy else [("grpc.enable_http_proxy", 0)]


def _channel_options(retry: Retry) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", _INT32_MAX),
        ("grpc.max_send_message_length", _INT32_MAX),
        # While a call is out, look whether the other end still lives; on Linux this also bounds how long sent bytes may
        # go without acknowledgement, which else is a quarter of an hour. Without a call TF Serving forbids pings.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        # By default a server that was long away is looked for only every two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]
    if retry.retries:
        options += [
            ("grpc.service_config", retry.service_config()),
            ("grpc.per_rpc_retry_buffer_size", _INT32_MAX),  # by default a request above 256 KiB is not retried
        ]
    return options


def _path(spec: model_pb2.ModelSpec) -> str:
    path = f"/v1/models/{quote(spec.name, safe='')}"
    if spec.HasField("version"):
        return f"{path}/versions/{spec.version.value}"
    return f"{path}/labels/{quote(spec.version_label, safe='')}" if spec.version_label else path


def _describe(request: Any, timeout: float, proxy: Proxy | None) -> str:
    """Description of a call for messages: `Predict search of usr, version 3, within 10 s, through the proxy …`."""
    spec = request.model_spec
    is_predict = isinstance(request, PredictRequest)
    what = f"Predict {spec.signature_name}" if is_predict else "GetModelMetadata"
    version = f", version {spec.version.value}" if spec.HasField("version") else ""
    label = f", label {spec.version_label}" if spec.version_label else ""
    through = f", through {proxy}" if proxy else ""
    return f"{what} of {spec.name}{version}{label}, within {timeout:.3g} s{through}"
