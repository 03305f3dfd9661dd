"""Analysis of an A/B test: from the logs of the arms to `abtest.json`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipelines.simulator.tables import user_id
from usr_tf.experiments.abtest import inference
from usr_tf.experiments.abtest.arms import TASKS
from usr_tf.experiments.abtest.inference import Lift, Ratio, split_lift, twin_lift
from usr_tf.experiments.abtest.off_policy import estimates
from usr_tf.experiments.abtest.outcomes import ALL, METRICS, Sums, daily_sums
from usr_tf.experiments.abtest.peeking import half_width, mixture_variance, valid_interval
from usr_tf.experiments.abtest.replay import ArmLog
from usr_tf.experiments.abtest.resplits import draw_splits, split_lifts

A, B = "a", "b"
_CRITICAL = stats.norm.isf(inference.ALPHA / 2)


def analyse(
    logs: Mapping[str, ArmLog], scenarios: Sequence[str], days: int, share: float, salt: str, rng: np.random.Generator
) -> dict[str, Any]:
    """Document of the test: outcomes of the arms and their lifts.

    Args:
      logs: arm → log, of `A`, `B` and others.
      share: of the users who see B in the test.
      salt: of the hash that assigns them.
      rng: draws other splits.
    """
    users = np.unique(logs[A].user)  # the same in every arm: they come when they come
    sums = {arm: daily_sums(log, users, scenarios, days) for arm, log in logs.items()}
    in_b = inference.assigned_to_b([user_id(user) for user in users], salt, share)
    splits = draw_splits(rng, users.size, share)
    scopes = [*scenarios, ALL]
    return {
        "users": int(users.size),
        "requests": {arm: int((log.position == 1).sum()) for arm, log in logs.items()},
        "sample_ratio": _sample_ratio(in_b, share),
        "figures": {
            scope: {
                metric: {arm: _finite(Ratio.of(*_whole(sums[arm], scope, metric)).value) for arm in logs}
                for metric in METRICS
            }
            for scope in scopes
        },
        "twins": _each(scopes, lambda scope, metric: _twins(sums, scope, metric)),
        "test": _each(scopes, lambda scope, metric: _test(sums, in_b, share, scope, metric)),
        "days": _each(scopes, lambda scope, metric: _by_day(sums, in_b, scope, metric)),
        "splits": _each(scopes, lambda scope, metric: _splits(sums, splits, scope, metric)),
        "off_policy": _off_policy(logs, scenarios),
    }


def _each(scopes: Sequence[str], make: Any) -> dict[str, dict[str, Any]]:
    return {scope: {metric: make(scope, metric) for metric in METRICS} for scope in scopes}


def _whole(sums: Sums, scope: str, metric: str) -> tuple[NDArray, NDArray]:
    """Sums `y` and `x` of each user over all days."""
    y, x = sums[scope, metric]
    return y.sum(axis=1), x.sum(axis=1)


def _actions(sums: Sums, scope: str, metric: str, members: NDArray | None = None) -> int:
    """Clicks or purchases that a figure rests on, of all users or of those that a bool `[users]` selects."""
    actions, _ = _whole(sums, scope, "ctcvr" if metric == "revenue" else metric)
    return int(actions.sum() if members is None else actions[members].sum())


def _sample_ratio(in_b: NDArray, share: float) -> dict[str, Any]:
    in_each = int((~in_b).sum()), int(in_b.sum())
    p_value = inference.sample_ratio_p(*in_each, share)
    return {"a": in_each[0], "b": in_each[1], "share": share, "p_value": p_value, "sound": p_value > inference.MISMATCH}


def _twins(sums: Mapping[str, Sums], scope: str, metric: str) -> dict[str, Any]:
    a, b = (Ratio.of(*_whole(sums[arm], scope, metric)) for arm in (A, B))
    spread = a.deviation.std() * b.deviation.std()
    return _lift(a, b, twin_lift(a, b)) | {
        "actions": {arm: _actions(sums[arm], scope, metric) for arm in (A, B)},
        "correlation": _finite(np.mean(a.deviation * b.deviation) / spread) if spread > 0 else None,
    }


def _test(sums: Mapping[str, Sums], in_b: NDArray, share: float, scope: str, metric: str) -> dict[str, Any]:
    a, b = _arms(sums, in_b, scope, metric)
    lift = split_lift(a, b)
    defined = lift.error > 0 and math.isfinite(lift.error)
    return _lift(a, b, lift) | {
        "actions": {arm: _actions(sums[arm], scope, metric, of) for arm, of in ((A, ~in_b), (B, in_b))},
        "power": inference.power(lift.value, lift.error) if defined else None,
        "minimal_effect": inference.minimal_effect(lift.error) if defined else None,
        "users_needed": _finite(inference.users_needed(lift.value, a, b, share)) if defined else None,
    }


def _by_day(sums: Mapping[str, Sums], in_b: NDArray, scope: str, metric: str) -> dict[str, Any]:
    """Test results at the end of each day, with fixed-horizon and always-valid intervals."""
    days = sums[A][scope, metric][0].shape[1]
    lifts = [split_lift(*_arms(sums, in_b, scope, metric, day + 1)) for day in range(days)]
    mixture = mixture_variance(lifts[-1].error ** 2)
    fixed = [_interval(lift.interval()) for lift in lifts]
    valid = [_interval(valid_interval(lift, mixture)) for lift in lifts]
    stops = next((day for day, interval in enumerate(valid, 1) if _excludes_none(interval)), None)
    return {"lift": [_finite(lift.value) for lift in lifts], "fixed": fixed, "valid": valid, "stops": stops}


def _splits(sums: Mapping[str, Sums], splits: NDArray, scope: str, metric: str) -> dict[str, Any]:
    """Coverage and power over random splits, and false positives of A against A.

    Coverage is the share of intervals that hold the twins' lift. False positives are counted at the end of the test and
    at the end of any day.
    """
    a, b = (_whole(sums[arm], scope, metric) for arm in (A, B))
    lift, error = split_lifts(splits, a, b)
    truth = twin_lift(Ratio.of(*a), Ratio.of(*b)).log
    y, x = (np.cumsum(values, axis=1) for values in sums[A][scope, metric])
    looks = [split_lifts(splits, (of_y, of_x), (of_y, of_x)) for of_y, of_x in zip(y.T, x.T, strict=True)]
    null, null_error = (np.stack(values) for values in zip(*looks, strict=True))  # [days, n]
    mixture = mixture_variance(null_error[-1] ** 2)
    with np.errstate(invalid="ignore"):
        beyond_fixed, beyond_valid = (
            np.abs(null) > _CRITICAL * null_error,
            np.abs(null) > half_width(null_error**2, mixture),
        )
        return {
            "coverage": _share(np.abs(lift - truth) <= _CRITICAL * error, lift - truth),
            "power": _share(np.abs(lift) > _CRITICAL * error, lift),
            "false_at_end": _share(beyond_fixed[-1], null[-1]),
            "false_any_day": _share(beyond_fixed.any(axis=0), null[-1]),
            "false_any_day_valid": _share(beyond_valid.any(axis=0), null[-1]),
        }


def _share(splits: NDArray, figure: NDArray) -> float | None:
    """Share of true entries `[n]` among the splits that define the metric, `[n]`; None if none does."""
    defined = np.isfinite(figure)
    return float(splits[defined].mean()) if defined.any() else None


def _off_policy(logs: Mapping[str, ArmLog], scenarios: Sequence[str]) -> list[dict[str, Any]]:
    """Off-policy estimates of each policy from each other's log, with its replay and the true value."""
    rows = []
    for logging, log in logs.items():
        for target, aim in log.targets.items():
            for number, scenario in enumerate(scenarios):
                of, own = log.scenario == number, logs[target].scenario == number
                for task, happened, true in zip(TASKS, (logs[target].click, logs[target].buy), aim.truth, strict=True):
                    if not of.any() or not own.any():
                        continue
                    rows.append(
                        {"logging": logging, "target": target, "scenario": scenario, "task": task}
                        | {"replay": float(happened[own].mean()), "one_step": float(true[of].mean())}
                        | {"impressions": int(of.sum())}
                        | {
                            "estimates": {
                                name: vars(estimate) | {"interval": _interval(estimate.interval)}
                                for name, estimate in estimates(log, target, task, of).items()
                            }
                        }
                    )
    return rows


def _arms(
    sums: Mapping[str, Sums], in_b: NDArray, scope: str, metric: str, days: int | None = None
) -> tuple[Ratio, Ratio]:
    """Sums of a test, each arm with its own users, over the first days."""
    pairs = ((sums[A], ~in_b), (sums[B], in_b))
    return tuple(
        Ratio.of(*(values[members, :days].sum(axis=1) for values in of[scope, metric])) for of, members in pairs
    )


def _lift(a: Ratio, b: Ratio, lift: Lift) -> dict[str, Any]:
    return {
        "a": _finite(a.value),
        "b": _finite(b.value),
        "lift": _finite(lift.value),
        "interval": _interval(lift.interval()),
        "p_value": _finite(lift.p_value),
    }


def _excludes_none(interval: list[float] | None) -> bool:
    return interval is not None and not interval[0] <= 0 <= interval[1]


def _interval(interval: tuple[float, float]) -> list[float] | None:
    return list(interval) if all(map(math.isfinite, interval)) else None


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
