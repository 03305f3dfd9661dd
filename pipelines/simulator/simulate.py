"""Simulator of shop logs: search box, feed and more, with the true probability of every label.

`docs/simulator.md` has the equations. In short: people have lasting tastes, which differ between the scenarios as
far as `similarity` lets them, and passing needs, which do not: they drive what people search for, and what they
click everywhere. What is seen in one scenario is later looked for, and bought, in another.

Users act independently of each other, given the shop. So they are played in chunks, each with a random stream of its
own and a shard of its own in every table: neither memory nor the bytes depend on how many processes share the work.
"""

import functools
import itertools
import json
import math
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from rich.console import Console
from rich.progress import track

from pipelines.logs.writer import LogWriter, open_shard
from pipelines.simulator import behaviour, noise, tables
from pipelines.simulator.people import Users, plan_visits
from pipelines.simulator.ranker import SLATE
from pipelines.simulator.scenarios import SCENARIOS, Scenario
from pipelines.simulator.signals import SIGNALS
from pipelines.simulator.world import World
from usr_tf.documents import StrictModel, parse_model
from usr_tf.errors import InputError

SIMULATION = "simulation.json"
"""The file beside the tables that says how they were made."""
IMPRESSIONS_PER_USER = 250
CHUNK_USERS = 400
_IN_PROCESS = 4
"""So few chunks take less time than other processes take to start."""


def simulate(
    out: str | Path,
    impressions: int = 200_000,
    seed: int = 0,
    similarity: float = 0.3,
    label_noise: float = 0.0,
    progress: bool = True,
    *,
    global_label_noise: float | None = None,
    scenarios: int | Sequence[str] = 2,
    needs: float = 0.8,
    signals: Mapping[str, float] | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Writes the logs of a simulated shop into `out`; the same arguments write the same bytes.

    Beside the tables stands `simulation.json`, from which `read_simulation` makes the same shop again.

    Args:
      out: a directory, to be made.
      impressions: rows of the impressions table; users and items grow with it.
      seed: of the world, its people and their luck. Noise has a stream of its own: it changes nothing that happens.
      similarity: ρ, the weight of what all scenarios share in each one's tastes and in what counts there, 0 to 1.
        Tastes in two scenarios correlate by ρ².
      label_noise: share of impressions whose credited actions (what scenario labels are made of) are chance.
      progress: whether to draw a progress bar on stderr.
      global_label_noise: the same for actions that only global labels see; None for that of `label_noise`.
      scenarios: how many of `scenarios.SCENARIOS`, from the first, or their names.
      needs: chance that a wish outlasts its request, 0 to 1. At 0 no need passes from scenario to scenario.
      signals: strengths, 0 to 1, of some of `signals.SIGNALS`, which are off otherwise; 0 is off too.
      workers: processes; None for one a core if that pays. It has no part in the result. With more than one, a
        script has to call this under `if __name__ == "__main__"`.

    Returns:
      `{"counts": {table: rows}, "rates": {scenario: {"impressions", "ctr", "ctcvr", "oracle_ctr", "oracle_ctcvr"}}}`,
      by scenario labels, a rate being null where the scenario has no impression.

    Raises:
      InputError: an argument out of its range, or an `out` that cannot be written.
    """
    _check_whole("--impressions", impressions, least=1)
    _check_whole("--seed", seed, least=0)
    _check_share("--similarity", similarity)
    _check_share("--label_noise", label_noise)
    global_label_noise = label_noise if global_label_noise is None else global_label_noise
    _check_share("--global_label_noise", global_label_noise)
    _check_share("--needs", needs)
    if workers is not None:
        _check_whole("--workers", workers, least=1)
    chosen = _scenarios(scenarios)
    made = Simulation(
        impressions=int(impressions),
        seed=int(seed),
        similarity=float(similarity),
        label_noise=float(label_noise),
        global_label_noise=float(global_label_noise),
        scenarios=[scenario.name for scenario in chosen],
        needs=float(needs),
        signals=_signals(signals or {}),
    )
    chunks = made.chunks()
    if workers is None:
        workers = (os.cpu_count() or 1) if len(chunks) > _IN_PROCESS else 1
    world = made.world()
    with LogWriter(out, tables.schema_of(world)) as logs:
        for row in tables.item_versions(world):
            logs.write("items", row)
        write = functools.partial(_write_chunk, logs.folder, world, made)
        totals = np.zeros((len(chosen), len(_SUMS)))
        bar: dict[str, Any] = {"console": Console(stderr=True), "transient": True, "disable": not progress}
        for written in track(_map(write, chunks, workers), "Simulating", len(chunks), **bar):
            for table, (path, rows) in written.files.items():
                logs.add_shard(table, path, rows)
            totals += written.sums
        counts = dict(logs.counts)
        (logs.folder / SIMULATION).write_text(
            made.model_dump_json(indent=2, exclude_defaults=True) + "\n", encoding="utf-8"
        )
    return {
        "counts": counts,
        "rates": {scenario.name: _rates(sums) for scenario, sums in zip(chosen, totals.tolist(), strict=True)},
    }


class Simulation(StrictModel, strict=True):
    """Arguments of `simulate` that determine the logs."""

    impressions: int
    seed: int
    similarity: float
    label_noise: float
    global_label_noise: float
    scenarios: list[str]
    needs: float
    signals: dict[str, float] = {}

    def world(self) -> World:
        return make_world(
            self.impressions, self.seed, _scenarios(self.scenarios), self.similarity, self.needs, self.signals
        )

    def chunks(self) -> list["Chunk"]:
        return _chunks(self.impressions)

    def record(self, world: World, chunk: "Chunk", played: behaviour.Play) -> noise.Record:
        """Logged form of a chunk's outcomes."""
        rng = np.random.default_rng(_stream(self.seed, "noise", chunk.number))
        return noise.record(rng, played, world.of_scenarios("prompt"), self.label_noise, self.global_label_noise)


def is_simulated(logs: str | Path) -> bool:
    """Whether a log directory is `simulate`'s."""
    return (Path(logs) / SIMULATION).is_file()


def read_simulation(logs: str | Path) -> Simulation:
    """Arguments with which the logs in a directory were simulated.

    Raises:
      InputError: they are not `simulate`'s.
    """
    path = Path(logs) / SIMULATION
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(path, f"no readable file ({error.strerror})", "the one that usr-tf simulate writes") from error
    except ValueError as error:
        raise InputError(path, f"no JSON ({error})", "what usr-tf simulate wrote") from error
    return parse_model(Simulation, document, path)


def make_world(
    impressions: int,
    seed: int,
    scenarios: Sequence[Scenario],
    similarity: float,
    needs: float,
    signals: Mapping[str, float] | None = None,
) -> World:
    """World for a number of impressions: 1,200 items for 200,000, growing with the square root."""
    items = max(100, round(1_200 * (impressions / 200_000) ** 0.5))
    rng = np.random.default_rng(_stream(seed, "world"))
    world = World.draw(rng, items, scenarios, similarity, needs, signals)
    return behaviour.tuned(_stream(seed, "pilot"), world, users=min(400, max(100, impressions // IMPRESSIONS_PER_USER)))


@dataclass(frozen=True)
class Chunk:
    """Part of the users, and their impressions."""

    number: int
    first_user: int
    users: int
    impressions: int


def play_chunk(world: World, seed: int, chunk: Chunk) -> tuple[behaviour.Shop, behaviour.Play]:
    """Final state of a chunk's users and all their outcomes in time order."""
    rng = np.random.default_rng(_stream(seed, "people", chunk.number))
    users = Users.draw(rng, world, chunk.users)
    shop = behaviour.Shop(rng, world, users)
    played = shop.play(rng, plan_visits(rng, users, math.ceil(chunk.impressions / SLATE)))
    return shop, played.by_time().first(chunk.impressions)


_SUMS = ("impressions", "ctr", "ctcvr", "oracle_ctr", "oracle_ctcvr")


@dataclass(frozen=True)
class _Written:
    """Files of a chunk with their rows by table, and `_SUMS` by scenario."""

    files: dict[str, tuple[Path, int]]
    sums: np.ndarray


def _write_chunk(folder: Path, world: World, made: Simulation, chunk: Chunk) -> _Written:
    shop, played = play_chunk(world, made.seed, chunk)
    recorded = made.record(world, chunk, played)
    log = tables.LogTables(world, played, recorded, chunk.number, chunk.first_user)
    rows = {
        "users": tables.user_rows(shop.users, chunk.first_user),
        "impressions": log.impressions(),
        "actions": log.actions(),
    }
    files = {table: _write_rows(folder / f"{table}-of-chunk-{chunk.number:05}", of) for table, of in rows.items()}
    columns = (np.ones(played.item.size), recorded.click, recorded.buy, recorded.p_click, recorded.p_buy)
    sums = [np.bincount(played.scenario, column, len(world.scenarios)) for column in columns]
    return _Written(files, np.stack(sums, axis=1))


def _write_rows(path: Path, rows: Iterable[tables.Row]) -> tuple[Path, int]:
    count = 0
    with open_shard(path) as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    return path, count


def _map(write: functools.partial, chunks: Sequence[Chunk], workers: int) -> Iterator[_Written]:
    if workers == 1:
        yield from map(write, chunks)
        return
    # Spawned, for a fork of a process with threads (TensorFlow's, Beam's) may hang.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(write, chunks)


def _chunks(impressions: int) -> list[Chunk]:
    """Whole slates divided among the users' chunks in proportion; the last slate may be truncated."""
    users = max(10, round(impressions / IMPRESSIONS_PER_USER))
    requests = math.ceil(impressions / SLATE)
    firsts = [*range(0, users, CHUNK_USERS), users]
    ends = [min(impressions, requests * first // users * SLATE) for first in firsts]
    return [
        Chunk(number, first, next_first - first, end - begin)
        for number, ((first, next_first), (begin, end)) in enumerate(
            zip(itertools.pairwise(firsts), itertools.pairwise(ends), strict=True)
        )
    ]


def _stream(seed: int, purpose: str, chunk: int = 0) -> np.random.SeedSequence:
    """Independent random stream per purpose and chunk."""
    return np.random.SeedSequence(seed, spawn_key=(("world", "pilot", "people", "noise").index(purpose), chunk))


def _scenarios(asked: int | Sequence[str]) -> tuple[Scenario, ...]:
    named = {scenario.name: scenario for scenario in SCENARIOS}
    if isinstance(asked, int) and not isinstance(asked, bool):
        if 1 <= asked <= len(SCENARIOS):
            return SCENARIOS[:asked]
    elif not isinstance(asked, str | bool) and asked and len({*asked}) == len(asked) and named.keys() >= {*asked}:
        return tuple(named[name] for name in asked)
    found = ",".join(map(str, asked)) if isinstance(asked, list | tuple) else repr(asked)
    raise InputError(
        "--scenarios", found or "nothing", f"1 to {len(SCENARIOS)}, or different ones of {', '.join(named)}"
    )


def _signals(asked: Mapping[str, float]) -> dict[str, float]:
    for name, strength in asked.items():
        if name not in SIGNALS:
            raise InputError("--signals", name or "nothing", f"some of {', '.join(SIGNALS)}")
        _check_share(f"--signals: {name}", strength)
    return {name: float(asked[name]) for name in SIGNALS if asked.get(name)}


def _rates(sums: list[float]) -> dict[str, Any]:
    impressions = int(sums[0])
    return {"impressions": impressions} | {
        name: total / impressions if impressions else None for name, total in zip(_SUMS[1:], sums[1:], strict=True)
    }


def _check_whole(flag: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(flag, repr(value), f"a whole number from {least}")


def _check_share(flag: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(flag, repr(value), "a number from 0 to 1")
