"""Tables of an off-policy evaluation as text, for the page and the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.text import Text

from usr_tf.evaluation.report.evaluation_text import grouped_table
from usr_tf.evaluation.report.html import UNDEFINED

NAMES = {
    "ips": "IPS",
    "snips": "SNIPS",
    "snips_clipped": "SNIPS, clipped",
    "dm": "DM",
    "dr": "DR",
    "dr_clipped": "DR, clipped",
}
COLUMNS = ("estimator", "clicks, %", "95%", "effective", "clicks", "largest", "clip", "kept", "verdict")
PERCENT = 100


def format_table(document: Mapping[str, Any]) -> Group:
    """Table of all estimates, and a sentence for each reason to refuse some."""
    cells = [(escape(pair(row)), *cells) for row in document["estimates"] for cells in estimate_rows(row)]
    sentences = [f"{pair(row)}: {sentence}" for row in document["estimates"] for sentence in refusals(row)]
    return Group(
        grouped_table(
            "Off-policy: clicks per impression, from another policy's log", ("log → policy", *COLUMNS), cells
        ),
        *map(Text, sentences),
    )


def pair(row: Mapping[str, Any]) -> str:
    return f"{row['scenario']}: {row['logging']} → {row['target']}"


def estimate_rows(row: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Cells of `COLUMNS`: the measured rate first, then each estimator."""
    if row["truth"]:
        rest = [UNDEFINED] * 4
        clicks = str(row["truth"]["clicks"])
        impressions = f"{row['truth']['impressions']:,}"
        measured = rate(row["truth"]["rate"]), interval(row["truth"]["interval"])
        yield ("measured", *measured, impressions, clicks, *rest)
    for name, found in row["estimates"].items():
        hidden, no_weights = bool(found["refusal"]), found["interval"] is None
        yield (
            NAMES[name],
            UNDEFINED if hidden else rate(found["value"]),
            UNDEFINED if hidden or no_weights else interval(found["interval"]),
            UNDEFINED if no_weights else f"{found['effective']:,.0f}",
            UNDEFINED if no_weights else f"{found['clicks']:.1f}",
            UNDEFINED if no_weights else f"{found['largest']:,.1f}",
            UNDEFINED if found["clip"] is None else f"{found['clip']:g}",
            UNDEFINED if found["clip"] is None else f"{found['kept']:.0%}",
            verdict(found),
        )


def refusals(row: Mapping[str, Any]) -> list[str]:
    """A sentence for each reason, with the estimators that are refused for it."""
    reasons: dict[str, list[str]] = {}
    for name, found in row["estimates"].items():
        if found["refusal"]:
            reasons.setdefault(found["refusal"], []).append(NAMES[name])
    return [f"{'; '.join(names)} refused: {reason}." for reason, names in reasons.items()]


def verdict(found: Mapping[str, Any]) -> str:
    """Whether to rely on an estimate, and whether it agrees with the measured rate."""
    if found["refusal"]:
        return "refused"
    if found["interval"] is None:
        return "no interval"
    agrees = {None: "", True: ", agrees", False: ", differs"}[found["agrees"]]
    return ("weak" if found["weak"] else "usable") + agrees


def rate(value: float) -> str:
    """Rate in %."""
    return f"{PERCENT * value:.2f}"


def interval(ends: Sequence[float]) -> str:
    """Interval of a rate in %."""
    return f"{PERCENT * ends[0]:.2f} to {PERCENT * ends[1]:.2f}"
