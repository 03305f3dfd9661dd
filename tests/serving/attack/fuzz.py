"""Fuzzer of a server: malformed requests with a check of every response."""

import collections
import json
import random
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import grpc
import httpx
from tensorflow_serving.apis.predict_pb2 import PredictResponse

from tests.serving.attack import malformed, malformed_json
from tests.serving.attack.malformed import Good
from tests.serving.attack.process import ServerProcess

DEADLINE_SECONDS = 60
ROUNDS = 8
_GOOD_EVERY = 20
_MAX_FAILURES = 20
_METHOD = "/tensorflow.serving.PredictionService/Predict"


class Report(NamedTuple):
    counts: collections.Counter[str]
    """Code → how often it was answered."""
    seconds: float
    slowest: tuple[float, str]
    """Seconds of the slowest attack, and its name."""
    resident_bytes: list[int]
    """The least memory that the server held in each of `ROUNDS` rounds of as many requests.

    The least, for a large request holds hundreds of megabytes while it is refused. A leak raises that too.
    """
    failures: list[str]
    """What was answered wrongly; at most the first of them."""

    @property
    def grown_bytes(self) -> int:
        """Memory growth of the warm server in the second half of the rounds.

        In the first half allocators and caches fill up: by 70 to 440 MB, depending on the CPU and on oneDNN.
        """
        return self.resident_bytes[-1] - self.resident_bytes[ROUNDS // 2 - 1]

    def __str__(self) -> str:
        by_round = ", ".join(f"{size / 2**20:.0f}" for size in self.resident_bytes)
        codes = ", ".join(f"{code} {count}" for code, count in self.counts.most_common())
        return (
            f"{self.counts.total()} requests in {self.seconds:.1f} s: {codes}. Slowest {self.slowest[1]} "
            f"{self.slowest[0]:.2f} s. Memory by round {by_round} MB."
        )


def fuzz_grpc(server: ServerProcess, goods: Sequence[Good], requests: int, seed: int = 0) -> Report:
    """Sends malformed gRPC requests, each attack at least once on each valid request.

    In between the good requests are sent, whose scores must stay what they were to the last bit.
    """
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.address, options) as channel:
        send = channel.unary_unary(_METHOD)
        scores = [_scores(send(good.request.SerializeToString(), timeout=DEADLINE_SECONDS)) for good in goods]

        def attack(name: str, rng: random.Random) -> tuple[str, str | None]:
            made, place = malformed.ATTACKS[name], rng.randrange(len(goods))
            message = made.make(rng, goods[place])
            message = message if isinstance(message, bytes) else message.SerializeToString()
            try:
                answer, code, details = send(message, timeout=DEADLINE_SECONDS), grpc.StatusCode.OK, ""
            except grpc.RpcError as error:
                answer, code, details = None, error.code(), error.details()
            if code not in made.codes:
                return code.name, f"{code.name} {details!r}"
            if code == grpc.StatusCode.INTERNAL and details != "not a PredictRequest":
                return code.name, f"a fault of the server: {details!r}"
            if answer and made.same and _scores(answer) != scores[place]:
                return code.name, "other scores"
            return code.name, None

        def check() -> str | None:
            for good, expected in zip(goods, scores, strict=True):
                if _scores(send(good.request.SerializeToString(), timeout=DEADLINE_SECONDS)) != expected:
                    return "a good request scores otherwise than before"
            return None

        weights = {name: made.weight for name, made in malformed.ATTACKS.items()}
        return _fuzz(server, weights, attack, check, requests, seed)


def fuzz_rest(server: ServerProcess, good: dict[str, Any], requests: int, seed: int = 0) -> Report:
    """Sends malformed REST requests."""
    with httpx.Client(base_url=f"http://{server.rest_address}", trust_env=False, timeout=DEADLINE_SECONDS) as client:

        def score() -> bytes:
            return client.post("/v1/models/usr:predict", content=json.dumps(good).encode()).content

        expected = score()

        def attack(name: str, rng: random.Random) -> tuple[str, str | None]:
            made = malformed_json.ATTACKS[name]
            sent = made.make(rng, good)
            response = client.request(sent.method, sent.path, content=sent.body)
            if response.status_code not in made.codes:
                return str(response.status_code), f"{response.status_code} {response.text!r} to {sent}"[:600]
            if response.status_code != 200 and not response.text.startswith('{"error": '):
                return str(
                    response.status_code
                ), f"{response.status_code} without an error: {response.text[:200]!r} to {sent}"[:600]
            return str(response.status_code), None

        def check() -> str | None:
            return None if score() == expected else "a good request scores otherwise than before"

        return _fuzz(server, dict.fromkeys(malformed_json.ATTACKS, 1.0), attack, check, requests, seed)


def garble(port: int, connections: int, seed: int = 0) -> None:
    """Opens connections with no data, too much data or no close."""
    for number in range(connections):
        rng = random.Random(f"{seed} {number}")
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS) as connection:
            start = rng.choice((b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"POST /v1/models/usr:predict HTTP/1.1\r\n"))
            connection.sendall(start + rng.randbytes(rng.choice((0, 1, 9, 1000))))


def _fuzz(
    server: ServerProcess,
    weights: Mapping[str, float],
    attack: Callable[[str, random.Random], tuple[str, str | None]],
    check: Callable[[], str | None],
    requests: int,
    seed: int,
) -> Report:
    """Runs attacks, each reproducible from the seed and its number."""
    counts: collections.Counter[str] = collections.Counter()
    failures: list[str] = []
    slowest = (0.0, "")
    start, resident = time.monotonic(), []
    for number in range(requests):
        rng = random.Random(f"{seed} {number}")
        name = [*weights][number] if number < len(weights) else rng.choices([*weights], [*weights.values()])[0]
        began = time.monotonic()
        code, failure = attack(name, rng)
        slowest = max(slowest, (time.monotonic() - began, name))
        counts[code] += 1
        if number % _GOOD_EVERY == 0 or number == requests - 1:
            failure = failure or check()
        if failure:
            failures.append(f"attack {number}, {name}: {failure}")
        if not server.lives:
            failures.append(f"attack {number}, {name}: the server died")
        if len(failures) == _MAX_FAILURES or not server.lives:
            break
        if (place := number * ROUNDS // requests) == len(resident):
            resident.append(server.resident_bytes)
        elif number % _GOOD_EVERY == 0:
            resident[place] = min(resident[place], server.resident_bytes)
    return Report(counts, time.monotonic() - start, slowest, resident, failures)


def _scores(answer: bytes) -> dict[str, list[float]]:
    response = PredictResponse.FromString(answer)
    return {name: list(output.float_val) for name, output in response.outputs.items()}
