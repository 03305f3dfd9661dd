"""Servable: one loaded version, a SavedModel in a session that answers Predict as TF Serving does.

In one thing it is stricter: it refuses shapes that the signature does not allow. TF Serving passes them on to the
kernels, most of which refuse them too; but a tensor of 36 dimensions makes one of them crash the process.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

from serving.formats.tensors import read_tensor, write_tensor
from serving.local_server.status import exhausted, invalid
from serving.publishing.warmup import read_prediction_logs

_METHODS = [f"tensorflow/serving/{kind}" for kind in ("predict", "classify", "regress")]
_FIRST_REF_TYPE = 100  # DT_FLOAT_REF and on: types of TF 1's variables, of which there are no tensors


def session_config(intra_op_threads: int = 1, inter_op_threads: int = 0) -> tf.compat.v1.ConfigProto:
    """Session configuration of a version.

    Args:
      intra_op_threads: threads that one operation may use; 0 takes one a core. With one, several requests at a time
        get further (docs/performance.md). All sessions of a process share them, and the first one decides.
      inter_op_threads: threads for operations that can run side by side, shared likewise; 0 takes one a core, -1 runs
        each request in its caller's thread alone.
    """
    return tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=intra_op_threads,
        inter_op_parallelism_threads=inter_op_threads,
        # In Colab the GPU is shared with training: take what is needed, not all of its memory.
        gpu_options=tf.compat.v1.GPUOptions(allow_growth=True),
    )


class Servable:
    """Loaded and warmed-up SavedModel, thread-safe.

    Args:
      path: the SavedModel's folder.
      version: what its answers name.
      config: the session's settings.
      spare_bytes: what the inputs of a request may take beyond the values written out in it; see `read_tensor`.

    Raises:
      Exception: whatever a broken SavedModel or warm-up record makes TensorFlow raise.
    """

    def __init__(
        self, path: str, version: int, config: tf.compat.v1.ConfigProto | None = None, spare_bytes: int = 2**26
    ):
        self.version = version
        self._spare_bytes = spare_bytes
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config or session_config())
        meta_graph = tf.compat.v1.saved_model.load(self._session, [tf.saved_model.SERVING], path)
        self.signatures = dict(meta_graph.signature_def)
        self._callables: dict[tuple[str, tuple[str, ...]], Callable[..., list[np.ndarray]]] = {}
        for log in read_prediction_logs(path):
            self._warm_up(log)

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Runs the signature; the caller adds the model's name to the response.

        Raises:
          tf.errors.OpError: what TF Serving answers, as code and message.
        """
        name = request.model_spec.signature_name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
        signature = self.signatures.get(name)
        if signature is None:
            raise tf.errors.FailedPreconditionError(None, None, f'Serving signature key "{name}" not found.')
        _check_method(signature)
        arrays = self._read_inputs(signature, request.inputs)
        outputs = _select_outputs(signature, request.output_filter)
        try:
            values = self._callable(name, outputs)(*arrays)
        except UnicodeDecodeError as error:  # a refusal that quotes bytes of the request, which Python has no text for
            raise invalid(error.object.decode(errors="replace")) from error
        response = predict_pb2.PredictResponse()
        response.model_spec.signature_name = name
        response.model_spec.version.value = self.version
        for alias, value in zip(outputs, values, strict=True):
            write_tensor(response.outputs[alias], value)
        return response

    def _read_inputs(self, signature: meta_graph_pb2.SignatureDef, sent: Mapping[str, Any]) -> list[np.ndarray]:
        """Input arrays in the order of the signature's input names."""
        wanted, given = set(signature.inputs), set(sent)
        if len(given) > len(wanted) or (len(given) < len(wanted) and not signature.defaults):
            raise invalid(
                f"input size does not match signature: {len(given)}!={len(wanted)} len({_braces(given)}) != "
                f"len({_braces(wanted)}). Sent extra: {_braces(given - wanted)}. "
                f"Missing but required: {_braces(wanted - given)}."
            )
        arrays: dict[str, np.ndarray] = {}
        sent_dtypes: dict[str, int] = {}
        spare = self._spare_bytes
        for alias in sorted(wanted):
            if alias not in given and alias not in signature.defaults:
                raise invalid(
                    f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) not found in request "
                    f"and no default value provided. Inputs expected to be in the request {_braces(given)}, or default "
                    f"input alias set: {','.join(sorted(signature.defaults))}"
                )
            proto = sent[alias] if alias in given else signature.defaults[alias]
            if proto.dtype != signature.inputs[alias].dtype and _is_tensor_type(proto.dtype):
                sent_dtypes[alias] = proto.dtype  # refused below: the container tells of it last
                continue
            try:
                arrays[alias], spare = read_tensor(proto, spare)
            except (ValueError, OverflowError) as error:
                raise invalid(f"tensor parsing error: {alias}") from error
            except MemoryError as error:
                raise exhausted(f"tensor too large: {alias}, {error}") from error
        if given - wanted:
            used, all_sent = ",".join(sorted(given & wanted)), ",".join(sorted(given))
            raise invalid(f"Inputs contains invalid name. Used request inputs: {used}, request input: {all_sent}")
        if sent_dtypes:
            raise invalid(_wrong_dtype(signature, sent_dtypes))
        for alias, array in arrays.items():
            _check_shape(alias, array.shape, signature.inputs[alias].tensor_shape)
        return list(arrays.values())

    def _callable(self, signature_name: str, outputs: tuple[str, ...]) -> Callable[..., list[np.ndarray]]:
        """Compiled callable of a signature: inputs in the order of their names → `outputs` arrays."""
        key = (signature_name, outputs)
        if key not in self._callables:
            signature = self.signatures[signature_name]
            options = config_pb2.CallableOptions()
            options.feed.extend(signature.inputs[alias].name for alias in sorted(signature.inputs))
            options.fetch.extend(signature.outputs[alias].name for alias in outputs)
            # `Session.run` and the public `make_callable` cost milliseconds of Python, and cast what is fed. This is
            # what the runtime itself does, as in the container.
            self._callables[key] = self._session._make_callable_from_options(options)
        return self._callables[key]

    def _warm_up(self, log: Any) -> None:
        kind = log.WhichOneof("log_type")
        if kind == "predict_log":
            self.predict(log.predict_log.request)
        elif kind is not None:
            raise tf.errors.UnimplementedError(None, None, f"Unsupported log_type for warmup: {kind}")


def _check_method(signature: meta_graph_pb2.SignatureDef) -> None:
    if signature.method_name not in _METHODS:
        message = f"Expected prediction signature method_name to be one of {{{', '.join(_METHODS)}}}. "
        raise tf.errors.InternalError(None, None, f"{message}Was: {signature.method_name}")


def _is_tensor_type(dtype: int) -> bool:
    return 0 < dtype < _FIRST_REF_TYPE and dtype in types_pb2.DataType.values()


def _wrong_dtype(signature: meta_graph_pb2.SignatureDef, sent: Mapping[str, int]) -> str:
    """Session error of the first argument with a wrong dtype, numbered by tensor names."""
    feeds = sorted(info.name for info in signature.inputs.values())
    alias = min(sent, key=lambda alias: feeds.index(signature.inputs[alias].name))
    index, info = feeds.index(signature.inputs[alias].name), signature.inputs[alias]
    return f"Expects arg[{index}] to be {_type_name(info.dtype)} but {_type_name(sent[alias])} is provided"


def _check_shape(alias: str, shape: tuple[int, ...], wanted: Any) -> None:
    if wanted.unknown_rank:
        return
    sizes = [dim.size for dim in wanted.dim]
    if len(sizes) != len(shape) or any(size not in (-1, given) for size, given in zip(sizes, shape, strict=True)):
        raise invalid(f"input {alias} has shape {list(shape)}, which is not compatible with the signature's {sizes}")


def _type_name(dtype: int) -> str:
    return types_pb2.DataType.Name(dtype).removeprefix("DT_").lower()


def _select_outputs(signature: meta_graph_pb2.SignatureDef, wanted: Iterable[str]) -> tuple[str, ...]:
    seen: set[str] = set()
    for alias in wanted:
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{_braces(signature.outputs)}."
            )
        if alias in seen:
            raise invalid(f"duplicate output tensor alias: {alias}")
        seen.add(alias)
    return tuple(sorted(seen or signature.outputs))


def _braces(names: Iterable[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"
