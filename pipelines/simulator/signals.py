"""Optional signals of the shop: prices and stock over time, retrieval scores, zero-result searches, vectors, trends.

Each has a strength from 0 to 1 and enters the true probabilities; `docs/simulator.md` has the equations. A signal that
is off has arrays of zeros or of width 0: it draws no random number and adds nothing.

`I` items, `U` users, `r` requests, `n` items of each, `w` the width of vectors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator.month import DAY_MS, DAYS, HOUR_MS, START_MS
from usr_tf.errors import InputError

SIGNALS = ("price", "stock", "retrieval", "zero_results", "vectors", "drift")
DEFAULT_STRENGTH = 0.5
"""Of a signal that is named without one."""

SLOT_MS = 6 * HOUR_MS
"""Prices, stock and trends change at the start of a slot alone."""
SLOTS = 2 * DAYS * DAY_MS // SLOT_MS
"""Slots of two months, after which they repeat: A/B tests play on from the month of the logs."""
DISCOUNTS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
DISCOUNTED, DISCOUNT_SLOTS = 0.2, 12
"""Share of the time at a discount, and the mean length of one."""
DISCOUNT_PULL = 6.0
"""Logit of a whole discount at strength 1."""
SOLD_OUT, SOLD_OUT_SLOTS, SOLD_OUT_PUSH = 0.3, 4, -1.5
"""Share of the time out of stock at strength 1, the mean length of it, and its logit at any strength."""
ZERO_RESULTS, ZERO_RESULTS_PUSH = 0.4, -1.0
"""Share of zero-result searches at strength 1, and the logit of what fills their slates, at any strength."""
WIDTH = 16
"""Numbers of a vector."""
USER_PULL, QUERY_PULL, QUERY_TRUTH = 0.6, 0.6, 0.8
"""Logit of a standard deviation of each dot product at strength 1; cosine of the query's vector and the wish's."""
DRIFT_PULL, DRIFT_DAYS = 2.0, 4.0
"""Logit of a standard deviation of the trend at strength 1; it correlates by 1/e with itself so many days later."""
KIND_DRIFT = 0.6
"""Share of the trend's variance that the items of a kind have in common."""
UTILITY_SCALE = 1.5
"""About the standard deviation of the utility over a request's candidates."""


@dataclass(frozen=True)
class Signals:
    """The signals of a shop, `[I, SLOTS]` and `[I, 1]` where they are off, unless said otherwise."""

    strength: Mapping[str, float]
    """Of those that are on."""
    discount: NDArray  # share off the list price
    sold_out: NDArray  # bool
    trend: NDArray  # standard normal
    vector: NDArray  # [I, w], of length 1; w = 0 where vectors are off
    tower: NDArray  # [I, WIDTH], of length 1: what a retrieval score's error depends on; width 0 where it is off

    @classmethod
    def draw(cls, rng: np.random.Generator, kind: NDArray, strength: Mapping[str, float]) -> "Signals":
        """Signals of items of these kinds, `[I]`."""
        items = kind.size
        discount, sold_out, trend = np.zeros((items, 1)), np.zeros((items, 1), bool), np.zeros((items, 1))
        if "price" in strength:
            on, begins = _spells(rng, items, DISCOUNTED, DISCOUNT_SLOTS)
            discount = np.where(on, np.take_along_axis(rng.choice(DISCOUNTS, size=on.shape), begins, axis=1), 0)
        if "stock" in strength:
            sold_out, _ = _spells(rng, items, SOLD_OUT * strength["stock"], SOLD_OUT_SLOTS)
        if "drift" in strength:
            of_kind, own = _trends(rng, kind.max() + 1), _trends(rng, items)
            trend = np.sqrt(KIND_DRIFT) * of_kind[kind] + np.sqrt(1 - KIND_DRIFT) * own
        return cls(
            strength=dict(strength),
            discount=discount,
            sold_out=sold_out,
            trend=trend,
            vector=unit(rng.normal(size=(items, WIDTH if "vectors" in strength else 0))).round(4),
            tower=unit(rng.normal(size=(items, WIDTH if "retrieval" in strength else 0))),
        )

    @property
    def width(self) -> int:
        """Numbers of a vector, 0 where vectors are off."""
        return self.vector.shape[1]

    def zero_results(self, rng: np.random.Generator, asks: NDArray) -> NDArray:
        """`[r]`: which searches find nothing."""
        if "zero_results" not in self.strength:
            return np.zeros_like(asks)
        return asks & (rng.random(asks.size) < ZERO_RESULTS * self.strength["zero_results"])

    def query_vectors(self, rng: np.random.Generator, wish: NDArray, asks: NDArray) -> NDArray:
        """`[r, w]`: a noisy view of what is wished for, of length 1; NaN where nothing is asked."""
        error = unit(rng.normal(size=(wish.size, self.width)))
        vector = unit(QUERY_TRUTH * self.vector[wish] + np.sqrt(1 - QUERY_TRUTH**2) * error)
        return np.where(asks[:, None], vector.round(4), np.nan)

    def appeal(self, item: NDArray, now: NDArray, zero_results: NDArray, user_vector: NDArray) -> NDArray:
        """`[r, n]`: what the signals add to an item's appeal.

        Args:
          item: `[r, n]`.
          now: `[r]`, ms UTC.
          zero_results: `[r]`.
          user_vector: `[r, w]`.
        """
        return (
            self.strength.get("price", 0) * DISCOUNT_PULL * at(self.discount, item, now)
            + SOLD_OUT_PUSH * at(self.sold_out, item, now)
            + self.trend_logit(item, now)
            + ZERO_RESULTS_PUSH * zero_results[:, None]
            + self.strength.get("vectors", 0) * USER_PULL * self._standard_dot(user_vector, item)
        )

    def trend_logit(self, item: NDArray, now: NDArray) -> NDArray:
        """`[r, n]`: the part of the appeal that drifts."""
        return self.strength.get("drift", 0) * DRIFT_PULL * at(self.trend, item, now)

    def fit(self, item: NDArray, query_vector: NDArray) -> NDArray:
        """`[r, n]`: what the query's vector, `[r, w]`, adds to how well an item meets the wish."""
        return self.strength.get("vectors", 0) * QUERY_PULL * self._standard_dot(np.nan_to_num(query_vector), item)

    def retrieval_score(self, item: NDArray, utility: NDArray, error: NDArray) -> NDArray:
        """`[r, n]`: a two-tower model's view of the utility, which it correlates with by about the strength.

        Args:
          utility: `[r, n]`.
          error: of the request's tower, `[r, width]` standard normal.
        """
        truth = self.strength.get("retrieval", 0)
        return truth * utility / UTILITY_SCALE + np.sqrt(1 - truth**2) * np.einsum(
            "rw,rnw->rn", error, self.tower[item]
        )

    def _standard_dot(self, vector: NDArray, item: NDArray) -> NDArray:
        """`√w` times the cosine, of variance about 1."""
        return np.sqrt(self.width) * np.einsum("rw,rnw->rn", vector, self.vector[item])


def parse_signals(texts: Sequence[str]) -> dict[str, float]:
    """Strengths by name, of texts such as `price` and `stock=0.3`.

    Raises:
      InputError: a strength that is no number, or a name that stands twice. `simulate` checks the rest.
    """
    strength: dict[str, float] = {}
    for text in texts:
        name, separator, value = (part.strip() for part in text.partition("="))
        if name in strength:
            raise InputError("--signals", f"{name} twice", "each name once")
        try:
            strength[name] = float(value) if separator else DEFAULT_STRENGTH
        except ValueError as error:
            raise InputError(f"--signals: {name}", repr(value), "a number from 0 to 1") from error
    return strength


def at(values: NDArray, item: NDArray, now: NDArray) -> NDArray:
    """`[r, n]`: entries of `[I, SLOTS]` for items `[r, n]` at moments `[r]`."""
    return values[item, ((now - START_MS) // SLOT_MS % values.shape[1])[:, None]]


def unit(vectors: NDArray) -> NDArray:
    """Vectors `[…, w]` at length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _spells(rng: np.random.Generator, count: int, share: float, slots: float) -> tuple[NDArray, NDArray]:
    """States that are on for `slots` on average and for a `share` of the time, below 1, `[count, SLOTS]` each.

    Returns:
      Whether each is on, and the slot in which the present state began.
    """
    stop = 1 / slots
    start = stop * share / (1 - share)
    u = rng.random((SLOTS, count))
    on = np.empty((SLOTS, count), bool)
    on[0] = u[0] < share
    for slot in range(1, SLOTS):
        on[slot] = np.where(on[slot - 1], u[slot] >= stop, u[slot] < start)
    begins = np.where(np.diff(on, axis=0, prepend=~on[:1]), np.arange(SLOTS)[:, None], 0)
    return on.T, np.maximum.accumulate(begins, axis=0).T


def _trends(rng: np.random.Generator, count: int) -> NDArray:
    """`[count, SLOTS]`: first-order autoregressions, new every day, of variance 1."""
    keep = np.exp(-1 / DRIFT_DAYS)
    days = rng.normal(size=(2 * DAYS, count))
    for day in range(1, len(days)):
        days[day] = keep * days[day - 1] + np.sqrt(1 - keep**2) * days[day]
    days = (days - days.mean(axis=1, keepdims=True)) / days.std(axis=1, keepdims=True)
    return np.repeat(days.T, DAY_MS // SLOT_MS, axis=1)
