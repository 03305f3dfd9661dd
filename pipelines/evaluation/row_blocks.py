"""Rows under evaluation as `Predictions`, and their Arrow encoding between stages."""

import dataclasses
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa

from pipelines.beam.hashing import hash_strings
from pipelines.evaluation.score_files import HISTORY_LENGTH, QUERY_KEY, label_column
from pipelines.evaluation.training_counts import Counts, TrainingCounts
from usr_tf.errors import InputError
from usr_tf.metrics import Predictions
from usr_tf.metrics.baselines import position_baseline, smoothed_rate
from usr_tf.metrics.predictions import refuse_improbable
from usr_tf.metrics.slices import (
    VALUES,
    day_slice,
    history_slice,
    position_slice,
    query_limits,
    query_slice,
    seen_slice,
)
from usr_tf.schema import ITEM, POSITION, REQUEST, SCENARIO, TIMESTAMP, USER, Schema, oracle_column

_PLAIN, _BY_NAME = ("scenario", "user", "request"), ("labels", "probabilities", "oracle", "baselines")
_DAY_MS = 86_400_000


def count_training_rows(scored: pa.RecordBatch, schema: Schema) -> TrainingCounts:
    """Training counts: impressions of each user, item and query before the end of training."""
    items = hash_strings(scored.column(ITEM))
    clicked = scored.column(label_column(schema.task_names[0])).to_numpy() > 0
    queries = scored.column(QUERY_KEY).to_numpy() if QUERY_KEY in scored.schema.names else np.zeros(0, np.uint64)
    return TrainingCounts(
        Counts.of(hash_strings(scored.column(USER))),
        Counts.of(items),
        Counts.of(items[clicked]),
        Counts.of(queries[queries != 0]),
    )


def predictions_of(scored: pa.RecordBatch, schema: Schema, counts: TrainingCounts, place: str) -> Predictions:
    """Predictions of scored rows, with baselines, slices, and hashed users and requests.

    A baseline or slice whose column is not there, or that needs a training period without one, is left out.

    Raises:
      InputError: a scenario, label or probability that cannot be; it names `place`.
    """
    names = scored.schema.names

    def column(name: str) -> np.ndarray:
        return scored.column(name).to_numpy(zero_copy_only=False)

    users, items = hash_strings(scored.column(USER)), hash_strings(scored.column(ITEM))
    position = column(POSITION) if POSITION in names else np.zeros(len(users), np.int64)
    baselines = {}
    slices = {"day": day_slice(column(TIMESTAMP))}
    if POSITION in names:
        slices["position"] = position_slice(position)
    if HISTORY_LENGTH in names:
        slices["history"] = history_slice(column(HISTORY_LENGTH))
    impressions = counts.items.counts.sum()
    if impressions:
        clicks, seen = counts.clicks.get(items), counts.items.get(items)
        baselines["popularity"] = smoothed_rate(clicks, seen, counts.clicks.counts.sum() / impressions)
        slices |= {"user": seen_slice(counts.users.get(users)), "item": seen_slice(seen)}
    if impressions and QUERY_KEY in names:
        query = column(QUERY_KEY)
        slices["query"] = query_slice(query, counts.queries.get(query), query_limits(counts.queries.counts))
    probabilities = {task: column(task) for task in schema.task_names}
    oracle = {task: column(oracle_column(task)) for task in schema.task_names if oracle_column(task) in names}
    known = {oracle_column(task): np.where(np.isnan(values), 0, values) for task, values in oracle.items()}

    def keys(row: int) -> tuple[str, str, str]:
        return tuple(scored.column(name)[row].as_py() for name in (ITEM, REQUEST, SCENARIO))

    refuse_improbable(probabilities | known, keys, place)
    try:
        rows = Predictions(
            scenario=_numbers(column(SCENARIO), schema),
            user=users,
            request=hash_strings(scored.column(REQUEST)),
            item=items,
            position=position,
            labels={task: column(label_column(task)) for task in schema.task_names},
            probabilities=probabilities,
            oracle=oracle,
            slices=slices,
            timestamp=column(TIMESTAMP),
        )
    except ValueError as error:
        raise InputError(place, f"a row that cannot be ({error})", "scored rows as score_logs writes them") from error
    return dataclasses.replace(rows, baselines={"position": position_baseline(rows), **baselines})


def pack(rows: Predictions) -> pa.RecordBatch:
    """Arrow block of predictions, without items and positions, which baselines and slices already use."""
    columns = {name: getattr(rows, name) for name in _PLAIN}
    for kind in _BY_NAME:
        columns |= {f"{kind}.{name}": values for name, values in getattr(rows, kind).items()}
    for name, parts in rows.slices.items():
        columns[f"slices.{name}"] = parts.codes if name in VALUES else rows.timestamp // _DAY_MS
    return pa.RecordBatch.from_pydict(columns)


def unpack(blocks: Iterable[pa.RecordBatch]) -> Predictions:
    """Predictions of all rows of blocks with equal columns."""
    table = pa.Table.from_batches(blocks)
    plain: dict[str, np.ndarray] = {}
    parts: dict[str, dict] = {kind: {} for kind in (*_BY_NAME, "slices")}
    for name in table.column_names:
        kind, _, key = name.partition(".")
        values = table.column(name).to_numpy()
        if not key:
            plain[name] = values
        elif kind != "slices":
            parts[kind][key] = values
        elif key in VALUES:
            parts[kind][key] = pd.Categorical.from_codes(values, VALUES[key])
        else:
            plain["timestamp"] = values * _DAY_MS
            parts[kind][key] = day_slice(plain["timestamp"])
    nothing = np.zeros(table.num_rows, np.int64)
    return Predictions(**plain, **parts, item=nothing, position=nothing)


def _numbers(names: np.ndarray, schema: Schema) -> np.ndarray:
    """`[rows]` index of each row's scenario."""
    codes, distinct = pd.factorize(names)
    for name in distinct:
        if name not in schema.scenarios:
            raise ValueError(f"Scenarios must be among {', '.join(schema.scenarios)}. Received: {name}")
    return np.array([schema.scenarios.index(name) for name in distinct], np.int64)[codes]
