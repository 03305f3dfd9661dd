"""Report section on the data: rows, positives and features of each split, from `stats.json`."""

from collections.abc import Mapping
from typing import Any

from usr_tf.evaluation.report import html
from usr_tf.evaluation.report.html import Section
from usr_tf.evaluation.report.task_results import count, share
from usr_tf.schema import Schema


def section(
    stats: Mapping[str, Any], schema: Schema, vocabulary_sizes: Mapping[str, int], split: str, days: list[str]
) -> Section:
    """Rows read and rejected, positives per split and scenario, and what the features hold.

    Args:
      stats: what `stats.json` holds.
      vocabulary_sizes: ids of each feature that has any, as `Data.vocabulary_sizes`.
      split: the one evaluated, whose coverage and unknown values are shown.
      days: of its rows, where known.
    """
    span = f" It spans {days[0]} to {days[-1]} ({len(days)} days)." if len(days) > 1 else ""
    span = f" All of it is of {days[0]}." if len(days) == 1 else span
    return Section(
        "Data",
        html.card(_splits(stats, schema), "Rows and positives")
        + html.card(_tables(stats), "Logs read")
        + html.details("Features", html.card(_features(stats, schema, vocabulary_sizes, split))),
        f"Splits go by time; the figures of this page are of the {split} split.{span}",
    )


def _splits(stats: Mapping[str, Any], schema: Schema) -> str:
    """A label's count and its share of the impressions."""
    rows = []
    for split, scenarios in stats["splits"].items():
        for scenario, counts in scenarios.items():
            shown = counts["impressions"]
            labels = [f"{count(counts[name])}\n{share(counts[name], shown)}" for name in schema.label_names]
            rows.append([split, scenario, count(shown), *labels])
    return html.table(["split", "scenario", "impressions", *map(_spaced, schema.label_names)], rows, names=2)


def _tables(stats: Mapping[str, Any]) -> str:
    rows = []
    for name, counts in stats["rows"].items():
        reasons = ", ".join(f"{reason} {count(number)}" for reason, number in counts["rejected"].items())
        rejected = sum(counts["rejected"].values())
        rows.append([name, count(counts["read"]), count(counts["written"]), count(rejected), reasons or html.UNDEFINED])
    return html.table(["table", "rows read", "used", "rejected", "why"], rows)


def _features(stats: Mapping[str, Any], schema: Schema, sizes: Mapping[str, int], split: str) -> str:
    """Coverage, unknown values and outliers are over all scenarios of the split."""
    rows = []
    for name, feature in schema.features.items():
        per_scenario = [found[name] for found in stats.get("quality", {}).get(split, {}).values() if name in found]
        shown = sum(found["rows"] for found in per_scenario)
        covered = sum((found["coverage"] or 0) * found["rows"] for found in per_scenario)
        values = sum(found.get("values", 0) for found in per_scenario)
        unknown = sum(found.get("oov", 0) for found in per_scenario)
        sides = [found["clamped"] for found in per_scenario if "clamped" in found]
        clamped = sum(found["below"] + found["above"] for found in sides)
        ids = count(sizes[name]) if name in sizes else html.UNDEFINED
        shares = share(covered, shown), share(unknown, values), share(clamped, covered if sides else 0)
        rows.append([name, feature.group, _spaced(feature.type), ids, *shares])
    columns = ["feature", "group", "type", "ids", "rows that have it", "unknown values", "outliers clamped"]
    return html.table(columns, rows, names=3, groups=False)


def _spaced(name: str) -> str:
    return name.replace("_", " ")
