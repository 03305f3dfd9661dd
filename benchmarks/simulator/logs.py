"""A simulated shop's logs as data frames, with the pipeline's own labels and histories."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.json as pa_json
from numpy.typing import NDArray

from pipelines.join.as_of import label
from pipelines.simulator.scenarios import SCENARIOS
from pipelines.simulator.simulate import simulate
from usr_tf.schema import Schema, load_schema

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
BOTH = ("search", "recommendation")
DECAY = {scenario.name: scenario.decay for scenario in SCENARIOS}

Row = dict[str, Any]


@dataclass(frozen=True)
class Logs:
    """Log tables as data frames. Impressions carry the pipeline's labels and stand in the order of time."""

    schema: Schema
    impressions: pd.DataFrame
    actions: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame

    @classmethod
    def simulated(cls, **flags: Any) -> "Logs":
        with tempfile.TemporaryDirectory() as folder:
            simulate(Path(folder) / "logs", progress=False, workers=1, **flags)
            return cls.read(Path(folder) / "logs")

    @classmethod
    def read(cls, logs: Path) -> "Logs":
        schema = load_schema(logs / "schema.yaml")
        tables = {table: _table(logs, table) for table in ("impressions", "actions", "items", "users")}
        labels, _ = label(tables["impressions"], tables["actions"], schema)
        frames = {table: rows.to_pandas() for table, rows in tables.items()}
        impressions = frames["impressions"].assign(**labels)
        frames["impressions"] = impressions.sort_values("timestamp", kind="stable", ignore_index=True)
        first = frames["items"].drop_duplicates("item_id", ignore_index=True)  # as of the start of the month
        frames["items"] = first.drop(columns=["timestamp", "in_stock"], errors="ignore")
        return cls(schema, **frames)

    def with_items(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Impressions or actions with the columns of their items."""
        return rows.merge(self.items, on="item_id", how="left", validate="many_to_one")


def with_history(logs: Logs, names: Sequence[str], length: int) -> tuple[pd.DataFrame, dict[str, NDArray]]:
    """Impressions with their items' columns and codes of `names`, and of the user's latest actions strictly before.

    Returns:
      The impressions, with `NAME_code`, and `{name: [n, length]}` codes, newest first, -1 where there is none;
      also of `item_id`, `scenario` and `age` (hours).
    """
    shown = logs.with_items(logs.impressions)
    done = logs.with_items(logs.actions).sort_values(["user_id", "timestamp"], kind="stable")
    users = pd.Index(logs.users.user_id)
    done_user, shown_user = users.get_indexer(done.user_id), users.get_indexer(shown.user_id)
    done_at, shown_at = done.timestamp.to_numpy(), shown.timestamp.to_numpy()
    first = shown_at.min()
    span = 10 * (done_at.max() - first)
    key = done_user * span + done_at - first
    end = np.searchsorted(key, shown_user * span + shown_at - first)
    begin = np.searchsorted(key, shown_user * span)
    index = end[:, None] - 1 - np.arange(length)
    none = index < begin[:, None]
    index = np.where(none, 0, index)
    history: dict[str, NDArray] = {}
    for name in (*names, "item_id"):
        values = pd.Index(sorted(logs.items[name].unique()))
        shown[f"{name}_code"] = values.get_indexer(shown[name])
        history[name] = np.where(none, -1, values.get_indexer(done[name])[index])
    of_scenario = pd.Index(logs.schema.scenarios).get_indexer(done.scenario)
    history["scenario"] = np.where(none, -1, of_scenario[index])
    history["age"] = np.where(none, np.inf, (shown_at[:, None] - done_at[index]) / HOUR_MS)
    return shown, history


def _table(logs: Path, table: str) -> pa.Table:
    paths = sorted(logs.glob(f"{table}-*"))
    return pa.concat_tables([pa_json.read_json(path) for path in paths], promote_options="default")


# Rates.
