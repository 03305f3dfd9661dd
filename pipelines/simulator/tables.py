"""Log tables of the simulated shop."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator import catalogue as names
from pipelines.simulator.behaviour import CART_OF_BOUGHT, CART_OF_CLICKED, Play
from pipelines.simulator.month import DAY_MS, DAYS, HOUR_MS, START_MS
from pipelines.simulator.noise import Record
from pipelines.simulator.people import Users
from pipelines.simulator.ranker import SLATE
from pipelines.simulator.signals import SLOT_MS, WIDTH, at
from pipelines.simulator.world import World

_SLICE = 20_000
"""Rows that are Python objects at once."""

Row = dict[str, Any]

SCHEMA = """\
scenarios: [{scenarios}]
tasks:
  - {{name: ctr, action: click}}
  - {{name: ctcvr, action: purchase}}
labels: {{attribution: 1h, global_window: 1d}}
history: {{actions: [click, cart, purchase], max_length: 20, queries: {{max_length: 10, tokens: 3}}}}
split: {{valid: 0.1, test: 0.1}}
features:
  user_id:    {{group: user, type: categorical, min_count: 2}}
  age_band:   {{group: user, type: categorical}}
  city:       {{group: user, type: categorical}}
  item_id:    {{group: item, type: categorical, in_history: true}}
  category:   {{group: item, type: categorical, in_history: true}}
  kind:       {{group: item, type: categorical, in_history: true}}
  brand:      {{group: item, type: categorical, in_history: true}}
  price_band: {{group: item, type: categorical, in_history: true}}
  words:      {{group: item, type: categorical_list, max_length: 2}}
  title:      {{group: item, type: text, tokenizer: whitespace, max_length: 4, shares: query}}
  price:      {{group: item, type: numeric, transform: log}}
  popularity: {{group: item, type: numeric, transform: log}}
  launch_day: {{group: item, type: numeric}}
  query:      {{group: query, type: text, tokenizer: whitespace, max_length: 3}}
  device:     {{group: context, type: categorical}}
  hour:       {{group: context, type: categorical}}
"""

DESCRIPTIONS = """\
descriptions:
  price: list price in euros
  popularity: sales in the month before the shop's first day
  launch_day: days from the shop's first day to the item's launch, below 0 before it
  device: the kind of device
  hour: hour of the day, UTC, as two digits
"""

SIGNAL_FEATURES: Mapping[str, tuple[str, ...]] = {
    "price": (
        "price_now: {group: candidate, type: numeric, transform: log}",
        "discount: {group: candidate, type: numeric}",
    ),
    "stock": ("in_stock: {group: candidate, type: categorical}",),
    "retrieval": ("retrieval_score: {group: candidate, type: numeric}",),
    "zero_results": ("zero_results: {group: context, type: categorical}",),
    "vectors": (
        f"item_vector: {{group: item, type: vector, width: {WIDTH}}}",
        f"user_vector: {{group: user, type: vector, width: {WIDTH}}}",
        f"query_vector: {{group: query, type: vector, width: {WIDTH}}}",
    ),
}
"""Features of each signal. A trend has none: counters over windows see it."""
SIGNALS = """\
match:
  query_title:    {features: [query, title]}
  query_kind:     {features: [query, kind], by: [coverage, ngram]}
  query_brand:    {features: [query, brand], by: [coverage, ngram]}
  query_category: {features: [query, category], by: [coverage]}
  past_title:     {features: [history_queries, title]}
"""
VECTOR_MATCHES = """\
  user_item_vector:  {features: [user_vector, item_vector]}
  query_item_vector: {features: [query_vector, item_vector]}
"""
COUNTERS = """\
history_match: [item_id, category, kind, brand, price_band]
counters:
  item:          {key: [item_id], actions: [click, purchase], windows: [7d, all], by_scenario: true}
  user:          {key: [user_id], actions: [click, purchase], by_scenario: true, delay: 1m}
  user_item:     {key: [user_id, item_id], actions: [click, purchase], windows: [1d, all], delay: 1m, prior: 5}
  user_kind:     {key: [user_id, kind], actions: [click, purchase], windows: [6h, all], delay: 1m, prior: 10}
  user_brand:    {key: [user_id, brand], actions: [click, purchase], delay: 1m}
  user_price:    {key: [user_id, price_band], actions: [click, purchase], delay: 1m}
  query_item:    {key: [query, item_id], actions: [click, purchase], prior: 10}
  query_kind:    {key: [query, kind], actions: [click, purchase], prior: 10}
  age_brand:     {key: [age_band, brand], actions: [click, purchase], by_scenario: true, prior: 50}
  age_price:     {key: [age_band, price_band], actions: [click, purchase], by_scenario: true, prior: 50}
  age_kind:      {key: [age_band, kind], actions: [click, purchase], by_scenario: true, prior: 50}
  age_item:      {key: [age_band, item_id], actions: [click, purchase], by_scenario: true, prior: 50}
  city_kind:     {key: [city, kind], actions: [click, purchase], by_scenario: true, prior: 50}
  city_item:     {key: [city, item_id], actions: [click, purchase], by_scenario: true, prior: 50}
  hour_category: {key: [hour, category], actions: [click, purchase], by_scenario: true, prior: 50}
"""


def schema_of(world: World) -> str:
    strength = world.signals.strength
    features = [feature for signal, features in SIGNAL_FEATURES.items() if signal in strength for feature in features]
    return (
        SCHEMA.format(scenarios=", ".join(scenario.name for scenario in world.scenarios))
        + "".join(f"  {feature}\n" for feature in features)
        + DESCRIPTIONS
        + SIGNALS
        + (VECTOR_MATCHES if "vectors" in strength else "")
        + COUNTERS
    )


def item_rows(world: World) -> Iterator[Row]:
    """Each item once, at its list price."""
    items, vector = world.items, world.signals.vector
    bands = np.searchsorted([-0.84, -0.25, 0.25, 0.84], items.dearness)  # fifths of a standard normal
    launch_day = (items.launch - START_MS) // DAY_MS
    for item in range(items.kind.size):
        kind, brand = names.KINDS[items.kind[item]], names.BRANDS[items.brand[item]]
        words = [names.WORDS[word] for word in items.words[item]]
        yield {
            "item_id": _item_id(item),
            "title": " ".join([brand, *words, kind]),
            "department": names.DEPARTMENTS[items.department[item]],
            "category": names.CATEGORIES[items.category[item]],
            "kind": kind,
            "brand": brand,
            "words": words,
            "price": float(items.price[item]),
            "price_band": names.PRICE_BANDS[bands[item]],
            "popularity": int(items.popularity[item]),
            "launch_day": int(launch_day[item]),
            **({"item_vector": vector[item].tolist()} if world.signals.width else {}),
        }


def item_versions(world: World) -> Iterator[Row]:
    """Rows of the items table.

    Where prices or stock change, an item has a row that is valid from the start of the month, and one for each change:
    `price` and `in_stock` are as of its `timestamp`. Else it has the row of `item_rows`.
    """
    if not {"price", "stock"} & world.signals.strength.keys():
        yield from item_rows(world)
        return
    now = START_MS + SLOT_MS * np.arange(DAYS * DAY_MS // SLOT_MS)
    for item, row in enumerate(item_rows(world)):
        state = price_and_stock(world, np.full(now.size, item), now)
        columns = {name: state[column] for name, column in AS_OF.items() if column in state}
        differs = np.any([column[1:] != column[:-1] for column in columns.values()], axis=0)
        for slot in [0, *(np.flatnonzero(differs) + 1).tolist()]:
            then = {name: column[slot].item() for name, column in columns.items()}
            yield {**row, **then, "timestamp": int(now[slot])}


AS_OF = {"price": "price_now", "in_stock": "in_stock"}
"""Columns of items that change, and the columns of impressions that log them."""


def price_and_stock(world: World, item: NDArray, now: NDArray) -> dict[str, NDArray]:
    """The columns of impressions of items `[n]` at moments `[n]` that say of prices and stock, where those change."""
    signals = world.signals
    columns = {}
    if "price" in signals.strength:
        discount = at(signals.discount, item[:, None], now)[:, 0]
        columns |= {"price_now": (world.items.price[item] * (1 - discount)).round(2), "discount": discount}
    if "stock" in signals.strength:
        columns["in_stock"] = np.where(at(signals.sold_out, item[:, None], now)[:, 0], "no", "yes")
    return columns


def signal_columns(
    world: World,
    item: NDArray,
    now: NDArray,
    zero_results: NDArray,
    query_vector: NDArray,
    retrieval_score: NDArray,
) -> dict[str, list[Any]]:
    """The columns that the signals add to impressions, `[n]` each; a query's vector is None where it has none."""
    strength = world.signals.strength
    columns: dict[str, list[Any]] = {
        name: column.tolist() for name, column in price_and_stock(world, item, now).items()
    }
    if "retrieval" in strength:
        columns["retrieval_score"] = retrieval_score.round(4).tolist()
    if "zero_results" in strength:
        columns["zero_results"] = np.where(zero_results, "yes", "no").tolist()
    if "vectors" in strength:
        columns["query_vector"] = [None if math.isnan(vector[0]) else vector for vector in query_vector.tolist()]
    return columns


def user_rows(users: Users, first_user: int) -> Iterator[Row]:
    for user, (age, city, arrival) in enumerate(zip(users.age, users.city, users.arrival, strict=True)):
        yield {
            "user_id": user_id(first_user + user),
            "age_band": names.AGE_BANDS[age],
            "city": names.CITIES[city],
            "arrival_day": int((arrival - START_MS) // DAY_MS),
            **({"user_vector": users.vector[user].tolist()} if users.vector.size else {}),
        }


class LogTables:
    """Impressions and actions of one chunk.

    Args:
      first_user: number of the chunk's first user in the whole shop.
    """

    def __init__(self, world: World, played: Play, recorded: Record, chunk: int, first_user: int):
        self._world, self._played, self._recorded, self._chunk = world, played, recorded, chunk
        self._scenarios = [scenario.name for scenario in world.scenarios]
        users = played.user.max(initial=-1) + 1
        self._user_ids = [user_id(first_user + user) for user in range(users)]
        self._item_ids = [_item_id(item) for item in range(world.items.kind.size)]
        self._queries = query_texts(played.query[::SLATE], played.spelling[::SLATE])

    def impressions(self) -> Iterator[Row]:
        played, recorded = self._played, self._recorded
        for start in range(0, played.item.size, _SLICE):
            of = slice(start, start + _SLICE)
            columns = (
                np.arange(played.item.size)[of] // SLATE, played.scenario[of], played.user[of], played.item[of],
                played.time[of], played.position[of], played.device[of], hour_of(played.time[of]),
                played.propensity[of].round(6), recorded.p_click[of].round(6), recorded.p_buy[of].round(6),
            )  # fmt: skip
            for request, scenario, user, item, time, position, device, hour, propensity, p_click, p_buy, signals in zip(
                *(column.tolist() for column in columns), self._signals(of), strict=True
            ):
                yield {
                    "request_id": self._request_id(request),
                    "scenario": self._scenarios[scenario],
                    "user_id": self._user_ids[user],
                    "item_id": self._item_ids[item],
                    "timestamp": time,
                    "position": position,
                    "query": self._queries[request],
                    "device": names.DEVICES[device],
                    "hour": f"{hour:02}",
                    "propensity": propensity,
                    "oracle_ctr": p_click,
                    "oracle_ctcvr": p_buy,
                    **signals,
                }

    def _signals(self, of: slice) -> list[Row]:
        played = self._played
        columns = signal_columns(
            self._world, played.item[of], played.time[of], played.zero_results[of], played.query_vector[of],
            played.retrieval_score[of],
        )  # fmt: skip
        if not columns:
            return [{}] * played.item[of].size
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def actions(self) -> Iterator[Row]:
        """Actions in time order. Returning users' actions name no scenario and no logged request."""
        played = self._played
        for done in actions_of(played, self._recorded):
            place = (
                {"request_id": f"v{self._chunk:05}{done.row:07}"}
                if done.outside
                else {
                    "request_id": self._request_id(done.row // SLATE),
                    "scenario": self._scenarios[played.scenario[done.row]],
                    "query": self._queries[done.row // SLATE],
                }
            )
            yield {
                **place,
                "user_id": self._user_ids[played.user[done.row]],
                "item_id": self._item_ids[played.item[done.row]],
                "timestamp": done.time,
                "action": done.action,
            }

    def _request_id(self, request: int) -> str:
        return f"r{self._chunk:05}{request:06}"


class Action(NamedTuple):
    """Action of a user."""

    row: int  # of the impression that it follows
    time: int  # ms UTC
    action: str
    outside: bool  # of any list: credited to no impression


def actions_of(played: Play, recorded: Record) -> Iterator[Action]:
    """Logged actions in time order."""
    click_at = played.time + played.click_delay
    cart_at = click_at + played.cart_delay
    late_at = played.time + played.late_delay
    cart = recorded.click & (played.whim < np.where(recorded.buy, CART_OF_BOUGHT, CART_OF_CLICKED))
    done = (
        (recorded.click, click_at, "click", False),
        (cart, cart_at, "cart", False),
        (recorded.buy, cart_at + played.buy_delay, "purchase", False),
        (recorded.late, late_at, "purchase", False),
        (recorded.returns, late_at + played.click_delay, "click", True),
        (recorded.return_buys, late_at + played.click_delay + played.buy_delay, "purchase", True),
    )
    rows = [np.flatnonzero(happens) for happens, *_ in done]
    row = np.concatenate(rows)
    kind = np.repeat(np.arange(len(done)), [of.size for of in rows])
    at = np.concatenate([at[of] for of, (_, at, *_) in zip(rows, done, strict=True)])
    order = np.lexsort((kind, row, at))
    for index, time, which in zip(row[order].tolist(), at[order].tolist(), kind[order].tolist(), strict=True):
        yield Action(index, time, *done[which][2:])


def query_texts(query: NDArray, spelling: NDArray) -> list[str]:
    """Query texts from terms `[r, 3]` and their spellings; "" without a query."""
    return [
        " ".join(names.SPELLINGS[t][s] for t, s in zip(terms, spelt, strict=True) if t >= 0)
        for terms, spelt in zip(query.tolist(), spelling.tolist(), strict=True)
    ]


def hour_of(time: NDArray) -> NDArray:
    """Hour of the day in UTC, 0 to 23."""
    return time // HOUR_MS % 24


def user_id(user: int) -> str:
    return f"u{user:07}"


def _item_id(item: int) -> str:
    return f"i{item:05}"
