"""World of the simulated shop: items, tastes by demography, feature importance by scenario.

Everything is an index or a number; `tables` gives the names. `I` items, `K` scenarios, `d` dimensions of taste.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator import catalogue as names
from pipelines.simulator.month import DAY_MS, DAYS, START_MS
from pipelines.simulator.scenarios import COMPONENTS, IMPORTANCE, Scenario
from pipelines.simulator.signals import Signals

TASTE_DIM = 4
DAYPARTS = 4
BY_DEMOGRAPHY = 0.5
"""Share of the variance of tastes that age band and city explain, half each."""
IMPORTANCE_SPREAD = 0.2
NEW_SHARE = 0.15
"""Share of the items that are launched during the month."""
FRESH_MS = 7 * DAY_MS
"""An item's newness falls by a factor e in this time."""


def mix(similarity: float, shared: NDArray, own: NDArray) -> NDArray:
    """Mixture `ρ shared + √(1−ρ²) own` of unit variance; two scenarios' mixtures correlate by ρ²."""
    return similarity * shared + np.sqrt(1 - similarity**2) * own


@dataclass(frozen=True)
class Items:
    """Assortment, `[I]` each unless said otherwise."""

    kind: NDArray
    brand: NDArray
    words: NDArray  # [I, 2]
    dearness: NDArray  # log price against its category's, standard normal
    price: NDArray
    quality: NDArray  # standard normal; nobody sees it
    popularity: NDArray  # sales of the month before, which tell of the quality
    launch: NDArray  # ms UTC
    style: NDArray  # [I, d], of unit variance; nobody sees it
    kind_style: NDArray  # [kinds, d], mean of the kind's items
    by_kind: NDArray  # the items in the order of their kinds
    kind_start: NDArray  # [kinds], where each kind begins in `by_kind`
    kind_size: NDArray  # [kinds]
    by_quality: NDArray  # the items on sale from the start, best first
    staples: NDArray  # the same in no order
    by_launch: NDArray  # all items, oldest first
    sorted_launch: NDArray  # their times of launch

    @property
    def category(self) -> NDArray:
        return self.kind // names.KINDS_EACH

    @property
    def department(self) -> NDArray:
        return self.category // names.CATEGORIES_EACH

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int) -> "Items":
        kind = rng.permutation(np.arange(count) % len(names.KINDS))
        category = kind // names.KINDS_EACH
        brand = category // names.CATEGORIES_EACH * names.BRANDS_EACH + rng.integers(names.BRANDS_EACH, size=count)
        first = rng.integers(6, size=count)  # six words suit a category
        second = (first + rng.integers(1, 6, size=count)) % 6
        words = (category[:, None] + 4 * np.stack([first, second], axis=1)) % len(names.WORDS)
        by_category, by_kind, by_brand, by_word = (
            _standard(rng.normal(size=(len(n), TASTE_DIM)))
            for n in (names.CATEGORIES, names.KINDS, names.BRANDS, names.WORDS)
        )
        style = _standard(
            np.sqrt(0.4) * by_category[category]
            + np.sqrt(0.2) * by_kind[kind]
            + np.sqrt(0.1) * by_brand[brand]
            + np.sqrt(0.1) * by_word[words].sum(axis=1)
            + np.sqrt(0.1) * rng.normal(size=(count, TASTE_DIM))
        )
        brand_dearness = _standard(rng.normal(size=len(names.BRANDS)))
        dearness = _standard(np.sqrt(0.5) * brand_dearness[brand] + np.sqrt(0.5) * rng.normal(size=count))
        quality = _standard(rng.normal(size=count))
        launch = START_MS - rng.exponential(200 * DAY_MS, size=count).astype(np.int64)
        order = np.argsort(kind, kind="stable")
        size = np.bincount(kind, minlength=len(names.KINDS))
        start = np.cumsum(size) - size
        new = rng.random(count) < NEW_SHARE
        new[order[start]] = False  # each kind can be had from the start
        launch[new] = START_MS + rng.integers(DAYS * DAY_MS, size=np.count_nonzero(new))
        sold = np.exp(3 + quality + 0.3 * rng.normal(size=count))
        old = np.flatnonzero(~new)
        by_launch = np.argsort(launch, kind="stable")
        base = rng.uniform(0.5, 3.0, size=len(names.CATEGORIES))
        return cls(
            kind=kind,
            brand=brand,
            words=words,
            dearness=dearness,
            price=np.exp(base[category] + 0.4 * dearness).round(2),
            quality=quality,
            popularity=np.where(new, 0, np.floor(sold)).astype(np.int64),
            launch=launch,
            style=style,
            kind_style=np.add.reduceat(style[order], start) / size[:, None],
            by_kind=order,
            kind_start=start,
            kind_size=size,
            by_quality=old[np.argsort(-quality[old], kind="stable")],
            staples=rng.permutation(old),
            by_launch=by_launch,
            sorted_launch=launch[by_launch],
        )


@dataclass(frozen=True)
class World:
    """Constants of a simulation. Entry 0 of `by_age` and `by_city` is the common taste."""

    scenarios: tuple[Scenario, ...]
    similarity: float
    needs: float
    items: Items
    by_age: NDArray  # [1 + K, age bands, d], of unit variance
    by_city: NDArray  # [1 + K, cities, d], of unit variance
    age_dearness: NDArray  # [age bands], price level
    age_brand: NDArray  # [age bands, departments], the favourite of most of them
    by_daypart: NDArray  # [dayparts, departments], of unit variance
    importance: NDArray  # [K, components]
    click_bias: NDArray  # [K]
    buy_bias: NDArray  # [K]
    signals: Signals

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        items: int,
        scenarios: Sequence[Scenario],
        similarity: float,
        needs: float,
        signals: Mapping[str, float] | None = None,
    ) -> "World":
        """Random world before its rates are tuned: see `behaviour.tuned`."""
        leaning = np.array([scenario.leaning for scenario in scenarios])
        shared, own = rng.normal(size=len(COMPONENTS)), rng.normal(size=leaning.shape)
        change = mix(similarity, IMPORTANCE_SPREAD * shared, leaning + IMPORTANCE_SPREAD * own)

        def loadings(values: int) -> NDArray:
            return np.stack([_standard(rng.normal(size=(values, TASTE_DIM))) for _ in range(1 + len(scenarios))])

        shop = Items.draw(rng, items)
        return cls(
            scenarios=tuple(scenarios),
            similarity=similarity,
            needs=needs,
            items=shop,
            by_age=loadings(len(names.AGE_BANDS)),
            by_city=loadings(len(names.CITIES)),
            age_dearness=_standard(rng.normal(size=len(names.AGE_BANDS))),
            age_brand=rng.integers(names.BRANDS_EACH, size=(len(names.AGE_BANDS), len(names.DEPARTMENTS))),
            by_daypart=_standard(rng.normal(size=(DAYPARTS * len(names.DEPARTMENTS), 1))).reshape(DAYPARTS, -1),
            importance=np.array(IMPORTANCE) * (1 + change),
            click_bias=np.full(len(scenarios), -4.5),
            buy_bias=np.full(len(scenarios), -4.0),
            signals=Signals.draw(rng, shop.kind, signals or {}),
        )

    def of_scenarios(self, figure: str) -> NDArray:
        """`[K, …]` values of one parameter of the scenarios."""
        return np.array([getattr(scenario, figure) for scenario in self.scenarios])


def _standard(x: NDArray) -> NDArray:
    """Columns standardised to mean 0 and variance 1, so rates depend little on the seed."""
    return (x - x.mean(axis=0)) / x.std(axis=0)
