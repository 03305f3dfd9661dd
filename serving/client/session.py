"""Transport-independent part of the clients: builds TF Serving requests and rankings of the responses."""

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import grpc
import numpy as np

from serving.client.errors import DeadlineExceeded, NotFound, Unavailable, serving_error
from serving.client.formula import Formula
from serving.client.ranking import default_output, rank
from serving.client.transport import MAX_RETRIES, Retry, Transport
from serving.formats.messages import GetModelMetadataRequest, ModelSpec, PredictRequest, SignatureDefMap
from serving.formats.request import TensorSpec, check_arrays, check_request, quote, request_inputs
from serving.formats.signatures import scenarios_of
from serving.formats.tensors import NO_DTYPE, STRING, dtype_name, is_floating, pack_tensor, tensor_array
from serving.network.tls import Tls
from serving.request_log import Record, RequestLog, make_record
from usr_tf.columns import ITEM
from usr_tf.errors import InputError, one_of

Metadata = dict[str, dict[str, TensorSpec]]
"""Signature → input → dtype and shape."""
Ranking = list[dict[str, Any]]
_T = TypeVar("_T")
_POLL_SECONDS = 0.1


class _Signature(NamedTuple):
    inputs: dict[str, TensorSpec]
    definition: Any
    """Its `SignatureDef`."""


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
                raise InputError("signature", repr(name), one_of(name, signatures))
            arrays = _to_arrays(inputs, signatures[name])
            outputs, _ = await self._ask_outputs(name, signatures[name], arrays, deadline)
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

    def _metadata_request(self) -> Any:
        return GetModelMetadataRequest(model_spec=self._spec, metadata_field=["signature_def"])

    async def _ask_outputs(
        self, signature_name: str, signature: _Signature, inputs: Mapping[str, np.ndarray], deadline: float
    ) -> tuple[dict[str, np.ndarray], int]:
        """Outputs, and the version that answered."""
        request = PredictRequest(model_spec=self._spec)
        request.model_spec.signature_name = signature_name
        for name, array in inputs.items():
            pack_tensor(request.inputs[name], array)
        left = self._left(deadline)
        response = await self._transport.predict(request, signature.definition, left)
        try:
            outputs = {key: tensor_array(proto) for key, proto in sorted(response.outputs.items())}
        except ValueError as error:
            call = self._transport.describe(request, left)
            raise serving_error(grpc.StatusCode.UNIMPLEMENTED, str(error), self.address, call) from error
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
        raise InputError("scenario", repr(scenario), one_of(scenario, scenarios))
    return signatures[scenario]


def _is_number_an_item(spec: TensorSpec) -> bool:
    return spec.shape == (-1,) and (is_floating(spec.dtype) or spec.dtype.kind in "iu")


def _to_arrays(inputs: Mapping[str, Any], signature: _Signature) -> dict[str, np.ndarray]:
    """Arrays of the signature's dtypes.

    Raises:
      InputError: names an input that is unknown, missing, ragged, of another shape or length, or not of its dtype.
    """
    arrays = {}
    for name, value in inputs.items():
        if name not in signature.inputs:
            raise InputError(f"inputs.{name}", "an unknown input", one_of(name, signature.inputs))
        dtype = signature.inputs[name].dtype
        try:
            arrays[name] = _to_array(value, dtype)
        except (TypeError, ValueError, OverflowError) as error:
            expected = f"a rectangular array of {dtype_name(dtype)}"
            raise InputError(f"inputs.{name}", quote(value), expected) from error
    check_arrays(arrays, signature.inputs, optional=signature.definition.defaults)
    return arrays


def _to_array(value: Any, dtype: np.dtype) -> np.ndarray:
    array = value if isinstance(value, np.ndarray) else np.array(value, object if dtype == STRING else None)
    if dtype == STRING:
        return _strings(array)
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore", invalid="ignore"):  # 1e300 is infinite in float32
        cast = array.astype(dtype)
    exact = is_floating(dtype) or np.array_equal(cast, array)
    if not exact or (array.dtype.kind not in "iuf" and array.size) or dtype == NO_DTYPE:
        raise ValueError(f"{array.dtype} is not {dtype}")
    return cast


def _strings(array: np.ndarray) -> np.ndarray:
    """Array of bytes, with text in UTF-8.

    Raises:
      TypeError: an element is neither text nor bytes.
    """
    values = array.ravel().tolist()
    if array.dtype == STRING and set(map(type, values)) <= {bytes}:
        return array
    encoded = np.empty(len(values), object)
    encoded[:] = [value.encode() if isinstance(value, str) else value for value in values]
    if not set(map(type, encoded.tolist())) <= {bytes}:
        raise TypeError("neither text nor bytes")
    return encoded.reshape(array.shape)
