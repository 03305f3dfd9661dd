"""Scenarios of the simulated shop and all their parameters."""

from dataclasses import dataclass

COMPONENTS = ("style", "brand", "price", "quality", "newness", "context")
"""What makes an item appeal, beside the need."""
IMPORTANCE = (0.5, 0.35, 0.35, 0.3, 0.3, 0.2)
"""How much each component counts in the mean of all scenarios."""
POOLS = ("wanted kind", "wanted category", "taste", "last clicked", "popular", "new", "any")
"""Where the ranker finds candidates."""
SIGNALS = ("kind", "category", "words of the query", "taste", "last clicked", "quality", "newness")
"""What the ranker scores them by."""


@dataclass(frozen=True)
class Scenario:
    """Parameters of one scenario.

    Attributes:
      asks: whether people type a query there.
      share: weight among the requests.
      decay: η of the examination k^−η at position k.
      ctr, cvr: rates of credited clicks per impression and of credited purchases per click that it is tuned to.
      prompt: share of its purchases that are made at once, within the attribution window.
      leaning: relative change of the importance of each of `COMPONENTS` that is this scenario's own.
      pools: candidates from each of `POOLS`.
      signals: the ranker's weight of each of `SIGNALS`.
      typos: share of a query's terms that are mistyped.
    """

    name: str
    asks: bool
    share: float
    decay: float
    ctr: float
    cvr: float
    prompt: float
    leaning: tuple[float, ...]
    pools: tuple[int, ...]
    signals: tuple[float, ...]
    typos: float = 0.04


SEARCH_POOLS, FEED_POOLS = (24, 12, 0, 4, 4, 4, 16), (0, 0, 20, 12, 8, 8, 16)
SCENARIOS = (
    Scenario(
        "search", True, 0.40, 0.35, 0.085, 0.15, 0.85, (-0.8, 0.9, 0.8, -0.2, -0.9, -0.6), SEARCH_POOLS,
        (3.0, 1.5, 1.2, 0.3, 0.3, 0.4, 0.0),
    ),
    Scenario(
        "recommendation", False, 0.60, 0.20, 0.055, 0.12, 0.65, (0.8, -0.8, -0.8, 0.0, 0.6, 0.6), FEED_POOLS,
        (0.0, 0.0, 0.0, 0.6, 0.8, 0.4, 0.3),
    ),
    Scenario(
        "related", False, 0.30, 0.25, 0.065, 0.14, 0.75, (0.3, 0.4, -0.6, -0.5, -0.5, -0.8), (0, 0, 8, 28, 6, 6, 16),
        (0.0, 0.0, 0.0, 0.4, 1.5, 0.3, 0.0),
    ),
    Scenario(
        "home", False, 0.40, 0.15, 0.045, 0.10, 0.60, (-0.3, -0.6, 0.0, 0.8, 0.8, 0.8), (0, 0, 8, 4, 20, 16, 16),
        (0.0, 0.0, 0.0, 0.3, 0.5, 0.8, 0.6),
    ),
    Scenario(
        "voice", True, 0.15, 0.55, 0.090, 0.18, 0.85, (-0.9, 0.2, -0.2, 0.9, -0.9, 0.5), SEARCH_POOLS,
        (3.0, 1.5, 1.2, 0.2, 0.5, 0.8, 0.0), 0.12,
    ),
    Scenario(
        "deals", False, 0.20, 0.20, 0.060, 0.16, 0.80, (-0.5, -0.7, 1.0, -0.3, 0.3, -0.3), FEED_POOLS,
        (0.0, 0.0, 0.0, 0.3, 0.6, 0.6, 0.0),
    ),
)  # fmt: skip
