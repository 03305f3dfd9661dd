"""A client of TF Serving's gRPC API: the `tensorflow/serving` container or `serving.server`."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import tensorflow as tf
from rich.table import Table
from rich.text import Text
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from usr_tf.errors import InputError
from usr_tf.schema import EXAMPLES_SUFFIX, ITEM, history_column

HISTORY_PREFIX = history_column("")
_CLICK = "ctr"
_DOCUMENT_KEYS = ("scenario", "request_id", "inputs")
_INT32_MAX = 2**31 - 1
_GRPC_OPTIONS = (("grpc.max_receive_message_length", _INT32_MAX), ("grpc.max_send_message_length", _INT32_MAX))


class TensorSpec(NamedTuple):
    """Dtype and shape of a signature's input; -1 where any size will do."""

    dtype: tf.DType
    shape: tuple[int, ...]


class Client:
    """Scores candidates by the signatures of a served model. Close it, or use it as a context manager.

    Args:
      address: `host:port` of the gRPC endpoint.
      model: the name the model is served under.
      timeout: seconds that any one call may take.
    """

    def __init__(self, address: str, model: str = "usr", timeout: float = 10.0):
        if not timeout > 0:
            raise ValueError(f"`timeout` should be above 0 seconds. Received: timeout={timeout}")
        self.address = address
        self.model = model
        self.timeout = timeout
        self._channel = grpc.insecure_channel(address, options=_GRPC_OPTIONS)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._metadata: dict[str, dict[str, TensorSpec]] | None = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def metadata(self) -> dict[str, dict[str, TensorSpec]]:
        """Signature → input → `(dtype, shape)`, asked of the server once and kept.

        Raises:
          InputError: the server cannot be reached, or does not have the model.
        """
        if self._metadata is None:
            request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
            request.model_spec.name = self.model
            response = self._call(self._stub.GetModelMetadata, request)
            signatures = get_model_metadata_pb2.SignatureDefMap()
            response.metadata["signature_def"].Unpack(signatures)
            self._metadata = {
                name: {alias: _spec(info) for alias, info in sorted(signature.inputs.items())}
                for name, signature in sorted(signatures.signature_def.items())
                if signature.inputs  # a TF 2 SavedModel lists its initialiser too
            }
        return self._metadata

    def predict(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Runs a signature on arrays or rectangular lists, which are sent with the signature's dtypes.

        Raises:
          InputError: as `metadata`; an unknown signature; or inputs that the server refuses.
        """
        signatures = self.metadata()
        if signature not in signatures:
            raise InputError("signature", repr(signature), f"one of {', '.join(signatures)}")
        specs = signatures[signature]
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.model
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(_to_proto(name, value, specs[name].dtype if name in specs else None))
        response = self._call(self._stub.Predict, request)
        return {name: tf.make_ndarray(proto) for name, proto in sorted(response.outputs.items())}

    def score(
        self, scenario: str, request: Mapping[str, Any], by: str | None = None, place: Any = "request"
    ) -> list[dict[str, Any]]:
        """Ranks the items of a request document (see `load_request`), best first.

        Args:
          scenario: a scenario of the model.
          request: the document.
          by: the output to rank by; `ctr` when absent, or the first output where there is no `ctr`.
          place: what an error names as the document, such as its file.

        Returns:
          One row an item: `rank` from 1, `item_id` (or `row`, its place in the request from 0, where the
          model knows no `item_id`), and each output. Equal scores keep the request's order.

        Raises:
          InputError: as `predict`; an unknown scenario; or a document that does not suit the signature.
        """
        scenarios = {
            name: specs
            for name, specs in self.metadata().items()
            if name != tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY and not name.endswith(EXAMPLES_SUFFIX)
        }
        if scenario not in scenarios:
            raise InputError("scenario", repr(scenario), f"one of {', '.join(scenarios)}")
        _check_document(request, place)
        if request.get("scenario", scenario) != scenario:
            raise InputError(f"{place}: scenario", repr(request["scenario"]), repr(scenario))
        inputs = request_inputs(request["inputs"], scenarios[scenario], place)
        outputs = self.predict(scenario, inputs)
        by = by or (_CLICK if _CLICK in outputs else next(iter(outputs)))
        if by not in outputs:
            raise InputError("by", repr(by), f"one of {', '.join(outputs)}")
        names = sorted(outputs, key=lambda name: (name != by, name != _CLICK, name))
        items = request["inputs"].get(ITEM)
        return [
            {
                "rank": rank,
                **({"row": int(row)} if items is None else {ITEM: items[row]}),
                **{name: float(outputs[name][row]) for name in names},
            }
            for rank, row in enumerate(np.argsort(-outputs[by], kind="stable"), start=1)
        ]

    def _call(self, method: Callable, request: Any) -> Any:
        try:
            return method(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise self._explain(error) from error

    def _explain(self, error: Any) -> Exception:
        """The error as one of the user's input, where it is one."""
        said = " ".join(str(error.details()).split())
        reasons = {
            grpc.StatusCode.UNAVAILABLE: (f"no server ({said})", "a running model server"),
            grpc.StatusCode.DEADLINE_EXCEEDED: (f"no answer within {self.timeout:g} s", "a server that answers"),
            grpc.StatusCode.UNIMPLEMENTED: (f"another kind of server ({said})", "TF Serving's gRPC port"),
            grpc.StatusCode.NOT_FOUND: (f"no model {self.model!r} ({said})", "the name of a served model"),
            grpc.StatusCode.FAILED_PRECONDITION: (f"a refusal ({said})", "a signature that the model has"),
            grpc.StatusCode.INVALID_ARGUMENT: (f"a refusal ({said})", "inputs that the signature takes"),
        }
        return InputError(self.address, *reasons[error.code()]) if error.code() in reasons else error


def load_request(path: str | Path) -> dict[str, Any]:
    """Reads a request document: `{"scenario": …, "request_id": …, "inputs": {name: value}}`, the first two optional.

    Raises:
      InputError: an unreadable file, or one that is not such a document.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(path, f"no readable file ({error.strerror})", "a JSON request") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested without end
        raise InputError(path, f"no JSON ({error})", "a JSON request") from error
    _check_document(document, path)
    return document


def request_inputs(
    values: Mapping[str, Any], specs: Mapping[str, TensorSpec], place: Any = "request"
) -> dict[str, np.ndarray]:
    """The `inputs` of a request document as the arrays that a signature takes.

    Which side an input is on is told by its shape:

    | shape | value in the document |
    | --- | --- |
    | `[1]` request side | a value, or a list of one |
    | `[1, -1]` request list, history | a list |
    | `[1, -1, -1]` history of lists | a list of lists |
    | `[-1]` item side | a list, one value an item |
    | `[-1, -1]` item lists | a list of lists |

    Lists of lists are padded to the longest. `null` is an unknown string or number. With no `history_*` input
    at all the history is empty; everything else has to be there.

    Raises:
      InputError: names the key, what was found and what was expected.
    """
    place = f"{place}: inputs"
    for name in values:
        if name not in specs:
            raise InputError(f"{place}.{name}", "an unknown input", f"one of {', '.join(specs)}")
    no_history = not any(name.startswith(HISTORY_PREFIX) for name in values)
    arrays = {}
    for name, spec in specs.items():
        if name in values:
            arrays[name] = _to_array(values[name], spec, f"{place}.{name}")
        elif no_history and name.startswith(HISTORY_PREFIX):
            arrays[name] = np.empty((1, 0, 1)[: len(spec.shape)], spec.dtype.as_numpy_dtype)
        else:
            raise InputError(f"{place}.{name}", "nothing", _describe(spec))
    _check_counts({name: array.shape[0] for name, array in arrays.items() if specs[name].shape[0] != 1}, place, "item")
    _check_counts({n: a.shape[1] for n, a in arrays.items() if n.startswith(HISTORY_PREFIX)}, place, "action")
    return arrays


def format_ranking(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> Table:
    """The rows of `Client.score` as a table for a rich console."""
    table = Table(title=title)
    for name in rows[0] if rows else ():
        table.add_column(name, justify="left" if name == ITEM else "right")
    for row in rows:
        # Only the outputs are floats. Text() keeps an id such as "[red]" from being read as markup.
        table.add_row(*(Text(f"{value:.6f}" if isinstance(value, float) else str(value)) for value in row.values()))
    return table


def _check_document(document: Any, place: Any) -> None:
    if not isinstance(document, Mapping):
        raise InputError(place, f"{_kind(document)} at the top", "an object with inputs")
    for key in document:
        if key not in _DOCUMENT_KEYS:
            raise InputError(f"{place}: {key}", "an unknown key", f"one of {', '.join(_DOCUMENT_KEYS)}")
    if "inputs" not in document:
        raise InputError(f"{place}: inputs", "nothing", "this required key")
    if not isinstance(document["inputs"], Mapping):
        raise InputError(f"{place}: inputs", _kind(document["inputs"]), "an object of input names and values")
    for key in ("scenario", "request_id"):
        if not isinstance(document.get(key, ""), str):
            raise InputError(f"{place}: {key}", _kind(document[key]), "a string")


def _to_array(value: Any, spec: TensorSpec, place: str) -> np.ndarray:
    request_side = spec.shape[0] == 1
    dims = len(spec.shape) - request_side
    if dims > 2:
        raise InputError(place, f"shape {list(spec.shape)} in the model's signature", "at most two free sizes")
    if request_side and isinstance(value, list) and len(value) == 1 and _depth(value) > dims:
        value = value[0]  # the document spelt out the leading 1

    def read(nested: Any, dims: int, where: str) -> Any:
        if dims == 0:
            return _read_value(nested, spec.dtype, where)
        if not isinstance(nested, list):
            raise InputError(where, _quote(nested), _describe(spec, dims))
        return [read(inner, dims - 1, f"{where}[{i}]") for i, inner in enumerate(nested)]

    content = read(value, dims, place)
    if dims == 2:
        array = _neutral(spec, (len(content), max(map(len, content), default=0) or 1))
        for row, values in zip(array, content, strict=True):
            row[: len(values)] = values
    else:
        array = np.array(content, spec.dtype.as_numpy_dtype)
    return array[np.newaxis] if request_side else array


def _read_value(value: Any, dtype: tf.DType, place: str) -> Any:
    if dtype == tf.string and (value is None or isinstance(value, str)):
        try:
            return (value or "").encode()
        except UnicodeEncodeError as error:
            raise InputError(place, "half a surrogate pair", "Unicode text") from error
    if dtype == tf.bool and isinstance(value, bool):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if dtype.is_integer and is_number and isinstance(value, int) and int(dtype.min) <= value <= int(dtype.max):
        return value
    if dtype.is_floating and value is None:
        return np.nan
    if dtype.is_floating and is_number and (abs(value) <= float(dtype.max) or value != value):
        return value
    raise InputError(place, _quote(value), f"{_article(dtype)} {_noun(dtype)}")


def _neutral(spec: TensorSpec, shape: tuple[int, ...]) -> np.ndarray:
    """An array of values that say "unknown", as the pipeline has them."""
    value = b"" if spec.dtype == tf.string else np.nan if spec.dtype.is_floating else 0
    return np.full(shape, value, spec.dtype.as_numpy_dtype)


def _check_counts(counts: Mapping[str, int], place: str, unit: str) -> None:
    reference = next((name for name in counts if name.endswith(ITEM)), next(iter(counts), None))
    for name, count in counts.items():
        if count != counts[reference]:
            expected = f"{counts[reference]}, one for each {unit} of {reference}"
            raise InputError(f"{place}.{name}", f"length {count}", expected)
    if unit == "item" and counts and counts[reference] == 0:
        raise InputError(f"{place}.{reference}", "no item", "at least one to rank")


def _describe(spec: TensorSpec, dims: int | None = None) -> str:
    """What the document should hold for an input, or `dims` levels above its values."""
    whole = len(spec.shape) - (spec.shape[0] == 1)
    dims = whole if dims is None else dims
    if dims == 0:
        return f"{_article(spec.dtype)} {_noun(spec.dtype)}"
    each = ", one for each item" if spec.shape[0] != 1 and dims == whole else ""
    return f"a list of {'lists of ' * (dims - 1)}{_noun(spec.dtype)}s{each}"


def _noun(dtype: tf.DType) -> str:
    names = {tf.string: "string", tf.bool: "boolean"}
    return names.get(dtype, "integer" if dtype.is_integer else "number")


def _article(dtype: tf.DType) -> str:
    return "an" if dtype.is_integer else "a"


def _quote(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _depth(value: Any) -> int:
    return 0 if not isinstance(value, list) else 1 + (_depth(value[0]) if value else 0)


def _to_proto(name: str, value: Any, dtype: tf.DType | None) -> Any:
    if not isinstance(value, np.ndarray) and dtype == tf.string:
        value = np.array(value, dtype=object)  # an array converts far faster than a list of strings
    try:
        return tf.make_tensor_proto(value, dtype=dtype)
    except (TypeError, ValueError) as error:
        expected = f"a rectangular array of {dtype.name}" if dtype else "a rectangular array"
        raise InputError(f"inputs.{name}", _quote(value), expected) from error


def _spec(info: Any) -> TensorSpec:
    return TensorSpec(tf.as_dtype(info.dtype), tuple(dim.size for dim in info.tensor_shape.dim))
