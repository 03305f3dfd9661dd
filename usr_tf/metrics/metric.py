"""Definition of one evaluation metric: its key, its formula over additive sums, and how it is shown."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

Sums = dict[str, np.ndarray]
"""Name → sum `[1 + R]`: of the data as they are, then of each resample."""

PerRow = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Labels and probabilities `[N]` → what each row adds to a sum, `[N]`."""
PerRequest = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Labels, scores and numbers of the requests `[N]` → what each request adds, `[G]`; NaN without a positive."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One entry of `registry.METRICS`, which every document, page and table reads."""

    name: str
    """Key in `metrics.json`, and in an objective of `usr-tf tune`."""
    label: str
    """Name in the report and in tables of the terminal."""
    sample: Callable[[Sums], np.ndarray]
    """The metric `[1 + R]` of the sums, NaN where undefined; `ratio` divides so."""
    per_row: Mapping[str, PerRow] = field(default_factory=dict)
    """Sums over rows that no other metric has, by name."""
    per_request: Mapping[str, PerRequest] = field(default_factory=dict)
    """Sums over requests that no other metric has, by name."""
    higher_is_better: bool | None = None
    """None where neither end is better, as with calibration."""
    interval: bool = True
    """Whether `details.json` and the report give its bootstrap interval."""
    ranking: bool = False
    """It depends on the order of the scores alone, so the baselines have it too."""
    in_slices: bool = False
    """Slices have it too. They have no sums over requests and no deciles."""
    later_tasks_only: bool = False
    """The first task does not have it."""

    def value(self, sums: Sums) -> float | None:
        """The metric of the data as they are; None where undefined."""
        value = self.sample(sums)[0]
        return float(value) if np.isfinite(value) else None


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient; NaN where the denominator is 0 or NaN."""
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)
