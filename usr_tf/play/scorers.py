"""Scorers: what ranks a request on the page. Served models over gRPC, and trees in process."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from serving.client import Ranker
from serving.formats.contract import schema_specs
from serving.formats.logged_requests import read_requests
from serving.formats.request import COUNTER_PREFIX, TensorSpec, request_inputs
from serving.publishing.versions import list_versions
from serving.publishing.warmup import to_examples
from usr_tf.baseline.run import open_tree_run
from usr_tf.baseline.scoring import load_tree_scorer
from usr_tf.counter_snapshot import CounterSnapshot, open_snapshot
from usr_tf.errors import InputError
from usr_tf.evaluation.explain import BACKGROUND, Explainer
from usr_tf.run import Run, open_run

Document = Mapping[str, Any]
"""A request document."""
Scores = Mapping[str, np.ndarray]
"""Task → probability of each item, `[N]`."""

_STEPS = 16
"""Of an explanation's paths, to begin with: the page has to answer soon."""
_SAME = 1e-4


class ServedModel:
    """A model that a server answers for.

    Args:
      base_path: folder of its versions.
      address: of the server.
      run: directory of the run that was exported, for explanations.

    Raises:
      InputError: no server, or no such run.
    """

    def __init__(self, base_path: str | Path, address: str, run: str | Path | None = None):
        self._base_path, self._ranker = Path(base_path), Ranker(address)
        self._ranker.wait_until_ready()
        self._run = None if run is None else open_run(run)
        self._explainer: Explainer | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The folder's name and the newest version."""
        folder = self._base_path.resolve().name
        return f"{folder} {max(list_versions(self._base_path), default='')}".strip()

    @property
    def explains(self) -> bool:
        return self._run is not None

    @property
    def needs_counts(self) -> bool:
        """Whether requests have to bring counts, because the model holds no snapshot of its counters."""
        return any(name.startswith(COUNTER_PREFIX) for inputs in self._ranker.metadata().values() for name in inputs)

    @property
    def counters(self) -> CounterSnapshot | None:
        """The snapshot of counters that the model holds, where a run is known."""
        return None if self._run is None else open_snapshot(self._run)

    def score(self, document: Document) -> Scores:
        """Served scores of a request document, whose other inputs are left out.

        Raises:
          InputError: the server does not take the request.
        """
        scenario, specs = document["scenario"], self._ranker.metadata()
        if scenario not in specs:
            raise InputError(self.name, f"no signature {scenario!r}", f"one of {', '.join(specs)}")
        return self._ranker.predict(scenario, _arrays(document, specs[scenario], self.name))

    def explain(self, document: Document, row: int, served: Scores) -> dict[str, Any]:
        """Explanation of a candidate (docs/explain.md), with a warning where the run's scores are not the served ones.

        Raises:
          InputError: no run is known of this model.
        """
        if self._run is None:
            raise InputError(self.name, "no run", "--run, the run that it was exported from")
        with self._lock:
            self._explainer = self._explainer or _explainer(self._run)
            scenario = document["scenario"]
            request = _arrays(document, _specs(self._run), self._run.directory)
            mine = self._explainer.score(scenario, request)
            (explanation,) = self._explainer.explain(
                scenario, request, [row], _background(self._run, scenario), steps=_STEPS
            )
        apart = max(float(np.abs(mine[task] - served[task]).max()) for task in mine)
        return {"explanation": explanation.to_document(), "apart": apart if apart > _SAME else None}

    def close(self) -> None:
        self._ranker.close()


class Trees:
    """A tree run of `usr-tf baseline`.

    Args:
      directory: of the run.
      counters: the snapshot that counts are read from, as the model beside them does; requests bring them when absent.

    Raises:
      InputError: as `open_tree_run` and `load_tree_scorer`.
    """

    def __init__(self, directory: str | Path, counters: CounterSnapshot | None = None):
        run = open_tree_run(directory)
        self.name, self._counters = run.name, counters
        self.needs_counts = bool(run.schema.counters) and counters is None
        self._specs = schema_specs(run.schema, self.needs_counts)
        self._score = load_tree_scorer(directory)

    def score(self, document: Document) -> Scores:
        """Scores of a request document."""
        arrays, scenario = _arrays(document, self._specs, self.name), document["scenario"]
        if self._counters:
            counts = self._counters.look_up({name: tf.constant(values) for name, values in arrays.items()}, scenario)
            arrays |= {name: values.numpy() for name, values in counts.items()}
        return self._score(tf.constant(to_examples(arrays)), scenario)


def _arrays(document: Document, specs: Mapping[str, TensorSpec], model: Any) -> dict[str, np.ndarray]:
    """Those inputs of a request document that a model takes."""
    return request_inputs({name: value for name, value in document["inputs"].items() if name in specs}, specs, model)


def _explainer(run: Run) -> Explainer:
    return Explainer(run.load_model(), run.transform, open_snapshot(run))


def _specs(run: Run) -> dict[str, TensorSpec]:
    return schema_specs(run.schema, counters=run.config.export.counters == "request")


def _background(run: Run, scenario: str) -> list[dict[str, np.ndarray]]:
    logged = run.requests / f"{scenario}.jsonl"
    shown = read_requests(logged)[:BACKGROUND] if logged.exists() else []
    return [request_inputs(each.inputs, _specs(run), logged) for each in shown]
