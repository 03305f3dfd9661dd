"""As-of joins on Arrow tables: labels (after the impression), histories and item features (before it).

Plain functions on whole columns, no Beam here: the job calls them on one partition of the users at a time.
Times are milliseconds. docs/logs.md defines labels and histories.
"""

from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.join.timeline import Timeline
from pipelines.logs.columns import PLACE
from usr_tf.schema import ACTION, ITEM, REQUEST, SCENARIO, TIMESTAMP, USER, Schema, global_label, history_column

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)

_NO_ROW = -1
_EVER = -1  # before all times of the logs


def attach(rows: Rows, table: pa.Table, key: str) -> tuple[Rows, np.ndarray]:
    """Left join: `rows` with the columns of `table` looked up by `key`, null for unknown keys.

    A table whose rows carry times, `timestamp`, has several rows a key, each valid from its time until the next one's,
    or from ever where it has none. The row that is valid at each row's own `timestamp` is looked up; its columns are
    null where none is valid yet.

    Args:
      table: has each key once, or once a time, and `place`, which is left behind.

    Returns:
      The wider rows, and `[rows]` bool: whether the key was found.
    """
    keys = table.column(key).combine_chunks()
    if TIMESTAMP in table.column_names and table.column(TIMESTAMP).null_count < len(table):
        index, known = _valid_rows(rows, table, key)
    else:
        index = pc.index_in(rows.column(key), keys)
        known = index.is_valid().to_numpy(zero_copy_only=False)
    for name in table.column_names:
        if name not in (key, PLACE, TIMESTAMP):
            rows = rows.append_column(name, table.column(name).combine_chunks().take(index))
    return rows, known


def first_of_each(table: pa.Table, keys: list[str], order: list[str]) -> np.ndarray:
    """`[rows]` bool mask of the first row, by `order`, of each distinct key."""
    frame = table.select(list(dict.fromkeys([*keys, *order]))).to_pandas()
    kept = frame.sort_values(order, kind="stable").drop_duplicates(keys).index
    mask = np.zeros(len(frame), bool)
    mask[kept.to_numpy()] = True
    return mask


def label(impressions: pa.Table, actions: pa.Table, schema: Schema) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Scenario labels and global labels of every impression.

    An action belongs to the impression that it is credited to: the one of its request where it names one,
    else the user's latest impression of that item at or before it, in its scenario where it names one.

    Args:
      impressions: one row an impression, of whole users.
      actions: all actions of those users.

    Returns:
      `{column: [impressions] int64 of 0 and 1}` for `schema.label_names`, and `[actions] int64`: the
      impression that each action is credited to, or -1.
    """
    shown = _keyed(impressions, [USER, ITEM, REQUEST, SCENARIO, TIMESTAMP])
    done = _keyed(actions, [USER, ITEM, REQUEST, SCENARIO, TIMESTAMP, ACTION])
    credited = _credit(shown, done, schema.labels.attribution)
    labels: dict[str, np.ndarray] = {}
    earlier = np.ones(len(shown), bool)
    for task in schema.tasks:
        of_task = (done[ACTION] == task.action).to_numpy()
        hit = np.zeros(len(shown), bool)
        hit[credited[of_task & (credited != _NO_ROW)]] = True
        earlier = earlier & hit
        labels[task.name] = earlier.astype(np.int64)
        anywhere = _acted_within(shown, done[of_task], schema.labels.global_window)
        labels[global_label(task.name)] = (earlier | anywhere).astype(np.int64)
    return labels, credited


def histories(impressions: pa.Table, actions: pa.Table, credited: np.ndarray, schema: Schema) -> "Histories":
    """Histories of impressions: the user's actions strictly before the impression, newest last.

    Args:
      actions: with the `in_history` features of their items.
      credited: as `label` returns it; gives an action that names no scenario the one of its impression.
    """
    scenarios = actions.column(SCENARIO).combine_chunks()
    shown_scenarios = impressions.column(SCENARIO).combine_chunks()
    of_impression = shown_scenarios.take(pa.array(credited, mask=credited == _NO_ROW))
    actions = actions.set_column(
        actions.schema.get_field_index(SCENARIO), SCENARIO, pc.coalesce(scenarios, of_impression, "")
    )
    actions = actions.filter(pc.is_in(actions.column(ACTION), pa.array(schema.history.actions, pa.string())))
    # The keys that no two actions share, so that ties in time have one order wherever their rows stand.
    order = (USER, TIMESTAMP, ACTION, ITEM, SCENARIO, REQUEST, PLACE)
    actions = actions.sort_by([(name, "ascending") for name in order])

    users = pd.concat([impressions.column(USER).to_pandas(), actions.column(USER).to_pandas()])
    codes, distinct = pd.factorize(users, sort=True)
    shown_at, done_at = impressions.column(TIMESTAMP).to_numpy(), actions.column(TIMESTAMP).to_numpy()
    timeline = Timeline(len(distinct), np.concatenate([shown_at, done_at]))
    shown_user, done_user = codes[: len(shown_at)], codes[len(shown_at) :]
    done = timeline.places(done_user, done_at)
    end = np.searchsorted(done, timeline.places(shown_user, shown_at))
    begin = np.maximum(np.searchsorted(done, timeline.starts(shown_user)), end - schema.history.max_length)
    return Histories(actions, shown_at, begin, end, schema)


class Histories:
    """Histories of a table of impressions, materialised as columns one slice at a time.

    A history can be hundreds of values wide, so only the slice at hand is ever laid out.
    """

    def __init__(self, actions: pa.Table, shown_at: np.ndarray, begin: np.ndarray, end: np.ndarray, schema: Schema):
        self._shown_at, self._begin, self._end = shown_at, begin, end
        self._done_at = actions.column(TIMESTAMP).to_numpy()
        self._columns: dict[str, tuple[pa.Array, int | None]] = {}
        for name in (*schema.history_features, ACTION, SCENARIO):
            values = actions.column(name).combine_chunks()
            width = schema.history_width(history_column(name))
            values = _fixed_width(values, width) if width else pc.fill_null(values, "")
            self._columns[history_column(name)] = (values, width)

    def columns(self, start: int, stop: int) -> dict[str, pa.Array]:
        """History columns of impressions `[start, stop)` as list arrays; `age` is int64 ms.

        A list feature takes its `length` places for every action, "" where the list is shorter.
        """
        begin, counts = self._begin[start:stop], (self._end - self._begin)[start:stop]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        index = np.arange(offsets[-1]) + np.repeat(begin - offsets[:-1], counts)
        result: dict[str, pa.Array] = {}
        for name, (values, width) in self._columns.items():
            taken = values.take(pa.array(index))
            flat, places = (taken.flatten(), offsets * width) if width else (taken, offsets)
            result[name] = pa.ListArray.from_arrays(pa.array(places, pa.int32()), flat)
        age = np.repeat(self._shown_at[start:stop], counts) - self._done_at[index]
        result[history_column("age")] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(age))
        return result


def _valid_rows(rows: pa.RecordBatch | pa.Table, table: pa.Table, key: str) -> tuple[pa.Array, np.ndarray]:
    """The row of `table` that is valid at each row's time, null where none is, and whether its key is known."""
    distinct = table.column(key).combine_chunks().unique()
    of_version = pc.index_in(table.column(key), distinct).to_numpy().astype(np.int64)
    since = pc.fill_null(table.column(TIMESTAMP), _EVER).to_numpy()
    timeline = Timeline(len(distinct), since)
    places = timeline.places(of_version, since)
    order = np.argsort(places, kind="stable")
    index = pc.index_in(rows.column(key), distinct)
    known = index.is_valid().to_numpy(zero_copy_only=False)
    of_row = pc.fill_null(index, 0).to_numpy().astype(np.int64)
    ordered = places[order]
    latest = np.searchsorted(ordered, timeline.places(of_row, rows.column(TIMESTAMP).to_numpy() + 1)) - 1
    valid = known & (latest >= np.searchsorted(ordered, timeline.starts(of_row)))
    return pa.array(order[np.maximum(latest, 0)], mask=~valid), known


def _keyed(table: pa.Table, names: list[str]) -> pd.DataFrame:
    frame = table.select(names).to_pandas()
    return frame.assign(row=np.arange(len(frame)))


def _credit(shown: pd.DataFrame, done: pd.DataFrame, attribution: int) -> np.ndarray:
    """Attribution: `[actions]` row of the impression that each action is credited to, or -1."""
    credited = np.full(len(done), _NO_ROW, np.int64)
    by_request = done[REQUEST].notna()
    match = done[by_request].merge(shown, on=[USER, ITEM, REQUEST], suffixes=("", "_shown"))
    _assign(credited, match, attribution)
    for names_scenario in (False, True):
        rows = done[~by_request & (done[SCENARIO].notna() == names_scenario)]
        keys = [USER, ITEM, SCENARIO] if names_scenario else [USER, ITEM]
        right = shown.assign(**{f"{TIMESTAMP}_shown": shown[TIMESTAMP]}).sort_values(
            [TIMESTAMP, REQUEST], kind="stable"
        )
        right = right[[*keys, TIMESTAMP, f"{TIMESTAMP}_shown", "row"]].rename(columns={"row": "row_shown"})
        left = rows[[*keys, TIMESTAMP, "row"]].sort_values(TIMESTAMP, kind="stable")
        if len(left) and len(right):
            match = pd.merge_asof(left, right, on=TIMESTAMP, by=keys, direction="backward")
            _assign(credited, match.dropna(subset="row_shown"), attribution)
    return credited


def _assign(credited: np.ndarray, match: pd.DataFrame, attribution: int) -> None:
    delay = match[TIMESTAMP] - match[f"{TIMESTAMP}_shown"]
    match = match[(delay >= 0) & (delay <= attribution)]
    credited[match["row"].to_numpy(np.int64)] = match["row_shown"].to_numpy(np.int64)


def _acted_within(shown: pd.DataFrame, done: pd.DataFrame, window: int) -> np.ndarray:
    """`[impressions]` bool: the user acted on the item within ± `window`."""
    within = np.zeros(len(shown), bool)
    if len(shown) and len(done):
        moments = done[[USER, ITEM, TIMESTAMP]].assign(found=True).sort_values(TIMESTAMP, kind="stable")
        rows = shown[[USER, ITEM, TIMESTAMP, "row"]].sort_values(TIMESTAMP, kind="stable")
        match = pd.merge_asof(rows, moments, on=TIMESTAMP, by=[USER, ITEM], direction="nearest", tolerance=window)
        within[match["row"].to_numpy()] = match["found"].notna().to_numpy()
    return within


def _fixed_width(lists: pa.ListArray, width: int) -> pa.FixedSizeListArray:
    """Lists truncated or padded with "" to `width` values."""
    lists = pc.fill_null(lists, pa.scalar([], lists.type))
    offsets = lists.offsets.to_numpy()
    index = offsets[:-1, None] + np.arange(width)
    beyond = index >= offsets[1:, None]
    flat = lists.values.take(pa.array(index.ravel(), mask=beyond.ravel()))
    return pa.FixedSizeListArray.from_arrays(pc.fill_null(flat, ""), width)
