"""A gRPC server that speaks TF Serving's API, for laptops, Colab and tests.

It answers as the `tensorflow/serving` container does, with its status codes and messages: `Predict`,
`GetModelMetadata` and `GetModelStatus`; every other method is UNIMPLEMENTED. Like the container it knows a
model as a SavedModel alone and runs it in a session. For production use the container (`serving/docker`).
"""

import asyncio
import contextlib
import functools
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
)

from serving.warmup import read_prediction_logs
from usr_tf.errors import InputError

_LOG = logging.getLogger(__name__)
_INT32_MAX = 2**31 - 1
_GRPC_OPTIONS = (
    ("grpc.max_receive_message_length", _INT32_MAX),  # as the container: gRPC's own limit is 4 MiB
    ("grpc.max_send_message_length", _INT32_MAX),
    ("grpc.so_reuseport", 0),  # a taken port is an error, not a port shared with whoever has it
)
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}
_MAX_MESSAGE = 1024
_State = get_model_status_pb2.ModelVersionStatus.State


def serve(base_path: str | Path, name: str = "usr", port: int = 8500, host: str = "127.0.0.1") -> None:
    """Serves until SIGINT or SIGTERM, then lets running requests finish. Main thread only.

    Raises:
      InputError: nothing to serve under `base_path`, or the port is taken.
    """
    asyncio.run(_serve_until_signal(ModelServer(base_path, name, host, port)))


@contextlib.contextmanager
def serve_in_background(
    base_path: str | Path, name: str = "usr", host: str = "127.0.0.1", port: int = 0, poll_seconds: float = 1.0
) -> Iterator["ModelServer"]:
    """Serves from a thread with an event loop of its own, for as long as the context lasts.

    Yields:
      The running server; its `address` is what a client connects to.

    Raises:
      InputError: as `ModelServer.start`.
    """
    server = ModelServer(base_path, name, host, port, poll_seconds)
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
    """Serves the latest version under `base_path` and moves on when a newer one appears.

    A version is a folder with a number for a name and a SavedModel in it; anything else, such as a version
    still being written under a temporary name, is passed over. A new version is loaded and warmed up beside the
    old one, takes over, and the old one goes once its last running request has been answered. A version that
    does not load is reported by `GetModelStatus`, and tried again when its files change.

    `async with ModelServer(…)` starts and stops it; from blocking code see `serve_in_background`.

    Args:
      base_path: the folder of versions; any file system that TensorFlow reads.
      name: the model's name in requests.
      host: the address to listen on; `0.0.0.0` lets other machines in.
      port: 0 takes any free port.
      poll_seconds: how long until it looks for new versions again.
    """

    def __init__(
        self,
        base_path: str | Path,
        name: str = "usr",
        host: str = "127.0.0.1",
        port: int = 8500,
        poll_seconds: float = 1.0,
    ):
        if not 0 <= port < 2**16:
            raise ValueError(f"`port` should be from 0 to 65535. Received: port={port}")
        if not poll_seconds > 0:
            raise ValueError(f"`poll_seconds` should be above 0. Received: poll_seconds={poll_seconds}")
        self.base_path = str(base_path)
        self.name = name
        self.host = host
        self.port = port
        self.poll_seconds = poll_seconds
        self._servable: _Servable | None = None
        self._statuses: dict[int, get_model_status_pb2.ModelVersionStatus] = {}
        self._broken: dict[int, Any] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._server: grpc.aio.Server | None = None
        self._polling: asyncio.Task | None = None

    @property
    def address(self) -> str:
        """`host:port`, the port being the real one once the server has started."""
        return f"{self.host}:{self.port}"

    @property
    def version(self) -> int | None:
        """The version that takes requests now."""
        return self._servable.version if self._servable else None

    async def start(self) -> None:
        """Loads the latest version and begins to answer.

        Raises:
          InputError: no folder, no version in it, none that loads, or the port cannot be had.
        """
        if not tf.io.gfile.isdir(self.base_path):
            raise InputError(self.base_path, "no such folder", "a folder of exported versions")
        await self._refresh()
        if self._servable is None:
            self._refuse_to_start()
        self._pool = ThreadPoolExecutor(thread_name_prefix="predict")
        self._server = grpc.aio.server(options=_GRPC_OPTIONS)
        self._server.add_generic_rpc_handlers(self._handlers())
        try:
            self.port = self._server.add_insecure_port(self.address)
        except RuntimeError as error:
            await self.stop()
            raise InputError(self.address, "an address that cannot be listened on", "a free port") from error
        await self._server.start()
        self._polling = asyncio.create_task(self._poll())

    async def stop(self, grace: float = 5.0) -> None:
        """Takes no new requests, gives running ones `grace` seconds, and unloads the model."""
        if self._polling:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)
        if self._server:
            await self._server.stop(grace)
        if self._pool:
            self._pool.shutdown(wait=False)
        self._polling = self._server = self._pool = self._servable = None

    async def __aenter__(self) -> "ModelServer":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        # Written out rather than through the generated servicers, whose other methods would block a thread each.
        def method(behaviour: Callable, request: type, response: type) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(
                _with_status(behaviour), request.FromString, response.SerializeToString
            )

        metadata, status, predict = get_model_metadata_pb2, get_model_status_pb2, predict_pb2
        return (
            grpc.method_handlers_generic_handler(
                "tensorflow.serving.PredictionService",
                {
                    "Predict": method(self._predict, predict.PredictRequest, predict.PredictResponse),
                    "GetModelMetadata": method(
                        self._get_model_metadata, metadata.GetModelMetadataRequest, metadata.GetModelMetadataResponse
                    ),
                },
            ),
            grpc.method_handlers_generic_handler(
                "tensorflow.serving.ModelService",
                {
                    "GetModelStatus": method(
                        self._get_model_status, status.GetModelStatusRequest, status.GetModelStatusResponse
                    )
                },
            ),
        )

    async def _predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        if not request.HasField("model_spec"):
            raise _invalid("Missing ModelSpec")
        servable = self._find(request.model_spec)
        response = await asyncio.get_running_loop().run_in_executor(self._pool, servable.predict, request)
        response.model_spec.name = request.model_spec.name
        return response

    async def _get_model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        if not request.HasField("model_spec"):
            raise _invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise _invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise _invalid(f"Metadata field {field} is not supported")
        servable = self._find(request.model_spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = self.name
        response.model_spec.version.value = servable.version
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signatures)
        response.metadata["signature_def"].Pack(signatures)
        return response

    async def _get_model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        if not request.HasField("model_spec"):
            raise _invalid("Missing ModelSpec")
        spec = request.model_spec
        statuses = self._statuses if spec.name == self.name else {}
        if spec.HasField("version"):
            version = spec.version.value
            if version not in statuses:
                raise _not_found(f"Could not find version {version} of model {spec.name}")
            found = [statuses[version]]
        elif not statuses:
            raise _not_found(f"Could not find any versions of model {spec.name}")
        else:
            found = [statuses[version] for version in sorted(statuses)]
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=found)

    def _find(self, spec: model_pb2.ModelSpec) -> "_Servable":
        if not spec.name:
            raise _invalid("ModelSpec has no name specified.")
        if spec.HasField("version_label"):
            raise _invalid(f"Unrecognized servable version label: {spec.version_label}")
        servable = self._servable if spec.name == self.name else None
        if spec.HasField("version"):
            if servable is None or servable.version != spec.version.value:
                raise _not_found(f"Servable not found for request: Specific({spec.name}, {spec.version.value})")
        elif servable is None:
            raise _not_found(f"Servable not found for request: Latest({spec.name})")
        return servable

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.poll_seconds)
            try:
                await self._refresh()
            except Exception:  # a file system that is away for a while must not end the serving
                _LOG.exception("Could not look for new versions under %s", self.base_path)

    async def _refresh(self) -> None:
        """Serves the highest version that loads. Going back to a lower one is deleting the higher."""
        versions = await asyncio.to_thread(_list_versions, self.base_path)
        for version in sorted(versions, reverse=True):
            if version == self.version:
                return
            if await self._load(version, versions[version]):
                return
        if not versions and self._servable is not None:
            _LOG.warning("No version is left under %s", self.base_path)
            self._switch(None)

    async def _load(self, version: int, path: str) -> bool:
        files = await asyncio.to_thread(_fingerprint, path)
        if self._broken.get(version) == files:
            return False
        self._set_status(version, _State.LOADING)
        try:
            servable = await asyncio.to_thread(_Servable, path, version)
        except Exception as error:  # whatever a broken SavedModel makes TensorFlow raise
            _LOG.error("Could not load version %d: %s", version, error)
            self._broken[version] = files
            code = error.error_code if isinstance(error, tf.errors.OpError) else tf.errors.UNKNOWN
            self._set_status(version, _State.END, code, str(error))
            return False
        self._broken.pop(version, None)
        self._switch(servable)
        return True

    def _switch(self, servable: "_Servable | None") -> None:
        # Nothing closes the old session: it goes with its last reference, which a running request may hold.
        if self._servable is not None:
            self._set_status(self._servable.version, _State.END)
        self._servable = servable
        if servable is not None:
            self._set_status(servable.version, _State.AVAILABLE)
            _LOG.info("Serving version %d of %s", servable.version, self.name)

    def _set_status(self, version: int, state: int, code: int = 0, message: str = "") -> None:
        status = get_model_status_pb2.ModelVersionStatus(version=version, state=state)
        status.status.error_code = code
        status.status.error_message = message
        self._statuses[version] = status

    def _refuse_to_start(self) -> None:
        if self._statuses:
            worst = self._statuses[max(self._statuses)]
            found = f"version {worst.version} which does not load ({' '.join(worst.status.error_message.split())})"
            raise InputError(self.base_path, found, "a SavedModel that loads")
        found = "a SavedModel itself" if tf.saved_model.contains_saved_model(self.base_path) else "no version to serve"
        raise InputError(self.base_path, found, "a folder that holds numbered folders with a SavedModel each")


class _Servable:
    """One loaded and warmed-up version. Its methods may be called from any thread."""

    def __init__(self, path: str, version: int):
        self.version = version
        # In Colab the GPU is shared with training: take what is needed, not all of its memory.
        config = tf.compat.v1.ConfigProto(gpu_options=tf.compat.v1.GPUOptions(allow_growth=True))
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        meta_graph = tf.compat.v1.saved_model.load(self._session, [tf.saved_model.SERVING], path)
        self.signatures = dict(meta_graph.signature_def)
        self._callables: dict[tuple[str, tuple[str, ...]], Callable[..., list[np.ndarray]]] = {}
        for log in read_prediction_logs(path):
            self._warm_up(log)

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Runs the signature.

        Raises:
          tf.errors.OpError: what TF Serving answers, as code and message.
        """
        name = request.model_spec.signature_name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
        signature = self.signatures.get(name)
        if signature is None:
            raise tf.errors.FailedPreconditionError(None, None, f'Serving signature key "{name}" not found.')
        _check_method(signature)
        arrays = _parse_inputs(signature, request.inputs)
        outputs = _select_outputs(signature, request.output_filter)
        values = self._callable(name, outputs)(*arrays)
        response = predict_pb2.PredictResponse()
        response.model_spec.signature_name = name
        response.model_spec.version.value = self.version
        for alias, value in zip(outputs, values, strict=True):
            _fill_fields(response.outputs[alias], value)
        return response

    def _callable(self, signature_name: str, outputs: tuple[str, ...]) -> Callable[..., list[np.ndarray]]:
        """The prepared run of a signature: its inputs in the order of their names → the arrays of `outputs`."""
        key = (signature_name, outputs)
        if key not in self._callables:
            signature = self.signatures[signature_name]
            options = config_pb2.CallableOptions()
            options.feed.extend(signature.inputs[alias].name for alias in sorted(signature.inputs))
            options.fetch.extend(signature.outputs[alias].name for alias in outputs)
            # `Session.run` and the public `make_callable` cost milliseconds of Python, cast what is fed and check
            # shapes that TF Serving does not check. This is what the runtime itself does, as in the container.
            self._callables[key] = self._session._make_callable_from_options(options)
        return self._callables[key]

    def _warm_up(self, log: Any) -> None:
        kind = log.WhichOneof("log_type")
        if kind == "predict_log":
            self.predict(log.predict_log.request)
        elif kind is not None:
            raise tf.errors.UnimplementedError(None, None, f"Unsupported log_type for warmup: {kind}")


def _check_method(signature: meta_graph_pb2.SignatureDef) -> None:
    methods = [f"tensorflow/serving/{kind}" for kind in ("predict", "classify", "regress")]
    if signature.method_name not in methods:
        message = f"Expected prediction signature method_name to be one of {{{', '.join(methods)}}}. "
        raise tf.errors.InternalError(None, None, f"{message}Was: {signature.method_name}")


def _parse_inputs(signature: meta_graph_pb2.SignatureDef, sent: Any) -> list[np.ndarray]:
    """The input arrays in the order of the signature's input names."""
    wanted, given = set(signature.inputs), set(sent)
    if len(given) > len(wanted) or (len(given) < len(wanted) and not signature.defaults):
        raise _invalid(
            f"input size does not match signature: {len(given)}!={len(wanted)} len({_braces(given)}) != "
            f"len({_braces(wanted)}). Sent extra: {_braces(given - wanted)}. "
            f"Missing but required: {_braces(wanted - given)}."
        )
    arrays = []
    for alias in sorted(wanted):
        if alias not in given and alias not in signature.defaults:
            raise _invalid(
                f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) not found in request and "
                f"no default value provided. Inputs expected to be in the request {_braces(given)}, or default input "
                f"alias set: {','.join(sorted(signature.defaults))}"
            )
        arrays.append(_parse_tensor(alias, sent[alias] if alias in given else signature.defaults[alias]))
    if given - wanted:
        used, all_sent = ",".join(sorted(given & wanted)), ",".join(sorted(given))
        raise _invalid(f"Inputs contains invalid name. Used request inputs: {used}, request input: {all_sent}")
    return arrays


def _parse_tensor(alias: str, proto: Any) -> np.ndarray:
    shape = proto.tensor_shape
    try:
        if shape.unknown_rank or any(dim.size < 0 for dim in shape.dim):
            raise ValueError("not the shape of a tensor")
        return tf.make_ndarray(proto)
    except (ValueError, TypeError) as error:
        raise _invalid(f"tensor parsing error: {alias}") from error


def _select_outputs(signature: meta_graph_pb2.SignatureDef, wanted: Any) -> tuple[str, ...]:
    seen: set[str] = set()
    for alias in wanted:
        if alias not in signature.outputs:
            raise _invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{_braces(signature.outputs)}."
            )
        if alias in seen:
            raise _invalid(f"duplicate output tensor alias: {alias}")
        seen.add(alias)
    return tuple(sorted(seen or signature.outputs))


_FIELDS = {
    tf.float16: "half_val",
    tf.bfloat16: "half_val",
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
    tf.int64: "int64_val",
    tf.uint64: "uint64_val",
    tf.uint32: "uint32_val",
    **dict.fromkeys((tf.int8, tf.int16, tf.int32, tf.uint8, tf.uint16), "int_val"),
}


def _fill_fields(proto: Any, value: np.ndarray) -> None:
    """Writes `value` into the typed field, as the container does: many clients read `float_val` directly."""
    dtype = tf.as_dtype(value.dtype)
    proto.dtype = dtype.as_datatype_enum
    for size in value.shape:
        proto.tensor_shape.dim.add(size=size)
    flat = value.ravel()
    if dtype in (tf.float16, tf.bfloat16):
        flat = flat.view(np.uint16)
    getattr(proto, _FIELDS[dtype]).extend(flat.tolist())


def _list_versions(base_path: str) -> dict[int, str]:
    """Version → folder, for the folders that have a number for a name and a SavedModel in them."""
    names = [entry.rstrip("/") for entry in tf.io.gfile.listdir(base_path)]
    paths = {int(name): os.path.join(base_path, name) for name in names if name.isascii() and name.isdigit()}
    return {version: path for version, path in paths.items() if tf.saved_model.contains_saved_model(path)}


def _fingerprint(path: str) -> list[tuple[str, int, int]]:
    """Changes whenever a file below `path` does: name, bytes and time of each."""
    files = [os.path.join(folder, name) for folder, _, names in tf.io.gfile.walk(path) for name in names]
    stats = ((file, tf.io.gfile.stat(file)) for file in sorted(files))
    return [(file, stat.length, stat.mtime_nsec) for file, stat in stats]


def _with_status(behaviour: Callable[[Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    """`behaviour` as a gRPC handler: TensorFlow's errors become statuses, whose codes are the same numbers."""

    @functools.wraps(behaviour)
    async def handle(request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await behaviour(request)
        except tf.errors.OpError as error:
            message = error.message
            if len(message) > _MAX_MESSAGE:
                message = f"{message[:_MAX_MESSAGE]}...TRUNCATED"
            return await context.abort(_STATUS_CODES[error.error_code], message)

    return handle


def _invalid(message: str) -> tf.errors.OpError:
    return tf.errors.InvalidArgumentError(None, None, message)


def _not_found(message: str) -> tf.errors.OpError:
    return tf.errors.NotFoundError(None, None, message)


def _braces(names: Any) -> str:
    return f"{{{','.join(sorted(names))}}}"


async def _serve_until_signal(server: ModelServer) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with server:
        print(f"Serving {server.name} version {server.version} at {server.address}; Ctrl-C stops it.", flush=True)
        await stop.wait()
