"""Report section on provenance: settings, command, version and date of the run."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from usr_tf import __version__
from usr_tf.evaluation.report import html
from usr_tf.evaluation.report.html import UNDEFINED, Section

_TERMS = (
    (
        "AUC",
        "The chance that a row with the action is scored above a row without it. 0.5 is guessing, 1 is perfect. The "
        "interval comes from resampling users, since the rows of one user are not independent.",
    ),
    (
        "above, level with, below",
        "Whether the interval of the difference of AUC to a baseline, on the same resampled users, lies above 0, holds "
        "it, or lies below. It is narrower than the two intervals make one think.",
    ),
    (
        "Position and popularity",
        "What is reached without a model: the order in which the rows were shown, and the item's click rate in "
        "training. Users act more on what stands first, which flatters position.",
    ),
    (
        "Oracle",
        "The figure of the true probabilities, which only simulated logs have. No model can be expected to do better.",
    ),
    (
        "GAUC, NDCG@10 and MRR",
        "GAUC is AUC within each user's own rows, so it leaves out what is only a difference between users. NDCG@10 "
        "and MRR look at the top of each request that had a positive.",
    ),
    (
        "Logloss, NE, calibration and ECE",
        "They judge the probabilities themselves. NE below 1 beats always answering the average rate. Calibration is "
        "predicted over observed: 1 is right, 1.1 promises a tenth too much. ECE is the mean distance of the two over "
        "ten bins.",
    ),
    (
        UNDEFINED,
        "The figure is not defined on these rows (for AUC: they are of one class only), its interval would rest on "
        "too few users, or the logs do not hold what it needs.",
    ),
)


def how_to_read() -> Section:
    return Section("How to read this page", html.card(html.definitions(_TERMS)))


def section(config: BaseModel, command: Sequence[str], trained: str) -> Section:
    """Settings that differ from the default, the command of the page, the version and the run's date."""
    changed = list(changed_settings(config))
    rows = [(key, value, default) for key, value, default in changed]
    table = html.table(["setting", "this run", "default"], rows, names=3, groups=False)
    settings = table if rows else html.paragraph("Every setting is the default one.")
    facts = html.paragraph(f"usr_tf {__version__}; the run was finished on {trained}.")
    return Section(
        "How it was made",
        html.card(settings, "Configuration", "what differs from the default")
        + html.card(html.code(_lines(command)) + facts, "Command"),
    )


def _lines(command: Sequence[str]) -> str:
    """Shell command with each flag on its own line."""
    return "".join((" \\\n  " if part.startswith("--") else " ") + shlex.quote(part) for part in command).strip()


def changed_settings(config: BaseModel) -> Iterator[tuple[str, str, str]]:
    """Key, value and default of each changed setting, except paths of the data."""
    default = _flat(type(config)().model_dump(mode="json"))
    for key, value in _flat(config.model_dump(mode="json")).items():
        if key != "data" and value != default.get(key):
            yield key, str(value), str(default.get(key))


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in document.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
