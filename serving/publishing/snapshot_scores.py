"""Offline scores of logged requests, with a snapshot's counts in place of the logged ones.

A model that holds a snapshot of its counters scores a request by the counts of today. What it is held against is the
Keras model on the transformed row, whose counts come from the snapshot's tables by key and not by the served graph.
"""

import pyarrow.parquet as pq
import tensorflow as tf
import tensorflow_transform as tft

from serving.formats.logged_requests import LoggedRequest
from serving.formats.request import request_inputs
from serving.formats.signatures import schema_specs
from serving.publishing.warmup import to_examples
from usr_tf.counter_snapshot import normalized
from usr_tf.data.parsing import densify
from usr_tf.run import Run
from usr_tf.schema import IMPRESSION, SCENARIO, counter_column


def snapshot_scorer(run: Run) -> "SnapshotScorer | None":
    """The scorer of a run whose exported model holds a snapshot of its counters; None for any other."""
    return SnapshotScorer(run) if run.schema.counters and run.config.export.counters == "snapshot" else None


class SnapshotScorer:
    """Scores logged requests of a run by the snapshot of its counters."""

    def __init__(self, run: Run):
        output = tft.TFTransformOutput(str(run.transform))
        self._schema, self._model = run.schema, run.load_model()
        self._raw_spec, self._transform = output.raw_feature_spec(), output.transform_features_layer()
        self._counts: dict[str, dict[tuple[str, ...], dict]] = {}
        for name, counter in self._schema.counters.items():
            keys = (*counter.key, *([SCENARIO] if counter.by_scenario else []))
            rows = pq.read_table(run.counters / f"{name}.parquet").to_pylist()
            self._counts[name] = {tuple(row[key] for key in keys): row for row in rows}

    def score(self, request: LoggedRequest) -> dict[str, list[float]]:
        """`{task: [N] probabilities}` of the request's candidates."""
        values = {**request.inputs, **self._counts_of(request)}
        inputs = request_inputs(values, schema_specs(self._schema, counters=True), f"request {request.request_id}")
        rows = to_examples(inputs)
        features = densify(self._transform(tf.io.parse_example(rows, self._raw_spec)), self._schema)
        features[SCENARIO] = tf.fill([len(rows)], self._schema.scenarios.index(request.scenario))
        scores = self._model(features)
        return {task: scores[task].numpy().tolist() for task in self._schema.task_names}

    def _counts_of(self, request: LoggedRequest) -> dict[str, list[float]]:
        """The snapshot's counts of each candidate, by raw column; 0 for an unknown key."""
        items = max(len(value) for name, value in request.inputs.items() if name in self._schema.features_of("item"))
        counts: dict[str, list[float]] = {}
        for name, counter in self._schema.counters.items():
            parts = [self._key(request.inputs[key], items) for key in counter.key]
            if counter.by_scenario:
                parts.append([request.scenario] * items)
            found = [self._counts[name].get(key, {}) if all(key) else {} for key in zip(*parts, strict=True)]
            for window in counter.windows:
                for event in (IMPRESSION, *counter.actions):
                    column = counter_column(name, window, event)
                    counts[column] = [float(row.get(column, 0.0)) for row in found]
        return counts

    def _key(self, value: object, items: int) -> list[str]:
        values = value if isinstance(value, list) else [value] * items
        return [text.decode() for text in normalized(tf.constant([each or "" for each in values])).numpy()]
