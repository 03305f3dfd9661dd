"""Toy shop with a feature of every kind: logs, and random batches for models without data."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from usr_tf.config import Config
from usr_tf.schema import Schema, history_column, parse_schema

TOY_SCHEMA = """\
scenarios: [search, recommendation]
tasks:
  - {name: ctr, action: click}
  - {name: ctcvr, action: purchase}
labels: {attribution: 1h, global_window: 6h}
history: {actions: [click, purchase], max_length: 4}
split: {valid: 0.15, test: 0.15}
features:
  user_id:   {group: user, type: categorical, hash_buckets: 60}
  interests: {group: user, type: categorical_list, max_length: 2, hash_buckets: 20}
  spend:     {group: user, type: numeric, transform: none}
  item_id:   {group: item, type: categorical, in_history: true, oov_buckets: 2}
  tags:      {group: item, type: categorical_list, max_length: 2, hash_buckets: 16, in_history: true, embedding_size: 3}
  title:     {group: item, type: text, tokenizer: character, max_length: 3, hash_buckets: 16}
  price:     {group: item, type: numeric, transform: log}
  query:     {group: query, type: text, max_length: 3, hash_buckets: 12}
  device:    {group: context, type: categorical, hash_buckets: 5}
"""
"""Hashes but for the item: an analyzer of TensorFlow Transform takes seconds to build."""

ITEMS, USERS, REQUESTS, SLATE = 30, 40, 600, 5
START, _MINUTE = 1_700_000_000_000, 60_000


def toy_schema() -> Schema:
    return parse_schema(TOY_SCHEMA)


def small_config(**keys) -> Config:
    """A configuration that trains in a second."""
    sizes = {
        "embedding_size": 4,
        "embedding_spread": 0.3,
        "history": {"din": [3]},
        "usr": {"rank": 2, "trigger_hidden": 4, "fg_hidden": 4, "contrastive_loss": {"projection": 4, "negatives": 3}},
        "shared_bottom": {"bottom": [8, 6], "tower": [4]},
        "mmoe": {"experts": 2, "expert": [8], "tower": [4]},
        "ple": {"expert": [8], "tower": [4]},
        "star": {"network": [8, 6], "tower": [4], "auxiliary": [4], "scenario_embedding": 3},
        "m2m": {
            "experts": 2,
            "expert": [8, 4],
            "scenario_embedding": 3,
            "task_embedding": 3,
            "unit_depth": 1,
            "tower_depth": 1,
        },
        "apg": {
            "bottom": [8, 6],
            "tower": [4],
            "scenario_embedding": 3,
            "rank": 2,
            "overparameter": 4,
            "generator": [4],
        },
        "pepnet": {"scenario_embedding": 2, "gate_hidden": 4, "tower": [4]},
        "train": {"epochs": 3, "batch_size": 128, "learning_rate": 0.01, "embedding_learning_rate": 0.2},
    }
    return Config(**_merge(sizes, keys))


def make_toy(folder: Path) -> None:
    """Toy shop: `logs`, and `data` of `preprocess`."""
    from pipelines.preprocess import preprocess

    preprocess(str(write_toy_logs(folder / "logs")), str(folder / "data"), partitions=2)


def write_toy_logs(folder: Path, seed: int = 0) -> Path:
    """3,000 impressions. Items with an even number are clicked ten times as often; a third of the clicks end in a
    purchase. The cheapest item has no price, and every third user is not in the table of users.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    (folder / "schema.yaml").write_text(TOY_SCHEMA, encoding="utf-8")
    kinds = ("tea", "cake", "soap")
    items = [
        {
            "item_id": f"i{number:02}",
            "tags": [kinds[number % 3], f"tag{number % 5}", "third, and so cut off"][: number % 4],
            "title": f"{kinds[number % 3].title()} {number}",
            "price": None if number == 0 else float(number),
        }
        for number in range(ITEMS)
    ]
    users = [
        {"user_id": f"u{user:02}", "interests": [kinds[user % 3]][: user % 2], "spend": user / USERS}
        for user in range(USERS)
        if user % 3
    ]
    impressions, actions = [], []
    for request in range(REQUESTS):
        scenario = ("search", "recommendation")[request % 2]
        user, time = f"u{rng.integers(USERS):02}", START + request * 7 * _MINUTE
        moment = {"timestamp": time, "device": ("phone", "desktop")[int(rng.integers(2))]}
        moment["query"] = f"{kinds[rng.integers(3)]} fresh" if scenario == "search" else None
        shown = rng.choice(ITEMS, SLATE, replace=False)
        for position, item in enumerate(shown, start=1):
            place = {"request_id": f"r{request:04}", "scenario": scenario, "user_id": user, "item_id": f"i{item:02}"}
            impressions.append({**place, **moment, "position": position})
            if rng.random() < (0.5 if item % 2 == 0 else 0.05):
                actions.append(place | {"timestamp": time + 1_000, "action": "click"})
                if rng.random() < 1 / 3:
                    actions.append(place | {"timestamp": time + 2_000, "action": "purchase"})
    for name, rows in {"items": items, "users": users, "impressions": impressions, "actions": actions}.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder


def sizes_of(schema: Schema, size: int = 7) -> dict[str, int]:
    """Number of ids of each feature of `random_rows`."""
    return {name: size for name, feature in schema.features.items() if feature.type != "numeric"}


def random_rows(schema: Schema, rows: int, seed: int = 0, length: int = 3, size: int = 7) -> tuple[dict, dict]:
    """`(features, labels)` as `Data.training` yields them. About a third of the ids are 0: missing or padding.

    Some histories are empty, and so are some lists and queries.
    """
    rng = np.random.default_rng(seed)

    def ids(*shape: int) -> np.ndarray:
        return rng.integers(1, size, shape) * (rng.random(shape) < 0.7)

    features: dict[str, np.ndarray] = {"scenario": rng.integers(0, len(schema.scenarios), rows).astype(np.int32)}
    for name, feature in schema.features.items():
        if feature.type == "numeric":
            features[name] = rng.normal(size=rows).astype(np.float32)
        else:
            features[name] = ids(rows, 2) if feature.is_list else ids(rows)
    for name in schema.features_of("query"):
        features[name][::4] = 0
    real = np.arange(length) >= length - rng.integers(0, length + 1, (rows, 1))  # the newest stand last
    if rows > 1:
        real[:2] = [[False] * length, [True] * length]
    highest = {"action": len(schema.history.actions), "scenario": len(schema.scenarios), "age": 32}
    for name in schema.history_columns:
        kind = name.removeprefix(history_column(""))
        if kind in highest:
            values = rng.integers(1, highest[kind] + 1, (rows, length))
        else:
            width = schema.history_width(name)
            values = ids(rows, length, width) if width else ids(rows, length)
        features[name] = values * (real[..., None] if values.ndim == 3 else real)
    labels, scenario_label, global_label = {}, np.ones(rows), np.ones(rows)
    for task in schema.task_names:
        scenario_label = scenario_label * (rng.random(rows) < 0.5)
        global_label = np.maximum(global_label * (rng.random(rows) < 0.5), scenario_label)
        labels[task], labels[f"global_{task}"] = scenario_label, global_label
    return (
        {name: tf.constant(values) for name, values in features.items()},
        {name: tf.constant(labels[name], tf.float32) for name in schema.label_names},
    )


def _merge(base: dict, over: dict) -> dict:
    merged = dict(base)
    for key, value in over.items():
        merged[key] = _merge(base.get(key, {}), value) if isinstance(value, dict) else value
    return merged
