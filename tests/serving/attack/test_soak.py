"""An hour of mixed load with new versions all the while: `pytest -m soak -s tests/serving/attack/test_soak.py`.

`SOAK_SECONDS` is its length, `SOAK_RELOAD_SECONDS` the time from one version to the next.
"""

import collections
import os
import random
import shutil
import threading
import time
from collections.abc import Callable

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc

from serving.client import Ranker, RestRanker
from tests.serving.attack import malformed
from tests.serving.attack.malformed import Good
from tests.serving.attack.process import ServerProcess
from tests.serving.local_server.test_server import predict_request

SECONDS = float(os.environ.get("SOAK_SECONDS", "3600"))
RELOAD_SECONDS = float(os.environ.get("SOAK_RELOAD_SECONDS", "15"))
MAX_GROWN_BYTES = 100 * 2**20
MAX_ITEMS = 500
BIASES = (0.5, 0.25)


class Client(threading.Thread):
    """Asks again and again until it is stopped.

    Attributes:
      times: when each request was made, and the seconds that it took.
      failed: what went wrong.
    """

    def __init__(self, ask: Callable[[random.Random], None]):
        super().__init__(daemon=True)
        self.times: list[tuple[float, float]] = []
        self.failed: list[Exception] = []
        self._ask = ask
        self._stopped = threading.Event()

    def run(self) -> None:
        rng = random.Random(0)
        while not self._stopped.wait(0.002):
            start = time.monotonic()
            try:
                self._ask(rng)
            except Exception as error:
                self.failed.append(error)
            self.times.append((start, time.monotonic() - start))

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def p99_ms(self, begin: float, end: float) -> float:
        return 1e3 * float(np.quantile([seconds for when, seconds in self.times if begin <= when < end], 0.99))


def ranked_by(ranker: Ranker) -> Callable[[random.Random], None]:
    """Asks for the scores of some items, and checks each."""

    def ask(rng: random.Random) -> None:
        items = rng.choice((1, 10, 50, MAX_ITEMS))
        prices = np.array([rng.uniform(-4, 4) for _ in range(items)], np.float32)
        inputs = {
            "user_id": [b"u"],
            "query": [b"tea"],
            "item_id": np.full(items, b"b", object),
            "price": prices,
            "attributes": np.full((items, 2), b"x", object),
            "history_item_id": [[b"a"] * rng.choice((1, 20))],
        }
        outputs = ranker.predict("search", inputs, timeout=60)
        expected = 1 / (1 + np.exp(-(1 + 1 + prices + 2 + len(inputs["history_item_id"][0]))))
        np.testing.assert_allclose(outputs["ctr"], expected, rtol=1e-5)
        assert min(abs(outputs["ctcvr"][0] / outputs["ctr"][0] - bias) for bias in BIASES) < 1e-5

    return ask


def malformed_by(channel: grpc.Channel, good: Good) -> Callable[[random.Random], None]:
    """Asks what is to be refused, of the kinds that cost little."""
    send = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    attacks = [attack for attack in malformed.ATTACKS.values() if attack.weight >= 0.5]

    def ask(rng: random.Random) -> None:
        attack = rng.choice(attacks)
        message = attack.make(rng, good)
        try:
            send(message if isinstance(message, bytes) else message.SerializeToString(), timeout=60)
            code = grpc.StatusCode.OK
        except grpc.RpcError as error:
            code = error.code()
        assert code in attack.codes

    return ask


@pytest.mark.soak
def test_an_hour_of_load_and_new_versions_fails_no_request_and_keeps_no_memory(toy_models, export, search_inputs):
    export(1)
    good = Good(predict_request(search_inputs), ("item_id", "price", "attributes"), 2**26)
    with (
        ServerProcess(export.base) as server,
        Ranker(server.address, retries=0) as over_grpc,
        RestRanker(server.rest_address, retries=0) as over_rest,
        grpc.insecure_channel(server.address) as channel,
    ):
        clients = {
            "gRPC": Client(ranked_by(over_grpc)),
            "REST": Client(ranked_by(over_rest)),
            "malformed": Client(malformed_by(channel, good)),
        }
        start, version = time.monotonic(), 1
        memory: list[tuple[float, int]] = []
        for client in clients.values():
            client.start()
        while (now := time.monotonic() - start) < SECONDS:
            memory.append((now, server.resident_bytes))
            if now > version * RELOAD_SECONDS:
                version += 1
                export(version, BIASES[version % 2])
                shutil.rmtree(export.base / str(version - 2), ignore_errors=True)
            time.sleep(min(1.0, SECONDS / 100))
        for client in clients.values():
            client.stop()
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        served = stub.Predict(good.request, timeout=60).model_spec.version.value

    seconds, sizes = np.array(memory).T
    quarters = [float(np.median(part)) for part in np.array_split(sizes, 4)]
    later = seconds > SECONDS / 2
    slope = np.polyfit(seconds[later], sizes[later], 1)[0] * 3600 / 2**20
    by_quarter = ", ".join(f"{size / 2**20:.0f}" for size in quarters)
    print(f"\n{SECONDS:.0f} s, {version} versions, the last served {served}.")
    print(
        f"Memory {sizes[0] / 2**20:.0f} MB at first, {by_quarter} MB by quarter, {slope:+.0f} MB/h in the second half."
    )
    for name, client in clients.items():
        first, last = (client.p99_ms(start + SECONDS * q, start + SECONDS * (q + 0.25)) for q in (0, 0.75))
        print(f"{name}: {len(client.times)} requests, {len(client.failed)} failed,", end=" ")
        print(f"p99 {first:.1f} ms in the first quarter and {last:.1f} ms in the last.")
        for failure, count in collections.Counter(
            f"{type(error).__name__}: {error}" for error in client.failed
        ).items():
            print(f"  {count} times {failure[:200]}")
    assert not any(client.failed for client in clients.values())
    assert quarters[3] - quarters[1] < MAX_GROWN_BYTES
