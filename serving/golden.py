"""Golden requests: logged requests with the offline scores of the very same rows.

They travel with a version as `assets.extra/golden.jsonl`, so whoever serves it can prove that it scores as it was
evaluated. A line is a request document (see `request.load_request`) that has two keys more, task → a value an item:
`expected`, the offline probabilities, and `labels`, 0 or 1.
"""

import dataclasses
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from serving.request import TensorSpec, check_request, request_inputs
from serving.warmup import to_examples
from usr_tf.errors import InputError
from usr_tf.files import replace_text
from usr_tf.metrics import Predictions
from usr_tf.schema import EXAMPLES_SUFFIX, ITEM, Schema

FILE = os.path.join("assets.extra", "golden.jsonl")
TOLERANCE = 1e-5
"""How far a served probability may lie from the offline one."""

_KNOWN = ("expected", "labels")

Specs = Mapping[str, Mapping[str, TensorSpec]]
"""Signature → input → dtype and shape."""


@dataclasses.dataclass(frozen=True, eq=False)
class LoggedRequest:
    """A request as a client sends it, and what is known of its items: task → a value an item."""

    request_id: str
    scenario: str
    inputs: Mapping[str, Any]
    expected: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        """What a client sends, without what is known."""
        return {"request_id": self.request_id, "scenario": self.scenario, "inputs": self.inputs}

    def item(self, row: int) -> str:
        """The id of an item, or its place in the request where the model knows no ids."""
        return self.inputs[ITEM][row] if ITEM in self.inputs else f"[{row}]"

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)


class Difference(NamedTuple):
    """The served score that lies farthest from what was expected."""

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


def golden_requests(directory: Path, schema: Schema, predictions: Predictions) -> list[LoggedRequest]:
    """The logged requests of a run, each with the offline scores and the labels of its rows.

    Args:
      directory: holds `<scenario>.jsonl`, request documents.
      predictions: the run's, of the split that the requests were taken from.

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
            golden.append(
                dataclasses.replace(
                    request,
                    expected={task: scores[taken].tolist() for task, scores in predictions.probabilities.items()},
                    labels={task: labels[taken].tolist() for task, labels in predictions.labels.items()},
                )
            )
    return golden


def write_golden(version_dir: str | Path, requests: Iterable[LoggedRequest]) -> Path:
    """Writes the file that goes with a version, and returns it."""
    path = Path(version_dir, FILE)
    path.parent.mkdir(exist_ok=True)
    replace_text(path, "".join(f"{request.to_json()}\n" for request in requests))
    return path


def read_golden(version_dir: str | Path) -> list[LoggedRequest]:
    """What `write_golden` was given.

    Raises:
      InputError: the version has no such file, or it is broken.
    """
    requests = read_requests(Path(version_dir, FILE))
    if not requests or not all(request.expected for request in requests):
        raise InputError(Path(version_dir, FILE), "a request without expected scores", "what `usr-tf publish` writes")
    return requests


def read_requests(path: str | Path) -> list[LoggedRequest]:
    """Reads request documents, one a line, with or without what is known of their items.

    Raises:
      InputError: an unreadable file, or a line that is no request document of a scenario.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")  # `splitlines` also cuts at a U+2028 in a text
    except OSError as error:
        raise InputError(path, f"no readable file ({error.strerror})", "a request document a line") from error
    except UnicodeDecodeError as error:
        raise InputError(path, f"no UTF-8 ({error})", "a request document a line") from error
    return [_parse(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line]


def predict_requests(
    requests: Iterable[LoggedRequest], specs: Specs, suffix: str = ""
) -> Iterator[predict_pb2.PredictRequest]:
    """Each request for the signature of its scenario, or with `EXAMPLES_SUFFIX` for the one of a row an item.

    Whom it is asked of, the model's name and version, is left open.

    Raises:
      InputError: the model has no such scenario, or a request does not suit its signature.
    """
    for request in requests:
        place = f"request {request.request_id}"
        if request.scenario not in specs:
            scenarios = ", ".join(name for name in specs if name + EXAMPLES_SUFFIX in specs)
            raise InputError(f"{place}: scenario", repr(request.scenario), f"one of {scenarios}")
        inputs = request_inputs(request.inputs, specs[request.scenario], place)
        signature = request.scenario + suffix
        if suffix:
            (examples,) = specs[signature]
            inputs = {examples: np.array(to_examples(inputs), dtype=object)}
        message = predict_pb2.PredictRequest()
        message.model_spec.signature_name = signature
        for name, value in inputs.items():
            message.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        yield message


def response_scores(response: predict_pb2.PredictResponse) -> dict[str, np.ndarray]:
    """The outputs as arrays, task → `[N]`."""
    return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}


def signature_specs(signatures: Mapping[str, Any]) -> dict[str, dict[str, TensorSpec]]:
    """The inputs of `SignatureDef`s by name, without those that take none (a SavedModel lists its initialiser)."""
    return {
        name: {alias: TensorSpec.of(info) for alias, info in signature.inputs.items()}
        for name, signature in signatures.items()
        if signature.inputs
    }


def largest_difference(requests: Sequence[LoggedRequest], served: Iterable[Mapping[str, np.ndarray]]) -> Difference:
    """Compares the expected scores of each request with its served ones, task → `[N]`, and names the worst."""
    return max(
        (
            _difference(request, task, np.asarray(scores.get(task, ())))
            for request, scores in zip(requests, served, strict=True)
            for task in request.expected
        ),
        key=lambda difference: difference.value,
    )


def _difference(request: LoggedRequest, task: str, served: np.ndarray) -> Difference:
    expected = np.asarray(request.expected[task])
    if served.shape != expected.shape:
        served = np.full(expected.shape, np.nan)
    apart = np.nan_to_num(np.abs(served - expected), nan=np.inf)
    row = int(np.argmax(apart))
    where = (request.request_id, request.scenario, request.item(row), task)
    return Difference(float(apart[row]), *where, float(expected[row]), float(served[row]))


def _rows_of(requests: set[bytes], predictions: Predictions) -> dict[bytes, list[int]]:
    """The rows of each of `requests`, in the order in which `pipelines.requests` lists items."""
    rows = defaultdict(list)
    for row, request in enumerate(predictions.request):
        if request in requests:
            rows[request].append(row)
    for found in rows.values():
        found.sort(key=lambda row: (predictions.position[row], predictions.item[row]))
    return rows


def _parse(line: str, place: str) -> LoggedRequest:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(place, f"no JSON ({error})", "a request document") from error
    known = {name: document.pop(name, {}) for name in _KNOWN} if isinstance(document, dict) else {}
    check_request(document, place)
    if "scenario" not in document:
        raise InputError(f"{place}: scenario", "nothing", "this key of a logged request")
    for name, tasks in known.items():
        if not isinstance(tasks, dict):
            raise InputError(f"{place}: {name}", "something else", "an object of tasks and values")
    return LoggedRequest(**{"request_id": place} | document, **known)
