"""Model server: ports, start, drain and stop."""

import asyncio
import contextlib
import functools
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import grpc
import tensorflow as tf
from aiohttp import web
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, GetModelMetadataResponse
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, GetModelStatusResponse
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from serving.local_server.access_log import AccessLog
from serving.local_server.admission import Admission
from serving.local_server.call import Call
from serving.local_server.metrics import Metrics
from serving.local_server.model_config import read_model_config
from serving.local_server.models import Models
from serving.local_server.reflection import describe
from serving.local_server.rest import rest_application
from serving.local_server.servable import Servable, session_config
from serving.local_server.service import Service
from serving.local_server.status import code_of, message_of
from serving.network.address import Address, without_brackets
from serving.network.tls import ServerTls
from serving.request_log import RequestLog
from usr_tf.errors import InputError

_LOG = logging.getLogger(__name__)
_INT32_MAX = 2**31 - 1
_OTHER_RPCS = 256
"""Calls at a time besides the Predicts that run or wait: health, status, and requests that are still coming in."""
_FLUSH_SECONDS = 0.5
_PACKAGE = "tensorflow.serving"
_SERVICES = {
    "PredictionService": {
        "Predict": (PredictRequest, PredictResponse),
        "GetModelMetadata": (GetModelMetadataRequest, GetModelMetadataResponse),
    },
    "ModelService": {"GetModelStatus": (GetModelStatusRequest, GetModelStatusResponse)},
}
_Health = health_pb2.HealthCheckResponse
_T = TypeVar("_T")


def serve(
    base_path: str | Path | None = None, name: str = "usr", port: int = 8500, host: str = "127.0.0.1", **options: Any
) -> None:
    """Serves until SIGINT or SIGTERM, then lets accepted requests finish. Main thread only.

    Args:
      base_path, name, port, host, options: as `ModelServer`.

    Raises:
      InputError: nothing to serve, or the port is taken.
    """
    server = ModelServer(base_path, name, host, port, **options)
    gc.freeze()  # what TensorFlow's import made is no garbage: to look through it when a version goes takes 0.2 s
    asyncio.run(_serve_until_signal(server))


@contextlib.contextmanager
def serve_in_background(
    base_path: str | Path | None = None,
    name: str = "usr",
    host: str = "127.0.0.1",
    port: int = 0,
    poll_seconds: float = 1.0,
    **options: Any,
) -> Iterator["ModelServer"]:
    """Context that serves from a thread with its own event loop.

    Args:
      base_path, name, host, port, poll_seconds, options: as `ModelServer`.

    Yields:
      The running server; its `address` is what a client connects to.

    Raises:
      InputError: as `ModelServer.start`.
    """
    server = ModelServer(base_path, name, host, port, poll_seconds, **options)
    started: Future[Callable[[], Any]] = Future()

    async def run() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        async with server:
            started.set_result(lambda: loop.call_soon_threadsafe(stop.set))
            await stop.wait()

    def main() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=main, name="model-server", daemon=True)
    thread.start()
    request_stop = started.result()
    try:
        yield server
    finally:
        request_stop()
        thread.join()


class ModelServer:
    """Server of models that follows new versions, deleted versions and configuration changes.

    A version is a folder with a number for a name and a SavedModel in it; anything else, such as a version
    still being written under a temporary name, is passed over. A new version is loaded and warmed up beside the
    old one, takes over, and the old one goes once its last running request has been answered. A version that
    does not load is reported by `GetModelStatus`, and tried again when its files change.

    `async with ModelServer(…)` starts and stops it; from blocking code see `serve_in_background`.

    Args:
      base_path: the folder of versions, of which the latest is served; any file system that TensorFlow reads.
      name: the model's name in requests.
      host: the address to listen on, IPv6 with or without brackets; `0.0.0.0` and `::` let other machines in.
      port: 0 takes any free port.
      poll_seconds: how long until it looks for new versions, and a new configuration, again.
      model_config_file: the container's `ModelServerConfig` in text form, in place of `base_path` and `name`.
      rest_port: the port of the REST API; 0 takes any free port, None leaves it out.
      workers: requests that run at a time; one a core when None, and at least two.
      max_queue: requests that may wait beyond these. What is more is refused with RESOURCE_EXHAUSTED.
      max_request_bytes: the largest request. It also bounds what a request's tensors may take beyond the values
        that are written out in it, for a few bytes can stand for a tensor of any size, or for many strings.
      tls: certificates; None serves in clear text.
      access_log: file for a line of JSON a request, `-` for standard output, None for none.
      request_log: directory for requests with their scores (`serving.request_log`), None for none.
      request_log_sample: share of the requests that are logged there.
      intra_op_threads, inter_op_threads: TensorFlow's threads; see `servable.session_config`.
      drain_seconds: how long accepted requests may take to finish when the server stops.
    """

    def __init__(
        self,
        base_path: str | Path | None = None,
        name: str = "usr",
        host: str = "127.0.0.1",
        port: int = 8500,
        poll_seconds: float = 1.0,
        *,
        model_config_file: str | Path | None = None,
        rest_port: int | None = None,
        workers: int | None = None,
        max_queue: int = 100,
        max_request_bytes: int = 64 * 2**20,
        tls: ServerTls | None = None,
        access_log: str | None = None,
        request_log: str | None = None,
        request_log_sample: float = 1.0,
        intra_op_threads: int = 1,
        inter_op_threads: int = 0,
        drain_seconds: float = 10.0,
    ):
        if (base_path is None) == (model_config_file is None):
            raise ValueError(
                "Exactly one of `base_path` and `model_config_file` should be given. "
                f"Received: base_path={base_path}, model_config_file={model_config_file}"
            )
        workers = max(os.cpu_count() or 1, 2) if workers is None else workers
        _check("port", port, 0 <= port < 2**16, "from 0 to 65535")
        _check("rest_port", rest_port, rest_port is None or 0 <= rest_port < 2**16, "from 0 to 65535")
        _check("poll_seconds", poll_seconds, poll_seconds > 0, "above 0")
        _check("workers", workers, workers > 0, "above 0")
        _check("max_queue", max_queue, max_queue >= 0, "0 or more")
        _check("max_request_bytes", max_request_bytes, 0 < max_request_bytes <= _INT32_MAX, f"1 to {_INT32_MAX}")
        _check("drain_seconds", drain_seconds, drain_seconds >= 0, "0 or more")
        self.name = name
        self.host = without_brackets(host)
        self.port = port
        self.rest_port = rest_port
        self.poll_seconds = poll_seconds
        self.max_request_bytes = max_request_bytes
        self.tls = tls
        self.drain_seconds = drain_seconds
        if model_config_file is None:
            only = ModelConfig(name=name, base_path=str(base_path))
            read_configs: Callable[[], list[ModelConfig]] = lambda: [only]  # noqa: E731
        else:
            read_configs = functools.partial(read_model_config, model_config_file)
        config = session_config(intra_op_threads, inter_op_threads)
        self.models = Models(read_configs, functools.partial(Servable, config=config, spare_bytes=max_request_bytes))
        self.service = Service(self.models)
        self._workers, self._max_queue = workers, max_queue
        self.access_log = access_log
        self.request_log, self.request_log_sample = request_log, request_log_sample
        self._active = 0
        self._stack = contextlib.AsyncExitStack()

    @property
    def address(self) -> str:
        """`host:port` of gRPC, with the actual port after the start."""
        return str(Address(self.host, self.port))

    @property
    def rest_address(self) -> str | None:
        """`host:port` of the REST API; None without one."""
        return None if self.rest_port is None else str(Address(self.host, self.rest_port))

    @property
    def version(self) -> int | None:
        """Latest live version of model `name`."""
        return max(self.models.live().get(self.name, ()), default=None)

    async def start(self) -> None:
        """Loads the configured versions and starts to serve.

        Raises:
          InputError: a bad configuration; no folder, no version in it, none that loads; a certificate that does not;
            a log that cannot be written; or a port that cannot be had.
        """
        async with contextlib.AsyncExitStack() as stack:
            credentials = self.tls.credentials() if self.tls else None
            await asyncio.to_thread(self.models.start)
            stack.callback(self.models.close)
            self._access_log = AccessLog(self.access_log) if self.access_log else None
            if self._access_log:
                stack.callback(self._access_log.close)
            if self.request_log:
                log = RequestLog(self.request_log, self.request_log_sample)
                stack.callback(log.close)
                self.service.request_log = log
            self._admission = Admission(self._workers, self._max_queue)
            stack.callback(self._admission.close)
            logs = {"access_log": self._access_log, "request_log": self.service.request_log}
            self._metrics = Metrics(self._admission, self.models.live, {k: log for k, log in logs.items() if log})
            self._grpc = await self._start_grpc(credentials)
            stack.push_async_callback(self._grpc.stop, None)
            self._rest = await self._start_rest() if self.rest_port is not None else None
            stopping = asyncio.Event()
            polling = asyncio.create_task(self._poll(stopping))
            stack.push_async_callback(asyncio.wait, [polling])  # a version that is being loaded must go too
            stack.callback(stopping.set)
            stack.push_async_callback(self._drain)
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        """Drains: sets health to NOT_SERVING, refuses new requests, finishes accepted ones."""
        await self._stack.aclose()

    async def _drain(self) -> None:
        end = time.monotonic() + self.drain_seconds
        await self._health.enter_graceful_shutdown()
        stopping = [asyncio.create_task(self._grpc.stop(self.drain_seconds))]  # takes nothing new from here on
        if self._rest:
            stopping.append(asyncio.create_task(self._rest.cleanup()))
        while self._active and time.monotonic() < end:
            await asyncio.sleep(0.01)
        await self._grpc.stop(_FLUSH_SECONDS)  # those who watch the health would do so for ever
        await asyncio.gather(*stopping)

    async def __aenter__(self) -> "ModelServer":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def answer(self, call: Call, work: Callable[[], _T]) -> _T:
        """Handles a gRPC or REST request: counted, logged, and a Predict through admission.

        Args:
          call: record of the request, which this method fills in.
          work: from the bytes that came to those that go, so that what is refused in the queue is not even parsed.

        Raises:
          tf.errors.OpError: what TF Serving answers, or RESOURCE_EXHAUSTED where the queue is full.
        """
        with self._observed(call):
            if call.method == "Predict":
                return await self._admission.run(work, call)
            call.started = time.monotonic()
            return work()

    def metrics_text(self) -> bytes:
        """Metrics in Prometheus's text format."""
        return self._metrics.text()

    @contextlib.contextmanager
    def _observed(self, call: Call) -> Iterator[None]:
        """Counts and logs a call, whatever its outcome."""
        self._active += 1
        try:
            yield
        except tf.errors.OpError as error:
            call.status = code_of(error).name
            raise
        except asyncio.CancelledError:  # the client has gone
            call.status = grpc.StatusCode.CANCELLED.name
            raise
        except Exception as error:
            _LOG.exception("%s failed", call.method)
            call.status = grpc.StatusCode.INTERNAL.name
            raise tf.errors.InternalError(None, None, f"{type(error).__name__} in the server") from error
        finally:
            self._active -= 1
            call.ended = time.monotonic()
            if call.method == "Predict":
                self._metrics.observe(call)
            if self._access_log:
                self._access_log.write(call)

    # gRPC

    async def _start_grpc(self, credentials: grpc.ServerCredentials | None) -> grpc.aio.Server:
        options = (
            ("grpc.max_receive_message_length", self.max_request_bytes),
            ("grpc.max_send_message_length", _INT32_MAX),
            ("grpc.so_reuseport", 0),  # a taken port is an error, not a port shared with whoever has it
        )
        limit = self._workers + self._max_queue + _OTHER_RPCS
        server = grpc.aio.server(options=options, maximum_concurrent_rpcs=limit)
        server.add_generic_rpc_handlers(self._handlers())
        self._health = health.aio.HealthServicer()
        await self._set_health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        pool = describe(_SERVICES, [health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR])
        names = (*(f"{_PACKAGE}.{name}" for name in _SERVICES), health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server, pool)
        try:
            if credentials:
                self.port = server.add_secure_port(self.address, credentials)
            else:
                self.port = server.add_insecure_port(self.address)
        except RuntimeError as error:
            raise InputError(self.address, "an address that cannot be listened on", "a free port") from error
        await server.start()
        return server

    def _handlers(self) -> list[grpc.GenericRpcHandler]:
        # Written out rather than through the generated servicers, whose other methods would block a thread each.
        answers = {
            "Predict": self.service.predict,
            "GetModelMetadata": self.service.get_model_metadata,
            "GetModelStatus": self.service.get_model_status,
        }
        return [
            grpc.method_handlers_generic_handler(
                f"{_PACKAGE}.{service}",
                {name: self._handler(name, request, answers[name]) for name, (request, _) in methods.items()},
            )
            for service, methods in _SERVICES.items()
        ]

    def _handler(self, name: str, request: type, answer: Callable[[Any, Call], Any]) -> grpc.RpcMethodHandler:
        async def handle(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
            call = Call(name, "GRPC", context.peer(), _deadline(context))

            def work() -> bytes:
                return answer(_parse(request, message), call).SerializeToString()

            try:
                return await self.answer(call, work)
            except tf.errors.OpError as error:
                return await context.abort(code_of(error), message_of(error))

        return grpc.unary_unary_rpc_method_handler(handle)

    async def _set_health(self) -> None:
        ready = any(self.models.live().values())  # one bad model must not take the others off the air
        # The server as a whole, and its services by their names at gRPC and in the container.
        for name in ("", *_SERVICES, *(f"{_PACKAGE}.{service}" for service in _SERVICES)):
            await self._health.set(name, _Health.SERVING if ready else _Health.NOT_SERVING)

    # REST

    async def _start_rest(self) -> web.AppRunner:
        runner = web.AppRunner(
            rest_application(self),
            access_log=None,
            handler_cancellation=True,  # who hangs up gives back the place in the queue
            shutdown_timeout=self.drain_seconds,
        )
        await runner.setup()
        site = web.TCPSite(runner, self.host, self.rest_port, ssl_context=self.tls.context() if self.tls else None)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise InputError(self.rest_address, "an address that cannot be listened on", "a free port") from error
        self.rest_port = runner.addresses[0][1]
        return runner

    # Versions

    async def _poll(self, stopping: asyncio.Event) -> None:
        while not await _is_set(stopping, self.poll_seconds):
            try:
                await asyncio.to_thread(self.models.refresh)
            except Exception:  # whatever it is, it must not end the serving
                _LOG.exception("Could not look for new versions")
            await self._set_health()


def _check(name: str, value: object, right: bool, expected: str) -> None:
    if not right:
        raise ValueError(f"`{name}` should be {expected}. Received: {name}={value}")


def _deadline(context: grpc.aio.ServicerContext) -> float | None:
    left = context.time_remaining()
    return None if left is None else time.monotonic() + left


def _parse(kind: type[Message], message: bytes) -> Any:
    try:
        return kind.FromString(message)
    except DecodeError as error:  # the code is that of the container's gRPC, which sends no message
        raise tf.errors.InternalError(None, None, f"not a {kind.DESCRIPTOR.name}") from error


async def _is_set(event: asyncio.Event, seconds: float) -> bool:
    """Waits for the event up to a timeout."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


async def _serve_until_signal(server: ModelServer) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with server:
        # Only now: whoever stops a server that still loads its models need not wait for them.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        print(_announcement(server), file=sys.stderr if server.access_log == "-" else sys.stdout, flush=True)
        await stop.wait()


def _announcement(server: ModelServer) -> str:
    models = (
        f"{name} version{'s' * (len(versions) > 1)} {', '.join(map(str, versions))}"
        for name, versions in server.models.live().items()
    )
    rest = f"; REST at {server.rest_address}" if server.rest_address else ""
    return f"Serving {' and '.join(models)} at {server.address}{rest}; Ctrl-C stops it."
