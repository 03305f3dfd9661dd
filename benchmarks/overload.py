"""Overload benchmark: throughput and latency of a server beyond its capacity.

First as many clients as there are workers ask one request after another: that is the capacity. Then requests arrive at
`--times` that rate, whether or not the ones before are answered. What the server has no room for it refuses at once, so
that what it accepts is answered at nearly its full rate: the goodput.

The clients have the same processors as the server. What they take is missing from the goodput.
"""

import argparse
import asyncio
import collections
import itertools
import subprocess
import sys
import time
from typing import NamedTuple

import usr_tf  # noqa: F401  (before TensorFlow)

# isort: split
import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from benchmarks.serving import shop
from serving.client.transport import proxy_options

_METHOD = "/tensorflow.serving.PredictionService/Predict"
_DEADLINE_SECONDS = 60


class Answers(NamedTuple):
    """Responses per second and latency by status code."""

    rates: dict[grpc.StatusCode, float]
    milliseconds: dict[grpc.StatusCode, list[float]]

    def __str__(self) -> str:
        return ", ".join(
            f"{code.name} {rate:.0f}/s (p50 {np.quantile(self.milliseconds[code], 0.5):.1f} ms, "
            f"p99 {np.quantile(self.milliseconds[code], 0.99):.1f} ms)"
            for code, rate in sorted(self.rates.items(), key=lambda item: item[0].name)
        )


async def capacity(address: str, message: bytes, clients: int, seconds: float) -> Answers:
    """Closed-loop load: each client sends its next request when it has a response."""
    asked, end = _Asked(), time.monotonic() + seconds

    async def client(send: grpc.aio.UnaryUnaryMultiCallable) -> None:
        while time.monotonic() < end:
            await asked.ask(send, message)

    async with grpc.aio.insecure_channel(address, proxy_options(None)) as channel:
        send = channel.unary_unary(_METHOD)
        await asked.ask(send, message)
        asked.clear()
        await asyncio.gather(*(client(send) for _ in range(clients)))
    return asked.answers(seconds)


async def overload(address: str, message: bytes, rate: float, seconds: float) -> Answers:
    """Open-loop load: `rate` requests per second, evenly spaced."""
    asked, start, tasks = _Asked(), time.monotonic(), []
    async with grpc.aio.insecure_channel(address, proxy_options(None)) as channel:
        send = channel.unary_unary(_METHOD)
        for number in itertools.count():
            due = start + number / rate
            if due > start + seconds:
                break
            await asyncio.sleep(max(due - time.monotonic(), 0))
            tasks.append(asyncio.create_task(asked.ask(send, message)))
        await asyncio.gather(*tasks)
    return asked.answers(time.monotonic() - start)


class _Asked:
    def __init__(self) -> None:
        self._milliseconds: dict[grpc.StatusCode, list[float]] = collections.defaultdict(list)

    async def ask(self, send: grpc.aio.UnaryUnaryMultiCallable, message: bytes) -> None:
        start = time.monotonic()
        try:
            await send(message, timeout=_DEADLINE_SECONDS)
            code = grpc.StatusCode.OK
        except grpc.aio.AioRpcError as error:
            code = error.code()
        self._milliseconds[code].append(1e3 * (time.monotonic() - start))

    def clear(self) -> None:
        self._milliseconds.clear()

    def answers(self, seconds: float) -> Answers:
        rates = {code: len(times) / seconds for code, times in self._milliseconds.items()}
        return Answers(rates, dict(self._milliseconds))


def _message(candidates: int, signature: str) -> bytes:
    request = PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "usr", signature
    for name, value in shop.request(candidates).items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request.SerializeToString()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of versions, by `python -m benchmarks.serving.shop`")
    parser.add_argument("--signature", default="search")
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--max_queue", type=int, default=8)
    parser.add_argument("--times", type=float, default=4)
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    message = _message(arguments.candidates, arguments.signature)
    command = [sys.executable, "-m", "usr_tf.cli", "serve", f"--model={arguments.model}", "--port=0"]
    command += [f"--workers={arguments.workers}", f"--max_queue={arguments.max_queue}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().split(" at ")[1].split(";")[0]
            at_ease = asyncio.run(capacity(address, message, arguments.workers, arguments.seconds))
            print(f"capacity: {at_ease}")
            rate = arguments.times * at_ease.rates[grpc.StatusCode.OK]
            under = asyncio.run(overload(address, message, rate, arguments.seconds))
            print(f"{arguments.times:g} times that, {rate:.0f}/s: {under}")
            kept = under.rates.get(grpc.StatusCode.OK, 0) / at_ease.rates[grpc.StatusCode.OK]
            print(f"goodput: {kept:.0%} of the capacity")
        finally:
            server.kill()


if __name__ == "__main__":
    main()
