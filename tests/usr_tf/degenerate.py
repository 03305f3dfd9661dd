"""Degenerate splits: without a scenario, a class, users or any row; in memory and on disk."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipelines.quality.statistics import figures_of
from usr_tf.data import Data, open_data
from usr_tf.metrics import Predictions
from usr_tf.schema import SCENARIO

KINDS = (
    "a scenario without rows",
    "a scenario without positives",
    "a task without positives",
    "no positives",
    "no negatives",
    "one user",
    "one row",
    "no rows",
)


def degenerate(rows: Predictions, kind: str) -> Predictions:
    """Degenerate rows of two scenarios and two tasks."""
    first = rows.scenario == 0
    kept = {
        "a scenario without rows": ~first,
        "one user": rows.user == rows.user[0],
        "one row": np.arange(len(rows)) == 0,
        "no rows": np.zeros(len(rows), bool),
    }
    if kind in kept:
        return rows.only(kept[kind])
    before, last = rows.labels
    none, every = np.zeros(len(rows)), np.ones(len(rows))
    labels = {
        "a scenario without positives": {task: np.where(first, 0, label) for task, label in rows.labels.items()},
        "a task without positives": {before: rows.labels[before], last: none},
        "no positives": {before: none, last: none},
        "no negatives": {before: every, last: every},
    }
    return dataclasses.replace(rows, labels=labels[kind])


def without_scenario(data: Data, scenario: str, split: str, out: Path) -> Data:
    """The data without a scenario's rows in a split, counted as `preprocess` would."""
    out.mkdir()
    for path in data.directory.iterdir():
        if path.name not in (split, "stats.json"):
            (out / path.name).symlink_to(path)
    files = [str(file) for file in sorted((data.directory / split).glob("*.tfrecord.gz"))]
    (out / split).mkdir()
    with tf.io.TFRecordWriter(str(out / split / "part-00000-of-00001.tfrecord.gz"), "GZIP") as writer:
        for row in tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator():
            (name,) = tf.train.Example.FromString(row).features.feature[SCENARIO].bytes_list.value
            if name.decode() != scenario:
                writer.write(row)
    stats = json.loads((data.directory / "stats.json").read_text(encoding="utf-8"))
    stats["splits"][split][scenario] = dict.fromkeys(stats["splits"][split][scenario], 0)
    stats["quality"][split][scenario] = figures_of({}, split, data.schema)[scenario]
    (out / "stats.json").write_text(json.dumps(stats), encoding="utf-8")
    return open_data(out)
