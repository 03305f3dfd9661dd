"""A simulated shop: logs by DESIGN §2 of one search box and one feed, with the true probability of every label.

`docs/simulator.md` has the equations. In short: people have lasting tastes, which differ between the scenarios as
far as `similarity` lets them, and a passing need, which does not: it drives what they search for, and what they
click in the feed. A click puts an item in mind; a need ends with a purchase, or with time.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines import shop
from pipelines.log_writer import LogWriter
from usr_tf.errors import InputError

SCHEMA = """\
scenarios: [search, recommendation]
tasks:
  - {name: ctr, action: click}
  - {name: ctcvr, action: purchase}
labels: {attribution: 1h, global_window: 1d}
history: {actions: [click, cart, purchase], max_length: 20}
split: {valid: 0.1, test: 0.1}
features:
  user_id:  {group: user, type: categorical, min_count: 2}
  age_band: {group: user, type: categorical}
  city:     {group: user, type: categorical}
  item_id:  {group: item, type: categorical, in_history: true}
  category: {group: item, type: categorical, in_history: true}
  brand:    {group: item, type: categorical, in_history: true}
  words:    {group: item, type: categorical_list, max_length: 2}
  price:    {group: item, type: numeric, transform: log}
  query:    {group: query, type: text, tokenizer: whitespace, max_length: 3}
  device:   {group: context, type: categorical}
  hour:     {group: context, type: categorical}
"""


def simulate(
    out: str | Path,
    impressions: int = 200_000,
    seed: int = 0,
    similarity: float = 0.3,
    label_noise: float = 0.0,
    progress: bool = True,
) -> dict[str, Any]:
    """Writes the logs of a simulated shop into `out`; the same arguments write the same bytes.

    Args:
      out: a directory, to be made.
      impressions: rows of the impressions table; users and items grow with it.
      similarity: ρ, how much of a user's taste in each scenario is common to both, 0 to 1.
      label_noise: share of impressions whose logged outcome is drawn from the scenario's mean rates instead.
      progress: whether to draw a progress bar on stderr.

    Returns:
      `{"counts": {table: rows}, "rates": {scenario: {"impressions", "ctr", "ctcvr", "oracle_ctr", "oracle_ctcvr"}}}`,
      a rate being null where the scenario has no impression.

    Raises:
      InputError: an argument out of its range, or an `out` that cannot be written.
    """
    _check_whole("--impressions", impressions, least=1)
    _check_whole("--seed", seed, least=0)
    _check_share("--similarity", similarity)
    _check_share("--label_noise", label_noise)
    rng = np.random.default_rng(seed)
    with LogWriter(out, SCHEMA) as logs:
        world = shop.World.draw(rng, *shop.world_size(impressions), similarity)
        visits = shop.plan_visits(rng, world, requests=math.ceil(impressions / shop.SLATE))
        log = shop.play(rng, world, visits, progress).first(impressions)
        log = shop.add_noise(rng, log, label_noise)
        tables = {"users": _users(world), "items": _items(world), "impressions": _impressions(log)}
        for table, rows in {**tables, "actions": _actions(rng, log)}.items():
            for row in rows:
                logs.write(table, row)
        counts = dict(logs.counts)
    return {"counts": counts, "rates": {name: _rates(log, v) for v, name in enumerate(shop.SCENARIOS)}}


def _users(world: shop.World) -> Iterator[dict[str, Any]]:
    for user, (age, city) in enumerate(zip(world.age, world.city, strict=True)):
        yield {"user_id": _user_id(user), "age_band": shop.AGE_BANDS[age], "city": shop.CITIES[city]}


def _items(world: shop.World) -> Iterator[dict[str, Any]]:
    for item, words in enumerate(world.words):
        yield {
            "item_id": _item_id(item),
            "category": shop.CATEGORIES[world.category[item]],
            "brand": shop.BRANDS[world.brand[item]],
            "words": [shop.WORDS[word] for word in words],
            "price": float(world.price[item]),
        }


def _impressions(log: shop.Log) -> Iterator[dict[str, Any]]:
    for row in range(log.item.size):
        time = int(log.time[row])
        yield {
            **_place(log, row),
            "timestamp": time,
            "position": int(log.position[row]),
            "query": _query(log.asked[row]),
            "device": shop.DEVICES[log.device[row]],
            "hour": f"{time // shop.HOUR_MS % 24:02}",
            "oracle_ctr": round(float(log.p_click[row]), 6),
            "oracle_ctcvr": round(float(log.p_buy[row]), 6),
        }


def _actions(rng: np.random.Generator, log: shop.Log) -> Iterator[dict[str, Any]]:
    """Click within 150 s of the impression, cart within a minute of the click, purchase within 20 more."""
    rows = np.flatnonzero(log.click)
    click = log.time[rows] + log.click_delay[rows]
    cart = click + rng.integers(5_000, 60_000, size=rows.size)
    buy = cart + rng.integers(60_000, 20 * 60_000, size=rows.size)
    carts = rng.random(rows.size) < np.where(log.buy[rows], 0.7, 0.1)
    done = [(click, "click", rows >= 0), (cart, "cart", carts), (buy, "purchase", log.buy[rows])]
    table = [(time[i], action, rows[i]) for time, action, happens in done for i in np.flatnonzero(happens)]
    for time, action, row in sorted(table):
        yield {**_place(log, row), "timestamp": int(time), "action": action, "query": _query(log.asked[row])}


def _place(log: shop.Log, row: int) -> dict[str, str]:
    return {
        "request_id": f"r{log.request[row]:07}",
        "scenario": shop.SCENARIOS[log.scenario[row]],
        "user_id": _user_id(log.user[row]),
        "item_id": _item_id(log.item[row]),
    }


def _user_id(user: int) -> str:
    return f"u{user:06}"


def _item_id(item: int) -> str:
    return f"i{item:05}"


def _query(asked: NDArray) -> str:
    return " ".join(
        names[i] for names, i in zip((shop.BRANDS, shop.WORDS, shop.CATEGORIES), asked, strict=True) if i >= 0
    )


def _rates(log: shop.Log, scenario: int) -> dict[str, Any]:
    of = log.scenario == scenario
    columns = {"ctr": log.click, "ctcvr": log.buy, "oracle_ctr": log.p_click, "oracle_ctcvr": log.p_buy}
    rates = {name: float(column[of].mean()) if of.any() else None for name, column in columns.items()}
    return {"impressions": int(of.sum()), **rates}


def _check_whole(flag: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(flag, repr(value), f"a whole number from {least}")


def _check_share(flag: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(flag, repr(value), "a number from 0 to 1")
