"""Expansion of a spec to grid cells and training jobs."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.simulator.scenarios import SCENARIOS
from usr_tf.config import Config, load_config
from usr_tf.experiments.grid.data_jobs import DataJob, Given, OneScenario, Shop
from usr_tf.experiments.grid.spec import TUNING_SEED, Scalar, Settings, Spec
from usr_tf.experiments.grid.training_jobs import TrainJob
from usr_tf.experiments.search_space import setting
from usr_tf.schema import load_schema


@dataclass(frozen=True)
class GridPoint:
    """Variant at one place of the grid, over all seeds."""

    place: Mapping[str, str]
    """Axis → value, of the axes that have several."""
    variant: str
    seeds: tuple[int, ...]
    jobs: tuple[tuple[TrainJob, ...], ...]
    """For each seed one job, or one for each scenario, in their order."""


@dataclass(frozen=True)
class _Place:
    """Data and configuration shared by variants."""

    names: dict[str, str]
    tuned_as: dict[str, str]
    """Those of the names that a choice depends on: shops that differ have it in common."""
    settings: Settings
    sources: dict[int, Shop | Given]
    """By seed."""
    tuning: Shop | Given


def plan(spec: Spec, work: Path) -> list[GridPoint]:
    """All cells of the grid. A spec with `tune` needs the results of `tuning_jobs` under `work`.

    Raises:
      InputError: a key or a value that the training configuration has not, or data that are not there.
    """
    cells = []
    for place in _places(spec):
        chosen = _choose(spec, place, work) if spec.tune else {}
        for variant in spec.variants:
            jobs = []
            for seed, source in place.sources.items():
                config = _config(spec, place, variant, seed, chosen.get(variant, {}))
                label = ", ".join([*place.names.values(), variant])
                if variant in spec.per_scenario:
                    parts = [OneScenario(source, name) for name in _scenario_names(source)]
                    jobs.append(tuple(TrainJob(DataJob(part), config, label) for part in parts))
                else:
                    jobs.append((TrainJob(DataJob(source), config, label),))
            cells.append(GridPoint(place.names, variant, tuple(place.sources), tuple(jobs)))
    return cells


def check_data(spec: Spec) -> None:
    """Checks the data that a spec names.

    Raises:
      InputError: a directory that `usr-tf preprocess` has not finished.
    """
    for path in (spec.data or {}).values():
        _ = Given(path).key


def tuning_jobs(spec: Spec) -> list[TrainJob]:
    """Jobs to run before `plan` can choose tuned values."""
    if not spec.tune:
        return []
    jobs = [job for place in _places(spec) for variant in spec.tune.variants for job in _tries(spec, place, variant)]
    return list(dict.fromkeys(jobs))


def chosen_values(spec: Spec, work: Path) -> dict[str, float]:
    """Tuned value of each configuration, by its name."""
    found: dict[str, float] = {}
    for place in _places(spec):
        for variant in spec.tune.variants if spec.tune else ():
            value = _choose(spec, place, work)[variant][spec.tune.key]
            found[", ".join([*place.tuned_as.values(), variant])] = value
    return found


def _choose(spec: Spec, place: _Place, work: Path) -> dict[str, Settings]:
    """Variant → tuned value."""
    taken: dict[str, Settings] = {}
    for variant in spec.tune.variants:
        scores = [job.validation_auc(work) for job in _tries(spec, place, variant)]
        best = max(range(len(scores)), key=lambda index: -math.inf if math.isnan(scores[index]) else scores[index])
        taken[variant] = {spec.tune.key: spec.tune.values[best]}
    last = taken[spec.tune.variants[-1]]
    return {variant: taken.get(variant, last) for variant in spec.variants}


def _tries(spec: Spec, place: _Place, variant: str) -> list[TrainJob]:
    """One job per candidate value."""
    seed = place.tuning.seed if isinstance(place.tuning, Shop) else next(iter(place.sources))
    return [
        TrainJob(
            DataJob(place.tuning),
            _config(spec, place, variant, seed, {spec.tune.key: value}),
            ", ".join([*place.tuned_as.values(), variant, f"{spec.tune.key}={value:g}"]),
        )
        for value in spec.tune.values
    ]


def _places(spec: Spec) -> Iterator[_Place]:
    for data_names, sources, tuning in _data(spec):
        for axis_names, settings in spec.axis_cells():
            names = data_names | axis_names
            tuned_as = axis_names if spec.data is None else names
            yield _Place(names, tuned_as, settings, sources, tuning)


def _data(spec: Spec) -> Iterator[tuple[dict[str, str], dict[int, Shop | Given], Shop | Given]]:
    """Names of the data on their axes, the data of each seed, and the data for tuning."""
    if spec.data is not None:
        for name, path in spec.data.items():
            given = Given(str(Path(path).resolve()))
            yield ({"data": name} if len(spec.data) > 1 else {}), dict.fromkeys(spec.seeds, given), given
        return
    tuning = None
    for arguments in spec.shop.cells():
        shop = _shop(arguments)
        tuning = tuning or shop(TUNING_SEED)  # for all, in a shop of the first kind
        names = {axis: _told(arguments[axis]) for axis in spec.shop.axes}
        yield names, {seed: shop(seed) for seed in spec.seeds}, tuning


def _told(value: float | None) -> str:
    return "as label_noise" if value is None else f"{value:g}"


def _shop(arguments: Mapping[str, Scalar]) -> Callable[[int], Shop]:
    """Shop of a seed."""
    noise = arguments["global_label_noise"]
    noise = arguments["label_noise"] if noise is None else noise
    return functools.partial(Shop, **{**arguments, "global_label_noise": noise})


def _config(spec: Spec, place: _Place, variant: str, seed: int, chosen: Settings) -> Config:
    budget = {"train.epochs": spec.budget.epochs, "train.batch_size": spec.budget.batch_size, "train.patience": 0}
    settings = {**budget, **spec.settings, **place.settings, **spec.variants[variant], **chosen, "seed": seed}
    return load_config(None, [setting(key, value) for key, value in settings.items()])


def _scenario_names(source: Shop | Given) -> Sequence[str]:
    if isinstance(source, Shop):
        return [scenario.name for scenario in SCENARIOS[: source.scenarios]]
    return load_schema(Path(source.path) / "schema.yaml").scenarios


def all_jobs(cells: Sequence[GridPoint]) -> list[TrainJob]:
    """Jobs of all cells, without repeats."""
    return list(dict.fromkeys(job for cell in cells for jobs in cell.jobs for job in jobs))
