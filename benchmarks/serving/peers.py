"""Measurement of a peer's model in its own process: candidates as rows, each with the user's features.

It reads ids where ours reads strings. TensorFlow's models are run as SavedModels.
"""

import argparse
import importlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.serving.clock import measure
from benchmarks.training.measure import BACKBONES, CORES
from benchmarks.training.peers.arrays import Arrays, Split, load_arrays

PEERS = ("torch_rechub", "deepctr", "keras3")
_OF_REQUEST = [0, *range(2, 9), *range(16, 21)]
"""Columns of `Split.ids` that one request's candidates share: the user, its fields, the context and the scenario."""
_NUMBERS_OF_REQUEST = [0, 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arrays", type=Path, required=True)
    parser.add_argument("--peer", choices=PEERS, required=True)
    parser.add_argument("--backbone", choices=BACKBONES, required=True)
    parser.add_argument("--candidates", type=int, nargs="+", required=True)
    parser.add_argument("--clients", type=int, nargs="+", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--threads", type=int, default=CORES, help="an operation may use")
    arguments = parser.parse_args()
    arrays = load_arrays(arguments.arrays)
    scorer = (_torch if arguments.peer == "torch_rechub" else _saved_model)(arguments, arrays)
    for candidates in arguments.candidates:
        call = scorer(_request(arrays.test, candidates))
        for clients in arguments.clients:
            print(json.dumps(measure(call, candidates, clients, arguments.seconds)), flush=True)


def _request(split: Split, candidates: int) -> dict[str, np.ndarray]:
    ids, numbers = split.ids[:candidates].copy(), split.numbers[:candidates].copy()
    ids[:, _OF_REQUEST], numbers[:, _NUMBERS_OF_REQUEST] = ids[0, _OF_REQUEST], numbers[0, _NUMBERS_OF_REQUEST]
    history = np.repeat(split.history[:1], candidates, axis=0)
    rows = split._replace(ids=ids, numbers=numbers, history=history)
    return {name: np.ascontiguousarray(values) for name, values in rows.columns().items()}


Scorer = Callable[[dict[str, np.ndarray]], Callable[[], object]]


def _saved_model(arguments: argparse.Namespace, arrays: Arrays) -> Scorer:
    peer = importlib.import_module(f"benchmarks.training.peers.{arguments.peer}")  # which picks its Keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    model = peer.make_model(arrays, arguments.backbone)
    specs = {
        _plain(tensor): tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype, _plain(tensor))
        for tensor in model.inputs
    }

    @tf.function(input_signature=[specs])
    def score(inputs):
        return model(inputs)

    folder = tempfile.mkdtemp()
    tf.saved_model.save(
        model if os.environ["TF_USE_LEGACY_KERAS"] == "1" else _tracked(tf, model), folder, signatures=score
    )
    loaded = tf.saved_model.load(folder)
    signature = loaded.signatures["serving_default"]

    def of(inputs: dict[str, np.ndarray]) -> Callable[[], object]:
        tensors = {name: tf.constant(inputs[name], spec.dtype) for name, spec in specs.items()}
        tensors = {name: tf.reshape(value, [len(value), *specs[name].shape[1:]]) for name, value in tensors.items()}
        return lambda loaded=loaded: [value.numpy() for value in signature(**tensors).values()]

    return of


def _plain(tensor) -> str:
    return tensor.name.partition(":")[0]


def _tracked(tf, model):
    """A module that holds the weights of a Keras 3 model."""
    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    return module


def _torch(arguments: argparse.Namespace, arrays: Arrays) -> Scorer:
    import torch

    from benchmarks.training.peers import torch_rechub

    torch.set_num_threads(arguments.threads)
    model = torch_rechub.make_model(arrays, arguments.backbone).eval()

    def of(inputs: dict[str, np.ndarray]) -> Callable[[], object]:
        tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}

        def call() -> np.ndarray:
            with torch.inference_mode():
                return model(tensors).numpy()

        return call

    return of


if __name__ == "__main__":
    main()
