"""Feature importances of trees: each feature's and each signal family's share of the gain."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table as TextTable

from usr_tf.baseline.features import Table

_SHOWN = 20


def importances_document(boosters: Mapping[str, Any], table: Table) -> dict[str, Any]:
    """`importances.json`: of each model its `families` and `features`, the largest share of the gain first.

    A feature holds `feature`, `family`, `gain` (its share of the loss that all splits took away, from 0 to 1) and
    `splits` (their number), summed over its columns. A family holds the same without `feature`.
    """
    return {name: _of_booster(booster, table) for name, booster in boosters.items()}


def format_importances(document: Mapping[str, Any], top: int = _SHOWN) -> list[TextTable]:
    """For the terminal, two tables of each model: families, and the `top` features."""
    tables = []
    for name, shares in document.items():
        for key, rows in (("families", shares["families"]), ("features", shares["features"][:top])):
            table = TextTable(title=f"{name}: {key} by gain", box=box.SIMPLE_HEAD, pad_edge=False)
            columns = ["family"] if key == "families" else ["feature", "family"]
            for column in columns:
                table.add_column(column, no_wrap=True)
            table.add_column("gain", justify="right")
            table.add_column("splits", justify="right")
            for row in rows:
                table.add_row(*(row[column] for column in columns), f"{row['gain']:.1%}", f"{row['splits']:,}")
            tables.append(table)
    return tables


def _of_booster(booster: Any, table: Table) -> dict[str, list[dict[str, Any]]]:
    gains = booster.feature_importance("gain")
    total = float(gains.sum()) or 1.0
    features: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0])
    families: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    for column, gain, splits in zip(table.columns, gains, booster.feature_importance("split"), strict=True):
        for sums in (features[column.feature, column.family], families[column.family]):
            sums[0] += float(gain) / total
            sums[1] += int(splits)
    return {
        "families": _sorted([{"family": family, "gain": g, "splits": s} for family, (g, s) in families.items()]),
        "features": _sorted(
            [{"feature": name, "family": family, "gain": g, "splits": s} for (name, family), (g, s) in features.items()]
        ),
    }


def _sorted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -row["gain"])
