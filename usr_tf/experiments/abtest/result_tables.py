"""Result tables of an A/B test as text, for the page and the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from usr_tf.evaluation.report.html import UNDEFINED
from usr_tf.experiments.abtest.analysis import A, B
from usr_tf.experiments.abtest.inference import ALPHA

NAMES = {"uctr": "UCTR", "ucvr": "UCVR", "ctr": "CTR", "ctcvr": "CTCVR", "revenue": "revenue per user"}
ESTIMATORS = {"ips": "IPS", "ips_clipped": "clipped", "snips": "SNIPS", "dr": "DR", "slate_snips": "slate SNIPS"}
LEVEL = f"{1 - ALPHA:.0%}"
TWINS = ("A", "B", "lift", LEVEL, "p")
TEST = (*TWINS, "power", "least effect", "users for 80 %")


def model_names(a: str, b: str) -> tuple[str, str]:
    """What two models are called: the folders that they were exported to, with their versions where those are alike.

    Args:
      a, b: paths of versions, such as `serving/usr/1`.
    """
    paths = Path(a), Path(b)
    names = paths[0].parent.name, paths[1].parent.name
    if names[0] == names[1] or not all(names):
        names = tuple("/".join(path.parts[-2:]) for path in paths)
    return names if names[0] != names[1] or a == b else (a, b)


def lifts(document: Mapping[str, Any], part: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(scope, metric, lift record) of `twins`, `test`, `days` or `splits`."""
    for scope, figures in document[part].items():
        for metric, found in figures.items():
            yield scope, metric, found


def twins_row(metric: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    """Cells of a `TWINS` row."""
    return (
        figure(metric, found[A]),
        figure(metric, found[B]),
        change(found["lift"]),
        changes(found["interval"]),
        UNDEFINED if found["p_value"] is None else "<0.0001" if found["p_value"] < 1e-4 else f"{found['p_value']:.4f}",
    )


def test_row(metric: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    """Cells of a `TEST` row."""
    users = found["users_needed"]
    return (
        *twins_row(metric, found),
        UNDEFINED if found["power"] is None else f"{found['power']:.0%}",
        change(found["minimal_effect"]),
        UNDEFINED if users is None else f"{users:,.0f}" if users < 1e6 else "over a million",
    )


def figure(metric: str, value: float | None) -> str:
    if value is None:
        return UNDEFINED
    return f"{value:.2f}" if metric == "revenue" else f"{value:.4f}"


def change(value: float | None) -> str:
    """Relative lift as text."""
    return UNDEFINED if value is None else f"{value:+.1%}".replace("-", "−")


def changes(interval: Sequence[float] | None) -> str:
    return UNDEFINED if interval is None else f"{change(interval[0])} to {change(interval[1])}"


def share(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.1%}"


def estimate(found: Mapping[str, Any]) -> str:
    """Off-policy estimate as text, with half the width of its interval."""
    if found["interval"] is None:
        return UNDEFINED
    return f"{found['value']:.4f} ± {(found['interval'][1] - found['interval'][0]) / 2:.4f}"


def holds(interval: Sequence[float] | None, value: float) -> bool:
    return interval is not None and interval[0] <= value <= interval[1]
