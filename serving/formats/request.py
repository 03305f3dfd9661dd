"""Request documents: validation, and conversion to the tensors of a signature."""

import contextlib
import functools
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from serving.formats.tensors import STRING, dtype_of, is_floating
from usr_tf.columns import COUNTER_PREFIX, HISTORY_PREFIX, ITEM, PAST_QUERIES, PAST_QUERIES_AGE
from usr_tf.errors import InputError, one_of

_DOCUMENT_KEYS = ("scenario", "request_id", "inputs")


class TensorSpec(NamedTuple):
    """Dtype and shape of a signature's input; strings are objects (`bytes`), -1 is any size."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, info: Any) -> "TensorSpec":
        """Specification from a signature's `TensorInfo`."""
        return cls(dtype_of(info.dtype), tuple(dim.size for dim in info.tensor_shape.dim))


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
    check_request(document, path)
    return document


def request_inputs(
    values: Mapping[str, Any], specs: Mapping[str, TensorSpec], place: Any = "request"
) -> dict[str, np.ndarray]:
    """Arrays of a signature from the `inputs` of a request document.

    The shape of an input determines its side:

    | shape | value in the document |
    | --- | --- |
    | `[1]` request side | a value, or a list of one |
    | `[1, -1]` request list, history | a list |
    | `[1, -1, -1]` history of lists | a list of lists |
    | `[-1]` item side | a list, one value an item |
    | `[-1, -1]` item lists | a list of lists |

    Lists of lists are padded to the longest. `null` is an unknown string or number. With no `history_*` input
    at all the history is empty, and so are earlier queries; everything else has to be there. A model that holds a
    snapshot of its counters ignores counts (`counter_*`).

    Raises:
      InputError: names the key, what was found and what was expected.
    """
    place = f"{place}: inputs"
    for name in values:
        if name not in specs and not name.startswith(COUNTER_PREFIX):
            raise InputError(f"{place}.{name}", "an unknown input", one_of(name, specs))
    absent = {sequence for sequence in ("action", "query") if not any(_sequence(name) == sequence for name in values)}
    arrays = {}
    for name, spec in specs.items():
        if name in values:
            arrays[name] = _to_array(values[name], spec, f"{place}.{name}")
        elif _sequence(name) in absent:
            arrays[name] = np.empty((1, 0, 1)[: len(spec.shape)], spec.dtype)
        else:
            raise InputError(f"{place}.{name}", "nothing", _describe(spec))
    _check_lengths(arrays, specs, place)
    for name, array in arrays.items():
        if specs[name].shape[0] != 1 and array.shape[0] == 0:
            raise InputError(f"{place}.{name}", "no item", "at least one to rank")
    return arrays


def check_arrays(
    arrays: Mapping[str, np.ndarray], specs: Mapping[str, TensorSpec], optional: Collection[str] = ()
) -> None:
    """Checks that arrays are a signature's inputs, of its shapes; those of `request_inputs` are.

    Lengths are compared where there are items, as a scenario's signature has them.

    Args:
      optional: inputs that may be missing.

    Raises:
      InputError: names the input, what was found and what was expected.
    """
    for name, spec in specs.items():
        if name not in arrays:
            if name in optional:
                continue
            raise InputError(f"inputs.{name}", "nothing", _describe(spec))
        shape = arrays[name].shape
        free = tuple(-1 if size < 0 else found for size, found in zip(spec.shape, shape, strict=False))
        if len(shape) != len(spec.shape) or free != spec.shape:
            sizes = ", ".join("any" if size < 0 else str(size) for size in spec.shape)
            raise InputError(f"inputs.{name}", f"shape {list(shape)}", f"shape [{sizes}]")
    if ITEM in arrays:
        _check_lengths(arrays, specs, "inputs")


def _check_lengths(arrays: Mapping[str, np.ndarray], specs: Mapping[str, TensorSpec], place: str) -> None:
    _check_counts({name: array.shape[0] for name, array in arrays.items() if specs[name].shape[0] != 1}, place, "item")
    for sequence in ("action", "query"):
        lengths = {name: array.shape[1] for name, array in arrays.items() if _sequence(name) == sequence}
        _check_counts(lengths, place, sequence)


def _sequence(name: str) -> str | None:
    """What an input of a history has one value for: an action or an earlier query."""
    if name in (PAST_QUERIES, PAST_QUERIES_AGE):
        return "query"
    return "action" if name.startswith(HISTORY_PREFIX) else None


def check_request(document: Any, place: Any) -> None:
    """Checks that a value is a request document.

    Raises:
      InputError: names the key.
    """
    if not isinstance(document, Mapping):
        raise InputError(place, f"{_kind(document)} at the top", "an object with inputs")
    for key in document:
        if key not in _DOCUMENT_KEYS:
            raise InputError(f"{place}: {key}", "an unknown key", one_of(key, _DOCUMENT_KEYS))
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
            raise InputError(where, quote(nested), _describe(spec, dims))
        if dims == 1:
            return _read_list(nested, spec.dtype, where)
        return [read(inner, dims - 1, f"{where}[{i}]") for i, inner in enumerate(nested)]

    content = read(value, dims, place)
    if dims == 2:
        array = _neutral(spec, (len(content), max(map(len, content), default=0) or 1))
        for row, values in zip(array, content, strict=True):
            row[: len(values)] = values
    else:
        array = np.array(content, spec.dtype)
    width = spec.shape[-1]
    if dims and width >= 0 and array.shape[-1] != width:
        raise InputError(place, f"{array.shape[-1]} numbers", f"{width}, the width of the vector")
    return array[np.newaxis] if request_side else array


def _read_list(values: list[Any], dtype: np.dtype, place: str) -> list[Any]:
    """`_read_value` of each element; plain values are converted together, because lists are long."""
    kinds, limits = _plain(dtype)
    if kinds.issuperset(map(type, values)):
        if dtype == STRING:
            with contextlib.suppress(UnicodeEncodeError):
                return [value.encode() for value in values]
        elif not values or (limits[0] <= min(values) and max(values) <= limits[1]):
            return values
    return [_read_value(value, dtype, f"{place}[{i}]") for i, value in enumerate(values)]


@functools.cache
def _plain(dtype: np.dtype) -> tuple[frozenset[type], tuple[float, float]]:
    """Python types that need only a range check for this dtype, and these values."""
    if is_floating(dtype):
        limit = float(np.finfo(dtype if dtype.kind == "f" else np.float32).max)  # bfloat16 has float32's exponent
        return frozenset((int, float)), (-limit, limit)
    if dtype.kind in "iu":
        return frozenset((int,)), (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    return frozenset((str,) if dtype == STRING else ()), (0, 0)


def _read_value(value: Any, dtype: np.dtype, place: str) -> Any:
    if dtype == STRING and (value is None or isinstance(value, str)):
        try:
            return (value or "").encode()
        except UnicodeEncodeError as error:
            raise InputError(place, "half a surrogate pair", "Unicode text") from error
    if dtype == np.bool_ and isinstance(value, bool):
        return value
    low, high = _plain(dtype)[1]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if dtype.kind in "iu" and is_number and isinstance(value, int) and low <= value <= high:
        return value
    if is_floating(dtype) and value is None:
        return np.nan
    if is_floating(dtype) and is_number and (low <= value <= high or value != value):
        return value
    raise InputError(place, quote(value), f"{_article(dtype)} {_noun(dtype)}")


def _neutral(spec: TensorSpec, shape: tuple[int, ...]) -> np.ndarray:
    """Array of missing values, as the pipeline encodes them."""
    value = b"" if spec.dtype == STRING else np.nan if is_floating(spec.dtype) else 0
    return np.full(shape, value, spec.dtype)


def _check_counts(counts: Mapping[str, int], place: str, unit: str) -> None:
    if not counts:
        return
    reference = next((name for name in counts if name.endswith(ITEM)), next(iter(counts)))
    for name, count in counts.items():
        if count != counts[reference]:
            expected = f"{counts[reference]}, one for each {unit} of {reference}"
            raise InputError(f"{place}.{name}", f"length {count}", expected)


def _describe(spec: TensorSpec, dims: int | None = None) -> str:
    """Expected JSON form of an input, or of `dims` levels of nesting."""
    whole = len(spec.shape) - (spec.shape[0] == 1)
    dims = whole if dims is None else dims
    if dims == 0:
        return f"{_article(spec.dtype)} {_noun(spec.dtype)}"
    each = ", one for each item" if spec.shape[0] != 1 and dims == whole else ""
    return f"a list of {'lists of ' * (dims - 1)}{_noun(spec.dtype)}s{each}"


def _noun(dtype: np.dtype) -> str:
    if dtype == STRING:
        return "string"
    return {"b": "boolean", "i": "integer", "u": "integer"}.get(dtype.kind, "number")


def _article(dtype: np.dtype) -> str:
    return "an" if dtype.kind in "iu" else "a"


def quote(value: Any) -> str:
    """Value as quoted in a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _depth(value: Any) -> int:
    return 0 if not isinstance(value, list) else 1 + (_depth(value[0]) if value else 0)
