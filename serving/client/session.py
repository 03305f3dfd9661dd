"""Transport-independent part of the clients: builds TF Serving requests and rankings of the responses."""

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from serving.client.errors import DeadlineExceeded, NotFound, Unavailable
from serving.client.formula import Formula
from serving.client.ranking import default_output, rank
from serving.client.transport import MAX_RETRIES, Retry, Transport
from serving.formats.request import TensorSpec, check_request, quote, request_inputs
from serving.formats.signatures import scenarios_of
from serving.formats.tensors import write_tensor
from serving.network.tls import Tls
from serving.request_log import Record, RequestLog, make_record
from usr_tf.errors import InputError
from usr_tf.schema import ITEM

Metadata = dict[str, dict[str, TensorSpec]]
"""Signature → input → dtype and shape."""
Ranking = list[dict[str, Any]]
_T = TypeVar("_T")
_POLL_SECONDS = 0.1


class _Signature(NamedTuple):
    inputs: dict[str, TensorSpec]
    definition: SignatureDef


_Signatures = dict[str, _Signature]


class Session:
    """Client logic above a transport. Its coroutines await the transport only."""

    _transport_type: type[Transport]

    def __init__(
        self,
        address: str,
        model: str = "usr",
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float = 10.0,
        tls: Tls | None = None,
        retries: int = Retry().retries,
        request_log: RequestLog | None = None,
    ):
        if not (isinstance(address, str) and address and isinstance(model, str) and model):
            raise ValueError(f"`address` and `model` should be texts. Received: address={address!r}, model={model!r}")
        if not (isinstance(retries, int) and 0 <= retries <= MAX_RETRIES):
            raise ValueError(f"`retries` should be a whole number from 0 to {MAX_RETRIES}. Received: retries={retries}")
        if not (version is None or (isinstance(version, int) and version >= 0)):
            raise ValueError(f"`version` should be a whole number from 0. Received: version={version!r}")
        if version is not None and label is not None:
            raise InputError("version", f"{version}, and the label {label!r}", "one of the two")
        self.model = model
        self.timeout = _checked(timeout)
        self._spec = ModelSpec(name=model, version_label=label)
        if version is not None:
            self._spec.version.value = version
        self._request_log = request_log
        self._signatures: _Signatures | None = None
        self._transport = self._transport_type(address, tls, Retry(retries))
        self.address = self._transport.address

    async def _metadata(self, timeout: float | None) -> Metadata:
        signatures = self._signatures or await self._ask_signatures(self._deadline(timeout))
        return {name: dict(signature.inputs) for name, signature in signatures.items()}

    async def _wait_until_ready(self, timeout: float | None) -> float:
        deadline, away = self._deadline(timeout), None
        while True:
            try:
                self._signatures or await self._ask_signatures(deadline)
                return self._left(deadline)
            except Unavailable as error:
                away = error
            except DeadlineExceeded:  # also of gRPC's pause before it tries again
                if away is None:
                    raise
            if time.monotonic() + _POLL_SECONDS >= deadline:
                call = self._transport.describe(self._metadata_request(), timeout or self.timeout)
                raise Unavailable(away.code, away.message, away.address, call) from away
            await self._transport.pause(_POLL_SECONDS)

    async def _predict(self, name: str, inputs: Mapping[str, Any], timeout: float | None) -> dict[str, np.ndarray]:
        deadline = self._deadline(timeout)

        async def ask(signatures: _Signatures) -> dict[str, np.ndarray]:
            if name not in signatures:
                raise InputError("signature", repr(name), f"one of {', '.join(signatures)}")
            outputs, _ = await self._ask_outputs(name, signatures[name], inputs, deadline)
            return outputs

        return await self._with_signatures(ask, deadline)

    async def _score(
        self, scenario: str, request: Mapping[str, Any], by: str | None, place: Any, timeout: float | None
    ) -> Ranking:
        deadline = self._deadline(timeout)
        formula = None if by is None else Formula(by)
        check_request(request, place)

        async def ask(signatures: _Signatures) -> Ranking:
            signature = _find_scenario(scenario, signatures)
            if request.get("scenario", scenario) != scenario:
                raise InputError(f"{place}: scenario", repr(request["scenario"]), repr(scenario))
            outputs = sorted(signature.definition.outputs)
            columns = [name for name, spec in signature.inputs.items() if _is_number_an_item(spec)]
            rank_by = formula or Formula(default_output(outputs))
            rank_by.check_names([*outputs, *columns])
            inputs = request_inputs(request["inputs"], signature.inputs, place)
            asked = time.monotonic()
            answer, version = await self._ask_outputs(scenario, signature, inputs, deadline)
            seconds = time.monotonic() - asked
            numbers = {name: inputs[name] for name in columns}
            if self._request_log is not None and self._request_log.wants():
                scores = rank_by({**numbers, **answer})
                self._log(self._request_log, scenario, request, answer, scores, version, seconds)
            return rank(answer, rank_by, numbers, request["inputs"].get(ITEM))

        return await self._with_signatures(ask, deadline)

    def _log(
        self,
        log: RequestLog,
        scenario: str,
        request: Mapping[str, Any],
        outputs: Mapping[str, np.ndarray],
        scores: np.ndarray,
        version: int,
        seconds: float,
    ) -> None:
        moment, inputs = log.clock(), dict(request["inputs"])

        def record() -> Record:
            return make_record(
                scenario,
                inputs,
                {name: values.tolist() for name, values in outputs.items()},
                model=self.model,
                version=version or None,  # REST does not tell
                latency_seconds=seconds,
                timestamp=moment,
                request_id=request.get("request_id"),
                order=np.argsort(-scores, kind="stable").tolist(),
            )

        log.write(record)

    async def _with_signatures(self, ask: Callable[[_Signatures], Awaitable[_T]], deadline: float) -> _T:
        """Calls with the cached signatures, and again with fresh ones after a version change."""
        known = self._signatures
        try:
            return await ask(known or await self._ask_signatures(deadline))
        except InputError as error:
            if known is None or isinstance(error, Unavailable | DeadlineExceeded | NotFound):
                raise
            signatures = await self._ask_signatures(deadline)
            if signatures == known:
                raise
        return await ask(signatures)

    async def _ask_signatures(self, deadline: float) -> _Signatures:
        response = await self._transport.metadata(self._metadata_request(), self._left(deadline))
        signatures = SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        self._signatures = {
            name: _Signature({key: TensorSpec.of(info) for key, info in sorted(definition.inputs.items())}, definition)
            for name, definition in sorted(signatures.signature_def.items())
            if definition.inputs  # a TF 2 SavedModel lists its initialiser too
        }
        return self._signatures

    def _metadata_request(self) -> GetModelMetadataRequest:
        return GetModelMetadataRequest(model_spec=self._spec, metadata_field=["signature_def"])

    async def _ask_outputs(
        self, name: str, signature: _Signature, inputs: Mapping[str, Any], deadline: float
    ) -> tuple[dict[str, np.ndarray], int]:
        """Outputs, and the version that answered."""
        request = PredictRequest(model_spec=self._spec)
        request.model_spec.signature_name = name
        for key, value in inputs.items():
            dtype = signature.inputs[key].dtype if key in signature.inputs else None
            _fill(request.inputs[key], key, value, dtype)
        response = await self._transport.predict(request, signature.definition, self._left(deadline))
        outputs = {key: tf.make_ndarray(proto) for key, proto in sorted(response.outputs.items())}
        return outputs, response.model_spec.version.value

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self.timeout if timeout is None else _checked(timeout))

    def _left(self, deadline: float) -> float:
        """Seconds until the deadline."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, "no time is left to ask", self.address)
        return left


def _checked(timeout: float) -> float:
    if not 0 < timeout < math.inf:
        raise ValueError(f"`timeout` should be above 0 seconds, and finite. Received: timeout={timeout}")
    return timeout


def _find_scenario(scenario: str, signatures: _Signatures) -> _Signature:
    scenarios = scenarios_of(signatures)
    if scenario not in scenarios:
        raise InputError("scenario", repr(scenario), f"one of {', '.join(scenarios)}")
    return signatures[scenario]


def _is_number_an_item(spec: TensorSpec) -> bool:
    return spec.shape == (-1,) and (spec.dtype.is_floating or spec.dtype.is_integer)


def _fill(proto: TensorProto, name: str, value: Any, dtype: tf.DType | None) -> None:
    if dtype is not None and _is_ready(value, dtype):
        write_tensor(proto, value)  # in a tenth of the time that TensorFlow takes
        return
    if not isinstance(value, np.ndarray) and dtype == tf.string:
        value = np.array(value, dtype=object)  # an array converts far faster than a list of strings
    try:
        proto.CopyFrom(tf.make_tensor_proto(value, dtype=dtype))
    except (TypeError, ValueError) as error:
        expected = f"a rectangular array of {dtype.name}" if dtype else "a rectangular array"
        raise InputError(f"inputs.{name}", quote(value), expected) from error


def _is_ready(value: Any, dtype: tf.DType) -> bool:
    """Whether the value is an array of this dtype already, strings as bytes."""
    if not isinstance(value, np.ndarray) or value.dtype != dtype.as_numpy_dtype:
        return False
    return dtype != tf.string or all(type(item) is bytes for item in value.flat)
