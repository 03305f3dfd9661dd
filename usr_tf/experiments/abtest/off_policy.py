"""Off-policy estimators: value of a policy from the logs of another with known propensities.

What is shown in a place counts for itself: a click depends on the item and its place, not on its neighbours, and in the
simulated shop that is so. Hence an impression's weight is the chance that the target policy puts this item in this
place, over the logging policy's chance. With weights `w`, clicks `c`, and the model's own expectation `q`:

    IPS   = Σ w c / n            (clipped: no weight above `CLIP`)
    SNIPS = Σ w c / Σ w
    DR    = Σ (q of what the target would show here + w (c − q)) / n
    slate SNIPS: SNIPS with the product, over this place and those above, of chance over `propensity`

The last one needs nothing but what a shop logs, and assumes nothing of neighbours above; but its weights are products
of up to ten, and so of little use. `q` is first brought to the level that clicks have in each place.

An estimate is of one step: the target's slates, in the situations that the logging policy led to. What its own slates
would have led to, it does not see.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipelines.simulator.ranker import SLATE
from usr_tf.experiments.abtest.arms import TASKS
from usr_tf.experiments.abtest.inference import ALPHA, Ratio
from usr_tf.experiments.abtest.replay import ArmLog

CLIP = 10.0


@dataclass(frozen=True)
class Estimate:
    """Estimate of actions per impression, with its standard error.

    Attributes:
      interval: by the spread between users.
      effective: as many impressions of the target's own would tell as much: `(Σ w)² / Σ w²`.
      largest: the weight of the heaviest impression, over the mean.
    """

    value: float
    interval: tuple[float, float]
    effective: float
    largest: float


def estimates(log: ArmLog, target: str, task: str, of: NDArray) -> dict[str, Estimate]:
    """Estimator → estimate of a target policy's actions per impression.

    Args:
      log: of another policy.
      task: one of `TASKS`.
      of: which impressions, `[n]` bool: whole requests.

    Raises:
      ValueError: an unknown target or task, no impression, not whole requests, or a chance of the logging policy that
        is not above 0.
    """
    _check(log, target, task, of)
    aim, number = log.targets[target], TASKS.index(task)
    happened = (log.click, log.buy)[number][of].astype(np.float64)
    _, user = np.unique(log.user[of], return_inverse=True)
    weight = (aim.place_chance / log.place_chance)[of]
    clipped = np.minimum(weight, CLIP)
    step = (aim.slate_chance / log.propensity)[of].reshape(-1, SLATE)
    product = np.cumprod(step, axis=1).ravel()
    level = _level(happened, aim.reward[number][of], log.position[of])
    expected, direct = aim.reward[number][of] * level, aim.direct[number][of] * level
    one = np.ones(happened.size)

    def estimate(y: NDArray, x: NDArray, weight: NDArray) -> Estimate:
        ratio = Ratio.of(np.bincount(user, y), np.bincount(user, x))
        half = stats.norm.isf(ALPHA / 2) * ratio.error
        return Estimate(
            value=ratio.value,
            interval=(ratio.value - half, ratio.value + half),
            effective=float(weight.sum() ** 2 / (weight**2).sum()),
            largest=float(weight.max() / weight.mean()),
        )

    return {
        "ips": estimate(weight * happened, one, weight),
        "ips_clipped": estimate(clipped * happened, one, clipped),
        "snips": estimate(weight * happened, weight, weight),
        "dr": estimate(direct + weight * (happened - expected), one, weight),
        "slate_snips": estimate(product * happened, product, product),
    }


def _check(log: ArmLog, target: str, task: str, of: NDArray) -> None:
    if target not in log.targets:
        raise ValueError(f"`target` must be one of {', '.join(log.targets)}. Received: {target!r}")
    if task not in TASKS:
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}. Received: {task!r}")
    of = np.asarray(of)
    if of.dtype != bool or of.shape != log.user.shape:
        expected = f"bool {list(log.user.shape)}"
        raise ValueError(f"`of` must be {expected}. Received: {of.dtype} {list(of.shape)}")
    if not of.any() or of.sum() % SLATE:
        raise ValueError(f"`of` must choose whole requests of {SLATE} impressions. Received: {of.sum()} impressions")
    for name in ("place_chance", "propensity"):
        chance = getattr(log, name)[of]
        if not (chance > 0).all():
            found = chance[~(chance > 0)][0]
            raise ValueError(f"`{name}` must be above 0 wherever an item was shown. Received: {found}")


def _level(happened: NDArray, expected: NDArray, position: NDArray) -> NDArray:
    """`[n]` ratio of actions to expected ones, per position."""
    seen = np.bincount(position, happened)
    return (seen / np.maximum(np.bincount(position, expected), 1e-9))[position]
