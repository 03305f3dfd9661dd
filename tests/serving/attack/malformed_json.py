"""Malformed REST requests, each with its correct HTTP codes."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

_BAD = {400}


class Sent(NamedTuple):
    body: bytes
    path: str = "/v1/models/usr:predict"
    method: str = "POST"


class Attack(NamedTuple):
    make: Callable[[random.Random, dict[str, Any]], Sent]
    codes: frozenset[int]


ATTACKS: dict[str, Attack] = {}


def _attack(codes: set[int]) -> Callable[[Callable[[random.Random, dict[str, Any]], Sent]], Callable]:
    def enter(make: Callable) -> Callable:
        ATTACKS[make.__name__] = Attack(make, frozenset(codes))
        return make

    return enter


@_attack(_BAD)
def random_bytes(rng: random.Random, _: dict[str, Any]) -> Sent:
    return Sent(rng.randbytes(rng.choice((0, 1, 10, 5000))))


@_attack(_BAD)
def text_cut_short(rng: random.Random, good: dict[str, Any]) -> Sent:
    text = json.dumps(good)
    return Sent(text[: rng.randrange(len(text))].encode())


@_attack({200, 400})
def characters_replaced(rng: random.Random, good: dict[str, Any]) -> Sent:
    text = bytearray(json.dumps(good).encode())
    for _ in range(rng.choice((1, 1, 5))):
        text[rng.randrange(len(text))] = rng.choice(b'"[]{},:-0e\\\0\xff')
    return Sent(bytes(text))


@_attack(_BAD)
def deep_nesting(rng: random.Random, good: dict[str, Any]) -> Sent:
    depth = rng.choice((40, 900, 100_000))
    deep = rng.choice(("[" * depth, "[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth))
    return Sent(json.dumps(_with(good, price="HERE")).replace('"HERE"', deep).encode())


@_attack(_BAD)
def values_of_other_kinds(rng: random.Random, good: dict[str, Any]) -> Sent:
    name = rng.choice(sorted(good["inputs"]))
    value = rng.choice((None, True, {}, {"b64": 1}, {"b64": "?"}, {"b64": "AA==", "c": 1}, [], [[None]], [{}], 10**400))
    return Sent(json.dumps(_with(good, **{name: [value, value]})).encode())


@_attack({200, 400})
def strange_numbers(rng: random.Random, good: dict[str, Any]) -> Sent:
    number = rng.choice(
        ("NaN", "-Infinity", "1e999", "1E400", "-1e-999", "1" * 5000, "-0", "1.0e+", "0x10", "--1", "1_0")
    )
    return Sent(json.dumps(_with(good, price=["HERE"] * 3)).replace('"HERE"', number).encode())


@_attack(_BAD)
def ragged_lists(rng: random.Random, good: dict[str, Any]) -> Sent:
    attributes = rng.choice(
        ([["a"], ["b", "c"], []], [["a"], "b", ["c"]], ["a", ["b"], "c"], [[["a"]], [["b"]], ["c"]])
    )
    return Sent(json.dumps(_with(good, attributes=attributes)).encode())


@_attack(_BAD)
def items_of_different_number(rng: random.Random, good: dict[str, Any]) -> Sent:
    return Sent(json.dumps(_with(good, price=[0.0] * rng.choice((0, 2, 4, 1000)))).encode())


@_attack(_BAD)
def an_input_too_few(rng: random.Random, good: dict[str, Any]) -> Sent:
    document = copy.deepcopy(good)
    del document["inputs"][rng.choice(sorted(document["inputs"]))]
    return Sent(json.dumps(document).encode())


@_attack(_BAD)
def another_form(rng: random.Random, good: dict[str, Any]) -> Sent:
    document = rng.choice(
        (
            {**good, "instances": []},
            {**good, "inputs": 1},
            {**good, "inputs": [good["inputs"]]},
            {**good, "signature_name": ["search"]},
            {"signature_name": "search", "instances": rng.choice((1, [], [1], [{}], [good["inputs"], 1], [[]]))},
            [good],
            "x",
            None,
        )
    )
    return Sent(json.dumps(document).encode())


@_attack({400, 404})
def another_model(rng: random.Random, good: dict[str, Any]) -> Sent:
    name = rng.choice(
        ("~", "%00", "%ff", "usr%2f", "é", "usr/versions/9", f"usr/versions/{10**30}", "usr/labels/%ff", "a" * 5000)
    )
    return Sent(json.dumps(good).encode(), f"/v1/models/{name}:predict")


@_attack({400, 501})
def another_method(rng: random.Random, good: dict[str, Any]) -> Sent:
    method = rng.choice(("PUT", "DELETE", "PATCH", "OPTIONS"))
    path = rng.choice(
        ("/v1/models/usr:classify", "/v1/models/usr:regress", "/v1/models/usr:", "/v1/x", "/v1/models/usr/x")
    )
    return Sent(json.dumps(good).encode(), method=method) if rng.random() < 0.5 else Sent(b"{}", path)


def _with(good: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    return {**good, "inputs": {**good["inputs"], **inputs}}
