"""Tiny shop with invalid rows, and its data directory; each made once per session."""

import copy
import dataclasses
import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.preprocess import preprocess
from tests.once import made_once
from tests.pipelines.tiny import write_table
from usr_tf.schema import Schema, parse_schema

MINUTE = 60_000
START = 1_700_000_000_000 // MINUTE * MINUTE
SCHEMA = """
scenarios: [search, recommendation]
tasks:
  - {name: ctr, action: click}
  - {name: ctcvr, action: purchase}
labels: {attribution: 30m, global_window: 6h}
history: {actions: [click, purchase], max_length: 5}
split: {valid: 0.15, test: 0.15}
features:
  user_id: {group: user, type: categorical, min_count: 2}
  city: {group: user, type: categorical, hash_buckets: 8}
  item_id: {group: item, type: categorical, in_history: true}
  category: {group: item, type: categorical, in_history: true, hash_buckets: 8}
  words: {group: item, type: categorical_list, in_history: true, max_length: 2}
  price: {group: item, type: numeric, transform: log}
  weight: {group: item, type: numeric, transform: none}
  query: {group: query, type: text, tokenizer: whitespace, max_length: 3}
  title: {group: item, type: text, shares: query}
  device: {group: context, type: categorical, hash_buckets: 8}
  place: {group: context, type: categorical}
"""
REQUESTS, SLATE = 100, 4


@dataclasses.dataclass
class Shop:
    """Valid rows of every table in time order, and invalid lines to mix in."""

    schema: Schema
    tables: dict[str, list[dict]]
    dirty: dict[str, list[str]]

    def write(self, logs: Path, shuffle: random.Random | None = None) -> Path:
        """Impressions in two gzip shards, users as Parquet, the rest as JSON Lines; dirty lines come last."""
        logs.mkdir(parents=True)
        (logs / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
        tables = {table: shuffle.sample(rows, len(rows)) if shuffle else rows for table, rows in self.tables.items()}
        lines = [json.dumps(row, ensure_ascii=False) for row in tables["impressions"]] + self.dirty["impressions"]
        for shard, part in enumerate((lines[:150], lines[150:])):
            text = "".join(f"{line}\n" for line in part)
            (logs / f"impressions-{shard:05}-of-00002.jsonl.gz").write_bytes(gzip.compress(text.encode("utf-8")))
        for table in ("actions", "items"):
            write_table(logs, table, tables[table])
            with (logs / f"{table}.jsonl").open("a", encoding="utf-8") as stream:
                stream.writelines(f"{line}\n" for line in self.dirty[table])
        users = [*tables["users"], *map(json.loads, self.dirty["users"])]
        pq.write_table(pa.Table.from_pylist(users), logs / "users.parquet")
        return logs


def _make_shop() -> Shop:
    draw = random.Random(1)
    items = [
        {
            "item_id": f"i{number}",
            "category": draw.choice(["tea", "milk", None]),
            "title": f"Tea no. {number}",
            "words": [f"w{draw.randrange(6)}" for _ in range(draw.randrange(4))],
            "price": draw.choice([None, round(draw.uniform(1, 90), 2)]),
            "weight": round(draw.uniform(-1, 1), 3),
        }
        for number in range(15)
    ]
    users = [{"user_id": f"u{number}", "city": draw.choice(["Xi'an", "Łódź", None])} for number in range(10)]
    impressions, actions = [], []
    for request in range(REQUESTS):
        moment = START + request * 13 * MINUTE + draw.randrange(MINUTE)
        scenario = draw.choice(["search", "recommendation"])
        context = {
            "query": draw.choice(["green tea", "oat Milk now or never", "茶"]) if scenario == "search" else None,
            "device": draw.choice(["ios", "android", None]),
            "place": "home" if request >= 95 else None,  # nothing of it in training
        }
        user = f"u{draw.randrange(12)}"  # two are not among the users
        for position, number in enumerate(draw.sample(range(15), SLATE)):
            keys = {"request_id": f"r{request}", "scenario": scenario, "user_id": user, "item_id": f"i{number}"}
            impressions.append({**keys, "timestamp": moment, "position": position + 1, "oracle_ctr": 0.25, **context})
            for action, chance, delay in (("click", 0.5, 10), ("purchase", 0.25, 40)):
                if draw.random() < chance:
                    names = {name: keys[name] for name in ("request_id", "scenario") if draw.random() < 0.5}
                    at = moment + draw.randrange(delay * MINUTE)
                    owner = {"user_id": user, "item_id": f"i{number}", "timestamp": at, "action": action}
                    actions.append({**owner, **names})
    dirty = {
        "impressions": [
            '{"request_id": "r0", "scenario"',
            json.dumps({**impressions[0], "scenario": "feed"}),
            json.dumps({**impressions[0], "user_id": None}),
            json.dumps({**impressions[8], "timestamp": impressions[8]["timestamp"] + 1}),  # shown twice
            json.dumps({**impressions[12], "item_id": "ghost"}),
            json.dumps({**impressions[12], "item_id": "ghost", "query": "\ud83d"}),
        ],
        "actions": [
            json.dumps({**actions[0], "item_id": "ghost"}),
            json.dumps({**actions[0], "action": "view"}),
            json.dumps(actions[3]),
        ],
        "items": [json.dumps({**items[2], "price": 1e6}), json.dumps({**items[3], "item_id": "i99", "price": "dear"})],
        "users": [json.dumps({"user_id": "u1", "city": "Nowhere"})],
    }
    tables = {"impressions": impressions, "actions": actions, "items": items, "users": users}
    return Shop(parse_schema(SCHEMA), tables, dirty)


@dataclasses.dataclass
class Made:
    """Finished preprocess: shop, data directory, `stats.json`."""

    shop: Shop
    logs: Path
    data: Path
    stats: dict


@pytest.fixture(scope="session")
def _shop() -> Shop:
    return _make_shop()


@pytest.fixture
def shop(_shop: Shop) -> Shop:
    """Tiny shop, free to change."""
    return copy.deepcopy(_shop)


@pytest.fixture(scope="session")
def made(_shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Data of the tiny shop. Read only."""

    def make(folder: Path) -> None:
        preprocess(str(_shop.write(folder / "logs")), str(folder / "data"), partitions=3)

    folder = made_once(tmp_path_factory, "made", make)
    stats = json.loads((folder / "data" / "stats.json").read_text(encoding="utf-8"))
    return Made(_shop, folder / "logs", folder / "data", stats)
