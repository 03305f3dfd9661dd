"""Off-policy evaluation of `usr-tf abtest` on the logs of several policies: each policy from each other's log."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.client.formula import Formula
from usr_tf.errors import InputError
from usr_tf.experiments.abtest.arms import Ranking
from usr_tf.experiments.abtest.experiment import Settings
from usr_tf.experiments.abtest.exported_model import Model, find_version
from usr_tf.experiments.off_policy.estimators import Estimate, differ, estimates, measured_rate
from usr_tf.experiments.off_policy.logged_policies import LoggedScenario, PolicyLog, read_logged_policies
from usr_tf.experiments.off_policy.off_policy_page import page
from usr_tf.experiments.off_policy.reward_model import RewardModel, fit_reward_model
from usr_tf.experiments.off_policy.target_policies import TargetPolicy, logged_policy, model_policy
from usr_tf.files import make_folder, replace_text, strict_json
from usr_tf.schema import Schema

_BLOCK = 20_000
"""Rows whose probabilities of all items are held at once."""


def evaluate_policies(
    logs: str | Path,
    out: str | Path,
    models: Sequence[str | Path] = (),
    by: str | None = None,
    explore: float = 0.1,
    temperature: float = 2.0,
    seed: int = 0,
    command: str = "",
) -> dict[str, Any]:
    """Evaluates each policy from the logs of each other one; writes `OUT/off_policy.html`, then `OUT/off_policy.json`.

    Args:
      logs: log directory whose impressions have `policy`, `position` and `propensity`.
      models: exported models to evaluate as well: folders of `usr-tf export`, or versions in them.
      by, explore, temperature: how the models rank, as in `usr_tf.experiments.abtest.Settings`; by the first task's
        output where absent.
      seed: of the folds and of the models' slates.
      command: what the page says made it.

    Returns:
      The document of `off_policy.json`.

    Raises:
      InputError: logs without these columns, one policy alone and no model, or a model that does not fit the logs.
    """
    Settings(explore=explore, temperature=temperature, seed=seed)  # refuses what is out of range
    schema, scenarios = read_logged_policies(logs)
    ranking = Ranking(by or schema.task_names[0], explore, temperature)
    Formula(ranking.by, "--by").check_names(schema.task_names)
    loaded = _load(models)
    names = {policy for scenario in scenarios for policy in scenario.logs}
    if len(names) + len(loaded) < 2:
        raise InputError(
            f"{logs}: policy", f"{', '.join(sorted(names))} alone", "logs of two policies, or a model as --b"
        )
    if taken := names & loaded.keys():
        raise InputError("--a, --b", f"a model called {min(taken)}, as a logged policy is", "another folder")
    rows = []
    for number, scenario in enumerate(scenarios):
        rng = np.random.default_rng(np.random.SeedSequence([seed, number]))
        rows += _rows(schema, scenario, loaded, ranking, rng)
    if not rows:
        raise InputError(f"{logs}: policy", "one in each scenario", "two in one of them, or a model as --b")
    document = {
        "logs": str(logs),
        "models": {name: str(model.path) for name, model in loaded.items()},
        "settings": dataclasses.asdict(ranking) | {"seed": seed},
        "policies": [
            {"scenario": scenario.name, "policy": policy, **_measured(log)}
            for scenario in scenarios
            for policy, log in scenario.logs.items()
        ],
        "estimates": rows,
    }
    folder = make_folder(out)
    replace_text(folder / "off_policy.html", page(document, command))
    replace_text(folder / "off_policy.json", strict_json(document, indent=2) + "\n")
    return document


def _load(models: Sequence[str | Path]) -> dict[str, Model]:
    paths = [find_version(path) for path in models]
    names = [path.parent.name for path in paths]
    if len(set(names)) < len(names) or not all(names):
        names = ["/".join(path.parts[-2:]) for path in paths]
    return {name: Model(path) for name, path in zip(names, paths, strict=True)}


def _measured(log: PolicyLog) -> dict[str, Any]:
    clicks = int(log.click.sum())
    rate, interval = measured_rate(clicks, log.click.size)
    return {"impressions": log.click.size, "clicks": clicks, "rate": rate, "interval": list(interval)}


def _rows(
    schema: Schema, scenario: LoggedScenario, models: Mapping[str, Model], ranking: Ranking, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Estimates of a scenario, a row per log and target policy."""
    rows = []
    for logging, log in scenario.logs.items():
        rewards = fit_reward_model(schema, scenario, log, rng)
        targets: dict[str, TargetPolicy] = {
            policy: logged_policy(own, log, len(scenario.items), scenario.positions, rng)
            for policy, own in scenario.logs.items()
            if policy != logging
        }
        targets |= {name: model_policy(model, ranking, scenario, log, rng) for name, model in models.items()}
        for name, target in targets.items():
            own_log = scenario.logs.get(name)
            truth = None if own_log is None else _measured(own_log)
            expected, direct = _expectations(rewards, target, log)
            found = estimates(target.displayed(log) / log.propensity, log.click, expected, direct)
            rows.append(
                {"scenario": scenario.name, "logging": logging, "target": name, "origin": target.origin}
                | {"impressions": log.click.size, "clicks": int(log.click.sum()), "truth": truth}
                | {"estimates": {key: _record(each, truth) for key, each in found.items()}}
            )
    return rows


def _expectations(rewards: RewardModel, target: TargetPolicy, log: PolicyLog) -> tuple[NDArray, NDArray]:
    """The reward model's clicks of the displayed item, and of what the target would display, `[n]` each."""
    expected, direct = np.empty(log.item.size), np.empty(log.item.size)
    for start in range(0, log.item.size, _BLOCK):
        rows = slice(start, start + _BLOCK)
        clicks = rewards.clicks(rows)
        expected[rows] = np.take_along_axis(clicks, log.item[rows, None], axis=1)[:, 0]
        direct[rows] = (clicks * target.chances(log, rows)).sum(axis=1)
    return expected, direct


def _record(found: Estimate, truth: Mapping[str, Any] | None) -> dict[str, Any]:
    """Estimate as JSON. `agrees` tells whether it is near the measured rate; None where one of them is missing."""
    agrees = None
    if truth and found.interval and not found.refusal:
        agrees = not differ(found.value, found.interval, truth["rate"], tuple(truth["interval"]))
    return dataclasses.asdict(found) | {
        "interval": found.interval and list(found.interval),
        "weak": found.weak,
        "agrees": agrees,
    }
