"""Comparison of variants with the baseline of an experiment, with intervals over seeds and users."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from usr_tf.experiments.grid.data_jobs import DataJob, OneScenario, scenarios_of
from usr_tf.experiments.grid.plan import GridPoint
from usr_tf.experiments.grid.spec import Spec
from usr_tf.experiments.grid.training_jobs import VIEWED, TrainJob, auc_sample
from usr_tf.metrics.resample import interval
from usr_tf.schema import oracle_column

SLICE = "test rows"
"""The axis of slices."""
ALL = "all"
"""Stands for the mean over scenarios."""
_LEAST_ROOM = 0.01


@dataclass(frozen=True, eq=False)
class Comparison:
    """Variant and baseline on the same rows, or the mean of several. AUC is the mean over the seeds."""

    place: Mapping[str, str]
    """Axis → value."""
    variant: str
    scenario: str
    task: str
    baseline_auc: float
    auc: float
    oracle_auc: float
    """NaN where it is not known."""
    positives: int
    """Of the test rows, over all seeds."""
    seeds: int
    sample: np.ndarray = field(repr=False)
    """The difference, and of each resample, `[1 + REPLICATES]`; NaN where undefined."""

    @property
    def gain(self) -> float:
        return float(self.sample[0])

    @property
    def interval(self) -> list[float] | None:
        """95 % interval; None if undefined, or undefined in more than a tenth of the resamples."""
        return interval(self.sample, np.inf)

    @property
    def gap(self) -> float:
        """Share of oracle − baseline that the variant closes; NaN if that gap is negligible."""
        room = self.oracle_auc - self.baseline_auc
        return self.gain / room if room > _LEAST_ROOM else np.nan

    @property
    def verdict(self) -> str:
        """`helps` or `hurts` if the interval excludes 0, else `not shown`; `undefined` without an interval."""
        ends = self.interval
        if ends is None:
            return "undefined"
        return "helps" if ends[0] > 0 else "hurts" if ends[1] < 0 else "not shown"

    def document(self) -> dict[str, Any]:
        """JSON form, as in `results.json`; undefined numbers are None."""
        low, high = self.interval or (None, None)
        figures = {
            "baseline_auc": self.baseline_auc,
            "auc": self.auc,
            "gain": self.gain,
            "oracle_auc": self.oracle_auc,
            "gap": self.gap,
        }
        return {
            **self.place,
            "variant": self.variant,
            "scenario": self.scenario,
            "task": self.task,
            **{name: None if np.isnan(value) else float(value) for name, value in figures.items()},
            "low": low,
            "high": high,
            "verdict": self.verdict,
            "positives": self.positives,
            "seeds": self.seeds,
        }


def compare(spec: Spec, cells: Sequence[GridPoint], work: Path) -> list[Comparison]:
    """Comparisons with the baseline by grid cell, scenario and task. Cells without a result are left out."""
    whole = [cell for cell in cells if all(job.is_done(work) for jobs in cell.jobs for job in jobs)]
    baselines = {tuple(cell.place.items()): cell for cell in whole if cell.variant == spec.baseline}
    oracles: dict[Any, float] = {}
    found = []
    for cell in whole:
        baseline = baselines.get(tuple(cell.place.items()))
        if cell is baseline or baseline is None:
            continue
        for names, masks in _parts(spec, cell, work):
            found += _compare(cell, baseline, {**cell.place, **names}, masks, work, oracles)
    return found


@dataclass(frozen=True)
class Apart:
    """Distances between the views of a variant's models, means over seeds."""

    place: Mapping[str, str]
    variant: str
    part: str
    """One of `VIEWED`."""
    silhouette: float
    """0: they lie within each other, 1: far apart; in all dimensions."""
    cosine_of_views: float
    """Mean of a row's views, two by two."""
    cosine_of_rows: float
    """Mean of different rows in one view: near 1 they have collapsed to a point."""


def views_apart(cells: Sequence[GridPoint], work: Path) -> list[Apart]:
    """View distances of every cell with results, by part of the model."""
    found = []
    for cell in cells:
        jobs = [job for jobs in cell.jobs for job in jobs]
        distances = [job.views(work) for job in jobs] if all(job.is_done(work) for job in jobs) else []
        for part in VIEWED:
            own = [each[part] for each in distances if part in each and each[part]["silhouette"] is not None]
            if own:
                figures = ("silhouette", "cosine_of_views", "cosine_of_rows")
                means = {figure: _mean(each[figure] for each in own) for figure in figures}
                found.append(Apart(cell.place, cell.variant, part, **means))
    return found


def pool(comparisons: Sequence[Comparison], place: Mapping[str, str] | None = None) -> Comparison:
    """Mean of comparisons of one variant and task, with paired resamples.

    A resample in which some comparisons are undefined is the mean of the others: with many comparisons, few resamples
    would define all of them.

    Raises:
      ValueError: no comparison, or those of several variants or tasks.
    """
    if len({(each.variant, each.task) for each in comparisons}) != 1:
        found = ", ".join(sorted({f"{each.variant} {each.task}" for each in comparisons})) or "none"
        raise ValueError(f"`comparisons` must be of one variant and task. Received: {found}")
    first = comparisons[0]
    samples = np.ma.masked_invalid([each.sample for each in comparisons])
    scenarios = {each.scenario for each in comparisons}
    return Comparison(
        place=place or {},
        variant=first.variant,
        scenario=first.scenario if len(scenarios) == 1 else ALL,
        task=first.task,
        baseline_auc=_mean(each.baseline_auc for each in comparisons),
        auc=_mean(each.auc for each in comparisons),
        oracle_auc=_mean(each.oracle_auc for each in comparisons),
        positives=sum(each.positives for each in comparisons),
        seeds=first.seeds,
        sample=samples.mean(axis=0).filled(np.nan),
    )


def overall(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Mean over places and scenarios for each variant and task, of defined values."""
    return [pool(each) for each in _grouped(comparisons, ())]


def by_axis(comparisons: Sequence[Comparison], axis: str) -> list[Comparison]:
    """Means for each value of an axis."""
    return [pool(each, {axis: each[0].place[axis]}) for each in _grouped(comparisons, (axis,))]


def by_place(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Means over scenarios for each place."""
    axes = tuple(dict.fromkeys(axis for each in comparisons for axis in each.place))
    return [pool(each, each[0].place) for each in _grouped(comparisons, axes)]


def axes_of(comparisons: Sequence[Comparison]) -> dict[str, list[str]]:
    """Axes with their values, in order."""
    axes = dict.fromkeys(axis for each in comparisons for axis in each.place)
    return {axis: list(dict.fromkeys(each.place[axis] for each in comparisons)) for axis in axes}


def _grouped(comparisons: Sequence[Comparison], axes: tuple[str, ...]) -> list[list[Comparison]]:
    groups: dict[Any, list[Comparison]] = {}
    for each in comparisons:
        if each.interval is not None:  # a part without positives would leave the mean undefined
            key = (*(each.place[axis] for axis in axes), each.variant, each.task)
            groups.setdefault(key, []).append(each)
    return list(groups.values())


_Masks = list[np.ndarray] | None
"""The rows that count, for each seed; None for all."""
_Rows = list[dict[str, np.ndarray]]
"""For each seed what `DataJob.rows` gives."""


def _parts(spec: Spec, cell: GridPoint, work: Path) -> Iterable[tuple[dict[str, str], _Masks]]:
    """Slices, or all rows as one."""
    if not spec.slices:
        yield {}, None
    for side, starts in spec.slices.items():
        seen = [_data_of(jobs).rows(work)[f"{side}_seen"] for jobs in cell.jobs]
        edges = [0, *starts, None]
        for low, high in itertools.pairwise(edges):
            often = "never" if high == 1 else f"{low} times or more" if high is None else f"{low} to {high - 1} times"
            masks = [(count >= low) & (count < (high or np.inf)) for count in seen]
            yield {SLICE: f"{side} seen {often}"}, masks


def _compare(
    cell: GridPoint, baseline: GridPoint, place: Mapping[str, str], masks: _Masks, work: Path, oracles: dict[Any, float]
) -> Iterable[Comparison]:
    scenarios, tasks = scenarios_of(_data_of(cell.jobs[0]), work)
    rows = [_data_of(jobs).rows(work) for jobs in cell.jobs]
    same_rows = len({_data_of(jobs).key for jobs in cell.jobs}) == 1
    for number, scenario in enumerate(scenarios):
        own = [each["scenario"] == number for each in rows]
        if masks is not None:
            own = [mask & each for mask, each in zip(masks, own, strict=True)]
        for task in tasks:
            if masks is None:
                mine, theirs = (_known_samples(each, number, scenario, task, work) for each in (cell, baseline))
            else:
                mine, theirs = (_samples(each, number, task, rows, own, work) for each in (cell, baseline))
            yield Comparison(
                place=place,
                variant=cell.variant,
                scenario=scenario,
                task=task,
                baseline_auc=float(theirs[:, 0].mean()),
                auc=float(mine[:, 0].mean()),
                oracle_auc=_oracle(rows, own, task, oracles, (tuple(place.items()), scenario, task)),
                positives=sum(int(each[task][mask].sum()) for each, mask in zip(rows, own, strict=True)),
                seeds=len(rows),
                sample=mean_over_seeds(mine - theirs, same_rows),
            )


def _known_samples(cell: GridPoint, number: int, scenario: str, task: str, work: Path) -> np.ndarray:
    """AUC and resamples `[seeds, 1 + REPLICATES]` of a scenario's rows, as the jobs stored them."""
    return np.stack([job.sample(work, scenario, task) for job in _jobs_of(cell, number)])


def _samples(cell: GridPoint, number: int, task: str, rows: _Rows, own: list[np.ndarray], work: Path) -> np.ndarray:
    """AUC and resamples of some of a scenario's rows."""
    scores = [job.probabilities(work)[task] for job in _jobs_of(cell, number)]
    return np.stack([auc_sample(*each[:2], task, each[2]) for each in zip(rows, scores, own, strict=True)])


def _jobs_of(cell: GridPoint, number: int) -> list[TrainJob]:
    """Model of a scenario for each seed; possibly the model of all scenarios."""
    return [jobs[number] if len(jobs) > 1 else jobs[0] for jobs in cell.jobs]


def mean_over_seeds(samples: np.ndarray, same_rows: bool) -> np.ndarray:
    """Mean `[1 + R]` over seeds of a metric `[S, 1 + R]`, resampled over seeds and over the users of each seed.

    The draws depend on the number of seeds alone, so variants, places and scenarios are paired.

    Args:
      same_rows: whether the seeds are of models alone and have the same test rows: users are then drawn for all seeds
        at once. Else each drawn seed has a resample of its own, even one that is drawn twice.

    Raises:
      ValueError: samples of another shape, or of no seed.
    """
    if samples.ndim != 2 or not samples.size:
        raise ValueError(f"`samples` must be [S, 1 + R] of a seed or more. Received: shape {list(samples.shape)}")
    seeds, replicates = samples.shape[0], samples.shape[1] - 1
    rng = np.random.default_rng(8)
    seed = rng.integers(seeds, size=(seeds, replicates))
    resample = np.tile(np.arange(1, 1 + replicates), (seeds, 1))
    if not same_rows:
        resample = rng.permuted(resample, axis=1)
    return np.concatenate([samples[:, :1].mean(axis=0), samples[seed, resample].mean(axis=0)])


def _oracle(rows: _Rows, own: list[np.ndarray], task: str, known: dict[Any, float], key: Any) -> float:
    """Mean AUC of the true probabilities."""
    if key not in known:
        column = oracle_column(task)
        known[key] = _mean(
            _roc_auc(each[task][mask], each[column][mask]) if column in each else np.nan
            for each, mask in zip(rows, own, strict=True)
        )
    return known[key]


def _roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """ROC AUC; NaN if one class is missing."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores)) if 0 < labels.sum() < len(labels) else np.nan


def _data_of(jobs: Sequence[TrainJob]) -> DataJob:
    """Data whose test rows the jobs of a seed share."""
    source = jobs[0].data.source
    return DataJob(source.data) if isinstance(source, OneScenario) else jobs[0].data


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
