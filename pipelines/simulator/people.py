"""Users of the simulated shop and their visits. `U` users of a chunk, `R` requests, `d` taste dimensions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator import catalogue as names
from pipelines.simulator.month import DAY_MS, DAYS, HOUR_MS, START_MS
from pipelines.simulator.signals import unit
from pipelines.simulator.world import BY_DEMOGRAPHY, World, mix

NEW_SHARE = 0.3
"""Share of the users who come during the month, but for its last days."""
TYPICAL = 0.6
"""Chance that a favourite brand, and share of the variance of the price level, that age decides."""
USUAL_DEVICE = 0.85
SESSION_SHARE = 0.35
"""Chance that a request begins a session, so that one has about three."""
REST_MS = 150_000
"""The least time between two requests of a user; a click comes sooner than that."""


@dataclass(frozen=True)
class Users:
    """Users of one chunk, `[U]` each unless said otherwise."""

    age: NDArray
    city: NDArray
    device: NDArray  # what the user mostly has at hand
    arrival: NDArray  # ms UTC; no visit before it
    activity: NDArray  # share of the chunk's requests
    shared_taste: NDArray  # [U, d], of unit variance
    taste: NDArray  # [K, U, d], of unit variance
    dearness: NDArray  # the price level that suits them, of unit variance
    favourite: NDArray  # [U, departments], the brand they are loyal to, counted within the department
    vector: NDArray  # [U, w], of length 1; w = 0 where vectors are off

    def devices(self, rng: np.random.Generator, user: NDArray) -> NDArray:
        """Devices of these users for one visit: mostly their usual one."""
        return np.where(rng.random(user.size) < USUAL_DEVICE, self.device[user], 1 - self.device[user])

    @classmethod
    def draw(cls, rng: np.random.Generator, world: World, count: int) -> "Users":
        age, city = rng.integers(len(names.AGE_BANDS), size=count), rng.integers(len(names.CITIES), size=count)
        by_group = np.sqrt(BY_DEMOGRAPHY / 2) * (world.by_age[:, age] + world.by_city[:, city])
        drawn = by_group + np.sqrt(1 - BY_DEMOGRAPHY) * rng.normal(size=by_group.shape)
        typical = rng.random((count, len(names.DEPARTMENTS))) < TYPICAL
        anyone = rng.integers(names.BRANDS_EACH, size=typical.shape)
        late = rng.random(count) < NEW_SHARE
        return cls(
            age=age,
            city=city,
            device=rng.integers(len(names.DEVICES), size=count),
            arrival=START_MS + np.where(late, rng.integers((DAYS - 3) * DAY_MS, size=count), 0),
            activity=rng.dirichlet(np.full(count, 1.5)),
            shared_taste=drawn[0],
            taste=mix(world.similarity, drawn[:1], drawn[1:]),
            dearness=np.sqrt(TYPICAL) * world.age_dearness[age] + np.sqrt(1 - TYPICAL) * rng.normal(size=count),
            favourite=np.where(typical, world.age_brand[age], anyone),
            vector=unit(rng.normal(size=(count, world.signals.width))).round(4),
        )


@dataclass(frozen=True)
class Visits:
    """Visit times: `[R]` requests, sorted by user and then by time."""

    user: NDArray
    time: NDArray  # ms
    opens: NDArray  # whether it begins a session
    rank: NDArray  # how many requests of the user come before
    device: NDArray | None = None  # None where that is drawn with the outcomes, as in the month of the logs

    def rows(self, of: NDArray) -> "Visits":
        return Visits(*(None if column is None else column[of] for column in vars(self).values()))


def plan_visits(
    rng: np.random.Generator, users: Users, requests: int, begin_day: int = 0, end_day: int = DAYS
) -> Visits:
    """Distributes the requests over users and sessions, mostly in the evening.

    Args:
      begin_day, end_day: the days that they fall on, counted from the first of the logs, without `end_day`.
    """
    user = np.sort(rng.choice(users.activity.size, size=requests, p=users.activity))
    opens = (np.diff(user, prepend=-1) > 0) | (rng.random(requests) < SESSION_SHARE)
    session = np.cumsum(opens) - 1
    hours = 1 + 0.9 * np.cos((np.arange(24) - 20) * np.pi / 12)
    hour = rng.choice(24, size=requests, p=hours / hours.sum()) + rng.random(requests)
    first_day = np.maximum((users.arrival[user] - START_MS + DAY_MS - 1) // DAY_MS, begin_day)
    day = first_day + (rng.random(requests) * (end_day - first_day)).astype(np.int64)
    begin = ((24 * day + hour) * HOUR_MS)[opens]
    since = np.cumsum(rng.uniform(REST_MS, 4 * REST_MS, size=requests))
    time = (START_MS + begin[session] + since - since[opens][session]).astype(np.int64)
    order = np.lexsort((time, user))
    user, time, opens = user[order], time[order], opens[order]
    return Visits(user, time, opens, np.arange(requests) - np.searchsorted(user, user))
