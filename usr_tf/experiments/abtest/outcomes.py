"""Outcomes of an arm: sums per user and day behind ratio metrics.

| figure | of a scenario |
| --- | --- |
| `uctr` | clicking users over exposed users, both counted once a day |
| `ucvr` | buying users over exposed users, both counted once a day |
| `ctr` | clicks over impressions |
| `ctcvr` | purchases over impressions |
| `revenue` | money over users |

Counted once a day, for in the whole time nearly everybody clicks. A purchase belongs to the impression whose click led
to it and to that impression's day and scenario, though it may come up to 20 hours later. The scope `all` takes all
scenarios together, and counts in what was looked up later, outside of any list, and bought: no scenario can claim that.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from usr_tf.experiments.abtest.replay import ArmLog

ALL = "all"
METRICS = ("uctr", "ucvr", "ctr", "ctcvr", "revenue")

Sums = Mapping[tuple[str, str], tuple[NDArray, NDArray]]
"""(scope, figure) → `y` and `x`, `[U, days]` each; the figure is `Σ y / Σ x`."""


def daily_sums(log: ArmLog, users: NDArray, scenarios: Sequence[str], days: int) -> Sums:
    """Sums of each user and day.

    Args:
      users: the numbers of those who come, in increasing order: the same in all arms.
      scenarios: their names, by number.
    """
    row = np.searchsorted(users, log.user)

    def total(values: NDArray, of: NDArray) -> NDArray:
        flat = np.bincount((row * days + log.day)[of], values[of].astype(np.float64), users.size * days)
        return flat.reshape(users.size, days)

    sums = {}
    ones, first_visit = np.ones(log.user.size), np.zeros((users.size, days))
    everywhere = np.ones(log.user.size, bool)
    first_visit[np.arange(users.size), (total(ones, everywhere) > 0).argmax(axis=1)] = 1
    for number, scope in enumerate([*scenarios, ALL]):
        of = everywhere if scope == ALL else log.scenario == number
        impressions, clicks, purchases = (total(values, of) for values in (ones, log.click, log.buy))
        bought = log.buy | log.return_buy if scope == ALL else log.buy
        sums[scope, "uctr"] = (clicks > 0).astype(np.float64), (impressions > 0).astype(np.float64)
        sums[scope, "ucvr"] = (total(bought, of) > 0).astype(np.float64), (impressions > 0).astype(np.float64)
        sums[scope, "ctr"] = clicks, impressions
        sums[scope, "ctcvr"] = purchases, impressions
        sums[scope, "revenue"] = total(bought * log.price, of), first_visit
    return sums
