"""The simulated shop itself: people with tastes and needs, what they are shown, and what they do with it.

`docs/simulator.md` has the equations. Everything is an index or a number here; `simulate` writes it as logs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

SCENARIOS = ("search", "recommendation")
# fmt: off
CATEGORIES = (
    "apples", "bread", "butter", "cereal", "cheese", "chicken", "chocolate", "coffee", "cookies", "eggs",
    "fish", "honey", "juice", "milk", "noodles", "nuts", "rice", "tea", "wine", "yogurt",
)
WORDS = (
    "bulk", "classic", "creamy", "crunchy", "dark", "family", "fine", "fresh", "frozen", "fruity", "golden", "imported",
    "large", "light", "local", "mild", "mini", "organic", "plain", "roasted", "smoked", "spicy", "sweet", "whole",
)
# fmt: on
BRANDS = tuple(
    first + last
    for first in ("al", "bo", "ca", "den", "el")
    for last in ("bridge", "ford", "field", "mont", "row", "ton", "ville", "worth")
)
AGE_BANDS = ("18-24", "25-34", "35-44", "45-54", "55+")
CITIES = ("Avon", "Bury", "Crewe", "Derby", "Exeter", "Filey", "Goole", "Hythe")
DEVICES = ("phone", "desktop")

SLATE = 10
DAYS = 30
START_MS = 1_704_067_200_000  # 2024-01-01 UTC
HOUR_MS = 3_600_000
REST_MS = 150_000  # the least time between two requests of a user; a click comes sooner than that
NEED_MS = 48 * HOUR_MS  # mean life of a need that no purchase ends
TASTE_DIM = 4
BATCH = 2048  # requests played at once, for the sake of memory

# The coefficients of docs/simulator.md; an array of two is (search, recommendation).
CLICK_BIAS = np.array([-4.7, -4.2])
BUY_BIAS = np.array([-4.3, -4.4])
POSITION_DECAY = np.array([0.5, 0.25])
WEIGHTS = np.array([0.6, -0.3, 0.2, 0.15])  # of quality, price, evening, phone
WEIGHTS_SPREAD = 0.15
TASTE = 0.8
SAME_CATEGORY, SAME_BRAND, SAME_WORD, IN_MIND = 1.2, 0.8, 0.8, 1.4


def world_size(impressions: int) -> tuple[int, int]:
    """How many users and items suit so many impressions: 1,500 and 800 for 200,000."""
    return max(10, round(impressions / 133)), max(100, round(800 * (impressions / 200_000) ** 0.5))


@dataclass(frozen=True)
class World:
    """What holds all month long. `U` users, `I` items, `K` scenarios, `d` dimensions of taste."""

    age: NDArray  # [U]
    city: NDArray  # [U]
    device: NDArray  # [U], what the user mostly has at hand
    activity: NDArray  # [U], share of the requests
    shared_taste: NDArray  # [U, d]
    taste: NDArray  # [K, U, d]
    weights: NDArray  # [K, 4], of quality, price, evening, phone
    category: NDArray  # [I]
    brand: NDArray  # [I]
    words: NDArray  # [I, 2]
    price: NDArray  # [I]
    quality: NDArray  # [I], standard normal
    dearness: NDArray  # [I], log price against its category's, standard normal
    style: NDArray  # [I, d]

    @classmethod
    def draw(cls, rng: np.random.Generator, users: int, items: int, similarity: float) -> "World":
        """Draws a world whose scenarios are alike by `similarity`: 1 makes tastes and weights equal."""

        def mix(shared: NDArray, own: NDArray) -> NDArray:
            return similarity * shared + np.sqrt(1 - similarity**2) * own

        age, city = rng.integers(len(AGE_BANDS), size=users), rng.integers(len(CITIES), size=users)

        def tastes() -> NDArray:  # 30 % of the variance is demography
            by_age, by_city = rng.normal(size=(len(AGE_BANDS), TASTE_DIM)), rng.normal(size=(len(CITIES), TASTE_DIM))
            own = rng.normal(size=(users, TASTE_DIM))
            return _standard(np.sqrt(0.15) * (by_age[age] + by_city[city]) + np.sqrt(0.7) * own)

        shared_taste, shared_weights = tastes(), rng.normal(size=WEIGHTS.size)
        taste = np.stack([mix(shared_taste, tastes()) for _ in SCENARIOS])
        weights = np.stack([mix(shared_weights, rng.normal(size=WEIGHTS.size)) for _ in SCENARIOS])

        category = rng.permutation(np.arange(items) % len(CATEGORIES))
        brand = (2 * category + rng.integers(6, size=items)) % len(BRANDS)  # six brands make a category
        first = rng.integers(6, size=items)
        second = (first + rng.integers(1, 6, size=items)) % 6
        words = (category[:, None] + 4 * np.stack([first, second], axis=1)) % len(WORDS)
        by_category, by_brand, by_word = (rng.normal(size=(len(n), TASTE_DIM)) for n in (CATEGORIES, BRANDS, WORDS))
        style = (
            np.sqrt(0.4) * by_category[category]
            + np.sqrt(0.25) * by_brand[brand]
            + np.sqrt(0.1) * by_word[words].sum(axis=1)
            + np.sqrt(0.15) * rng.normal(size=(items, TASTE_DIM))
        )
        dearness = rng.normal(size=items)
        return cls(
            age=age,
            city=city,
            device=rng.integers(len(DEVICES), size=users),
            activity=rng.dirichlet(np.full(users, 1.2)),
            shared_taste=shared_taste,
            taste=taste,
            weights=WEIGHTS + WEIGHTS_SPREAD * weights,
            category=category,
            brand=brand,
            words=words,
            price=np.exp(rng.uniform(0.5, 3.0, size=len(CATEGORIES))[category] + 0.4 * dearness).round(2),
            quality=rng.normal(size=items),
            dearness=dearness,
            style=_standard(style),
        )


def _standard(x: NDArray) -> NDArray:
    """Each column with mean 0 and variance 1, so that rates depend little on the seed."""
    return (x - x.mean(axis=0)) / x.std(axis=0)


@dataclass(frozen=True)
class Visits:
    """Who opens the shop when: `R` requests, sorted by user and then by time."""

    user: NDArray  # [R]
    time: NDArray  # [R], ms
    rank: NDArray  # [R], how many requests of the user come before


def plan_visits(rng: np.random.Generator, world: World, requests: int) -> Visits:
    """Shares the requests among the users, in sessions spread over the month, most of them in the evening."""
    user = np.sort(rng.choice(world.activity.size, size=requests, p=world.activity))
    opens = (np.diff(user, prepend=-1) > 0) | (rng.random(requests) < 0.35)  # begins a session
    session = np.cumsum(opens) - 1
    hours = 1 + 0.9 * np.cos((np.arange(24) - 20) * np.pi / 12)
    hour = rng.choice(24, size=requests, p=hours / hours.sum()) + rng.random(requests)
    begin = ((24 * rng.integers(DAYS, size=requests) + hour) * HOUR_MS)[opens]
    since = np.cumsum(rng.uniform(REST_MS, 4 * REST_MS, size=requests))
    time = (START_MS + begin[session] + since - since[opens][session]).astype(np.int64)
    order = np.lexsort((time, user))
    user, time = user[order], time[order]
    return Visits(user, time, np.arange(requests) - np.searchsorted(user, user))


@dataclass(frozen=True)
class Log:
    """What happened, `n` impressions in the order of time; a request's impressions stand together."""

    request: NDArray  # [n]
    scenario: NDArray  # [n]
    user: NDArray  # [n]
    item: NDArray  # [n]
    time: NDArray  # [n], ms
    position: NDArray  # [n], from 1
    device: NDArray  # [n]
    asked: NDArray  # [n, 3], brand, word and category in the query, -1 for none
    click_delay: NDArray  # [n], ms
    p_click: NDArray  # [n]
    p_buy: NDArray  # [n], of a click and a purchase
    click: NDArray  # [n]
    buy: NDArray  # [n], never without the click

    def first(self, count: int) -> "Log":
        return Log(**{name: column[:count] for name, column in vars(self).items()})


def play(rng: np.random.Generator, world: World, visits: Visits, progress: bool) -> Log:
    """Plays every user's requests in turn, users side by side: what one does changes what they do next."""
    users = world.activity.size
    mind = np.full(users, -1)  # the item that stands for the user's need, -1 for a need that is over
    seen = np.zeros(users, bool)  # whether it was clicked, so that the shop knows of it too
    clock = np.zeros(users, np.int64)  # the user's latest request
    parts = []
    batches = list(_batches(visits.rank))
    console = Console(stderr=True)
    for rows in track(batches, "Simulating", console=console, transient=True, disable=not progress):
        user = visits.user[rows]
        now = np.maximum(visits.time[rows], clock[user] + REST_MS)
        over = (mind[user] < 0) | (rng.random(rows.size) > np.exp((clock[user] - now) / NEED_MS))
        wish = world.shared_taste[user] @ world.style.T / np.sqrt(TASTE_DIM) + 0.5 * world.quality
        need = np.where(over, (wish + rng.gumbel(size=wish.shape)).argmax(axis=1), mind[user])
        known = seen[user] & ~over
        part = _serve(rng, world, user, now, need, known)
        parts.append(part)

        clicked = part["click"].any(axis=1)
        last = np.where(part["click"], part["click_delay"], -1).argmax(axis=1)
        chosen = part["item"][np.arange(rows.size), last]
        mind[user] = np.where(part["buy"].any(axis=1), -1, np.where(clicked, chosen, need))
        seen[user] = clicked | known
        clock[user] = now
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["time"][:, 0], kind="stable")
    flat = {name: column[order].reshape(-1, *column.shape[2:]) for name, column in columns.items()}
    return Log(request=np.repeat(np.arange(order.size), SLATE), **flat)


def _batches(rank: NDArray) -> Iterator[NDArray]:
    """Rows of equal rank, so that no user is in a batch twice, earlier ranks first."""
    order = np.argsort(rank, kind="stable")
    for same in np.split(order, np.flatnonzero(np.diff(rank[order])) + 1):
        yield from np.split(same, range(BATCH, same.size, BATCH))


def _serve(
    rng: np.random.Generator, world: World, user: NDArray, now: NDArray, need: NDArray, known: NDArray
) -> dict[str, NDArray]:
    """One request of each of `r` users, `[r]` in all arguments: a slate, and what is done with it, `[r, SLATE]`."""
    r = user.size
    scenario = np.where(rng.random(r) < np.where(known, 0.5, 0.35), 0, 1)
    names_brand, names_word = rng.random((2, r)) < np.array([[0.4], [0.5]])
    word = world.words[need, 0]
    asked = np.stack(
        [np.where(names_brand, world.brand[need], -1), np.where(names_word, word, -1), world.category[need]], 1
    )
    asked[scenario == 1] = -1

    taste = np.einsum("rd,id->ri", world.taste[scenario, user], world.style) / np.sqrt(TASTE_DIM)  # [r, I]
    same_category = world.category == world.category[need][:, None]
    same_brand = same_category & (world.brand == world.brand[need][:, None])
    same_word = same_category & (world.words[:, :, None] == word).any(axis=1).T
    search_score = (
        5 * same_category + 1.5 * (same_brand & names_brand[:, None]) + 1.5 * (same_word & names_word[:, None])
    )
    feed_score = 0.8 * taste + 1.5 * (same_category & known[:, None])
    score = (
        np.where(scenario[:, None] == 0, search_score, feed_score) + 0.7 * world.quality + rng.gumbel(size=taste.shape)
    )
    item = np.argsort(-score, axis=1, kind="stable")[:, :SLATE]

    taste, same_category, same_brand, same_word = (
        np.take_along_axis(of_items, item, axis=1) for of_items in (taste, same_category, same_brand, same_word)
    )
    device = np.where(rng.random(r) < 0.85, world.device[user], 1 - world.device[user])
    evening = (now // HOUR_MS % 24) >= 18
    context = np.stack([evening, device == 0], axis=1).repeat(SLATE, axis=0).reshape(r, SLATE, 2)
    x = np.concatenate([world.quality[item][..., None], world.dearness[item][..., None], context], axis=2)
    appeal = TASTE * taste + np.einsum("rsf,rf->rs", x, world.weights[scenario])
    fit = SAME_CATEGORY * same_category + SAME_BRAND * same_brand + SAME_WORD * same_word
    fit = fit + IN_MIND * ((item == need[:, None]) & known[:, None])
    examined = np.arange(1, SLATE + 1) ** -POSITION_DECAY[scenario][:, None]
    p_click = examined * _sigmoid(CLICK_BIAS[scenario][:, None] + appeal + fit)
    p_convert = _sigmoid(BUY_BIAS[scenario][:, None] + 0.6 * appeal + 0.6 * fit)
    click = rng.random(item.shape) < p_click
    shape = item.shape
    return {
        "scenario": np.broadcast_to(scenario[:, None], shape),
        "user": np.broadcast_to(user[:, None], shape),
        "item": item,
        "time": np.broadcast_to(now[:, None], shape),
        "position": np.broadcast_to(np.arange(1, SLATE + 1), shape),
        "device": np.broadcast_to(device[:, None], shape),
        "asked": np.broadcast_to(asked[:, None], (*shape, 3)),
        "click_delay": rng.integers(3_000, REST_MS, size=shape),
        "p_click": p_click,
        "p_buy": p_click * p_convert,
        "click": click,
        "buy": click & (rng.random(shape) < p_convert),
    }


def _sigmoid(x: NDArray) -> NDArray:
    return 1 / (1 + np.exp(-x))


def add_noise(rng: np.random.Generator, log: Log, share: float) -> Log:
    """Draws this share of the outcomes anew from their scenario's mean rates; the probabilities follow."""
    size = np.bincount(log.scenario, minlength=len(SCENARIOS)).clip(1)
    rate_click, rate_buy = (np.bincount(log.scenario, p, len(SCENARIOS)) / size for p in (log.p_click, log.p_buy))
    rate_click, rate_buy = rate_click[log.scenario], rate_buy[log.scenario]
    anew, chance = rng.random(log.item.size) < share, rng.random(log.item.size)
    return replace(
        log,
        p_click=(1 - share) * log.p_click + share * rate_click,
        p_buy=(1 - share) * log.p_buy + share * rate_buy,
        click=np.where(anew, chance < rate_click, log.click),
        buy=np.where(anew, chance < rate_buy, log.buy),
    )
