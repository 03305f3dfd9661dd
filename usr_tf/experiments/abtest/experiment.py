"""Runner of `usr-tf abtest`: replays the arms in parallel processes and writes the analysis."""

import dataclasses
import functools
import gzip
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipelines.simulator import tables
from pipelines.simulator.people import Users
from pipelines.simulator.ranker import SLATE
from pipelines.simulator.simulate import Simulation, read_simulation
from pipelines.simulator.world import DAYS, World
from serving.client.formula import Formula
from usr_tf.errors import InputError
from usr_tf.experiments.abtest.abtest_page import page
from usr_tf.experiments.abtest.analysis import A, B, analyse
from usr_tf.experiments.abtest.arms import SHOP, TASKS, Ranking
from usr_tf.experiments.abtest.exported_model import Model, find_version
from usr_tf.experiments.abtest.raw_requests import Requests
from usr_tf.experiments.abtest.replay import ArmLog, Plan
from usr_tf.experiments.abtest.workers import play_tasks
from usr_tf.files import make_folder, replace_text, strict_json

_ARMS = (SHOP, A, B)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a test, described in `docs/abtest.md`.

    Raises:
      InputError: a value out of its range.
    """

    days: int = 14
    users: int | None = None
    by: str = "ctr + 5 * ctcvr"
    explore: float = 0.1
    temperature: float = 2.0
    seed: int = 0
    share: float = 0.5

    def __post_init__(self) -> None:
        _check("--days", self.days, self.days >= 1, "at least 1")
        _check("--users", self.users, self.users is None or self.users >= 2, "at least 2")
        _check("--explore", self.explore, 0 < self.explore <= 1, "above 0, at most 1: chances must not be 0")
        _check("--temperature", self.temperature, 0.2 <= self.temperature <= 1000, "0.2 to 1000 places")
        _check("--seed", self.seed, self.seed >= 0, "at least 0")
        _check("--share", self.share, 0 < self.share < 1, "between 0 and 1")
        Formula(self.by, "--by").check_names(TASKS)


def abtest(
    a: str | Path,
    b: str | Path,
    logs: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    *,
    workers: int | None = None,
    progress: bool = True,
    command: str = "",
) -> dict[str, Any]:
    """Tests model B against model A on the shop of the logs, and writes `OUT/abtest.html`, then `OUT/abtest.json`.

    Args:
      a, b: folders of `usr-tf export`, or versions in them.
      logs: a directory of `usr-tf simulate`.
      settings: the defaults where absent.
      workers: processes, one a core where absent; they have no part in the result. With more than one, a script has to
        call this under `if __name__ == "__main__"`.
      progress: whether to draw a bar on stderr.
      command: what the page says made it.

    Returns:
      The document of `abtest.json`.

    Raises:
      InputError: logs that are not the simulator's, or a folder without a model for them.
    """
    settings = settings or Settings()
    simulation = read_simulation(logs)
    world = simulation.world()
    _check_items(logs, world)
    paths = {A: find_version(a), B: find_version(b)}
    for path in paths.values():
        _check_model(path, simulation, world)
    users = sum(chunk.users for chunk in simulation.chunks())
    plan = Plan(
        simulation=simulation,
        days=settings.days,
        users=min(users, settings.users or users),
        seed=settings.seed,
        ranking=Ranking(settings.by, settings.explore, settings.temperature),
    )
    out = make_folder(out)
    played = _play(plan, world, paths, workers or os.cpu_count() or 1, progress)
    if not played[A].user.size:
        found = f"{plan.users}, none of whom comes in {settings.days} days"
        raise InputError("--users", found, "more users, or more --days")
    salt = f"abtest-{settings.seed}"
    rng = np.random.default_rng(np.random.SeedSequence([simulation.seed, settings.seed, len(_ARMS)]))
    document = {
        "a": str(paths[A]),
        "b": str(paths[B]),
        "logs": str(logs),
        "simulation": simulation.model_dump(),
        "settings": dataclasses.asdict(settings) | {"users": plan.users},
        "salt": salt,
        **analyse(played, simulation.scenarios, settings.days, settings.share, salt, rng),
    }
    replace_text(out / "abtest.html", page(document, command))
    replace_text(out / "abtest.json", strict_json(document, indent=2) + "\n")
    return document


def _play(plan: Plan, world: World, paths: Mapping[str, Path], workers: int, progress: bool) -> dict[str, ArmLog]:
    chunks = plan.simulation.chunks()
    share = plan.users / sum(chunk.users for chunk in chunks)
    requests = round(share * plan.simulation.impressions / SLATE * plan.days / DAYS) * len(_ARMS)
    tasks = [(arm, chunk) for chunk in chunks if chunk.first_user < plan.users for arm in _ARMS]
    logs: dict[str, list[ArmLog]] = {arm: [] for arm in _ARMS}
    with _bar(progress) as bar:
        advance = functools.partial(bar.advance, bar.add_task("Replaying", total=requests))
        for (arm, _), log in zip(tasks, play_tasks(plan, world, paths, tasks, workers, advance), strict=True):
            logs[arm].append(log)
    return {arm: ArmLog.together(parts) for arm, parts in logs.items()}


def _bar(shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("requests"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not shown,
    )


def _check_model(path: Path, simulation: Simulation, world: World) -> None:
    """Checks the model in the main process: an `InputError` of a worker does not arrive whole."""
    model = Model(path)
    for kind, wanted, held in (
        ("scenarios", simulation.scenarios, model.scenarios),
        ("tasks", TASKS, model.schema.task_names),
    ):
        if not {*wanted} <= {*held}:
            raise InputError(f"{path}: {kind}", ", ".join(held), f"the shop's: {', '.join(wanted)}")
    Requests(model.schema, world, Users.draw(np.random.default_rng(0), world, 1), 0, path)


_EXPECTED = "logs that usr-tf simulate wrote, as they are"


def _check_items(logs: str | Path, world: World) -> None:
    """Checks that the items of the logs are those of this version's simulator."""
    found: list[Any] = []
    for path in sorted(Path(logs).glob("items-*.jsonl.gz")):
        try:
            with gzip.open(path) as lines:
                found += map(orjson.loads, lines)
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise InputError(path, f"a broken file ({error})", _EXPECTED) from error
    if found != list(tables.item_versions(world)):
        raise InputError(logs, "items that this simulator does not make", _EXPECTED)


def _check(flag: str, value: Any, fits: bool, expected: str) -> None:
    if not fits:
        raise InputError(flag, repr(value), expected)
