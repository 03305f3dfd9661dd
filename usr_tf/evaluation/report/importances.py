"""Feature importances of a tree run: shares of the gain by signal family and by feature."""

from collections.abc import Mapping, Sequence
from typing import Any

from usr_tf.evaluation.report import html
from usr_tf.evaluation.report.html import Section

_SHOWN = 25


def section(document: Mapping[str, Any]) -> Section:
    """A card for each model: families, then its features.

    Args:
      document: `importances.json` of a tree run.
    """
    cards = []
    for name, shares in document.items():
        families = _table(("family",), shares["families"])
        features = _table(("feature", "family"), shares["features"][:_SHOWN])
        cards.append(html.card(families + features, name, note=_note(len(shares["features"]))))
    return Section(
        "Importances",
        html.grid(cards, least=400),
        "Gain is the share of the loss that a feature's splits took away in training. It says what the trees use, "
        "not what causes an action, and features that say the same divide it between them.",
    )


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    largest = max((row["gain"] for row in rows), default=0) or 1
    return html.table(
        [*columns, "gain", "splits"],
        [
            (
                *(row[column] for column in columns),
                html.bar(f"{row['gain']:.1%}", row["gain"] / largest),
                f"{row['splits']:,}",
            )
            for row in rows
        ],
        names=len(columns),
        groups=False,
    )


def _note(features: int) -> str:
    return f"The first {_SHOWN} of {features} features." if features > _SHOWN else ""
