"""Ranker of the simulated shop: candidate retrieval, and slates drawn with known probabilities.

Its cost is in the candidates, `C` = 64 a request, whatever the number of items.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator import catalogue as names
from pipelines.simulator.people import Users
from pipelines.simulator.scenarios import POOLS
from pipelines.simulator.world import FRESH_MS, TASTE_DIM, World

SLATE = 10
UNRELATED = (0, 0, 0, 0, 48, 0, 16)
"""Candidates from each of `POOLS` where a search finds nothing."""
RETRIEVAL_WEIGHT = 0.5
EXPLORE = 0.1
"""Share of the places that are filled by any candidate left, all alike."""


@dataclass(frozen=True)
class Asked:
    """Ranker input per request, `[r]` each unless said otherwise; -1 for none."""

    scenario: NDArray
    user: NDArray
    now: NDArray
    zero_results: NDArray  # whether the search finds nothing, so the ranker fills the slate without the query
    kind: NDArray  # of the query
    brand: NDArray  # named in the query
    word: NDArray  # named in the query
    last: NDArray  # the item that the user clicked last
    query: NDArray  # [r, 3], number of the term
    query_vector: NDArray  # [r, w], NaN without a query; w = 0 where vectors are off
    spelling: NDArray  # [r, 3]
    device: NDArray | None  # None where it is drawn with the outcomes
    chances: Callable[[NDArray], tuple[NDArray, NDArray]]
    """Items `[r, n]` → the chance of a click once examined, and of a purchase then, `[r, n]` each: the truth, which no
    ranker of a real shop could ask for."""
    retrieval_score: Callable[[NDArray], NDArray]
    """Items `[r, n]` → the score that found them, `[r, n]`."""


class Ranker:
    """Ranker for the users of one chunk, with noisy knowledge of tastes (correlation 0.7)."""

    def __init__(self, rng: np.random.Generator, world: World, users: Users):
        self._world = world
        self._guess = np.sqrt(0.5) * (users.taste + rng.normal(size=users.taste.shape))
        liking = np.exp(np.einsum("kud,cd->kuc", self._guess, world.items.kind_style) / np.sqrt(TASTE_DIM))
        self._kind_until = np.cumsum(liking / liking.sum(axis=2, keepdims=True), axis=2)  # [K, U, kinds]
        pools = [*(scenario.pools for scenario in world.scenarios), UNRELATED]
        self._pool = np.array([np.repeat(np.arange(len(POOLS)), sizes) for sizes in pools])  # [K + 1, C]
        self._signals = world.of_scenarios("signals")

    def slates(self, rng: np.random.Generator, asked: Asked) -> tuple[NDArray, NDArray]:
        """Items `[r, SLATE]`, all different, and the probability of each at its position `[r, SLATE]`."""
        item, free = self.candidates(rng, asked)
        place, chance = draw_slates(rng, self.score(asked, item), free)
        return np.take_along_axis(item, place, axis=1), chance

    def candidates(self, rng: np.random.Generator, asked: Asked) -> tuple[NDArray, NDArray]:
        """Items `[r, C]` and mask `[r, C]` of those on sale that do not occur further left."""
        item = self._retrieve(rng, asked)
        return item, _first_of_each(item) & (self._world.items.launch[item] <= asked.now[:, None])

    def _retrieve(self, rng: np.random.Generator, asked: Asked) -> NDArray:
        items = self._world.items
        pool = self._pool[np.where(asked.zero_results, -1, asked.scenario)]
        u, which = rng.random((2, *pool.shape))
        liked = (self._kind_until[asked.scenario, asked.user][:, None] < which[..., None]).sum(axis=2)
        liked = np.minimum(liked, len(names.KINDS) - 1)  # the last sum may be a hair below 1
        wanted = np.where(asked.kind[:, None] < 0, liked, asked.kind[:, None])
        sibling = wanted // names.KINDS_EACH * names.KINDS_EACH + (which * names.KINDS_EACH).astype(np.int64)
        last = np.where(asked.last[:, None] < 0, liked, items.kind[asked.last][:, None])
        kind = np.choose(np.minimum(pool, 3), [wanted, sibling, liked, last])
        of_kind = items.by_kind[items.kind_start[kind] + (u * items.kind_size[kind]).astype(np.int64)]
        best = items.by_quality[(u * np.ceil(0.2 * items.by_quality.size)).astype(np.int64)]
        launched = np.searchsorted(items.sorted_launch, asked.now, side="right")[:, None]
        newest = items.by_launch[(launched - 1 - u * np.ceil(0.05 * launched)).astype(np.int64)]
        # All different, so that no slate falls short.
        block = (which[:, -1:] * items.staples.size).astype(np.int64) + np.arange(pool.shape[1])
        fill = items.staples[block % items.staples.size]
        return np.choose(np.maximum(pool, 3) - 3, [of_kind, best, newest, fill])

    def score(self, asked: Asked, item: NDArray) -> NDArray:
        """Logits `[r, C]` from which slates are drawn."""
        items = self._world.items
        kind, asked_kind = items.kind[item], asked.kind[:, None]
        same_category = (kind // names.KINDS_EACH == asked_kind // names.KINDS_EACH) & (asked_kind >= 0)
        named = (items.brand[item] == asked.brand[:, None]).astype(np.float64)
        named += (items.words[item] == asked.word[:, None, None]).any(axis=2)
        taste = np.einsum("rd,rcd->rc", self._guess[asked.scenario, asked.user], items.style[item])
        last = (kind == items.kind[asked.last][:, None]) & (asked.last[:, None] >= 0)
        newness = np.exp(np.minimum(items.launch[item] - asked.now[:, None], 0) / FRESH_MS)
        weight = self._signals[asked.scenario].T[..., None]
        signals = [
            kind == asked_kind, same_category, named * same_category, taste / np.sqrt(TASTE_DIM),
            last, items.quality[item] + self._world.signals.trend_logit(item, asked.now), newness,
        ]  # fmt: skip
        score = sum(w * signal for w, signal in zip(weight, signals, strict=True))
        return score + RETRIEVAL_WEIGHT * asked.retrieval_score(item)


def draw_slates(
    rng: np.random.Generator, score: NDArray, free: NDArray, explore: float = EXPLORE
) -> tuple[NDArray, NDArray]:
    """Draws slates position by position: softmax of the remaining scores, uniform with `explore`.

    Args:
      score: logits, `[r, C]`.
      free: whether a candidate may be shown, `[r, C]`; at least `SLATE` of them in each row.

    Returns:
      The columns of the drawn `[r, SLATE]`, and the probability of each, given those before it, `[r, SLATE]`.
    """
    free = free.astype(np.float64)
    weight = np.exp(score - score.max(axis=1, keepdims=True)) * free
    rows = np.arange(score.shape[0])
    place = np.empty((rows.size, SLATE), np.int64)
    chance = np.empty(place.shape)
    for k in range(SLATE):
        p = (1 - explore) * weight / weight.sum(axis=1, keepdims=True)
        p += explore * free / free.sum(axis=1, keepdims=True)
        until = np.cumsum(p, axis=1)
        u = (1 - rng.random(rows.size)) * until[:, -1]  # above 0, so that nothing of chance 0 is drawn
        place[:, k] = (until < u[:, None]).sum(axis=1)
        chance[:, k] = p[rows, place[:, k]]
        weight[rows, place[:, k]] = free[rows, place[:, k]] = 0
    return place, chance


def _first_of_each(item: NDArray) -> NDArray:
    """`[r, C]` mask of items that do not occur further left."""
    order = np.argsort(item, axis=1, kind="stable")
    ordered = np.take_along_axis(item, order, axis=1)
    first = np.ones_like(item, bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    result = np.empty_like(first)
    np.put_along_axis(result, order, first, axis=1)
    return result
