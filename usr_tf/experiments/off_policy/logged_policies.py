"""Logged policies: impressions with position, policy and propensity, and the clicks on them, by scenario."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.logs.columns import PLACE
from pipelines.logs.locations import find_files
from pipelines.logs.tables import describe_place, read_file
from usr_tf.errors import InputError
from usr_tf.schema import ACTION, ITEM, POSITION, REQUEST, SCENARIO, TIMESTAMP, Feature, Schema, load_schema

POLICY, PROPENSITY = "policy", "propensity"
_EXPECTED = {
    POLICY: "the policy that displayed the impression, or simulation.json beside the logs of a simulated shop",
    PROPENSITY: "the policy's probability of this item at this position, above 0 and at most 1",
    POSITION: "the position of the impression, from 1",
}


@dataclass(frozen=True)
class PolicyLog:
    """Log of one policy in one scenario, `[n]` impressions."""

    timestamp: NDArray  # ms UTC
    context: NDArray  # row of the scenario's contexts
    item: NDArray  # row of the scenario's items
    position: NDArray  # from 0
    propensity: NDArray
    click: NDArray  # bool

    @property
    def rate(self) -> float:
        """Clicks per impression: the policy's value, as it was measured."""
        return float(self.click.mean())


@dataclass(frozen=True)
class LoggedScenario:
    """Logs of a scenario's policies over the same items."""

    name: str
    items: pd.DataFrame  # a row per item that any of the policies displayed: `item_id` and its features
    contexts: pd.DataFrame  # a row per different context: its query and context features, lists as tuples
    positions: int
    logs: Mapping[str, PolicyLog]  # policy → log


def read_logged_policies(logs: str | Path) -> tuple[Schema, list[LoggedScenario]]:
    """Logs of each scenario that a log directory holds, with its schema.

    The click is the action of the schema's first task on an impression's item that names its request.

    Raises:
      InputError: no such directory, an impression without policy, position or propensity, a row that cannot be read,
        or actions without requests.
    """
    schema = load_schema(Path(logs) / "schema.yaml")
    columns = {
        POLICY: Feature(group="context", type="categorical"),
        PROPENSITY: Feature(group="context", type="numeric"),
    }
    extended = schema.model_copy(update={"features": {**schema.features, **columns}})
    impressions = _read(logs, "impressions", extended)
    for column, expected in _EXPECTED.items():
        values = impressions[column]
        wrong = values.isna() if column != PROPENSITY else ~((values > 0) & (values <= 1))
        if wrong.any():
            row = impressions[wrong].iloc[0]
            found = "nothing" if pd.isna(row[column]) else f"{row[column]}"
            raise InputError(f"{row[PLACE]}: {column}", found, expected)
    impressions["click"] = _clicked(logs, schema, impressions)
    features = [*schema.features_of("query", "context")]
    features += [feature.weights for feature in schema.features_of("query", "context").values() if feature.weights]
    items = _read(logs, "items", schema).drop_duplicates(ITEM, keep="last").set_index(ITEM, drop=False)
    return schema, [
        _scenario(name, rows, items, features)
        for name in schema.scenarios
        if len(rows := impressions[impressions[SCENARIO] == name])
    ]


def _scenario(name: str, rows: pd.DataFrame, items: pd.DataFrame, features: list[str]) -> LoggedScenario:
    item, displayed = pd.factorize(rows[ITEM], sort=True)
    unknown = [each for each in displayed if each not in items.index]
    if unknown:
        raise InputError(f"items: {ITEM}", f"no {unknown[0]}", "a row for each displayed item")
    keys = pd.Series(list(zip(*(rows[feature] for feature in features), strict=True)) if features else [()] * len(rows))
    context, different = pd.factorize(keys)
    position = rows[POSITION].to_numpy("int64") - 1
    clean = rows.reset_index(drop=True)
    logs = {}
    for policy, of in clean.groupby(POLICY, sort=True).indices.items():
        of = of[np.argsort(clean[TIMESTAMP].to_numpy()[of], kind="stable")]
        logs[str(policy)] = PolicyLog(
            timestamp=clean[TIMESTAMP].to_numpy("int64")[of],
            context=context[of],
            item=item[of],
            position=position[of],
            propensity=clean[PROPENSITY].to_numpy("float64")[of],
            click=clean["click"].to_numpy(bool)[of],
        )
    contexts = pd.DataFrame(list(different), columns=features, index=range(len(different)))
    return LoggedScenario(name, items.loc[displayed].reset_index(drop=True), contexts, int(position.max()) + 1, logs)


def _clicked(logs: str | Path, schema: Schema, impressions: pd.DataFrame) -> NDArray:
    """`[n]` bool: whether the first task's action names the impression's request and item."""
    actions = _read(logs, "actions", schema)
    clicks = actions[actions[ACTION] == schema.tasks[0].action]
    lost = clicks[clicks[REQUEST].isna()]
    if len(lost):
        raise InputError(f"{lost.iloc[0][PLACE]}: {REQUEST}", "nothing", "the request that the click belongs to")
    keys = pd.MultiIndex.from_frame(impressions[[REQUEST, ITEM]])
    return keys.isin(pd.MultiIndex.from_frame(clicks[[REQUEST, ITEM]]))


def _read(logs: str | Path, table: str, schema: Schema) -> pd.DataFrame:
    """Columns of a table; lists as tuples, and each row's place as text."""
    paths = find_files(str(logs), table)
    batches = list(_batches(paths, schema, table))
    if not sum(batch.num_rows for batch in batches):
        raise InputError(str(logs), f"no row of {table}", "at least one")
    table_rows = pa.Table.from_batches(batches)
    frame = table_rows.to_pandas()
    for field in table_rows.schema:
        if pa.types.is_list(field.type):
            frame[field.name] = [() if value is None else tuple(value) for value in frame[field.name]]
    frame[PLACE] = [describe_place(place, paths) for place in frame[PLACE]]
    return frame


def _batches(paths: list[str], schema: Schema, table: str) -> Iterator[pa.RecordBatch]:
    for number, path in enumerate(paths):
        for batch, rejected in read_file(path, number, schema, table):
            if rejected:
                first: dict[str, Any] = rejected[0]
                expected = "a row that can be read: estimates need all of them"
                raise InputError(describe_place(first["place"], paths), first["reason"], expected)
            yield batch
