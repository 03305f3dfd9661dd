"""Results of an experiment as text and tables, for the page and the Markdown document."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from usr_tf.experiments.grid.comparisons import SLICE, Apart, Comparison, axes_of, by_axis, by_place, overall
from usr_tf.experiments.grid.spec import ShopAxes, Spec
from usr_tf.experiments.grid.worker_processes import Failure
from usr_tf.files import strict_json


@dataclass(frozen=True)
class Results:
    """Spec, comparisons, and failed jobs of an experiment."""

    name: str
    spec: Spec
    comparisons: Sequence[Comparison]
    failures: Sequence[Failure] = ()
    chosen: Mapping[str, float] = field(default_factory=dict)
    """What configurations that had a choice took."""
    apart: Sequence[Apart] = ()

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(each.task for each in self.comparisons))

    @property
    def axes(self) -> dict[str, list[str]]:
        return axes_of(self.comparisons)

    @property
    def overall(self) -> list[Comparison]:
        """Means over places and scenarios for each variant and task."""
        return overall(self.comparisons)

    def by_axis(self, axis: str) -> list[Comparison]:
        """Means for each value of an axis."""
        return by_axis(self.comparisons, axis)

    def by_place(self) -> list[Comparison]:
        """Means for each place."""
        return by_place(self.comparisons)

    @property
    def size(self) -> str:
        """Description of data, budget and number of models."""
        spec = self.spec
        if spec.data is not None:
            data = f"data {', '.join(spec.data)}"
        else:
            made = {name: values[0] for name, values in spec.shop if len(values) == 1}
            data = "simulated shops"
            if "impressions" in made:
                data += f" of {made['impressions']:,} impressions"
            if "similarity" in made:
                data += f" at similarity {made['similarity']:g}"
            for name, values in ShopAxes():
                if name not in ("impressions", "similarity") and made.get(name, values[0]) != values[0]:
                    data += f", {name.replace('_', ' ')} {made[name]:g}"
        seeds = f"{len(spec.seeds)} seeds" if len(spec.seeds) > 1 else "1 seed (so intervals are over users alone)"
        return f"{data}, {seeds}, {spec.budget.epochs} epochs in batches of {spec.budget.batch_size:,}"

    @property
    def facts(self) -> list[str]:
        """Sentences on how the results were made."""
        sentences = [f"Size: {self.size}."]
        if self.chosen:
            where = "in a shop of its own" if self.spec.data is None else "with the first seed"
            chosen = ", ".join(f"{name} {value:g}" for name, value in self.chosen.items())
            sentences.append(f"{self.spec.tune.key} by validation AUC {where}: {chosen}.")
        return sentences + [f"Not done: {failure.name} ({failure.reason})." for failure in self.failures]

    def document(self) -> dict[str, Any]:
        """JSON form, as in `results.json`."""
        return {
            "experiment": self.name,
            "spec": self.spec.model_dump(mode="json"),
            "chosen": dict(self.chosen),
            "overall": [each.document() for each in self.overall],
            "comparisons": [each.document() for each in self.comparisons],
            "views": [asdict(each) for each in self.apart],
            "failures": [{"job": failure.name, "reason": failure.reason} for failure in self.failures],
        }

    def to_json(self) -> str:
        return strict_json(self.document(), indent=1) + "\n"

    def to_csv(self) -> str:
        return pd.DataFrame([each.document() for each in self.comparisons]).to_csv(index=False)


READING = """\
A difference is AUC on the test split less the baseline's, on the same rows. The interval holds 95 % of a paired
bootstrap, which draws seeds (each another shop, if simulated, and other first weights) and then users. "helps" and
"hurts" say that it lies above or below 0, "not shown" that it holds 0: there is nothing, or the experiment is too small
to tell. Where there is nothing, one interval in twenty leaves 0 out by chance, so of many comparisons a few verdicts
are wrong; none is corrected for their number. Means over scenarios and places are of the same draws. Gap closed is the
share of oracle − baseline."""
"""For whoever reads results."""
_SMALL = """\
This is a small run, with {seeds} in places: its intervals hardly know how shops differ from each other, and leave 0 out
by chance more often than that. Read them as: on these shops, for other users."""
_FEW_SEEDS = 5


def caution(results: Sequence[Results]) -> str:
    """Note on the limits of few seeds; "" with enough."""
    seeds = min((len(each.spec.seeds) for each in results), default=_FEW_SEEDS)
    return _SMALL.format(seeds=f"{seeds} seed{'s' if seeds > 1 else ''}") if seeds < _FEW_SEEDS else ""


def by_chance(comparisons: Iterable[Comparison]) -> str:
    """Number of verdicts, and the number expected by chance."""
    verdicts = [each.verdict for each in comparisons if each.interval]
    shown = len(verdicts) - verdicts.count("not shown")
    return (
        f"{shown} of {len(verdicts)} intervals leave 0 out; if no variant differed from its baseline, "
        f"{0.05 * len(verdicts):.2g} would be expected to by chance."
    )


_VERBS = {"helps": "helps", "hurts": "hurts", "not shown": "no difference is shown"}
_LISTED = 3
"""Places that a sentence names; of more it gives the number."""


def answers(results: Results) -> dict[str, list[Comparison]]:
    """Compared variants and their means, one per task.

    Slices overlap and differ in kind, so there is no mean over them: each has its own answer.
    """
    found: dict[str, list[Comparison]] = {}
    for variant in results.spec.variants:
        if variant == results.spec.baseline:
            continue
        if not results.spec.slices:
            found[variant] = [each for each in results.overall if each.variant == variant]
        for name in results.axes.get(SLICE, []):
            means = results.by_axis(SLICE)
            own = [each for each in means if (each.variant, each.place[SLICE]) == (variant, name)]
            found[f"{variant}, {name}"] = own
    return found


def answered(results: Results) -> dict[str, str]:
    """Answers in words."""
    sentences, there = {}, {each.variant for each in results.comparisons}
    for name, means in answers(results).items():
        if name in results.spec.variants and name not in there:
            sentences[name] = "nothing can be told, not all models are there."
            continue
        places = "" if results.spec.slices else where(results, name)
        sentences[name] = f"{sentence(means)}." + (f" By place: {places}." if places else "")
    return sentences


def sentence(means: Sequence[Comparison]) -> str:
    """Finding of each task in a sentence."""
    if not means:
        return "nothing can be told, there are too few positives"
    return "; ".join(f"{each.task} {gain(each)}: {_VERBS[each.verdict]}" for each in means)


def verdicts(results: Results, means: Sequence[Comparison]) -> str:
    """Verdict of each task: `ctr helps, ctcvr undefined`; without any result, `not done`."""
    found = {each.task: each.verdict for each in means}
    return ", ".join(f"{task} {found.get(task, 'undefined')}" for task in results.tasks) or "not done"


def where(results: Results, variant: str) -> str:
    """Places in which a variant helps and does not, by the mean over scenarios; "" for a single place."""
    sentences = []
    for task in results.tasks:
        own = [each for each in results.by_place() if (each.variant, each.task) == (variant, task)]
        if len(own) < 2:
            continue
        helped = sum(each.verdict == "helps" for each in own)
        parts = [f"helps in {helped} of {len(own)}"] if helped else []
        for verdict in ("not shown", "hurts"):
            names = [place_name(each) for each in own if each.verdict == verdict]
            if names:
                parts.append(f"{verdict} in {len(names) if len(names) > _LISTED else ', '.join(names)}")
        sentences.append(f"{task} {', '.join(parts)}")
    return "; ".join(sentences)


def place_name(comparison: Comparison) -> str:
    """`(similarity 0.5, noise 0.1)`; a self-describing value stands without its axis."""
    parts = [
        f"{axis.replace('_', ' ')} {value}" if value[:1].isdigit() else value
        for axis, value in comparison.place.items()
    ]
    return parts[0] if len(parts) == 1 else f"({', '.join(parts)})"


def gain(comparison: Comparison) -> str:
    """`+0.021 (+0.010 to +0.032)`."""
    ends = comparison.interval
    return f"{comparison.gain:+.3f}" + (f" ({ends[0]:+.3f} to {ends[1]:+.3f})" if ends else " (no interval)")


COLUMNS = ("variant", "scenario, task", "baseline AUC", "AUC", "Δ AUC", "95 %", "oracle AUC", "gap closed", "verdict")


def rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Full table as text: columns, and a row per comparison."""
    axes = list(results.axes)
    return [*axes, *COLUMNS], [[each.place[axis] for axis in axes] + _row(each) for each in results.comparisons]


def _row(each: Comparison) -> list[str]:
    ends = each.interval
    return [
        each.variant,
        f"{each.scenario} {each.task}",
        number(each.baseline_auc),
        number(each.auc),
        number(each.gain, "+.3f"),
        f"{ends[0]:+.3f} to {ends[1]:+.3f}" if ends else "–",
        number(each.oracle_auc),
        number(each.gap, "z.0%"),
        each.verdict,
    ]


APART = ("silhouette", "cosine of views", "cosine of rows")


def apart_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """View distances as text: columns, and a row per variant and part."""
    axes = list(results.axes)
    body = [
        [*(each.place[axis] for axis in axes), each.variant, each.part]
        + [number(value) for value in (each.silhouette, each.cosine_of_views, each.cosine_of_rows)]
        for each in results.apart
    ]
    return [*axes, "variant", "what", *APART], body


def number(value: float, form: str = ".3f") -> str:
    """Number as text; a dash if undefined."""
    return "–" if value != value else format(value, form)
