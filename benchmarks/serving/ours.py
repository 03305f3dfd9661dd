"""Measurement of our export under one serving setup, in its own process.

- `request`: the scenario's signature, in this process, as TF Serving runs it.
- `rows`: a naive export of the same model: each candidate a full example, by the `<scenario>_examples` signature.
- `grpc`: the scenario's signature of `usr-tf serve` in another process, by a ready protocol buffer over loopback.
- `ranker`: the same by `serving.client.Ranker` from arrays.

The first number of candidates also gets the milliseconds of its first request, `first_ms`.
"""

import argparse
import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import usr_tf  # noqa: F401  (before TensorFlow)

# isort: split
import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from benchmarks.logged_request import newest_version
from benchmarks.serving.clock import measure
from benchmarks.serving.shop import request
from benchmarks.training.measure import SCENARIOS
from serving.client import Ranker
from serving.client.transport import proxy_options
from serving.publishing.warmup import to_examples

SCENARIO = SCENARIOS[0]
Call = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serving", type=Path, required=True, help="directory of the model's versions")
    parser.add_argument("--way", choices=WAYS, required=True)
    parser.add_argument("--candidates", type=int, nargs="+", required=True)
    parser.add_argument("--clients", type=int, nargs="+", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--intra_op_threads", type=int, default=0)
    parser.add_argument("--inter_op_threads", type=int, default=0)
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.intra_op_threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.inter_op_threads)
    with WAYS[arguments.way](arguments) as call_of:
        for place, candidates in enumerate(arguments.candidates):
            call = call_of(candidates)
            if place == 0:
                start = time.perf_counter()
                call()
                print(
                    json.dumps({"candidates": candidates, "first_ms": 1e3 * (time.perf_counter() - start)}), flush=True
                )
            for clients in arguments.clients:
                print(json.dumps(measure(call, candidates, clients, arguments.seconds)), flush=True)


@contextlib.contextmanager
def _in_process(arguments: argparse.Namespace) -> Iterator[Callable[[int], Call]]:
    loaded = tf.saved_model.load(str(newest_version(arguments.serving)))
    rows = arguments.way == "rows"
    signature = loaded.signatures[f"{SCENARIO}_examples" if rows else SCENARIO]

    def call_of(candidates: int) -> Call:
        inputs = request(candidates)
        if rows:
            inputs = {"examples": np.array(to_examples(inputs), dtype=object)}
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        return lambda: signature(**tensors)["ctr"].numpy()

    yield call_of


@contextlib.contextmanager
def _over_grpc(arguments: argparse.Namespace) -> Iterator[Callable[[int], Call]]:
    with _server(arguments) as address, grpc.insecure_channel(address, proxy_options(None)) as channel:
        grpc.channel_ready_future(channel).result()
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict

        def call_of(candidates: int) -> Call:
            message = predict_pb2.PredictRequest()
            message.model_spec.name, message.model_spec.signature_name = "usr", SCENARIO
            for name, value in request(candidates).items():
                message.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            return lambda: predict(message)

        yield call_of


@contextlib.contextmanager
def _by_ranker(arguments: argparse.Namespace) -> Iterator[Callable[[int], Call]]:
    with _server(arguments) as address, Ranker(address) as ranker:

        def call_of(candidates: int) -> Call:
            inputs = request(candidates)
            return lambda: ranker.predict(SCENARIO, inputs)

        yield call_of


@contextlib.contextmanager
def _server(arguments: argparse.Namespace) -> Iterator[str]:
    """Address of `usr-tf serve` in its own process."""
    threads = [f"--{name}={getattr(arguments, name)}" for name in ("intra_op_threads", "inter_op_threads")]
    command = [sys.executable, "-m", "usr_tf.cli", "serve", f"--model={arguments.serving}", "--port=0", *threads]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield re.search(r"at (\S+);", process.stdout.readline())[1]
        finally:
            process.terminate()


WAYS = {"request": _in_process, "rows": _in_process, "grpc": _over_grpc, "ranker": _by_ranker}

if __name__ == "__main__":
    main()
