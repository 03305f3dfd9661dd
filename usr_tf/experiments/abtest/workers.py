"""Parallel replay of arms, one task per arm and user chunk."""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from pipelines.simulator.simulate import Chunk
from pipelines.simulator.world import World
from usr_tf.experiments.abtest.exported_model import Model
from usr_tf.experiments.abtest.replay import ArmLog, Plan, play_arm
from usr_tf.streams import no_stderr

_REFRESH_SECONDS = 0.2


def play_tasks(
    plan: Plan,
    world: World,
    paths: Mapping[str, Path],
    tasks: Sequence[tuple[str, Chunk]],
    workers: int,
    progress: Callable[[int], object],
) -> Iterator[ArmLog]:
    """Logs of the tasks (arm, chunk), in order.

    Args:
      paths: arm → version folder of its model.
      workers: processes; one is this one. They have no part in the result.
      progress: called with the number of newly finished requests.
    """
    if workers == 1:
        models = _load(paths)
        for arm, chunk in tasks:
            yield play_arm(plan, world, chunk, arm, models, progress)
        return
    # Spawned, for a fork of a process with TensorFlow's threads may hang.
    context = multiprocessing.get_context("spawn")
    done, reported = context.Value("q", 0), 0
    with ProcessPoolExecutor(min(workers, len(tasks)), context, _start, (plan, world, paths, done)) as pool:
        with no_stderr():  # TensorFlow would greet from each; what goes wrong there comes back as an exception
            futures = [pool.submit(_play, *task) for task in tasks]
        waiting = set(futures)
        while waiting:
            _, waiting = wait(waiting, _REFRESH_SECONDS)
            now = done.value
            progress(now - reported)
            reported = now
        yield from (future.result() for future in futures)


_held: dict[str, Any] = {}
"""What a worker process keeps between tasks: a model takes seconds to load."""


def _start(plan: Plan, world: World, paths: Mapping[str, Path], done: Synchronized) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)  # the processes share the cores
    tf.config.threading.set_inter_op_parallelism_threads(1)
    _held.update(plan=plan, world=world, models=_load(paths), done=done)


def _play(arm: str, chunk: Chunk) -> ArmLog:
    def progress(requests: int) -> None:
        with _held["done"].get_lock():
            _held["done"].value += requests

    return play_arm(_held["plan"], _held["world"], chunk, arm, _held["models"], progress)


def _load(paths: Mapping[str, Path]) -> dict[str, Model]:
    return {name: Model(path) for name, path in paths.items()}
