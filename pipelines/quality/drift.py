"""Drift between the training splits of two data directories, computed from their `stats.json`.

A drift fails a run when it is larger than its limit and larger than chance makes it, so that a scenario of ten rows
fails nothing. docs/data_quality.md has the formulas.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

from pydantic import Field

from pipelines.quality.sketches import SIZE
from pipelines.quality.statistics import QUANTILES
from usr_tf.documents import StrictModel, parse_model
from usr_tf.errors import InputError
from usr_tf.schema import Schema

FLAG = "--drift_limit"

_ERRORS, _FEWEST = 3, 30
"""Standard errors, and rows on either side, that a difference must have to be more than chance."""
_SHIFTED = ("p05", "p25", "p50", "p75", "p95")

Kind = Literal["new_tokens", "label_rate", "numeric_shift", "coverage"]
Verdict = Literal["beyond", "chance", "within", "no data"]

_Counts = tuple[int, int]
"""How many, and of how many."""


class DriftLimits(StrictModel):
    """Limits of each kind of drift; a larger drift fails the run."""

    new_tokens: float = Field(0.2, ge=0)
    """Rise of the share of values that the old vocabulary lacks."""
    label_rate: float = Field(0.5, ge=0)
    """Change of a label's rate, as a share of the old rate."""
    numeric_shift: float = Field(0.5, ge=0)
    """Largest move of a quantile from p05 to p95, as a share of the old distance from p05 to p95."""
    coverage: float = Field(0.2, ge=0)
    """Change of the share of rows with a value."""


Limits = TypeVar("Limits", bound=DriftLimits)


@dataclasses.dataclass(frozen=True)
class Drift:
    """One statistic of the old and new training split; None if no row defines it."""

    kind: Kind
    scenario: str | None
    """None for all scenarios together."""
    name: str
    """Of the feature or the label; for a numeric shift with the quantile that moved most, as in `price p95`."""
    old: float | None
    new: float | None
    amount: float | None
    """In the unit of its limit; infinite where the old figures give no unit."""
    significant: bool
    """Whether it is more than chance explains."""
    limit: float

    @property
    def verdict(self) -> Verdict:
        """`within`, `beyond` (fails the run), `chance` (over the limit, not significant) or `no data`."""
        if self.amount is None:
            return "no data"
        if self.amount <= self.limit:
            return "within"
        return "beyond" if self.significant else "chance"


def parse_limits(settings: Sequence[str], kinds: type[Limits], flag: str = FLAG) -> Limits:
    """Parses `KIND=NUMBER` flags; other kinds keep their defaults.

    Raises:
      InputError: an unknown kind, one named twice, or a value that is no number from 0.
    """
    values: dict[str, str] = {}
    for setting in settings:
        kind, separator, value = setting.partition("=")
        if not separator or kind in values:
            raise InputError(flag, repr(setting), "KIND=NUMBER, each kind once")
        values[kind] = value
    return parse_model(kinds, values, flag)


def compare(old: dict, new: dict, schema: Schema, limits: DriftLimits | None = None) -> list[Drift]:
    """All drifts between two `stats.json`, largest first.

    Args:
      new: of data that the old vocabularies were applied to, or grew on: then `growth` has, for each feature that
        grew, its `values` and how many of them are `appended_values`. Vocabularies of its own would show nothing new.
    """
    limits = limits or DriftLimits()
    drifts = [
        *_new_tokens(old, new, schema, limits.new_tokens),
        *_label_rates(old, new, schema, limits.label_rate),
        *_numeric_shifts(old, new, schema, limits.numeric_shift),
        *_coverages(old, new, schema, limits.coverage),
    ]
    return sorted(drifts, key=_rank)


def describe(drifts: Sequence[Drift]) -> str:
    """Table of the drifts beyond their limits, largest first, and the number of the others."""
    excesses = [drift for drift in drifts if drift.verdict in ("beyond", "chance")]
    summary = f"drift: {len(drifts) - len(excesses)} of {len(drifts)} figures are within their limits or have no data"
    if not excesses:
        return summary
    cells = [("drift", "scenario", "name", "old", "new", "amount", "limit", "verdict")]
    for drift in excesses:
        numbers = map(_number, (drift.old, drift.new, drift.amount, drift.limit))
        cells.append((drift.kind, drift.scenario or "all", drift.name, *numbers, drift.verdict))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rows = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)
    return "\n".join([*rows, summary])


def document(drifts: Sequence[Drift]) -> list[dict[str, Any]]:
    """JSON form of drifts; an undefined or infinite amount is None, with the verdict saying which."""
    documents = []
    for drift in drifts:
        amount = None if drift.amount == math.inf else drift.amount
        documents.append(dataclasses.asdict(drift) | {"amount": amount, "verdict": drift.verdict})
    return documents


def refuse(drifts: Sequence[Drift], old: str, new: str) -> None:
    """Fails the run if the first drift is beyond its limit. `old` and `new` are the data directories.

    Raises:
      InputError: names the worst.
    """
    beyond = [drift for drift in drifts if drift.verdict == "beyond"]
    if not beyond:
        return
    worst, others = beyond[0], len(beyond) - 1
    where = f"{worst.scenario} {worst.name}" if worst.scenario else worst.name
    more = f"; {others} more beyond their limits" if others else ""
    raise InputError(
        new,
        f"{worst.kind} {_number(worst.amount)} of {where} "
        f"(from {_number(worst.old)} in {old} to {_number(worst.new)}{more})",
        f"at most {_number(worst.limit)}, or a wider {FLAG} {worst.kind}=NUMBER",
    )


def _new_tokens(old: dict, new: dict, schema: Schema, limit: float) -> Iterator[Drift]:
    """Drift of the OOV share: per scenario, and over all scenarios where a vocabulary grew."""
    for name in schema.features:
        if not schema.features[schema.owner(name)].has_vocabulary:
            continue
        before = {scenario: _outside(old, scenario, name) for scenario in schema.scenarios}
        after = {scenario: _outside(new, scenario, name) for scenario in schema.scenarios}
        growth = new.get("growth", {}).get(name)
        if growth:
            outside = growth["appended_values"] + sum(counts[0] for counts in after.values())
            before, after = {None: _total(before.values())}, {None: (outside, growth["values"])}
        for scenario in before:
            yield _difference("new_tokens", scenario, name, before[scenario], after[scenario], limit)


def _label_rates(old: dict, new: dict, schema: Schema, limit: float) -> Iterator[Drift]:
    for scenario in schema.scenarios:
        for label in schema.label_names:
            before, after = (_positives(stats, scenario, label) for stats in (old, new))
            yield _difference("label_rate", scenario, label, before, after, limit)


def _coverages(old: dict, new: dict, schema: Schema, limit: float) -> Iterator[Drift]:
    for scenario in schema.scenarios:
        for name in schema.features:
            before, after = (_present(_figures(stats, scenario, name)) for stats in (old, new))
            yield _difference("coverage", scenario, name, before, after, limit)


def _numeric_shifts(old: dict, new: dict, schema: Schema, limit: float) -> Iterator[Drift]:
    """Largest quantile shift of each numeric feature; `chance` only if all quantiles are."""
    for scenario in schema.scenarios:
        for name in schema.number_features:
            before, after = _figures(old, scenario, name), _figures(new, scenario, name)
            if before.get("quantiles") is None or after.get("quantiles") is None:
                yield Drift("numeric_shift", scenario, name, None, None, None, False, limit)
                continue
            moves = (_move(level, scenario, name, before, after, limit) for level in _SHIFTED)
            yield max(moves, key=lambda drift: (drift.significant, drift.amount))


def _difference(kind: Kind, scenario: str | None, name: str, before: _Counts, after: _Counts, limit: float) -> Drift:
    """Change of a share: increase only for new tokens, relative for label rates.

    Significant by Agresti and Caffo (2000): one success and one failure are added to each sample, which keeps the
    standard error honest for few rows and for shares of 0 and 1.
    """
    old, new = (part / whole if whole else None for part, whole in (before, after))
    if old is None or new is None:
        return Drift(kind, scenario, name, old, new, None, False, limit)
    amount = max(0.0, new - old) if kind == "new_tokens" else abs(new - old)
    if kind == "label_rate":
        amount = _in_units(amount, old)
    adjusted = [((part + 1) / (whole + 2), whole + 2) for part, whole in (before, after)]
    error = math.sqrt(sum(share * (1 - share) / whole for share, whole in adjusted))
    significant = min(before[1], after[1]) >= _FEWEST and abs(adjusted[1][0] - adjusted[0][0]) > _ERRORS * error
    return Drift(kind, scenario, name, old, new, amount, significant, limit)


def _move(level: str, scenario: str, name: str, before: dict, after: dict, limit: float) -> Drift:
    """Shift of a quantile in units of the old p95 − p05, or of the old standard deviation if that is 0.

    Significant by its rank q among the old numbers, whose standard error √(q(1−q)(1/n + 1/n')) no distribution enters.
    """
    q, quantiles = QUANTILES[level], before["quantiles"]
    old, new = quantiles[level], after["quantiles"][level]
    amount = _in_units(abs(new - old), quantiles["p95"] - quantiles["p05"] or before["std"])
    lowest, highest = _old_ranks(new, before)
    rows = [min(_present(figures)[0], SIZE) for figures in (before, after)]
    error = math.sqrt(q * (1 - q) * sum(1 / n for n in rows))
    significant = min(rows) >= _FEWEST and max(lowest - q, q - highest) > _ERRORS * error
    return Drift("numeric_shift", scenario, f"{name} {level}", old, new, amount, significant, limit)


def _old_ranks(value: float, figures: dict) -> tuple[float, float]:
    """Lowest and highest possible rank of a number among the old values, from their quantiles.

    Both differ where the number is one of the quantiles, since many of the old numbers may be equal to it.
    """
    levels = [0.0, *QUANTILES.values(), 1.0]
    points = [figures["min"], *figures["quantiles"].values(), figures["max"]]
    below = [level for level, point in zip(levels, points, strict=True) if point < value]
    above = [level for level, point in zip(levels, points, strict=True) if point > value]
    lowest, highest = (below or [0.0])[-1], (above or [1.0])[0]
    if value in points:
        return lowest, highest
    if not below or not above:
        return (0.0, 0.0) if not below else (1.0, 1.0)
    start, stop = points[len(below) - 1], points[len(below)]
    rank = lowest + (highest - lowest) * (value - start) / (stop - start)
    return rank, rank


def _outside(stats: dict, scenario: str, name: str) -> _Counts:
    """Number of out-of-vocabulary values."""
    figures = _figures(stats, scenario, name)
    return figures.get("oov", 0), figures.get("values", 0)


def _positives(stats: dict, scenario: str, label: str) -> _Counts:
    counts = stats["splits"]["train"].get(scenario, {})
    return counts.get(label, 0), counts.get("impressions", 0)


def _present(figures: dict) -> _Counts:
    """Number of rows with a value."""
    rows = figures.get("rows", 0)
    return round((figures.get("coverage") or 0) * rows), rows


def _figures(stats: dict, scenario: str, name: str) -> dict:
    """Statistics of a feature in the training split; empty for a feature or scenario the schema lacked."""
    return stats["quality"]["train"].get(scenario, {}).get(name, {})


def _total(counts: Iterable[_Counts]) -> _Counts:
    parts, wholes = zip(*counts, strict=True)
    return sum(parts), sum(wholes)


def _in_units(amount: float, unit: float) -> float:
    return amount / unit if unit else math.inf if amount else 0.0


def _rank(drift: Drift) -> tuple[int, float]:
    """Sort key, largest first: verdict, then multiples of the limit."""
    return ("beyond", "chance", "within", "no data").index(drift.verdict), -_in_units(drift.amount or 0.0, drift.limit)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
