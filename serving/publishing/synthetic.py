"""Synthetic requests: the warm-up and golden requests of a version, without any person's data.

A version is copied to servers, buckets and images, so the requests in it should tell nothing that the model itself does
not. They have the sizes of logged requests (candidates, words of the query, actions of the history), and other values:

| input | value |
| --- | --- |
| `user_id` | `synthetic-1`, `synthetic-2`, … |
| other string of the user, query or context | of its vocabulary, which the version holds anyway, or unknown |
| number of the same, each one of a vector, count of a counter | the mean of two logged ones, drawn at random |
| item and candidate features | those of candidates of logged requests, drawn one by one |
| history | candidates as above, random actions, scenarios and ages |
| `request_id` | `synthetic-SCENARIO-1`, … |

Every value is drawn independently of the others. The same run gives the same requests.
"""

import functools
import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import tensorflow_transform as tft

from serving.formats.logged_requests import LoggedRequest, read_requests
from usr_tf.run import Run
from usr_tf.schema import (
    ACTION,
    CANDIDATE_GROUPS,
    PAST_QUERIES,
    PAST_QUERIES_AGE,
    SCENARIO,
    USER,
    Feature,
    history_column,
)

UNKNOWN = "synthetic"
"""How values start that no vocabulary has."""
_UNKNOWN_SHARE, _UNKNOWNS = 0.1, 100
"""Share of unknown values, and how many there are: they meet the buckets of hashed features."""
_FREQUENT = 1000
"""How many values of a vocabulary are drawn from, the most frequent first."""
_AGES_MS = (60_000, 30 * 86_400_000)
"""Least and greatest age of an action: a minute and 30 days."""


def synthetic_requests(run: Run) -> dict[str, list[LoggedRequest]]:
    """Synthetic requests by scenario, one for each logged request of the run; scenarios without any are absent.

    Raises:
      InputError: a broken file of logged requests.
    """
    paths = {scenario: run.requests / f"{scenario}.jsonl" for scenario in run.schema.scenarios}
    logged = {scenario: read_requests(path) for scenario, path in paths.items() if path.exists()}
    return {
        scenario: [synthesizer.make(request, number) for number, request in enumerate(requests, start=1)]
        for scenario, requests in logged.items()
        if requests
        for synthesizer in [_Synthesizer(run, requests, random.Random(scenario))]
    }


class _Synthesizer:
    """Source of synthetic requests of one scenario."""

    def __init__(self, run: Run, logged: Sequence[LoggedRequest], rng: random.Random):
        self._schema, self._logged, self._rng = run.schema, logged, rng
        self._transform = tft.TFTransformOutput(str(run.transform))
        self._of_candidates = self._schema.raw_columns_of(*CANDIDATE_GROUPS)
        size = self._of_candidates[0]
        self._candidates = [(request, row) for request in logged for row in range(len(request.inputs[size]))]

    def make(self, like: LoggedRequest, number: int) -> LoggedRequest:
        """Synthetic request with the sizes of a logged one."""
        candidates = [self._rng.choice(self._candidates) for _ in like.inputs[self._of_candidates[0]]]
        history = (
            self._history(len(like.inputs.get(history_column(ACTION), ()))) if self._schema.history_columns else {}
        )
        past = self._past_queries(len(like.inputs.get(PAST_QUERIES, ())))
        inputs: dict[str, Any] = {}
        for name, value in like.inputs.items():
            if name in self._of_candidates:
                inputs[name] = [request.inputs[name][row] for request, row in candidates]
            elif name in history:
                inputs[name] = history[name]
            elif name in past:
                inputs[name] = past[name]
            elif name == USER:
                inputs[name] = f"{UNKNOWN}-{number}"
            elif name in self._schema.features and self._schema.features[name].has_ids:
                inputs[name] = self._strings(name, value)
            else:  # a number, a vector, weights or counts
                inputs[name] = self._numbers(name, value)
        return LoggedRequest(f"{UNKNOWN}-{like.scenario}-{number}", like.scenario, inputs)

    def _history(self, length: int) -> dict[str, list]:
        drawn = [self._rng.choice(self._candidates) for _ in range(length)]
        history: dict[str, list] = {
            history_column(ACTION): self._rng.choices(self._schema.history.actions, k=length),
            history_column(SCENARIO): self._rng.choices(self._schema.scenarios, k=length),
            history_column("age"): self._ages(length),
        }
        for name in self._schema.history_features:
            column = history_column(name)
            values = [request.inputs[name][row] for request, row in drawn]
            width = self._schema.history_width(column)
            history[column] = [[*each, *[""] * width][:width] for each in values] if width else values
        return history

    def _past_queries(self, length: int) -> dict[str, list]:
        if not self._schema.query_columns:
            return {}
        queries = [str(self._strings("query", self._rng.choice(self._of_query))) for _ in range(length)]
        return {PAST_QUERIES: queries, PAST_QUERIES_AGE: self._ages(length)}

    def _ages(self, length: int) -> list[int]:
        """Ages in ms, newest last; their logarithms are uniform."""
        least, greatest = map(math.log, _AGES_MS)
        return sorted((int(math.exp(self._rng.uniform(least, greatest))) for _ in range(length)), reverse=True)

    @functools.cached_property
    def _of_query(self) -> list[str]:
        """The logged queries, for their numbers of words."""
        return [request.inputs["query"] for request in self._logged if request.inputs["query"]] or [UNKNOWN]

    def _strings(self, name: str, like: Any) -> Any:
        """A string, text or list of a feature, of as many values or tokens as the logged one; missing where that is."""
        feature = self._schema.features[name]
        if not like:
            return like
        if isinstance(like, list):
            return [self._value(name, feature) for _ in like]
        if not feature.kind.count_tokens:
            return self._value(name, feature)
        space = "" if feature.tokenizer == "character" else " "
        tokens = like if feature.tokenizer == "character" else like.split()
        return space.join(self._value(name, feature) for _ in tokens)

    def _value(self, name: str, feature: Feature) -> str:
        values = self._vocabulary(self._schema.owner(name))
        known = values and self._rng.random() > _UNKNOWN_SHARE
        return self._rng.choice(values) if known else f"{UNKNOWN}-{self._rng.randrange(_UNKNOWNS)}"

    @functools.cache  # noqa: B019  (lives as long as the requests take to make)
    def _vocabulary(self, owner: str) -> list[str]:
        """The most frequent values of a feature; none for hashed ones."""
        if not self._schema.features[owner].has_vocabulary:
            return []
        with open(self._transform.vocabulary_file_by_name(owner), encoding="utf-8", newline="\n") as lines:
            return [line.rstrip("\n") for line in itertools.islice(lines, _FREQUENT)]

    def _numbers(self, name: str, like: Any) -> Any:
        """A number, or as many numbers as the logged ones: each the mean of two logged ones, unknown where one is."""
        if isinstance(like, list):
            return [self._numbers(name, each) for each in like]
        one, other = self._rng.choice(self._pool(name)), self._rng.choice(self._pool(name))
        return None if one is None or other is None else (one + other) / 2

    @functools.cache  # noqa: B019
    def _pool(self, name: str) -> list[float | None]:
        return [number for request in self._logged for number in _flat(request.inputs[name])] or [None]


def _flat(value: Any) -> list[float | None]:
    return [number for each in value for number in _flat(each)] if isinstance(value, list) else [value]
