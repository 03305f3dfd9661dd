"""User behaviour model of the simulated shop: needs, slates, clicks and purchases.

`U` users of one chunk, `R` their requests, `r` requests played at once, `S` = `SLATE` places, `n = R S` impressions.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator import catalogue as names
from pipelines.simulator.month import HOUR_MS
from pipelines.simulator.people import REST_MS, Users, Visits, plan_visits
from pipelines.simulator.ranker import SLATE, Asked, Ranker
from pipelines.simulator.signals import at
from pipelines.simulator.world import FRESH_MS, TASTE_DIM, World

# The coefficients of docs/simulator.md.
SAME_KIND, SAME_CATEGORY, SAME_BRAND, SAME_WORD, IN_MIND = 1.4, 0.6, 0.5, 0.5, 1.2
BUY_APPEAL, BUY_FIT = 0.6, 0.5
SHORT_NEED_MS, LONG_NEED_MS = 6 * HOUR_MS, 72 * HOUR_MS
WISHES = 16
"""Items that a new wish is chosen from."""
SYNONYMS = 0.15
"""Share of a query's terms that are named by their synonym, if they have one."""
STAY = 0.4
"""Chance that the next request of a session is made in the same scenario, whatever the need."""
SEARCH_PULL = 1.5
"""How much more often people with a need turn to a scenario in which they can ask."""
RETURN = 0.35
"""Share of the items that caught the eye without a click which the user looks up later, outside of any list."""
CART_OF_BOUGHT, CART_OF_CLICKED = 0.7, 0.1
LATE_MS = (1.5 * HOUR_MS, 20 * HOUR_MS)
"""When a delayed purchase or a return comes: beyond the hour of attribution, within the day of global labels."""
PILOT_REQUESTS, PILOT_ROUNDS = 24, 3  # of each user


@dataclass(frozen=True)
class Play:
    """Simulated outcomes, `[n]` each unless said otherwise; impressions of a request are adjacent."""

    scenario: NDArray
    user: NDArray
    item: NDArray
    time: NDArray  # ms
    position: NDArray  # from 1
    device: NDArray
    query: NDArray  # [n, 3], number of the term, -1 for none
    spelling: NDArray  # [n, 3]
    zero_results: NDArray  # whether the search found nothing
    query_vector: NDArray  # [n, w], NaN without a query; w = 0 where vectors are off
    retrieval_score: NDArray
    propensity: NDArray
    relevance: NDArray  # chance of a click once examined
    examined: NDArray  # chance of being examined
    p_click: NDArray
    p_convert: NDArray  # of a purchase, given the click
    click: NDArray
    buy: NDArray  # decides to purchase; never without the click
    prompt: NDArray  # and does so at once, should there be a purchase
    returns: NDArray  # looks it up later, though not clicked here
    return_buys: NDArray  # and purchases it then
    click_delay: NDArray  # ms after the impression
    cart_delay: NDArray  # ms after the click
    buy_delay: NDArray  # ms after the cart
    late_delay: NDArray  # ms after the impression, of what comes late
    whim: NDArray  # uniform, decides upon the cart

    @classmethod
    def together(cls, parts: Iterable[Self]) -> Self:
        """Concatenation of plays."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*map(np.concatenate, columns))

    def by_time(self) -> "Play":
        """Impressions with their requests sorted by time."""
        order = np.argsort(self.time[::SLATE], kind="stable")
        rows = (order[:, None] * SLATE + np.arange(SLATE)).ravel()
        return Play(**{name: column[rows] for name, column in vars(self).items()})

    def first(self, count: int) -> "Play":
        return Play(**{name: column[:count] for name, column in vars(self).items()})


class Slates(Protocol):
    """Interface of a ranker that fills the slates of a shop."""

    def slates(self, rng: np.random.Generator, asked: Asked) -> tuple[NDArray, NDArray]:
        """Items `[r, SLATE]`, all different, and the probability of each at its position `[r, SLATE]`."""


def tuned(seed: np.random.SeedSequence, world: World, users: int) -> World:
    """World with biases tuned to each scenario's target rates, on a pilot population of its own.

    So rates depend little on the seed, and not on the similarity.
    """
    scenarios = len(world.scenarios)
    ctr, cvr, prompt = (world.of_scenarios(figure) for figure in ("ctr", "cvr", "prompt"))
    for _ in range(PILOT_ROUNDS):
        rng = np.random.default_rng(seed)  # the same users and luck each time, as far as can be
        people = replace(Users.draw(rng, world, users), activity=np.full(users, 1 / users))
        shop = Shop(rng, world, people)
        pilot = shop.play(rng, plan_visits(rng, people, users * PILOT_REQUESTS))
        click_bias, buy_bias = world.click_bias.copy(), world.buy_bias.copy()
        for v in range(scenarios):
            of = pilot.scenario == v
            if of.any():
                relevance, examined = pilot.relevance[of], pilot.examined[of]
                shift = _shift(relevance, examined, ctr[v] * of.sum())
                p_click = examined * _shifted(relevance, shift)
                click_bias[v] += shift
                buy_bias[v] += _shift(pilot.p_convert[of], p_click * prompt[v], cvr[v] * p_click.sum())
        world = replace(world, click_bias=click_bias, buy_bias=buy_bias)
    return world


def _shift(p: NDArray, weight: NDArray, total: float) -> float:
    """Logit shift of `p` that gives its weighted sum the value `total`, by bisection."""
    low, high = -10.0, 10.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if (weight * _shifted(p, middle)).sum() < total else (low, middle)
    return (low + high) / 2


def _shifted(p: NDArray, shift: float) -> NDArray:
    return p / (p + (1 - p) * np.exp(-shift))


def _rounds(visits: Visits) -> Iterator[NDArray]:
    """Groups of rows with equal rank, in ascending order, so no user occurs twice in a group."""
    order = np.argsort(visits.rank, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(visits.rank[order])) + 1)


class Shop:
    """State of a chunk's users, `[U]` each, -1 for none: their needs and memory, changed by each action.

    Args:
      rng: draws what the shop's own ranker knows of them.
    """

    def __init__(self, rng: np.random.Generator, world: World, users: Users):
        count = users.age.size
        self._world, self.users = world, users
        self.ranker: Slates = Ranker(rng, world, users)
        """Another one may take its place between two calls."""
        liking = np.exp(np.einsum("ud,cd->uc", users.shared_taste, world.items.kind_style) / np.sqrt(TASTE_DIM))
        self._wish_until = np.cumsum(liking / liking.sum(axis=1, keepdims=True), axis=1)  # [U, kinds]
        self._need = np.full(count, -1)  # the item that stands for it
        self._until = np.zeros(count, np.int64)  # when the need is over
        self._met = np.zeros(count, bool)  # whether the user has seen that item, so has it in mind
        self._last = np.full(count, -1)  # the item clicked last
        self._clock = np.zeros(count, np.int64)  # the latest request
        self._place = np.full(count, -1)  # its scenario
        share, asks = world.of_scenarios("share"), world.of_scenarios("asks")
        self._share = np.stack([share, share * np.where(asks, SEARCH_PULL, 1)])

    def play(self, rng: np.random.Generator, visits: Visits) -> Play:
        """Simulates visits, users in parallel."""
        return Play.together(self.rounds(rng, visits))

    def rounds(self, rng: np.random.Generator, visits: Visits) -> Iterator[Play]:
        """Simulates visits as `play`, in parts with at most one request per user, in time order."""
        for rows in _rounds(visits):
            yield self._serve(rng, visits.rows(rows))

    def _serve(self, rng: np.random.Generator, visits: Visits) -> Play:
        """Simulates one request of each of `r` users: slate, clicks, purchases."""
        world, user = self._world, visits.user
        r = user.size
        now = np.maximum(visits.time, self._clock[user] + REST_MS)
        wish, lasting, met = self._wishes(rng, user, now)
        scenario = self._scenarios(rng, user, lasting, visits.opens)
        asks = world.of_scenarios("asks")[scenario]
        query, spelling = self._queries(rng, wish, scenario, asks)
        zero_results = world.signals.zero_results(rng, asks)
        query_vector = world.signals.query_vectors(rng, wish, asks)
        tower_error = rng.normal(size=(r, world.signals.tower.shape[1]))

        def parts(item: NDArray) -> tuple[NDArray, NDArray]:
            appeal = self._appeal(scenario, user, now, item)
            appeal += world.signals.appeal(item, now, zero_results, self.users.vector[user])
            fit = self._fit(item, wish, met) * (lasting | asks)[:, None]
            return appeal, fit + world.signals.fit(item, query_vector)

        def chances(item: NDArray) -> tuple[NDArray, NDArray]:
            appeal, fit = parts(item)
            relevance = _sigmoid(world.click_bias[scenario][:, None] + appeal + fit)
            convert = _sigmoid(world.buy_bias[scenario][:, None] + BUY_APPEAL * appeal + BUY_FIT * fit)
            return relevance, convert * ~at(world.signals.sold_out, item, now)

        def retrieval_score(item: NDArray) -> NDArray:
            if not tower_error.size:
                return np.zeros(item.shape)
            return world.signals.retrieval_score(item, np.add(*parts(item)), tower_error)

        asked = Asked(
            scenario=scenario,
            user=user,
            now=now,
            zero_results=zero_results,
            kind=np.where(asks & ~zero_results, world.items.kind[wish], -1),
            brand=np.where(zero_results, -1, query[:, 0] - names.FIRST_BRAND),
            word=np.where(zero_results, -1, query[:, 1] - names.FIRST_WORD),
            last=self._last[user],
            query=query,
            query_vector=query_vector,
            spelling=spelling,
            device=visits.device,
            chances=chances,
            retrieval_score=retrieval_score,
        )
        item, propensity = self.ranker.slates(rng, asked)
        relevance, p_convert = chances(item)
        position = np.arange(1, SLATE + 1)
        examined = position ** -world.of_scenarios("decay")[scenario][:, None]
        p_click = examined * relevance
        u_click, u_buy, u_prompt, u_caught, u_return, u_return_buy, whim = rng.random((7, r, SLATE))
        click = u_click < p_click
        buy = click & (u_buy < p_convert)
        caught = ~click & (u_caught < p_click)
        returns = caught & (u_return < RETURN)
        click_delay = rng.integers(3_000, REST_MS, size=item.shape)
        self._remember(
            rng,
            user,
            now,
            scenario,
            wish,
            lasting | zero_results,
            zero_results,
            met,
            item,
            click,
            buy,
            caught,
            click_delay,
        )
        device = self.users.devices(rng, user) if visits.device is None else visits.device
        of_request = {
            "scenario": scenario, "user": user, "time": now, "device": device, "query": query, "spelling": spelling,
            "zero_results": zero_results, "query_vector": query_vector,
        }  # fmt: skip
        of_impression = {
            "item": item,
            "position": np.broadcast_to(position, item.shape),
            "retrieval_score": retrieval_score(item),
            "propensity": propensity,
            "relevance": relevance,
            "examined": examined,
            "p_click": p_click,
            "p_convert": p_convert,
            "click": click,
            "buy": buy,
            "prompt": u_prompt < world.of_scenarios("prompt")[scenario][:, None],
            "returns": returns,
            "return_buys": returns & (u_return_buy < p_convert),
            "click_delay": click_delay,
            "cart_delay": rng.integers(5_000, 60_000, size=item.shape),
            "buy_delay": rng.integers(60_000, 20 * 60_000, size=item.shape),
            "late_delay": rng.integers(*map(int, LATE_MS), size=item.shape),
            "whim": whim,
        }
        return Play(
            **{name: np.repeat(column, SLATE, axis=0) for name, column in of_request.items()},
            **{name: column.reshape(-1) for name, column in of_impression.items()},
        )

    def _wishes(self, rng: np.random.Generator, user: NDArray, now: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        """Item that each user needs, whether the need persists, and whether that exact item is meant."""
        world, users, items = self._world, self.users, self._world.items
        needs = (self._need[user] >= 0) & (now < self._until[user])
        kind = (self._wish_until[user] < rng.random(user.size)[:, None]).sum(axis=1)
        kind = np.minimum(kind, len(names.KINDS) - 1)  # the last sum may be a hair below 1
        pick = (rng.random((user.size, WISHES)) * items.kind_size[kind][:, None]).astype(np.int64)
        option = items.by_kind[items.kind_start[kind][:, None] + pick]  # [r, WISHES]
        taste = np.einsum("rd,rwd->rw", users.shared_taste[user], items.style[option]) / np.sqrt(TASTE_DIM)
        loyal = self._is_favourite(user, option)
        dear = np.abs(items.dearness[option] - users.dearness[user][:, None])
        score = taste + 1.5 * loyal - 0.7 * dear + 0.5 * items.quality[option] + rng.gumbel(size=option.shape)
        score[items.launch[option] > now[:, None]] = -np.inf
        new = option[np.arange(user.size), score.argmax(axis=1)]
        starts = ~needs & (rng.random(user.size) < world.needs)
        wish = np.where(needs, self._need[user], new)
        self._until[user] = np.where(starts, now + _lives(rng, user.size), self._until[user])
        return wish, needs | starts, needs & self._met[user]

    def _scenarios(self, rng: np.random.Generator, user: NDArray, lasting: NDArray, opens: NDArray) -> NDArray:
        """Scenario of each request: often that of the session's previous request."""
        until = np.cumsum(self._share[lasting.astype(np.int64)], axis=1)
        drawn = (until <= (rng.random(user.size) * until[:, -1])[:, None]).sum(axis=1)
        stays = ~opens & (rng.random(user.size) < STAY) & (self._place[user] >= 0)
        return np.where(stays, self._place[user], drawn)

    def _queries(
        self, rng: np.random.Generator, wish: NDArray, scenario: NDArray, asks: NDArray
    ) -> tuple[NDArray, NDArray]:
        """Queries `[brand] [word] kind-or-category`, as terms and spellings, `[r, 3]` each."""
        items = self._world.items
        names_brand, names_word, names_kind = rng.random((3, wish.size)) < np.array([[0.5], [0.5], [0.75]])
        terms = np.stack(
            [
                np.where(names_brand, names.FIRST_BRAND + items.brand[wish], -1),
                np.where(names_word, names.FIRST_WORD + items.words[wish, 0], -1),
                np.where(
                    names_kind,
                    names.FIRST_KIND + items.kind[wish],
                    names.FIRST_CATEGORY + items.category[wish],
                ),
            ],
            axis=1,
        )
        terms[~asks] = -1
        u = rng.random(terms.shape)
        typos = self._world.of_scenarios("typos")[scenario][:, None]
        typo = 2 + (u / typos * names.TYPOS).astype(np.int64)  # used where u < typos, so 2, 3 or 4
        return terms, np.where(u < typos, typo, u > 1 - SYNONYMS)

    def _appeal(self, scenario: NDArray, user: NDArray, now: NDArray, item: NDArray) -> NDArray:
        """Utility of an item to a user apart from the need: weighted components of variance about 1."""
        world, users, items = self._world, self.users, self._world.items
        taste = users.taste[scenario, user]
        loyal = self._is_favourite(user, item)
        chance = 1 / names.BRANDS_EACH
        apart = np.abs(items.dearness[item] - users.dearness[user][:, None])  # of two normals: mean 2/√π
        daypart = now // HOUR_MS % 24 * 4 // 24
        components = [
            np.einsum("rd,rsd->rs", taste, items.style[item]) / np.sqrt(TASTE_DIM),
            (loyal - chance) / np.sqrt(chance * (1 - chance)),
            (2 / np.sqrt(np.pi) - apart) / np.sqrt(2 - 4 / np.pi),
            items.quality[item],
            2 * np.exp(np.minimum(items.launch[item] - now[:, None], 0) / FRESH_MS),
            world.by_daypart[daypart[:, None], items.department[item]],
        ]
        weight = world.importance[scenario].T[..., None]
        return sum(w * component for w, component in zip(weight, components, strict=True))

    def _fit(self, item: NDArray, wish: NDArray, met: NDArray) -> NDArray:
        """Match between an item and the need."""
        items, wish = self._world.items, wish[:, None]
        kind = items.kind[item] == items.kind[wish]
        category = items.category[item] == items.category[wish]
        brand = category & (items.brand[item] == items.brand[wish])
        word = category & (items.words[item] == items.words[wish][..., :1]).any(axis=2)
        return (
            SAME_KIND * kind
            + SAME_CATEGORY * (category & ~kind)
            + SAME_BRAND * brand
            + SAME_WORD * word
            + IN_MIND * ((item == wish) & met[:, None])
        )

    def _is_favourite(self, user: NDArray, item: NDArray) -> NDArray:
        items = self._world.items
        return self.users.favourite[user[:, None], items.department[item]] == items.brand[item] % names.BRANDS_EACH

    def _remember(
        self,
        rng: np.random.Generator,
        user: NDArray,
        now: NDArray,
        scenario: NDArray,
        wish: NDArray,
        lasting: NDArray,
        zero_results: NDArray,
        met: NDArray,
        item: NDArray,
        click: NDArray,
        buy: NDArray,
        caught: NDArray,
        click_delay: NDArray,
    ) -> None:
        """Updates needs: a click or a noticed item starts one if needs persist; a purchase ends it."""
        rows = np.arange(user.size)
        clicked, seen, bought = click.any(axis=1), caught.any(axis=1), buy.any(axis=1)
        last = item[rows, np.where(click, click_delay, -1).argmax(axis=1)]
        eye = item[rows, caught.argmax(axis=1)]
        takes = (clicked | seen) & (lasting | (rng.random(user.size) < self._world.needs))
        need = np.where(takes, np.where(clicked, last, eye), np.where(lasting, wish, -1))
        longer = np.maximum(self._until[user], now + _lives(rng, user.size))
        self._until[user] = np.where(takes | zero_results, longer, self._until[user])
        self._need[user] = np.where(bought, -1, need)
        self._met[user] = takes | (met & (need == wish))
        self._last[user] = np.where(clicked, last, self._last[user])
        self._clock[user] = now
        self._place[user] = scenario


def _lives(rng: np.random.Generator, count: int) -> NDArray:
    """Lifetimes of needs in ms: half last hours, half last days."""
    mean = np.where(rng.random(count) < 0.5, SHORT_NEED_MS, LONG_NEED_MS)
    return (mean * rng.exponential(size=count)).astype(np.int64)


def _sigmoid(x: NDArray) -> NDArray:
    return 1 / (1 + np.exp(-x))
