"""Distribution strategies: one device, the GPUs of a machine, or the workers of `TF_CONFIG`."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import tensorflow as tf

from usr_tf.errors import InputError

_TF_CONFIG = "TF_CONFIG"


def default_strategy(weights_on: Literal["device", "host"] = "device") -> tf.distribute.Strategy:
    """Default strategy: one replica per GPU (of all `TF_CONFIG` workers), or per worker without GPUs.

    Call it before anything else is asked of TensorFlow: that workers find each other comes first.

    Args:
      weights_on: `host` keeps all weights once, in this machine's memory, for tables that are larger than a GPU's.
        They are gathered and updated there; GPUs get the rows of their batch and the dense weights in every step.

    Raises:
      InputError: `TF_CONFIG` cannot be read, or does not say which of its workers this is, or names several workers
        though the weights are to be on one host.
    """
    workers, gpus = _workers(), bool(tf.config.list_physical_devices("GPU"))
    if workers > 1 and weights_on == "host":
        raise InputError("train.weights_on", f"'host' with {workers} workers", "'device', or one worker")
    if workers > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if not gpus:
        return tf.distribute.get_strategy()
    if weights_on == "host":
        return tf.distribute.experimental.CentralStorageStrategy(parameter_device="/cpu:0")
    return tf.distribute.MirroredStrategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the run: the only process, the `chief`, or the first worker."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" or (not has_chief and (resolver.task_type, resolver.task_id) == ("worker", 0))


@contextlib.contextmanager
def writable_directory(directory: Path, strategy: tf.distribute.Strategy) -> Iterator[Path]:
    """Output directory of this process: `directory` in the chief, a temporary copy elsewhere.

    Every worker must write its checkpoints, since saving adds up what the replicas counted; the chief's alone are kept.
    A run goes on from them, so the chief's directory must be one that all workers can read.
    """
    if is_chief(strategy):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="usr_tf_worker_") as aside:
        copy = Path(aside) / directory.name
        if directory.exists():
            shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("logs"))
        yield copy


def sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Sum over all replicas within a step; the value itself elsewhere."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return value
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, value)


def any_worker(condition: bool, strategy: tf.distribute.Strategy) -> bool:
    """Whether a condition holds in any worker. A collective call: all workers must make it."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return condition
    votes = strategy.experimental_distribute_values_from_function(lambda _: tf.constant(float(condition)))
    return bool(strategy.reduce(tf.distribute.ReduceOp.SUM, votes, axis=None) > 0)


def _workers() -> int:
    """Number of workers in `TF_CONFIG`, with the chief; 0 without it."""
    text = os.environ.get(_TF_CONFIG, "").strip()
    if not text:
        return 0
    try:
        document = json.loads(text)
        cluster = document.get("cluster", {})
        tasks = {job: len(addresses) for job, addresses in cluster.items()}
        if not cluster:
            return 0
        job, index = document["task"]["type"], int(document["task"]["index"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        example = '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'
        raise InputError(_TF_CONFIG, f"{text!r} ({type(error).__name__}: {error})", example) from error
    if set(tasks) - {"chief", "worker"}:  # parameter servers, an evaluator
        raise InputError(_TF_CONFIG, f"the jobs {', '.join(tasks)}", "worker, and perhaps chief")
    if not 0 <= index < tasks.get(job, 0):
        known = ", ".join(f"{name} 0 to {count - 1}" for name, count in tasks.items())
        raise InputError(_TF_CONFIG, f"the task {job} {index}", f"one of its cluster: {known}")
    return tasks.get("chief", 0) + tasks.get("worker", 0)
