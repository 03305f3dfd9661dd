"""Offline scores of request documents: the Keras model on the transformed rows of their candidates.

They are what a served version is checked against where no row of the data has the scores. A model that holds a
snapshot of its counters scores a request by the counts of today, not by the logged ones: here the counts come from the
snapshot's tables by key and not from the served graph.
"""

import itertools
from collections.abc import Sequence

import pandas as pd
import tensorflow as tf
import tensorflow_transform as tft

from serving.formats.contract import schema_specs
from serving.formats.logged_requests import LoggedRequest
from serving.formats.request import request_inputs
from serving.publishing.warmup import to_examples
from usr_tf.data.parsing import Features, densify
from usr_tf.run import Run
from usr_tf.schema import SCENARIO
from usr_tf.tokens import counter_keys

_BATCH = 64
"""Requests that are scored at a time."""


def snapshot_scorer(run: Run) -> "OfflineScorer | None":
    """The scorer of a run whose exported model holds a snapshot of its counters; None for any other."""
    return OfflineScorer(run) if _holds_snapshot(run) else None


class OfflineScorer:
    """Scores request documents by a run's model, with the snapshot of its counters if the exported model holds one."""

    def __init__(self, run: Run):
        output = tft.TFTransformOutput(str(run.transform))
        self._schema, self._model = run.schema, run.load_model()
        self._raw_spec, self._transform = output.raw_feature_spec(), output.transform_features_layer()
        self._counts = (
            {
                name: pd.read_parquet(run.counters / f"{name}.parquet").set_index(list(counter.key_columns))
                for name, counter in self._schema.counters.items()
            }
            if _holds_snapshot(run)
            else {}
        )

    def score(self, requests: Sequence[LoggedRequest]) -> list[dict[str, list[float]]]:
        """`{task: [N] probabilities}` of each request's candidates."""
        specs, scores = schema_specs(self._schema, counters=True), []
        for start in range(0, len(requests), _BATCH):
            batch = requests[start : start + _BATCH]
            examples = [
                to_examples(request_inputs(values, specs, f"request {request.request_id}"))
                for request in batch
                for values in [{**request.inputs, **self._counts_of(request)}]
            ]
            numbers = [self._schema.scenarios.index(request.scenario) for request in batch]
            sizes = [len(rows) for rows in examples]
            features = self._features(list(itertools.chain.from_iterable(examples)))
            features[SCENARIO] = tf.repeat(tf.constant(numbers), sizes)
            found = {task: values.numpy() for task, values in self._model(features).items()}
            stops = list(itertools.accumulate(sizes))
            for stop, size in zip(stops, sizes, strict=True):
                scores.append({task: found[task][stop - size : stop].tolist() for task in self._schema.task_names})
        return scores

    def _features(self, rows: list[bytes]) -> Features:
        return densify(self._transform(tf.io.parse_example(rows, self._raw_spec)), self._schema)

    def _counts_of(self, request: LoggedRequest) -> dict[str, list[float]]:
        """The snapshot's counts of each candidate, by raw column; 0 for an unknown key."""
        items = len(request.inputs[next(iter(self._schema.features_of("item")))])
        counts: dict[str, list[float]] = {}
        for name, snapshot in self._counts.items():
            counter = self._schema.counters[name]
            keys = pd.DataFrame({key: self._key(key, request.inputs[key], items) for key in counter.key})
            if counter.by_scenario:
                keys[SCENARIO] = request.scenario
            index = pd.Index(keys.iloc[:, 0]) if keys.shape[1] == 1 else pd.MultiIndex.from_frame(keys)
            counts |= snapshot.reindex(index).fillna(0.0).to_dict("list")
        return counts

    def _key(self, name: str, value: object, items: int) -> list[str]:
        """The strings of a key's feature for each candidate, as the snapshot has them."""
        values = [each or "" for each in (value if isinstance(value, list) else [value] * items)]
        return [text.decode() for text in counter_keys(tf.constant(values), name, self._schema).numpy()]


def _holds_snapshot(run: Run) -> bool:
    return bool(run.schema.counters) and run.config.export.counters == "snapshot"
