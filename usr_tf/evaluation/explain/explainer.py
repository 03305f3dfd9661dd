"""Explainer: attributes a candidate's scores to features, history and gates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

from usr_tf.counter_snapshot import CounterSnapshot
from usr_tf.data.parsing import Features
from usr_tf.errors import InputError
from usr_tf.evaluation.explain.explanation import Action, Explanation, TaskExplanation
from usr_tf.evaluation.explain.integrated_gradients import Parts, Paths
from usr_tf.evaluation.explain.raw_values import text_of, unknown_of
from usr_tf.export import ServingModule
from usr_tf.layers.log_space import log1mexp
from usr_tf.model import Inputs, USRModel
from usr_tf.schema import CANDIDATE_GROUPS, ITEM, Schema, history_column

Request = Mapping[str, np.ndarray]
"""What the signature of a scenario takes (`usr_tf.request_spec.request_spec`)."""

BACKGROUND = 32
"""Candidates that the baseline is the mean of: so many paths there are."""
_TOLERANCE = 1e-3
"""Of a difference, which may stay unexplained."""
_FIXED = ("mask", "sequences", "past_queries", "past_mask")
"""Parts of `Inputs` that no path changes."""
_LEAST = 0.1
"""A smaller difference, in log-odds, counts as this one."""


class Explainer:
    """Explains the scores of requests of raw features.

    A score is explained against a baseline: the mean over logged candidates of the scenario, each as it was shown,
    but to a user without a history. These are real inputs with a usual score. An "empty" input is none: a model has
    never seen an item without a brand, and what it makes of it says nothing. No history is a usual input, and the way
    to it is straight: actions whose vectors are zero give exactly what no action gives.

    Args:
      model: such as `run.load_model()`.
      transform: that of its features, such as `run.transform`.
      counters: the snapshot of its counters (`open_snapshot`); None where requests bring their own.
    """

    def __init__(self, model: USRModel, transform: Path, counters: CounterSnapshot | None = None):
        self.schema, self._model = model.schema, model
        self._serving = ServingModule(model, transform, counters)
        self._features = tf.function(self._serving.request_features, reduce_retracing=True)
        self._columns = self._model.columns()
        features = list(self.schema.inputs)
        self._places = {
            part: np.equal.outer(np.array(names, object), np.array(features, object)).astype(np.float32)
            for part, names in self._columns.items()
        }
        self._paths: dict[tuple[str, int], Paths] = {}

    def score(self, scenario: str, request: Request) -> dict[str, np.ndarray]:
        """`{task: [N] probability}` of the request's candidates, equal to the served ones.

        Raises:
          InputError: an unknown scenario.
        """
        scores = self._model.serve(self._look_up(request, scenario), self._number(scenario), one_request=True)
        return {task: probability.numpy() for task, probability in scores.items()}

    def choose(self, scenario: str, request: Request, task: str, item: str | None = None, top: int = 1) -> list[int]:
        """Indices of candidates: that of `item`, or the `top` best by `task`, best first.

        Raises:
          InputError: an unknown scenario, task or item.
        """
        if task not in self.schema.task_names:
            raise InputError("task", repr(task), f"one of {', '.join(self.schema.task_names)}")
        if item is None:
            return (-self.score(scenario, request)[task]).argsort(kind="stable")[:top].tolist()
        items = self._items(request)
        if item not in items:
            raise InputError("item", repr(item), f"one of {', '.join(items[:5])}{', …' if len(items) > 5 else ''}")
        return [items.index(item)]

    def explain(
        self,
        scenario: str,
        request: Request,
        rows: Sequence[int],
        background: Sequence[Request] = (),
        steps: int = 64,
        progress: bool = False,
    ) -> list[Explanation]:
        """Explains candidates of a request.

        Args:
          rows: their places in the request, from 0.
          background: logged requests of the scenario, whose candidates are the baseline. Without any, those of the
            request itself.
          steps: points on each path, to begin with. They are doubled, up to 16 times as many, until what is left over
            is below 0.1 % of the difference.
          progress: show a progress bar on standard error.

        Raises:
          InputError: an unknown scenario, or scores that are NaN.
        """
        number = self._number(scenario)
        start = self._baseline(background or [request], scenario)
        features = self._look_up(request, scenario)
        inputs = self._model.look_up(features)
        count = len(start["candidate"])
        shown = f"{count} logged candidates of {scenario}" if background else f"the request's {count} candidates"
        if inputs.history is not None:
            shown += ", to a user without history" if background else ", without history"
        bar = track(rows, "explaining", console=Console(stderr=True), transient=True, disable=not progress)
        return [self._explain(request, features, row, _one(inputs, row), number, start, shown, steps) for row in bar]

    def _explain(
        self,
        request: Request,
        features: Features,
        row: int,
        inputs: Inputs,
        scenario: int,
        start: Parts,
        shown: str,
        steps: int,
    ) -> Explanation:
        end, given = _parts(inputs), _mask(inputs)
        if "history" in end:
            start = {**start, "history": tf.zeros([len(start["candidate"]), *end["history"].shape[1:]])}
        log_odds, baseline, moved, steps = self._integrate("inputs", scenario, start, end, given, steps)
        gates, moved_by_gates = self._explain_gates(inputs, scenario, steps)
        names = list(self.schema.inputs)

        def explain(task: int) -> TaskExplanation:
            places = moved[task].tolist()
            return TaskExplanation(
                probability=float(1 / (1 + np.exp(-log_odds[task]))),
                log_odds=float(log_odds[task]),
                baseline_log_odds=float(baseline[task]),
                features=dict(zip(names, places[: len(names)], strict=True)),
                history=tuple(places[len(names) :]),
                gates=None
                if gates is None or moved_by_gates is None
                else {name: float(moved_by_gates[task, names.index(name)]) for name in gates},
            )

        return Explanation(
            scenario=self.schema.scenarios[scenario],
            item=self._items(request)[row],
            baseline=shown,
            values={name: text_of(value) for name, value in _of_row(request, features, row, self.schema).items()},
            unknown=self._unknown(request, features, row),
            gates=gates,
            history=self._actions(request, features, inputs, scenario),
            tasks={name: explain(task) for task, name in enumerate(self.schema.task_names)},
            steps=steps,
        )

    def _explain_gates(
        self, inputs: Inputs, scenario: int, steps: int
    ) -> tuple[dict[str, float] | None, np.ndarray | None]:
        """Mean gate of each feature, and its effect `[T, features]` relative to gate 1 (identity)."""
        gates = self._model.gates(inputs, scenario)
        if gates is None:
            return None, None
        end = dict(zip(("request", "candidate"), gates, strict=True))
        means = {
            name: float(np.mean(part.numpy()[0, np.array(self._columns[side]) == name]))
            for side, part in end.items()
            for name in dict.fromkeys(self._columns[side])
        }
        start = {name: tf.ones_like(part) for name, part in end.items()}
        given = _parts(inputs) | _mask(inputs)
        return means, self._integrate("gates", scenario, start, end, given, steps).moved

    def _integrate(self, what: str, scenario: int, start: Parts, end: Parts, given: Parts, steps: int) -> "_Moved":
        """Integrated gradients along the paths of the `inputs` or of the `gates`."""
        function = {"inputs": self._log_odds, "gates": self._gated_log_odds}[what]
        paths = self._paths.get((what, scenario))
        if paths is None:
            places = {name: self._places.get(name) for name in end}
            paths = Paths(lambda parts, given: function(parts, given, scenario), places)
            self._paths[what, scenario] = paths
        count = len(next(iter(start.values())))
        before = function(start, {name: tf.repeat(part, count, axis=0) for name, part in given.items()}, scenario)
        before = before.numpy().astype(np.float64).mean(axis=0)
        after = function(end, given, scenario).numpy()[0].astype(np.float64)
        if not np.isfinite(after - before).all():
            scores = f"scores in {self.schema.scenarios[scenario]}"
            raise InputError(scores, "NaN or infinity", "those of a model that training left finite")
        tolerance = _TOLERANCE * np.maximum(np.abs(after - before), _LEAST)
        return _Moved(after, before, *paths.integrate(start, end, given, after - before, steps, tolerance))

    def _log_odds(self, parts: Parts, given: Parts, scenario: int) -> tf.Tensor:
        """Log-odds `[B, T]` of rows after look-up."""
        inputs = self._joined(parts, given)
        return _log_odds(self._model.rank(inputs, self._model.view(inputs, scenario), scenario))

    def _gated_log_odds(self, gates: Parts, given: Parts, scenario: int) -> tf.Tensor:
        """Log-odds `[B, T]` under gates other than FG's."""
        inputs = self._joined(given, given)
        request, candidate = (
            tf.expand_dims(part * gates[name], 1)
            for name, part in (("request", inputs.request), ("candidate", inputs.candidate))
        )
        views = self._model.view(inputs, scenario)._replace(request=request, candidate=candidate)
        return _log_odds(self._model.rank(inputs, views, scenario))

    def _joined(self, parts: Parts, given: Parts) -> Inputs:
        """Rows of the tensors that paths vary. An item is part of its candidate and varies with it."""
        candidate, history = parts["candidate"], parts.get("history")
        item = candidate[:, : self._model.embedding.item_width] if history is not None else None
        fixed = (given.get(name) for name in _FIXED)
        return Inputs(parts["request"], candidate, parts.get("query"), item, history, *fixed)

    def _baseline(self, requests: Sequence[Request], scenario: str) -> dict[str, tf.Tensor]:
        """Baseline `[M, ...]` of each part except the history: evenly sampled candidates of requests."""
        rows: dict[str, list[tf.Tensor]] = {}
        for request in requests[:BACKGROUND]:
            parts = _parts(self._model.look_up(self._look_up(request, scenario)))
            for name in parts.keys() - {"history"}:
                rows.setdefault(name, []).append(tf.repeat(parts[name], len(parts["candidate"]) // len(parts[name]), 0))
        joined = {name: tf.concat(parts, axis=0) for name, parts in rows.items()}
        count = len(joined["candidate"])
        taken = np.linspace(0, count - 1, min(count, BACKGROUND)).round().astype(np.int64)
        return {name: tf.gather(part, taken) for name, part in joined.items()}

    def _items(self, request: Request) -> list[str]:
        """Labels of the candidates: item ids, or indices if the model has no item ids."""
        if ITEM in request:
            return [text_of(value) for value in request[ITEM]]
        name = next(iter(self.schema.features_of("item")))
        return [f"[{row}]" for row in range(len(request[name]))]

    def _look_up(self, request: Request, scenario: str) -> Features:
        """The transformed features of a request, without counts that the snapshot knows."""
        known = self._serving.request_spec()
        return self._features(
            {name: values for name, values in request.items() if name in known}, self._number(scenario)
        )

    def _number(self, scenario: str) -> int:
        if scenario not in self.schema.scenarios:
            raise InputError("scenario", repr(scenario), f"one of {', '.join(self.schema.scenarios)}")
        return self.schema.scenarios.index(scenario)

    def _unknown(self, request: Request, features: Features, row: int) -> dict[str, tuple[str, ...]]:
        """Out-of-vocabulary values of each feature."""
        candidate = self.schema.features_of(*CANDIDATE_GROUPS)
        unknown = {}
        for name in self.schema.features:
            place = row if name in candidate else 0
            unknown[name] = unknown_of(request[name][place], features[name][place], name, self.schema)
        return {name: found for name, found in unknown.items() if found}

    def _actions(self, request: Request, features: Features, inputs: Inputs, scenario: int) -> tuple[Action, ...]:
        if inputs.history is None:
            return ()
        weights = self._model.attention(inputs, scenario)
        length = inputs.history.shape[1]
        attention = [None] * length if weights is None else tf.reduce_mean(weights[0], axis=0).numpy().tolist()
        first = len(request[history_column("age")][0]) - length

        def value(name: str, place: int) -> str:
            return text_of(request[history_column(name)][0, first + place])

        def unknown(name: str, place: int) -> tuple[str, ...]:
            raw, ids = request[history_column(name)][0, first + place], features[history_column(name)][0, place]
            return unknown_of(raw, ids, name, self.schema)

        item, *about = sorted(self.schema.history_features, key=lambda name: name != ITEM)
        return tuple(
            Action(
                item=value(item, place),
                about=" · ".join(value(name, place) for name in about),
                action=value("action", place),
                scenario=value("scenario", place),
                age_ms=int(request[history_column("age")][0, first + place]),
                attention=attention[place],
                unknown=tuple(found for name in (item, *about) for found in unknown(name, place)),
            )
            for place in range(length)
        )


class _Moved(NamedTuple):
    end: np.ndarray
    """`[T]`, log-odds."""
    start: np.ndarray
    """`[T]`, the mean over the paths."""
    moved: np.ndarray
    """`[T, places]`."""
    steps: int


def _of_row(values: Mapping[str, Any], features: Features, row: int, schema: Schema) -> dict[str, Any]:
    """Feature values of one candidate; shared features have one row."""
    candidate = schema.inputs_of(*CANDIDATE_GROUPS)
    taken = {**{name: features[name].numpy() for name in schema.derived}, **values}
    return {name: taken[name][row if name in candidate else 0] for name in schema.inputs}


def _one(inputs: Inputs, row: int) -> Inputs:
    """One candidate with its request."""
    return Inputs(*(part if part is None else part[row : row + 1] if len(part) > 1 else part[:1] for part in inputs))


def _parts(inputs: Inputs) -> dict[str, tf.Tensor]:
    """Tensors that paths vary."""
    parts = {name: getattr(inputs, name) for name in ("request", "candidate", "query", "history")}
    return {name: part for name, part in parts.items() if part is not None}


def _mask(inputs: Inputs) -> dict[str, tf.Tensor]:
    """What stays as it is on every path."""
    fixed = {name: getattr(inputs, name) for name in _FIXED}
    return {name: part for name, part in fixed.items() if part is not None}


def _log_odds(log_p: tf.Tensor) -> tf.Tensor:
    return log_p - log1mexp(log_p)
