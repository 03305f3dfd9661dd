"""Training workload: generated impressions, as data for ours and as arrays for the peers.

`python -m benchmarks.training.workload --work DIR [--vocabulary V] [--rows N]` makes one and prints where it lies.

The same seed gives the same rows whatever the vocabulary: some 20,000 users and 32,000 items act in them, whose ids
are spread over `1…V`. So AUC does not depend on V, and what a step costs depends on V alone.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.training.measure import SCENARIOS, TASKS
from pipelines.beam.blocks import BlockStore
from pipelines.transform.shards import WriteShards
from usr_tf.schema import (
    ITEM,
    ROW_FORMAT,
    SUCCESS,
    USER,
    Feature,
    Group,
    History,
    Schema,
    Split,
    Task,
    history_column,
    oracle_column,
)

ACTIONS = ("click", "purchase")
HISTORY = 20
TEST_SHARE = 0.2
_GROUPS: dict[Group, int] = {"user": 7, "item": 7, "context": 4}
"""Categorical fields beside the ids of user and item."""
_FIELD_SIZES = np.geomspace(10, 10_000, sum(_GROUPS.values())).astype(int)
_NUMBERS: dict[Group, int] = {"user": 2, "item": 3}
_USERS, _CLUSTERS, _ITEMS_PER_CLUSTER, _TASTE = 20_000, 32, 1_000, 8
_MEAN_LENGTH, _NO_HISTORY = 12, 0.03
_SHARDS = {"train": 8, "valid": 1, "test": 2}
_BATCH = 16_384
_START_MS = 1_700_000_000_000


class Size(NamedTuple):
    """Parameters of a workload."""

    vocabulary: int = 100_000
    """Ids of users, and as many of items."""
    rows: int = 200_000
    seed: int = 0


class Workload(NamedTuple):
    """A workload on disk."""

    data: Path
    """What `usr_tf.data.open_data` opens."""
    arrays: Path
    """The columns of `Rows`, `.npz`, and `sizes`: ids of each field, with 0; `test`: how many rows, the last ones."""


class Rows(NamedTuple):
    """Impressions, the last `TEST_SHARE` of them for the test."""

    scenario: NDArray[np.int32]
    """`[N]`, from 0."""
    fields: NDArray[np.int32]
    """`[N, 20]`, from 1, in the order of the schema's categorical features: `user_id` and `item_id` first."""
    numbers: NDArray[np.float32]
    """`[N, 5]`."""
    history: NDArray[np.int32]
    """`[N, 20]` ids of items, newest last, then 0."""
    labels: NDArray[np.float32]
    """`[N, 2]`, ctr and ctcvr."""
    global_labels: NDArray[np.float32]
    """`[N, 2]`."""
    oracle: NDArray[np.float32]
    """`[N, 2]`, the probabilities that `labels` are drawn from."""


def make_workload(size: Size, work: Path) -> Workload:
    """Writes a workload unless it exists."""
    folder = work / f"{size.rows}-rows-{size.vocabulary}-ids-seed-{size.seed}-format-{ROW_FORMAT}"
    workload = Workload(folder / "data", folder / "rows.npz")
    if not (folder / SUCCESS).exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        rows = generate(size)
        write_data(rows, size, workload.data)
        layout = schema(size)
        sizes = [layout.features[name].hash_buckets + 1 for name in layout.id_features]
        np.savez(workload.arrays, **rows._asdict(), sizes=sizes, test=_test_rows(size.rows))
        (folder / SUCCESS).touch()
    return workload


def schema(size: Size) -> Schema:
    """Schema with hashed ids, so their number is known without a vocabulary."""
    fields = iter(_FIELD_SIZES)
    features = {
        USER: Feature(group="user", type="categorical", hash_buckets=size.vocabulary),
        ITEM: Feature(group="item", type="categorical", hash_buckets=size.vocabulary, in_history=True),
    }
    for group, count in _GROUPS.items():
        for place in range(count):
            features[f"{group}_field_{place}"] = Feature(
                group=group, type="categorical", hash_buckets=int(next(fields))
            )
    for group, count in _NUMBERS.items():
        for place in range(count):
            features[f"{group}_number_{place}"] = Feature(group=group, type="numeric", transform="none")
    return Schema(
        scenarios=SCENARIOS,
        tasks=tuple(Task(name=task, action=action) for task, action in zip(TASKS, ACTIONS, strict=True)),
        history=History(actions=ACTIONS, max_length=HISTORY),
        split=Split(valid=0, test=TEST_SHARE),
        features=features,
    )


def generate(size: Size) -> Rows:
    """Draws impressions and their labels.

    Both tasks' logits add up what user and item, each field, each number and the scenario tell, and how like the item
    is to the user's taste and to the history. Items come in clusters, which are what tastes are for.
    """
    rng, count = np.random.default_rng(size.seed), size.rows
    users, per_cluster = min(_USERS, size.vocabulary), min(_ITEMS_PER_CLUSTER, size.vocabulary // _CLUSTERS)
    cluster_taste = rng.normal(size=(_CLUSTERS, _TASTE)) / np.sqrt(_TASTE)
    liked = rng.integers(0, _CLUSTERS, (users, 2))
    user = _zipf(rng, users, 0.7, (count,))
    item = _items_for(rng, liked[user], per_cluster, (count, 1), likeness=0.3)[:, 0]
    history = _items_for(rng, liked[user], per_cluster, (count, HISTORY), likeness=0.7)
    length = rng.binomial(HISTORY, _MEAN_LENGTH / HISTORY, count) * (rng.random(count) >= _NO_HISTORY)
    real = np.arange(HISTORY) < length[:, np.newaxis]
    others = np.stack([_zipf(rng, n, 1.0, (count,)) for n in _FIELD_SIZES], axis=1)
    numbers = rng.normal(size=(count, sum(_NUMBERS.values()))).astype(np.float32)
    scenario = rng.integers(0, len(SCENARIOS), count, np.int32)

    taste = cluster_taste[liked].mean(axis=1)
    remembered = (cluster_taste[history % _CLUSTERS] * real[:, :, np.newaxis]).sum(axis=1)
    remembered /= np.maximum(length, 1)[:, np.newaxis]
    shown = cluster_taste[item % _CLUSTERS]
    likeness = (taste[user] * shown).sum(axis=1) + (remembered * shown).sum(axis=1)

    def probability(bias: tuple[float, float]) -> NDArray[np.float64]:
        """`[N, 2]` of an action, had the row been shown in each of the scenarios."""
        logit = 1.2 * likeness + rng.normal(0, 0.3, users)[user] + rng.normal(0, 0.3, per_cluster * _CLUSTERS)[item]
        logit = np.stack([bias[place] + logit * weight for place, weight in enumerate((0.8, 1.2))], axis=1)
        for values, n in zip(others.T, _FIELD_SIZES, strict=True):
            logit += (rng.normal(0, 0.2, (n, 1)) + rng.normal(0, 0.1, (n, len(SCENARIOS))))[values]
        return 1 / (1 + np.exp(-logit - numbers @ rng.normal(0, 0.2, (numbers.shape[1], len(SCENARIOS)))))

    click, purchase = probability((-2.2, -1.8)), probability((-1.5, -1.0))
    at, row = scenario, np.arange(count)
    p = np.stack([click[row, at], click[row, at] * purchase[row, at]], axis=1)
    labels = _act(rng, click[row, at], purchase[row, at])
    elsewhere = _act(rng, 0.5 * click[row, 1 - at], purchase[row, 1 - at])

    spread = np.random.default_rng((size.seed, size.vocabulary))
    user_id = 1 + spread.choice(size.vocabulary, users, replace=False)
    item_id = 1 + spread.choice(size.vocabulary, per_cluster * _CLUSTERS, replace=False)
    return Rows(
        scenario=scenario,
        fields=np.column_stack([user_id[user], item_id[item], others + 1]).astype(np.int32),
        numbers=numbers,
        history=(item_id[history] * real).astype(np.int32),
        labels=labels,
        global_labels=np.maximum(labels, elsewhere),
        oracle=p.astype(np.float32),
    )


def write_data(rows: Rows, size: Size, directory: Path) -> None:
    """Writes rows with `preprocess`'s writer. There is no transform to serve."""
    test = len(rows.scenario) - _test_rows(len(rows.scenario))
    splits = {"train": slice(0, test), "valid": slice(0, 0), "test": slice(test, None)}
    (directory / "transform").mkdir(parents=True)
    layout = schema(size)
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        for split, part in splits.items():
            (directory / split).mkdir()
            batches = pipeline | f"Rows[{split}]" >> beam.Create(list(_batches(rows, part, layout, size.seed)))
            _ = batches | f"Write[{split}]" >> WriteShards(
                str(directory / split), schema(size), _SHARDS[split], BlockStore()
            )
    (directory / "schema.yaml").write_text(layout.to_yaml(), encoding="utf-8")
    counts = {"read": size.rows, "written": size.rows, "rejected": {}}
    labels = {split: _label_counts(rows, part) for split, part in splits.items()}
    document = {"format": ROW_FORMAT, "rows": counts, "splits": labels}
    (directory / "stats.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (directory / SUCCESS).touch()


def _zipf(rng: np.random.Generator, count: int, exponent: float, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Zipf-distributed numbers below `count`."""
    mass = np.cumsum(np.arange(1, count + 1) ** -exponent)
    return np.searchsorted(mass, rng.random(shape) * mass[-1])


def _items_for(
    rng: np.random.Generator, liked: NDArray, per_cluster: int, shape: tuple[int, int], likeness: float
) -> NDArray[np.int64]:
    """Items of liked clusters with probability `likeness`, of any cluster else. Item i is of cluster i mod clusters."""
    own = np.take_along_axis(liked, rng.integers(0, liked.shape[1], shape), axis=1)
    cluster = np.where(rng.random(shape) < likeness, own, rng.integers(0, _CLUSTERS, shape))
    return _zipf(rng, per_cluster, 1.0, shape) * _CLUSTERS + cluster


def _act(rng: np.random.Generator, click: NDArray, purchase: NDArray) -> NDArray[np.float32]:
    """`[N, 2]`: clicked, and bought after it."""
    clicked = rng.random(click.shape) < click
    return np.stack([clicked, clicked & (rng.random(click.shape) < purchase)], axis=1).astype(np.float32)


def _test_rows(rows: int) -> int:
    return round(rows * TEST_SHARE)


def _batches(rows: Rows, part: slice, layout: Schema, seed: int) -> Iterator[pa.RecordBatch]:
    """Transformed rows, as `pipelines.preprocess` hands them to its writer."""
    rng = np.random.default_rng((seed, 1))
    start, stop, _ = part.indices(len(rows.scenario))
    for low in range(start, stop, _BATCH):
        row = np.arange(low, min(low + _BATCH, stop))
        columns = {name: rows.fields[row, place] for place, name in enumerate(layout.id_features)}
        columns |= {name: rows.numbers[row, place] for place, name in enumerate(layout.number_features)}
        for names, labels in ((TASKS, rows.labels), ([f"global_{task}" for task in TASKS], rows.global_labels)):
            columns |= {name: labels[row, place].astype(np.int64) for place, name in enumerate(names)}
        columns |= {oracle_column(task): rows.oracle[row, place] for place, task in enumerate(TASKS)}
        columns |= {
            "request_id": np.char.add("r", row.astype(str)),
            "raw_user_id": np.char.add("u", rows.fields[row, 0].astype(str)),
            "raw_item_id": np.char.add("i", rows.fields[row, 1].astype(str)),
            "scenario": np.array(SCENARIOS)[rows.scenario[row]],
            "timestamp": _START_MS + 1_000 * row,
            "position": np.zeros(len(row), np.int64),
        }
        arrays = {name: _lists(values, np.ones(len(row), int)) for name, values in columns.items()}
        history = rows.history[row]
        real = history > 0
        described = {
            ITEM: history,
            "action": rng.integers(1, 1 + len(ACTIONS), history.shape),
            "scenario": rng.integers(1, 1 + len(SCENARIOS), history.shape),
            "age": -np.sort(-rng.integers(5, 22, history.shape), axis=1),  # the newest last
        }
        arrays |= {history_column(name): _lists(values[real], real.sum(axis=1)) for name, values in described.items()}
        yield pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


def _lists(values: NDArray, lengths: NDArray) -> pa.ListArray:
    values = values.astype(np.int64) if values.dtype.kind == "i" else values
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), pa.array(values))


def _label_counts(rows: Rows, part: slice) -> dict[str, dict[str, int]]:
    """Of each scenario, as `stats.json` has them."""
    counts = {}
    for place, name in enumerate(SCENARIOS):
        mine = rows.scenario[part] == place
        labels = np.concatenate([rows.labels[part][mine], rows.global_labels[part][mine]], axis=1)
        names = (*TASKS, *(f"global_{task}" for task in TASKS))
        positives = dict(zip(names, labels.sum(axis=0).astype(int).tolist(), strict=True))
        counts[name] = {"impressions": int(mine.sum()), **positives}
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--vocabulary", type=int, default=Size().vocabulary)
    parser.add_argument("--rows", type=int, default=Size().rows)
    parser.add_argument("--seed", type=int, default=Size().seed)
    arguments = parser.parse_args()
    print(*make_workload(Size(arguments.vocabulary, arguments.rows, arguments.seed), arguments.work), sep="\n")
