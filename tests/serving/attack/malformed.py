"""Malformed requests, each with its correct responses.

An attack takes a good request apart: `ATTACKS` is the table of what is done to it and which codes may come of that.
Nothing here knows the model but by its good requests.
"""

import copy
import random
from collections.abc import Callable
from typing import NamedTuple

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from serving.formats.tensors import write_tensor

Code = grpc.StatusCode
_INVALID = {Code.INVALID_ARGUMENT}
_UNREADABLE = {Code.INTERNAL}
"""What gRPC in C++ answers to bytes that are no message of the method."""
_DAMAGED = {Code.INTERNAL, Code.INVALID_ARGUMENT}
_ANY_REFUSAL = {*_DAMAGED, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.RESOURCE_EXHAUSTED}
_OK = {Code.OK}


class Good(NamedTuple):
    """Valid request, and facts about its model for attacks."""

    request: PredictRequest
    items: tuple[str, ...]
    """Inputs with a value, or a row, an item; the first is a list of strings, and another one of floats."""
    max_bytes: int
    """The largest request that the server takes."""

    @property
    def strings(self) -> str:
        return next(name for name in self.items if self._is_flat(name, types_pb2.DT_STRING))

    @property
    def floats(self) -> str:
        return next(name for name in self.items if self._is_flat(name, types_pb2.DT_FLOAT))

    @property
    def count(self) -> int:
        """Items asked for."""
        return self.request.inputs[self.strings].tensor_shape.dim[0].size

    def _is_flat(self, name: str, dtype: int) -> bool:
        tensor = self.request.inputs[name]
        return tensor.dtype == dtype and len(tensor.tensor_shape.dim) == 1


class Attack(NamedTuple):
    make: Callable[[random.Random, Good], PredictRequest | bytes]
    codes: frozenset[Code]
    same: bool = False
    """Whether the scores must be those of the good request."""
    weight: float = 1.0


ATTACKS: dict[str, Attack] = {}


def _attack(
    codes: set[Code], same: bool = False, weight: float = 1.0
) -> Callable[[Callable[[random.Random, Good], PredictRequest | bytes]], Callable]:
    def enter(make: Callable) -> Callable:
        ATTACKS[make.__name__] = Attack(make, frozenset(codes), same, weight)
        return make

    return enter


# Bytes


@_attack({*_DAMAGED, Code.NOT_FOUND})
def random_bytes(rng: random.Random, _: Good) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 2, 8, 100, 5000)))


@_attack(_DAMAGED, weight=2)
def a_message_cut_short(rng: random.Random, good: Good) -> bytes:
    message = good.request.SerializeToString(deterministic=True)
    return message[: rng.randrange(len(message))]


@_attack({*_ANY_REFUSAL, Code.OK}, weight=3)
def bits_flipped(rng: random.Random, good: Good) -> bytes:
    message = bytearray(good.request.SerializeToString(deterministic=True))
    for _ in range(rng.choice((1, 1, 2, 10, 100))):
        message[rng.randrange(len(message))] ^= 1 << rng.randrange(8)
    return bytes(message)


@_attack({*_ANY_REFUSAL, Code.OK}, weight=2)
def a_slice_moved(rng: random.Random, good: Good) -> bytes:
    message = good.request.SerializeToString(deterministic=True)
    start, end, to = (rng.randrange(len(message)) for _ in range(3))
    return message[:to] + message[min(start, end) : max(start, end)] + message[to:]


@_attack(_UNREADABLE)
def names_that_are_not_utf8(rng: random.Random, good: Good) -> bytes:
    request = copy.deepcopy(good.request)
    mark = "?" * 8
    where = rng.randrange(4)
    if where == 0:
        request.model_spec.name = mark
    elif where == 1:
        request.model_spec.signature_name = mark
    elif where == 2:
        request.output_filter.append(mark)
    else:
        request.inputs[mark].CopyFrom(request.inputs[good.floats])
    return request.SerializeToString().replace(
        mark.encode(), rng.choice((b"\xff" * 8, b"\xc3(aaaaaa", b"\xed\xa0\x80aaaaa"))
    )


@_attack(_OK, same=True)
def unknown_fields(rng: random.Random, good: Good) -> bytes:
    size = rng.randrange(128)
    return good.request.SerializeToString() + b"\xfa\x3f" + bytes([size]) + rng.randbytes(size)  # field 1023, of bytes


@_attack(_UNREADABLE, weight=0.5)
def groups_without_end(rng: random.Random, good: Good) -> bytes:
    return good.request.SerializeToString() + b"\xfb\x3f" * rng.choice((1, 101, 100_000))


# The model


@_attack(_INVALID)
def no_model(rng: random.Random, good: Good) -> PredictRequest:
    request = copy.deepcopy(good.request)
    if rng.random() < 0.5:
        request.ClearField("model_spec")
    else:
        request.model_spec.name = ""
    return request


@_attack({Code.NOT_FOUND})
def an_unknown_model(rng: random.Random, good: Good) -> PredictRequest:
    return _with_spec(good, name=_name(rng))


@_attack({Code.NOT_FOUND})
def an_unknown_version(rng: random.Random, good: Good) -> PredictRequest:
    request = copy.deepcopy(good.request)
    request.model_spec.version.value = rng.choice((0, -1, 2**31, 2**63 - 1, -(2**63), rng.randrange(-(2**63), 0)))
    return request


@_attack(_INVALID)
def an_unknown_label(rng: random.Random, good: Good) -> PredictRequest:
    return _with_spec(good, version_label=rng.choice(("", _name(rng))))


@_attack({Code.FAILED_PRECONDITION})
def an_unknown_signature(rng: random.Random, good: Good) -> PredictRequest:
    return _with_spec(good, signature_name=_name(rng))


# Which inputs and outputs


@_attack(_INVALID)
def an_input_too_few(rng: random.Random, good: Good) -> PredictRequest:
    request = copy.deepcopy(good.request)
    for name in rng.sample(sorted(request.inputs), rng.randint(1, len(request.inputs))):
        del request.inputs[name]
    return request


@_attack(_INVALID)
def an_input_too_many(rng: random.Random, good: Good) -> PredictRequest:
    request = copy.deepcopy(good.request)
    for _ in range(rng.choice((1, 1, 1000))):
        request.inputs[_name(rng)].CopyFrom(request.inputs[good.floats])
    return request


@_attack(_INVALID)
def an_input_of_another_name(rng: random.Random, good: Good) -> PredictRequest:
    request = copy.deepcopy(good.request)
    name = rng.choice(sorted(request.inputs))
    request.inputs[_name(rng)].CopyFrom(request.inputs[name])
    del request.inputs[name]
    return request


@_attack(_INVALID)
def an_output_that_is_none(rng: random.Random, good: Good) -> PredictRequest:
    request = copy.deepcopy(good.request)
    request.output_filter.extend(["ctr", rng.choice(("", "ctr", _name(rng)))])
    return request


# Tensors


@_attack(_INVALID, weight=2)
def another_dtype(rng: random.Random, good: Good) -> PredictRequest:
    request, tensor = _one_input(rng, good)
    tensor.dtype = rng.choice([dtype for dtype in types_pb2.DataType.values() if dtype != tensor.dtype])
    return request


@_attack(_INVALID)
def a_dtype_that_is_none(rng: random.Random, good: Good) -> PredictRequest:
    request, tensor = _one_input(rng, good)
    tensor.dtype = rng.choice((0, -1, 99, 999, 2**31 - 1, -(2**31)))
    return request


@_attack(_INVALID)
def negative_sizes(rng: random.Random, good: Good) -> PredictRequest:
    request, tensor = _one_input(rng, good)
    rng.choice(tensor.tensor_shape.dim).size = rng.choice((-1, -2, -(2**31), -(2**63)))
    return request


@_attack(_INVALID)
def sizes_beyond_64_bits(rng: random.Random, good: Good) -> PredictRequest:
    request, tensor = _one_input(rng, good)
    _set_shape(tensor, rng.choice(([2**62, 4], [2**32] * 3, [2**63 - 1] * 2, [3, 2**62, 0], [10] * 30)))
    return request


@_attack({Code.RESOURCE_EXHAUSTED})
def a_large_tensor_of_few_bytes(rng: random.Random, good: Good) -> PredictRequest:
    request, tensor = _one_input(rng, good)
    _write_out(tensor)
    tensor.tensor_shape.dim[-1].size = rng.choice((2**28, 2**40, 2**59))
    return request


@_attack(_INVALID)
def another_rank(rng: random.Random, good: Good) -> PredictRequest:
    request, tensor = _one_input(rng, good)
    _write_out(tensor)
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    _set_shape(tensor, rng.choice(([], [*sizes, 1], [1] * 60, [*sizes, *[1] * 253], [*sizes, *[1] * 300])))
    return request


@_attack(_INVALID)
def content_of_another_size(rng: random.Random, good: Good) -> PredictRequest:
    request, tensor = _one_input(rng, good)
    size = rng.choice((1, 3, 11, 1013, 10**6 + 1))  # of no whole number of values
    tensor.tensor_content = b"\xff" * size if tensor.dtype == types_pb2.DT_STRING else rng.randbytes(size)
    return request


@_attack(_OK, same=True)
def values_past_the_end(rng: random.Random, good: Good) -> PredictRequest:
    request = copy.deepcopy(good.request)
    tensor = request.inputs[rng.choice((good.floats, good.strings))]
    _write_out(tensor)
    if tensor.dtype == types_pb2.DT_FLOAT:
        tensor.float_val.extend([rng.random()] * rng.choice((1, 1000)))
    else:
        tensor.string_val.extend([rng.randbytes(5)] * rng.choice((1, 1000)))
    return request


@_attack(_OK, same=True)
def fields_of_other_dtypes(rng: random.Random, good: Good) -> PredictRequest:
    request, tensor = _one_input(rng, good)
    tensor.resource_handle_val.add(name=_name(rng), container="c")
    tensor.variant_val.add(type_name=_name(rng), metadata=rng.randbytes(9))
    tensor.scomplex_val.append(1.0)
    tensor.version_number = rng.randrange(-(2**31), 2**31)
    tensor.tensor_shape.unknown_rank = rng.random() < 0.5
    tensor.tensor_shape.dim[0].name = _name(rng)
    return request


@_attack(_INVALID)
def items_of_different_number(rng: random.Random, good: Good) -> PredictRequest:
    request = copy.deepcopy(good.request)
    tensor = request.inputs[rng.choice(good.items)]
    _write_out(tensor)
    tensor.tensor_shape.dim[0].size = rng.choice((0, good.count - 1, good.count + 1, good.count + 1000))
    return request


@_attack(_OK)
def no_items(_: random.Random, good: Good) -> PredictRequest:
    request = copy.deepcopy(good.request)
    for name in good.items:
        request.inputs[name].tensor_shape.dim[0].size = 0
    return request


@_attack(_OK)
def numbers_that_are_none(rng: random.Random, good: Good) -> PredictRequest:
    request = copy.deepcopy(good.request)
    tensor = request.inputs[good.floats]
    _write_out(tensor)
    tensor.float_val[rng.randrange(len(tensor.float_val))] = rng.choice(
        (float("nan"), float("inf"), float("-inf"), 3.4e38, -3.4e38, 1e-45)
    )
    return request


@_attack(_OK)
def unknown_ids(rng: random.Random, good: Good) -> PredictRequest:
    request, name = copy.deepcopy(good.request), good.strings
    for place in range(good.count):
        strange = (
            b"",
            b"\0",
            b"\xff\xfe",
            b"-1",
            rng.randbytes(20),
            b"x" * 10_000,
            "\N{COMBINING ACUTE ACCENT}".encode(),
        )
        request.inputs[name].string_val[place] = rng.choice(strange)
    return request


@_attack(_INVALID, weight=0.02)
def ten_million_floats(_: random.Random, good: Good) -> PredictRequest:
    request = copy.deepcopy(good.request)
    tensor = request.inputs[good.floats]
    _set_shape(tensor, [10_000_000])
    tensor.tensor_content = bytes(40_000_000)
    return request


@_attack({Code.RESOURCE_EXHAUSTED}, weight=0.02)
def ten_million_strings(rng: random.Random, good: Good) -> PredictRequest:
    request = copy.deepcopy(good.request)
    tensor = request.inputs[good.strings]
    _set_shape(tensor, [10_000_000])
    if rng.random() < 0.5:
        tensor.tensor_content = bytes(10_000_000)
    else:
        tensor.string_val.extend([b""] * 10_000_000)
    return request


@_attack({Code.RESOURCE_EXHAUSTED}, weight=0.02)
def more_bytes_than_the_server_takes(_: random.Random, good: Good) -> PredictRequest:
    request = copy.deepcopy(good.request)
    request.inputs[good.floats].tensor_content = bytes(good.max_bytes)
    return request


# tf.Examples


@_attack(_INVALID, weight=2)
def examples_that_are_none(rng: random.Random, good: Good) -> PredictRequest:
    return _examples(
        good, [b"\x0a\x05" + rng.randbytes(rng.choice((1, 2, 50, 3000))) for _ in range(rng.choice((1, 3)))]
    )


@_attack(_INVALID)
def an_example_of_other_kinds(rng: random.Random, good: Good) -> PredictRequest:
    example = tf.train.Example()
    example.features.feature[good.floats].bytes_list.value.append(rng.randbytes(5))
    example.features.feature[good.strings].int64_list.value.append(rng.randrange(100))
    return _examples(good, [example.SerializeToString()] * rng.choice((1, 3)))


@_attack(_OK)
def no_examples(_: random.Random, good: Good) -> PredictRequest:
    return _examples(good, [])


def _examples(good: Good, examples: list[bytes]) -> PredictRequest:
    request = PredictRequest(model_spec=good.request.model_spec)
    request.model_spec.signature_name += "_examples"
    write_tensor(request.inputs["examples"], np.array(examples, object))
    return request


def _with_spec(good: Good, **fields: str) -> PredictRequest:
    request = copy.deepcopy(good.request)
    for name, value in fields.items():
        setattr(request.model_spec, name, value)
    return request


def _one_input(rng: random.Random, good: Good) -> tuple[PredictRequest, TensorProto]:
    request = copy.deepcopy(good.request)
    return request, request.inputs[rng.choice(sorted(request.inputs))]


def _write_out(tensor: TensorProto) -> None:
    """Brings the values from `tensor_content` to the typed field, which may hold fewer or more than the shape says."""
    array = tf.make_ndarray(tensor)
    tensor.Clear()
    write_tensor(tensor, array)


def _set_shape(tensor: TensorProto, sizes: list[int]) -> None:
    del tensor.tensor_shape.dim[:]
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)


def _name(rng: random.Random) -> str:
    """Unused name."""
    return rng.choice(("~", "%s", "../..", "é" * 50, "\0", "~" * 100_000, "\N{GRINNING FACE}", f"~{rng.random()}"))
