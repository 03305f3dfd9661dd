"""Off-policy estimators of a click rate: IPS, SNIPS, clipped SNIPS, DM, DR and clipped DR, each with its interval.

`w` is the target policy's probability of the displayed item at its position over the logging policy's, `c` the click
(0 or 1), `q` the reward model's click probability of the displayed item, `d` its mean over the target's items:

    IPS    Σ w c / n                             Horvitz and Thompson 1952
    SNIPS  Σ w c / Σ w                           Swaminathan and Joachims, NeurIPS 2015
    DM     Σ d / n
    DR     Σ (d + w (c − q)) / n                 Dudík, Langford and Li, ICML 2011

*Clipped* SNIPS and DR take `min(w, λ)` in place of `w`. The data choose `λ` among the powers of 2 and no clip: the
least sum of estimated variance and squared bound of the bias, as in Su et al., "Doubly robust off-policy evaluation
with shrinkage", ICML 2020.

*Intervals.* Clicks are rare, so an estimate is a weighted sum of few events, far from normal. Its interval is that of
Fay and Feuer, Statistics in Medicine 1997, for weighted sums of Poisson counts. The upper end allows for one more click
with the largest weight: where single impressions carry the estimate the interval is wide, even if nobody clicked on
them. DR adds the spread of its other terms (Zou and Donner, Statistics in Medicine 2008). The mean of `w` is 1, so
`1 − mean(min(w, λ))` is the share of the target's probability that a clip removes. The estimate stands for that share
too, and the interval allows for a click rate there between none and twice the estimate.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from usr_tf.evaluation.report.task_results import FEW

ALPHA = 0.05
LEAST = float(stats.norm.isf(ALPHA / 2) ** 2)
"""Effective clicks, 3.8, at which an interval reaches 0: the relative standard error of `m` clicks is `1 / √m`."""
HALF = 0.5
"""Least share of the target's probability that the weights stand for; below, the estimate is of another policy."""

ESTIMATORS = ("ips", "snips", "snips_clipped", "dm", "dr", "dr_clipped")

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """Estimate of a policy's clicks per impression.

    Attributes:
      interval: None where there is none (DM: its error is the reward model's, which nothing here measures).
      effective: effective sample size `(Σ w)² / Σ w²`, impressions of the target's own that would tell as much.
      clicks: `effective` times the log's click rate.
      largest: the largest weight.
      clip: the limit of the weights, if any.
      kept: share of the target's probability that the weights stand for: their mean, at most 1. Without a clip, a
        small one tells that the log does not display what the target would.
      refusal: why the data cannot carry the estimate; empty where they can.
    """

    value: float
    interval: Interval | None
    effective: float
    clicks: float
    largest: float
    clip: float | None
    kept: float
    refusal: str

    @property
    def weak(self) -> bool:
        """Whether it rests on fewer effective clicks than reports rely on, or is less certain than ± 100 %."""
        if self.refusal or self.interval is None:
            return False
        return self.clicks < FEW or self.interval[1] - self.interval[0] > 2 * self.value


def estimates(weight: NDArray, click: NDArray, expected: NDArray, direct: NDArray) -> dict[str, Estimate]:
    """Estimator → estimate, from `[n]` impressions of another policy's log.

    Args:
      weight: target's probability of the displayed item at its position, over the logging policy's.
      click: bool.
      expected: the reward model's click probability of the displayed item.
      direct: its mean over the items that the target would display.

    Raises:
      ValueError: no impression, other lengths, or a weight that is negative or not finite.
    """
    if not weight.size or {weight.shape} != {each.shape for each in (click, expected, direct)}:
        shapes = [list(each.shape) for each in (weight, click, expected, direct)]
        raise ValueError(f"`weight`, `click`, `expected`, `direct` must be [n], n above 0. Received: {shapes}")
    if not (np.isfinite(weight) & (weight >= 0)).all() or not weight.any():
        raise ValueError(f"`weight` must be finite, from 0, and not all 0. Received: {weight.min()} to {weight.max()}")
    click = click.astype(bool)
    snips, dr = partial(_snips, click=click), partial(_dr, click=click, expected=expected, direct=direct)
    none = np.inf
    return {
        "ips": _estimate(weight, click, none, *_ips(weight, click)),
        "snips": _estimate(weight, click, none, *snips(weight)),
        "snips_clipped": _clipped(weight, click, snips),
        "dm": _estimate(weight, click, none, float(direct.mean()), None, 0.0),
        "dr": _estimate(weight, click, none, *dr(weight)),
        "dr_clipped": _clipped(weight, click, dr),
    }


def measured_rate(clicks: int, impressions: int) -> tuple[float, Interval]:
    """Click rate of a policy's own log with its Wilson interval."""
    found = stats.binomtest(clicks, impressions).proportion_ci(1 - ALPHA, method="wilson")
    return clicks / impressions, (float(found.low), float(found.high))


def differ(value: float, interval: Interval, other: float, other_interval: Interval) -> bool:
    """Whether two independent figures differ: 0 is outside the interval of their difference, made of their own."""
    low, high = (value, interval), (other, other_interval)
    if value > other:
        low, high = high, low
    return bool(high[0] - low[0] > np.hypot(low[1][1] - low[0], high[0] - high[1][0]))


def weighted_rate_interval(weight: NDArray, click: NDArray, total: float) -> tuple[Interval, float]:
    """Fay and Feuer's interval of `Σ w c / total`, and the variance that its upper end has.

    Args:
      weight: `[n]`, from 0.
      click: `[n]` bool.
    """
    counted = weight[click] / total
    value, variance, step = float(counted.sum()), float((counted**2).sum()), float(weight.max() / total)
    low = 0.0 if not value else variance / (2 * value) * stats.chi2.ppf(ALPHA / 2, 2 * value**2 / variance)
    value, variance = value + step, variance + step**2
    high = variance / (2 * value) * stats.chi2.isf(ALPHA / 2, 2 * value**2 / variance)
    return (float(low), float(high)), variance


def _ips(weight: NDArray, click: NDArray) -> tuple[float, Interval, float]:
    return float((weight * click).mean()), *weighted_rate_interval(weight, click, weight.size)


def _snips(weight: NDArray, click: NDArray) -> tuple[float, Interval, float]:
    total = float(weight.sum())
    return float((weight * click).sum() / total), *weighted_rate_interval(weight, click, total)


def _dr(weight: NDArray, click: NDArray, expected: NDArray, direct: NDArray) -> tuple[float, Interval, float]:
    n = weight.size
    counted, rest = float((weight * click).sum() / n), direct - weight * expected
    (low, high), variance = weighted_rate_interval(weight, click, n)
    error = float(rest.std(ddof=1) / np.sqrt(n)) if n > 1 else np.inf
    half = float(stats.norm.isf(ALPHA / 2)) * error
    value = counted + float(rest.mean())
    interval = value - float(np.hypot(counted - low, half)), value + float(np.hypot(high - counted, half))
    return value, interval, variance + error**2


def _clipped(weight: NDArray, click: NDArray, estimator: partial[tuple[float, Interval, float]]) -> Estimate:
    """The estimate with the clip of least variance plus squared bound of the bias."""
    most = float(weight.max())
    limits = [*(2.0**power for power in range(max(int(np.ceil(np.log2(most))), 0))), np.inf]

    def risk(limit: float) -> float:
        value, _, variance = estimator(np.minimum(weight, limit))
        return variance + ((1 - _kept(weight, limit)) * value) ** 2

    limit = min(limits, key=risk)
    value, (low, high), variance = estimator(np.minimum(weight, limit))
    if np.isfinite(limit):
        removed = (1 - _kept(weight, limit)) * max(value, 0.0)
        low, high = low - removed, high + removed
    return _estimate(weight, click, limit, value, (low, high), variance)


def _kept(weight: NDArray, limit: float) -> float:
    return min(float(np.minimum(weight, limit).mean()), 1.0)


def _estimate(
    weight: NDArray, click: NDArray, limit: float, value: float, interval: Interval | None, _: float
) -> Estimate:
    clipped, kept = np.minimum(weight, limit), _kept(weight, limit)
    effective = float(clipped.sum() ** 2 / (clipped**2).sum())
    return Estimate(
        value=value,
        interval=interval and (max(interval[0], 0.0), min(interval[1], 1.0)),
        effective=effective,
        clicks=effective * float(click.mean()),
        largest=float(clipped.max()),
        clip=limit if np.isfinite(limit) else None,
        kept=kept,
        refusal="" if interval is None else _refusal(clipped, click, value, kept),
    )


def _refusal(weight: NDArray, click: NDArray, value: float, kept: float) -> str:
    """Why an estimate by these weights says nothing; empty where it says something."""
    effective, n = float(weight.sum() ** 2 / (weight**2).sum()), weight.size
    clicks, step = effective * float(click.mean()), float(weight.max() / n)
    if not click.any():
        return "the log has no click"
    if clicks < LEAST:
        return (
            f"the weights leave {effective:,.0f} of {n:,} impressions, {clicks:.1f} clicks at the log's rate; "
            f"below {LEAST:.1f} an interval reaches 0 whatever the data say"
        )
    if step >= value:
        return (
            f"one click more, on the impression with the largest weight ({weight.max():,.0f}), would add {step:.2%}, "
            "more than the whole estimate"
        )
    if kept < HALF:
        return f"the weights stand for {kept:.0%} of the policy's probability, less than {HALF:.0%}"
    return ""
