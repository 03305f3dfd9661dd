"""Row counts of `stats.json`: rows read, written and rejected, and the contents of each split."""

from collections import Counter
from collections.abc import Iterable, Sequence

from pipelines.join.split import SPLITS
from pipelines.logs.rejected import Examples
from pipelines.quality.statistics import Measured, figures_of
from usr_tf.errors import InputError
from usr_tf.schema import ROW_FORMAT, TABLES, Schema, global_label


def add_counts(counts: Iterable[dict]) -> dict:
    """Sum of `{path into the document: count}` dictionaries."""
    total: Counter = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


def document(counts: dict, schema: Schema, examples: Examples, measured: Measured) -> dict:
    """`stats.json` from all counts, with fixed key order and every scenario.

    Args:
      examples: of rejected rows.
      measured: the quality of every split.
    """
    counts = Counter(counts)
    tables = [table for table in TABLES if table != "users" or counts["rows", "users", "read"]]
    rows = {}
    for table in tables:
        rejected = {key[3]: n for key, n in sorted(counts.items()) if key[:3] == ("rows", table, "rejected")}
        rows[table] = {
            "read": counts["rows", table, "read"],
            "written": counts["rows", table, "written"],
            "rejected": rejected,
        } | ({"examples": examples[table]} if table in examples else {})
    splits = {
        split: {
            scenario: {name: counts["splits", split, scenario, name] for name in ("impressions", *schema.label_names)}
            for scenario in schema.scenarios
        }
        for split in SPLITS
    }
    growth = {
        name: {key: counts["growth", name, key] for key in ("old", "new", "appended_values", "values")}
        for name in schema.features
        if ("growth", name, "old") in counts
    }
    quality = {split: figures_of(measured, split, schema) for split in SPLITS}
    return {"format": ROW_FORMAT, "rows": rows, "splits": splits, "quality": quality} | (
        {"growth": growth} if growth else {}
    )


def describe(stats: dict) -> str:
    """Summary of `stats.json` in a few lines."""
    lines = []
    for table, rows in stats["rows"].items():
        rejected = ", ".join(f"{count:,} {reason}" for reason, count in rows["rejected"].items()) or "none"
        lines.append(f"{table}: {rows['read']:,} read, {rows['written']:,} written, rejected: {rejected}")
    for split, scenarios in stats["splits"].items():
        for scenario, counts in scenarios.items():
            shown, *labels = (f"{count:,} {name}" for name, count in counts.items())
            lines.append(f"{split} {scenario}: {shown}; {', '.join(labels)}")
    return "\n".join([*lines, *_describe_clamped(stats.get("quality", {}))])


def _describe_clamped(quality: dict) -> list[str]:
    """Warnings for features with clamped outliers: counts per split, and the bounds."""
    found: dict[str, dict[str, list[dict]]] = {}
    for split, scenarios in quality.items():
        for features in scenarios.values():
            for name, figures in features.items():
                if "clamped" in figures:
                    found.setdefault(name, {}).setdefault(split, []).append(figures)
    warnings = []
    for name, splits in found.items():
        clamped = [figures["clamped"] for scenarios in splits.values() for figures in scenarios]
        bounds = []
        for side, words in (("low", "at least"), ("high", "at most")):
            known = [each[side] for each in clamped if each[side] is not None]
            bounds += [f"{words} {known[0]:.6g}"] if known else []
        if bounds:
            counts = (_clamped_of(split, scenarios) for split, scenarios in splits.items())
            warnings.append(f"warning: {name}: outliers clamped to {' and '.join(bounds)}: {', '.join(counts)}")
    return warnings


def _clamped_of(split: str, scenarios: list[dict]) -> str:
    clamped = sum(figures["clamped"]["below"] + figures["clamped"]["above"] for figures in scenarios)
    present = sum(round((figures["coverage"] or 0) * figures["rows"]) for figures in scenarios)
    return f"{clamped:,} of {present:,} numbers in {split}"


def check(stats: dict, logs_dir: str) -> None:
    """Checks that there is a training row and that every row read is accounted for.

    Raises:
      InputError: no sound impression at all, or none to train on.
    """
    for table, counts in stats["rows"].items():
        if counts["read"] != counts["written"] + sum(counts["rejected"].values()):
            raise AssertionError(f"{table}: rows were lost: {counts}")
    impressions = stats["rows"]["impressions"]
    if not impressions["written"]:
        raise InputError(
            logs_dir, f"no sound impression (rejected: {impressions['rejected']})", "at least one; see rejected/"
        )
    if not any(counts["impressions"] for counts in stats["splits"]["train"].values()):
        raise InputError(
            logs_dir, f"no sound impression to train on (rejected: {impressions['rejected']})", "one; see rejected/"
        )


def tasks_without_positive(stats: dict, schema: Schema) -> list[str]:
    """A line for each task without a positive in the training rows of all scenarios, with what was counted."""
    train = stats["splits"]["train"]
    lines = []
    for task in schema.tasks:
        if not any(counts[task.name] for counts in train.values()):
            label = global_label(task.name)
            counted = " and ".join(
                f"0 of {counts['impressions']:,} impressions of {scenario} (global label: {counts[label]:,})"
                for scenario, counts in train.items()
            )
            lines.append(
                f"task {task.name!r}, split train: found no positive, no {task.action!r} credited to {counted}"
            )
    return lines


def scenarios_without_positive(stats: dict, schema: Schema) -> list[str]:
    """A line for each task and scenario with training rows where other scenarios alone have positives."""
    train = stats["splits"]["train"]
    return [
        f"task {task.name!r}, scenario {scenario!r}, split train: found no positive among {counts['impressions']:,} "
        f"impressions, no {task.action!r} credited, expected some, as other scenarios have"
        for task in schema.tasks
        if any(counts[task.name] for counts in train.values())
        for scenario, counts in train.items()
        if counts["impressions"] and not counts[task.name]
    ]


def refuse_without_positive(lines: Sequence[str], logs_dir: str) -> None:
    """Refuses training rows without a positive, as `tasks_without_positive` tells.

    Raises:
      InputError: there is a line.
    """
    if lines:
        place, _, found = "; ".join(lines).partition(": found ")
        expected = (
            "at least one: actions of that name within labels.attribution of an impression of the same user and item"
        )
        raise InputError(
            f"{logs_dir}: {place}", found, f"{expected}; or tasks of other actions, or --allow_no_positives"
        )
