"""Golden requests: request documents with offline scores, by which a served version is checked.

A version holds synthetic ones, `assets.extra/golden.jsonl`, so that whoever has it can verify that it scores as the
trained model. Those of logged requests, with the scores and labels of their rows, are checked before it is published,
and written apart. A line is a request document (see `logged_requests`) that has two keys more, task → a value an item:
`expected`, the offline probabilities, and, of logged requests, `labels`, 0 or 1.
"""

import dataclasses
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from serving.formats.logged_requests import LoggedRequest, format_requests, read_requests
from serving.formats.request import request_inputs
from serving.formats.signatures import Specs, scenarios_of
from serving.publishing.warmup import to_examples
from usr_tf.errors import InputError
from usr_tf.files import write_whole
from usr_tf.schema import Schema

if TYPE_CHECKING:  # whoever only asks a server needs none of what the metrics need
    from serving.publishing.offline_scores import OfflineScorer
    from usr_tf.metrics import Predictions

FILE = os.path.join("assets.extra", "golden.jsonl")
TOLERANCE = 1e-5
"""How far a served probability may lie from the offline one."""
SYNTHETIC = 50
"""Golden requests of each scenario in a version."""


class Difference(NamedTuple):
    """Largest difference between a served and an expected score."""

    value: float
    """Infinite where the score is no number, or there is none."""
    request_id: str
    scenario: str
    item: str
    task: str
    expected: float
    served: float

    def __str__(self) -> str:
        where = f"{self.task} of item {self.item} in request {self.request_id} of {self.scenario}"
        return f"{self.value:.1e} ({where}: {self.served:.7f} served, {self.expected:.7f} offline)"


def golden_requests(
    directory: Path, schema: Schema, predictions: "Predictions", snapshot: "OfflineScorer | None" = None
) -> list[LoggedRequest]:
    """Logged requests of a run, with offline scores and labels of their rows.

    Args:
      directory: holds `<scenario>.jsonl`, request documents.
      predictions: the run's, of the split that the requests were taken from.
      snapshot: scores in their place where the model is to hold a snapshot of its counters.

    Raises:
      InputError: a scenario has no logged request, or `predictions` have not the rows of one.
    """
    logged = {}
    for scenario in schema.scenarios:
        path = directory / f"{scenario}.jsonl"
        logged[path] = read_requests(path) if path.exists() else []
        if not logged[path]:
            raise InputError(path, "no logged request", "some of each scenario, to hold served scores against")
    rows = _rows_of({request.request_id.encode() for found in logged.values() for request in found}, predictions)
    items = next(iter(schema.features_of("item")))
    golden = []
    for path, requests in logged.items():
        for request in requests:
            taken = rows[request.request_id.encode()]
            if len(taken) != len(request.inputs[items]):
                found = f"request {request.request_id} of {len(request.inputs[items])} items"
                raise InputError(path, found, f"{len(taken)}, its rows in the split that was scored")
            expected = {task: scores[taken].tolist() for task, scores in predictions.probabilities.items()}
            labels = {task: labels[taken].tolist() for task, labels in predictions.labels.items()}
            golden.append(dataclasses.replace(request, expected=expected, labels=labels))
    return _rescored(golden, snapshot) if snapshot else golden


def synthetic_golden(requests: Mapping[str, Sequence[LoggedRequest]], scorer: "OfflineScorer") -> list[LoggedRequest]:
    """Synthetic requests of each scenario, at most `SYNTHETIC`, with offline scores."""
    kept = [request for of_scenario in requests.values() for request in of_scenario[:SYNTHETIC]]
    return _rescored(kept, scorer)


def write_golden(version_dir: str | Path, requests: Iterable[LoggedRequest]) -> Path:
    """Writes the golden file of a version and returns its path."""
    path = Path(version_dir, FILE)
    path.parent.mkdir(exist_ok=True)
    write_whole(path, format_requests(requests))
    return path


def read_golden(version_dir: str | Path) -> list[LoggedRequest]:
    """Golden requests of a version.

    Raises:
      InputError: the version has no such file, or it is broken.
    """
    requests = read_requests(Path(version_dir, FILE))
    if not requests or not all(request.expected for request in requests):
        raise InputError(Path(version_dir, FILE), "a request without expected scores", "what `usr-tf publish` writes")
    return requests


def logged_inputs(request: LoggedRequest, specs: Specs, suffix: str = "") -> tuple[str, dict[str, np.ndarray]]:
    """Signature and inputs of a request: by scenario, or with `EXAMPLES_SUFFIX` one row per item.

    Raises:
      InputError: the model has no such scenario, or the request does not suit its signature.
    """
    place = f"request {request.request_id}"
    if request.scenario not in specs:
        raise InputError(f"{place}: scenario", repr(request.scenario), f"one of {', '.join(scenarios_of(specs))}")
    signature, inputs = request.scenario + suffix, request_inputs(request.inputs, specs[request.scenario], place)
    if suffix:
        (examples,) = specs[signature]
        inputs = {examples: np.array(to_examples(inputs), dtype=object)}
    return signature, inputs


def predict_requests(
    requests: Iterable[LoggedRequest], specs: Specs, suffix: str = ""
) -> Iterator[predict_pb2.PredictRequest]:
    """Predict messages of `logged_inputs`, without the model's name and version."""
    for request in requests:
        message = predict_pb2.PredictRequest()
        message.model_spec.signature_name, inputs = logged_inputs(request, specs, suffix)
        for name, value in inputs.items():
            message.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        yield message


def response_scores(response: predict_pb2.PredictResponse) -> dict[str, np.ndarray]:
    """Outputs of a response as arrays, task → `[N]`, sorted by name."""
    return {name: tf.make_ndarray(proto) for name, proto in sorted(response.outputs.items())}


def largest_difference(requests: Sequence[LoggedRequest], served: Iterable[Mapping[str, np.ndarray]]) -> Difference:
    """Largest difference between expected and served scores, task → `[N]`, over all requests."""
    return max(
        (
            _difference(request, task, np.asarray(scores.get(task, ())))
            for request, scores in zip(requests, served, strict=True)
            for task in request.expected
        ),
        key=lambda difference: difference.value,
    )


def _rescored(requests: Sequence[LoggedRequest], scorer: "OfflineScorer") -> list[LoggedRequest]:
    scores = zip(requests, scorer.score(requests), strict=True)
    return [dataclasses.replace(request, expected=expected) for request, expected in scores]


def _difference(request: LoggedRequest, task: str, served: np.ndarray) -> Difference:
    expected = np.asarray(request.expected[task])
    if served.shape != expected.shape:
        served = np.full(expected.shape, np.nan)
    apart = np.nan_to_num(np.abs(served - expected), nan=np.inf)
    row = int(np.argmax(apart))
    where = (request.request_id, request.scenario, request.item(row), task)
    return Difference(float(apart[row]), *where, float(expected[row]), float(served[row]))


def _rows_of(requests: set[bytes], predictions: "Predictions") -> dict[bytes, list[int]]:
    """Rows of each of `requests`, in the item order of `pipelines.join.logged_requests`."""
    rows = defaultdict(list)
    for row, request in enumerate(predictions.request):
        if request in requests:
            rows[request].append(row)
    for found in rows.values():
        found.sort(key=lambda row: (predictions.position[row], predictions.item[row]))
    return rows
