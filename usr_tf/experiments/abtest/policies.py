"""Stochastic slates: propensities of a policy's draws, and of the same slates under another policy.

All policies fill place after place, by softmax of logits over what is left or, with chance `explore`, by any of it; as
the shop's own ranker does. `r` requests, `C` candidates each, `S` places.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator.ranker import SLATE

_SLICE = 32
"""Requests whose slates are drawn at once, so that they stay near the processor."""


def ranking_logits(score: NDArray, free: NDArray, temperature: float) -> NDArray:
    """Logits `[r, C]` that fall by `1 / temperature` per rank of `score`.

    Only the order counts, so that policies of different models explore alike, however far apart their scores lie.
    What is NaN stands last; of equals, what was retrieved first stands first.

    Args:
      free: what may be shown; the rest takes no place in the ranking.
    """
    key = np.where(free, np.where(np.isnan(score), np.inf, -score), np.nan)  # NaN sorts last
    order = np.argsort(key, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(score.shape[1])[None], axis=1)
    return -rank / temperature


def slate_chances(logits: NDArray, free: NDArray, explore: float, place: NDArray) -> NDArray:
    """Propensity of each entry of a slate, given the entries before it, under any policy.

    Args:
      place: the columns that were shown, `[r, S]`.

    Returns:
      `[r, S]`.
    """
    weight, left = _weights(logits, free, np.float64)
    chance = np.empty(place.shape)
    for k, shown in enumerate(place.T[..., None]):
        chance[:, k] = np.take_along_axis(_chances(weight, left, explore), shown, axis=1)[:, 0]
        for values in (weight, left):
            np.put_along_axis(values, shown, 0, axis=1)
    return chance


def place_chances(
    rng: np.random.Generator, logits: NDArray, free: NDArray, explore: float, place: NDArray, samples: int = 16
) -> NDArray:
    """Marginal propensity of each entry at its position, whatever stands above.

    There is no closed form. What is above is drawn from what it may be, were the entry passed over; then the result is
    the mean probability of being passed over so often, and of being drawn thereafter. It is exact in the first place,
    and never 0 by chance, as a mere count would be.

    Args:
      place: the columns that were shown, `[r, S]`.
      samples: draws for each entry.

    Returns:
      `[r, S]`.
    """
    result = np.empty(place.shape)
    for of in _slices(len(place)):
        weight, left = _weights(logits[of], free[of], np.float32)
        entry = np.repeat(place[of].T, samples, axis=1)  # [S, r * samples]
        shape = (*entry.shape, logits.shape[1])
        weight, left = (np.broadcast_to(np.repeat(x, samples, axis=0), shape).copy() for x in (weight, left))
        passed = np.ones(entry.shape, np.float32)
        for k in range(SLATE):  # entries in place k and below: their row in the axis of places
            own = entry[k:, :, None]
            p = _chances(weight[k:], left[k:], explore)
            drawn = np.take_along_axis(p, own, axis=2)[..., 0]
            result[of, k] = (passed[k] * drawn[0]).reshape(-1, samples).mean(axis=1)
            passed[k:] *= 1 - drawn
            np.put_along_axis(p, own, 0, axis=2)
            above = _draw(rng, p)[..., None]
            for values in (weight[k:], left[k:]):
                np.put_along_axis(values, above, 0, axis=2)
    return result


def candidate_chances(
    rng: np.random.Generator, logits: NDArray, free: NDArray, explore: float, samples: int = 32, places: int = SLATE
) -> NDArray:
    """Marginal propensity of each candidate at each position, `[r, S, C]` float32.

    The mean, over so many slates drawn, of its probability given those above.

    Args:
      places: length `S` of the slates.
    """
    requests, candidates = logits.shape
    result = np.empty((requests, places, candidates), np.float32)
    for of in _slices(requests):
        weight, left = (np.repeat(values, samples, axis=0) for values in _weights(logits[of], free[of], np.float32))
        for k in range(places):
            p = _chances(weight, left, explore)
            result[of, k] = p.reshape(-1, samples, candidates).mean(axis=1)
            drawn = _draw(rng, p)[:, None]
            for values in (weight, left):
                np.put_along_axis(values, drawn, 0, axis=1)
    return result


def _slices(requests: int) -> Iterator[slice]:
    """Chunks of requests whose slates are drawn at once."""
    return (slice(start, start + _SLICE) for start in range(0, requests, _SLICE))


def _draw(rng: np.random.Generator, p: NDArray) -> NDArray:
    """Column index of each row `[…, C]`, drawn by weight; never one of weight 0."""
    until = np.cumsum(p, axis=-1)
    u = (1 - rng.random(p.shape[:-1], np.float32)) * until[..., -1]
    return (until < u[..., None]).sum(axis=-1)


def _weights(logits: NDArray, free: NDArray, dtype: type) -> tuple[NDArray, NDArray]:
    """Weights of the candidates in the softmax and in uniform exploration."""
    highest = np.where(free, logits, -np.inf).max(axis=1, keepdims=True)
    return np.where(free, np.exp(logits - highest), 0).astype(dtype), free.astype(dtype)


def _chances(weight: NDArray, left: NDArray, explore: float) -> NDArray:
    p = (1 - explore) * weight / weight.sum(axis=-1, keepdims=True)
    return p + explore * left / left.sum(axis=-1, keepdims=True)
