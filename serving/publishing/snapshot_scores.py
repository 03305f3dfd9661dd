"""Offline scores of logged requests, with a snapshot's counts in place of the logged ones.

A model that holds a snapshot of its counters scores a request by the counts of today. What it is held against is the
Keras model on the transformed row, whose counts come from the snapshot's tables by key and not by the served graph.
"""

import pandas as pd
import tensorflow as tf
import tensorflow_transform as tft

from serving.formats.contract import schema_specs
from serving.formats.logged_requests import LoggedRequest
from serving.formats.request import request_inputs
from serving.publishing.warmup import to_examples
from usr_tf.counter_snapshot import normalized
from usr_tf.data.parsing import densify
from usr_tf.run import Run
from usr_tf.schema import SCENARIO


def snapshot_scorer(run: Run) -> "SnapshotScorer | None":
    """The scorer of a run whose exported model holds a snapshot of its counters; None for any other."""
    return SnapshotScorer(run) if run.schema.counters and run.config.export.counters == "snapshot" else None


class SnapshotScorer:
    """Scores logged requests of a run by the snapshot of its counters."""

    def __init__(self, run: Run):
        output = tft.TFTransformOutput(str(run.transform))
        self._schema, self._model = run.schema, run.load_model()
        self._raw_spec, self._transform = output.raw_feature_spec(), output.transform_features_layer()
        self._counts = {
            name: pd.read_parquet(run.counters / f"{name}.parquet").set_index(list(counter.key_columns))
            for name, counter in self._schema.counters.items()
        }

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
        items = len(request.inputs[next(iter(self._schema.features_of("item")))])
        counts: dict[str, list[float]] = {}
        for name, counter in self._schema.counters.items():
            keys = pd.DataFrame({key: self._key(key, request.inputs[key], items) for key in counter.key})
            if counter.by_scenario:
                keys[SCENARIO] = request.scenario
            index = pd.Index(keys.iloc[:, 0]) if keys.shape[1] == 1 else pd.MultiIndex.from_frame(keys)
            counts |= self._counts[name].reindex(index).fillna(0.0).to_dict("list")
        return counts

    def _key(self, name: str, value: object, items: int) -> list[str]:
        """The strings of a key's feature for each candidate, as the snapshot has them."""
        values = [each or "" for each in (value if isinstance(value, list) else [value] * items)]
        if name not in self._schema.features_of("query"):
            return values
        return [text.decode() for text in normalized(tf.constant(values)).numpy()]
