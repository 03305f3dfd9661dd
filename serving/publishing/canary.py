"""Canary comparison: score, ranking and latency differences of two live versions on the same requests."""

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table

from serving.client import Ranker
from serving.client.errors import ServingError
from serving.formats.logged_requests import LoggedRequest
from serving.publishing.golden import logged_inputs
from usr_tf.errors import InputError

NOT_A_NUMBER = "NOT_A_NUMBER"
"""Stands among the statuses of errors for an answer with a score that is NaN or infinite."""
TOP = 10
"""Places at the top of a ranking that overlap is counted in."""

Scores = Mapping[str, np.ndarray]


class Answer(NamedTuple):
    """Request and the responses of both versions."""

    request: LoggedRequest
    stable: Scores
    canary: Scores


"""Task → `[N]`."""


class Limits(NamedTuple):
    """Largest allowed differences of a canary; None for no limit."""

    difference: float | None = None
    """99th percentile of the difference of a score."""
    rank_change: float | None = None
    """Mean share of a request's pairs of items that the versions order otherwise."""
    auc_drop: float | None = None
    latency_ratio: float | None = None
    """Median of the canary's latency over the stable version's, request by request."""


def compare_versions(
    stable: Ranker, canary: Ranker, requests: Sequence[LoggedRequest], by: str = "ctr"
) -> dict[str, Any]:
    """Sends each request to both versions, one at a time, alternating which is first.

    Args:
      stable, canary: clients that ask a version each, and that do not try again: what fails is to be counted.
      by: the task that items are ranked by.

    Returns:
      A JSON document. `scenarios` holds for each scenario `requests` that both answered, `tasks` (see `_differences`)
      and `ranking` (`_rank_agreement`); `errors` each version's by status; `latency` its p50 and p99 in ms, and
      `ratio_p50`.

    Raises:
      InputError: there is no request or none that both answer, a request does not suit a version, the versions score
        different tasks, or the task `by` is not among them.
    """
    if not requests:
        raise InputError("requests", "none", "at least one to compare by")
    versions = {"stable": stable, "canary": canary}
    errors: dict[str, Counter[str]] = {name: Counter() for name in versions}
    answered: dict[str, list[Answer]] = {}
    seconds: list[tuple[float, float]] = []
    for request, order in zip(requests, itertools.cycle([("stable", "canary"), ("canary", "stable")]), strict=False):
        scores, took = {}, {}
        for name in order:
            try:
                signature, inputs = logged_inputs(request, versions[name].metadata())
                start = time.perf_counter()
                answer = versions[name].predict(signature, inputs)
                took[name] = time.perf_counter() - start
            except ServingError as error:
                errors[name][error.code.name] += 1
                continue
            if all(np.isfinite(values).all() for values in answer.values()):
                scores[name] = answer
            else:
                errors[name][NOT_A_NUMBER] += 1
        if len(scores) == len(versions):
            tasks, of_canary = (sorted(scores[name]) for name in versions)
            if of_canary != tasks:
                raise InputError("canary", f"scores of {', '.join(of_canary)}", f"{', '.join(tasks)}, as of stable")
            if by not in tasks:
                raise InputError("by", repr(by), f"one of {', '.join(tasks)}")
            answered.setdefault(request.scenario, []).append(Answer(request, scores["stable"], scores["canary"]))
            seconds.append((took["stable"], took["canary"]))
    if not answered:
        counts = "; ".join(f"{name} {_told(counter)}" for name, counter in errors.items())
        raise InputError("requests", f"errors alone ({counts})", "one that both versions answer")
    return {
        "requests": len(requests),
        "errors": {name: dict(counter) for name, counter in errors.items()},
        "latency": _latency(seconds),
        "by": by,
        "scenarios": {
            scenario: {
                "requests": len(answers),
                "tasks": {
                    task: _differences(answers, task) for task in sorted(answers[0].stable, key=lambda task: task != by)
                },
                "ranking": _rank_agreement(answers, by),
            }
            for scenario, answers in answered.items()
        },
    }


def refuse_beyond(comparison: Mapping[str, Any], limits: Limits) -> None:
    """Raises if the canary exceeds a limit or has more errors than the stable version.

    A figure that is not known passes, but not where none of its kind is known.

    Raises:
      InputError: names the first limit, what was found and what was expected.
    """

    def hold(what: str, values: Mapping[str, float | None], limit: float | None) -> None:
        known = {place: value for place, value in values.items() if value is not None}
        if limit is None:
            return
        if not known:
            raise InputError(what, "no figure", f"at most {limit:g}: the requests have no labels, or nothing to rank")
        for place, value in known.items():
            if value > limit:
                raise InputError(f"{place}{what}", f"{value:.4g}", f"at most {limit:g}")

    failed = {name: sum(errors.values()) for name, errors in comparison["errors"].items()}
    if failed["canary"] > failed["stable"]:
        expected = f"at most {failed['stable']}, as of the stable version"
        raise InputError("errors of the canary", _told(comparison["errors"]["canary"]), expected)
    scenarios = comparison["scenarios"]
    tasks = {f"{scenario} {task} ": of for scenario in scenarios for task, of in scenarios[scenario]["tasks"].items()}
    changes = {f"{scenario} ": figures["ranking"]["change"] for scenario, figures in scenarios.items()}
    hold("p99 difference", {place: figures["p99"] for place, figures in tasks.items()}, limits.difference)
    hold("rank change", changes, limits.rank_change)
    hold("AUC drop", {place: figures["auc_drop"] for place, figures in tasks.items()}, limits.auc_drop)
    hold("latency, canary / stable, p50", {"": comparison["latency"]["ratio_p50"]}, limits.latency_ratio)


def format_comparison(comparison: Mapping[str, Any]) -> Group:
    """Tables of a `compare_versions` document for a rich console."""
    scores = _table("scores", "scenario", "task", "mean", "p99", "max", "AUC stable", "AUC canary")
    ranking = _table(f"ranking by {comparison['by']}", "scenario", "requests", "rank change", "Kendall τ", f"top {TOP}")
    for scenario, figures in comparison["scenarios"].items():
        for task, found in figures["tasks"].items():
            apart = (f"{found[name]:.1e}" for name in ("mean", "p99", "max"))
            scores.add_row(scenario, task, *apart, _figure(found["auc_stable"]), _figure(found["auc_canary"]))
        agreement = (_figure(figures["ranking"][name]) for name in ("change", "kendall_tau", "top_overlap"))
        ranking.add_row(scenario, str(figures["requests"]), *agreement)
    versions = _table("versions", "version", "errors", "p50 ms", "p99 ms")
    for name, errors in comparison["errors"].items():
        times = comparison["latency"][name]
        versions.add_row(name, _told(errors), f"{times['p50_ms']:.2f}", f"{times['p99_ms']:.2f}")
    versions.add_row("canary / stable", "", f"{comparison['latency']['ratio_p50']:.2f}", "")
    return Group(scores, ranking, versions)


def kendall_tau(one: np.ndarray, other: np.ndarray) -> float | None:
    """Kendall's tau-b of two scores `[N]`; None if one of them is constant."""
    one, other = (np.sign(scores[:, np.newaxis] - scores) for scores in (one, other))
    pairs = np.sqrt(np.square(one).sum() * np.square(other).sum())
    return float((one * other).sum() / pairs) if pairs else None


def top_overlap(one: np.ndarray, other: np.ndarray, top: int = TOP) -> float:
    """Share of one ranking's `top` items in the other's. Ties keep the order of the request."""
    first, second = (set(np.argsort(-scores, kind="stable")[:top].tolist()) for scores in (one, other))
    return len(first & second) / len(first)


def _differences(answers: Sequence[Answer], task: str) -> dict[str, float | None]:
    """Score differences of a task: mean, 99th percentile, maximum, and AUCs if there are labels."""
    stable, canary = (np.concatenate([scores[task] for scores in each]) for each in _scores(answers))
    apart = np.abs(canary - stable)
    labelled = [answer for answer in answers if task in answer.request.labels]
    labels = np.array([label for answer in labelled for label in answer.request.labels[task]])
    auc_stable, auc_canary = (_auc(labels, [scores[task] for scores in each]) for each in _scores(labelled))
    return {
        "mean": float(apart.mean()),
        "p99": float(np.percentile(apart, 99)),
        "max": float(apart.max()),
        "auc_stable": auc_stable,
        "auc_canary": auc_canary,
        "auc_drop": None if auc_stable is None or auc_canary is None else auc_stable - auc_canary,
    }


def _scores(answers: Sequence[Answer]) -> tuple[list[Scores], list[Scores]]:
    """Scores of the stable version and of the canary."""
    return [answer.stable for answer in answers], [answer.canary for answer in answers]


def _auc(labels: np.ndarray, scores: Sequence[np.ndarray]) -> float | None:
    """ROC AUC over all requests, with ties as halves."""
    positive = labels.astype(bool)
    if positive.all() or not positive.any():
        return None
    every = np.concatenate(scores)
    above, negatives = every[positive], np.sort(every[~positive])
    below = np.searchsorted(negatives, above, "left") + np.searchsorted(negatives, above, "right")
    return float(below.mean() / 2 / len(negatives))


def _rank_agreement(answers: Sequence[Answer], by: str) -> dict[str, float | None]:
    """Mean rank agreement over the requests with something to rank.

    `change` is (1 - τ) / 2: where no scores are equal, the share of pairs of items that are ordered otherwise.
    """
    ranked = [(stable[by], canary[by]) for _, stable, canary in answers if len(stable[by]) > 1]
    taus = [tau for tau in itertools.starmap(kendall_tau, ranked) if tau is not None]
    tau = _mean(taus)
    return {
        "change": None if tau is None else (1 - tau) / 2,
        "kendall_tau": tau,
        "top_overlap": _mean(itertools.starmap(top_overlap, ranked)),
    }


def _latency(seconds: Sequence[tuple[float, float]]) -> dict[str, Any]:
    stable, canary = np.array(seconds).T
    each = {
        name: {"p50_ms": 1e3 * float(np.median(values)), "p99_ms": 1e3 * float(np.percentile(values, 99))}
        for name, values in (("stable", stable), ("canary", canary))
    }
    return each | {"ratio_p50": float(np.median(canary / stable))}


def _mean(values: Iterator[float] | Sequence[float]) -> float | None:
    values = list(values)
    return float(np.mean(values)) if values else None


def _told(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {code}" for code, count in errors.items()) or "0"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in ("scenario", "task", "version") else "right", no_wrap=True)
    return table


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
