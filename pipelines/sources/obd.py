"""Open Bandit Dataset: recommendations of the fashion shop ZOZOTOWN under two policies, with their propensities.

What becomes what:

- *Impression*: a row of `POLICY_CAMPAIGN.csv`, or `POLICY/CAMPAIGN/CAMPAIGN.csv` as the dataset is published. The
  policies are `random` (uniform over the campaign's items) and `bts` (Bernoulli Thompson sampling), in the same week.
- *Scenario*: the campaign, `all`, `men` or `women`: three surfaces, each with items of its own. All of it is
  recommendation.
- *Request*: the row. The page has three positions, but the rows name neither the slate nor the user. So each row is a
  user of its own, `user_id` is the row's number, there are no histories, and no feature is made of the id.
- *Off-policy columns*: `policy`, `position`, and `propensity`, the logging policy's probability of this item at this
  position. The schema names none of them, so no model reads them; `usr-tf abtest` does.
- *Click*: `click`. Its time is not published, so it has that of the impression.
- *Features*: the four hashed features of the visitor, and `affinity_items`: the items with which the visitor has an
  affinity above 0, weighted by it (`user-item_affinity_0` …, a column per item). A match tells whether the ranked item
  is one of them.
- *Item*: a row of the campaign's item context, `CAMPAIGN/NUMBER`. Its categories are hashed differently in each file:
  the item 0 of `men` has another hash under each policy. They are numbered by first appearance in the order of the
  items, which is the same in both files.

Source: Saito et al., "Open Bandit Dataset and Pipeline", NeurIPS 2021, datasets and benchmarks (arXiv 2008.07146).
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipelines.sources.base import Row, Source
from pipelines.sources.inputs import CsvBlock, InputFile, Inputs, to_integers, tuples
from usr_tf.errors import InputError

CAMPAIGNS = ("all", "men", "women")
POLICIES = ("bts", "random")

# Rows are few and clicks rare, 3 to 7 in a thousand. A counter would know the clicks that off-policy estimates are made
# of, so there is none.
SCHEMA = """\
scenarios: [all, men, women]
tasks:
  - {name: ctr, action: click}
labels: {attribution: 1h, global_window: 1h}
split: {valid: 0.1, test: 0.1}
features:
  item_id:        {group: item, type: categorical}
  item_feature_0: {group: item, type: numeric}
  item_feature_1: {group: item, type: categorical}
  item_feature_2: {group: item, type: categorical}
  item_feature_3: {group: item, type: categorical}
  affinity_items: {group: context, type: categorical_list, weights: affinity_weights, min_count: 5}
  user_feature_0: {group: context, type: categorical}
  user_feature_1: {group: context, type: categorical}
  user_feature_2: {group: context, type: categorical}
  user_feature_3: {group: context, type: categorical}
match:
  affinity_item: {features: [affinity_items, item_id], by: [overlap]}
"""

_USER = tuple(f"user_feature_{number}" for number in range(4))
_ITEM_CATEGORIES = tuple(f"item_feature_{number}" for number in range(1, 4))
_ROW = ("timestamp", "item_id", "position", "click", "propensity_score", *_USER)
_ITEM = ("item_id", "item_feature_0", *_ITEM_CATEGORIES)
_NAME = f"({'|'.join(POLICIES)})[/_]({'|'.join(CAMPAIGNS)})"
_LOG = re.compile(rf"(?:^|/){_NAME}(?:/\2)?\.csv(?:\.gz)?$")
_CONTEXT = re.compile(rf"(?:^|/){_NAME}[/_]item_context\.csv(?:\.gz)?$")


class _Log(NamedTuple):
    policy: str
    campaign: str
    rows: InputFile
    items: InputFile


class OpenBandit(Source):
    """Log source of the Open Bandit Dataset, its files of one campaign and policy or of several."""

    name = "obd"

    def __init__(self) -> None:
        self._read: Counter[str] = Counter()
        self._impressions: Counter[str] = Counter()
        self._clicks: Counter[str] = Counter()

    def schema(self) -> str:
        return SCHEMA

    def read(self, inputs: Inputs) -> Iterator[Row]:
        catalogues: dict[str, list[dict[str, Any]]] = {}
        for log in _logs(inputs):
            items = _items(inputs, log)
            if log.campaign not in catalogues:
                catalogues[log.campaign] = items
                yield from (("items", item) for item in items)
            elif items != catalogues[log.campaign]:
                raise InputError(log.items.path, "other items than under the other policy", "the same, hashes aside")
            yield from self._rows(inputs, log, len(items))
        if not self._impressions.total():
            raise InputError("--input", "no impression to import", "rows of the Open Bandit Dataset")

    def report(self) -> dict[str, Any]:
        return {
            "read": dict(self._read),
            "written": {"impressions": dict(self._impressions), "clicks": dict(self._clicks)},
        }

    def _rows(self, inputs: Inputs, log: _Log, items: int) -> Iterator[Row]:
        affinities = [f"user-item_affinity_{item}" for item in range(items)]
        name = f"{log.policy}/{log.campaign}"
        for block in inputs.csv_blocks(log.rows, [*_ROW, *affinities]):
            self._read[name] += len(block.rows)
            rows = _sound(inputs, block, items, affinities)
            affinity = rows[affinities].to_numpy("float64")
            fields = tuples(rows, "number", "timestamp", "item_id", "position", "click", "propensity_score")
            features = rows[list(_USER)].to_dict("records")
            self._impressions[name] += len(rows)
            self._clicks[name] += int(rows["click"].sum())
            for (number, moment, item, position, click, propensity), of_user, of_items in zip(
                fields, features, affinity, strict=True
            ):
                row = f"{log.policy}/{log.campaign}/{number}"
                liked = np.flatnonzero(of_items)
                base = {"request_id": row, "scenario": log.campaign, "user_id": row}
                base |= {"item_id": f"{log.campaign}/{item}", "timestamp": moment}
                yield (
                    "impressions",
                    base
                    | {"position": position, "policy": log.policy, "propensity": propensity}
                    | {"affinity_items": [f"{log.campaign}/{other}" for other in liked]}
                    | {"affinity_weights": of_items[liked].tolist()}
                    | of_user,
                )
                if click:
                    yield "actions", base | {"action": "click"}


def _logs(inputs: Inputs) -> list[_Log]:
    """Logs among the input files, each with its item context.

    Raises:
      InputError: there is none, one is given twice, or an item context is missing.
    """
    found: dict[str, dict[tuple[str, str], InputFile]] = {}
    for kind, pattern in (("rows", _LOG), ("items", _CONTEXT)):
        found[kind] = {}
        for file in inputs.files:
            if match := pattern.search(file.path):
                key = match[1], match[2]
                if key in found[kind]:
                    raise InputError("--input", f"{found[kind][key].path} and {file.path}", f"{'/'.join(key)} once")
                found[kind][key] = file
    if not found["rows"]:
        expected = "POLICY_CAMPAIGN.csv or POLICY/CAMPAIGN/CAMPAIGN.csv, such as bts_men.csv.gz"
        raise InputError("--input", "no log of the Open Bandit Dataset", expected)
    for key, file in found["rows"].items():
        if key not in found["items"]:
            raise InputError(file.path, f"no {'_'.join(key)}_item_context.csv", "that file among --input")
    return [_Log(*key, file, found["items"][key]) for key, file in sorted(found["rows"].items())]


def _items(inputs: Inputs, log: _Log) -> list[dict[str, Any]]:
    """Rows of the table `items`, in the order of their numbers, from 0.

    Raises:
      InputError: the numbers are not 0, 1, … without a gap.
    """
    blocks = [block.rows for block in inputs.csv_blocks(log.items, _ITEM)]
    rows = pd.concat(blocks) if blocks else pd.DataFrame(columns=list(_ITEM))
    number, is_number = to_integers(rows["item_id"], 0)
    if not len(rows) or not is_number.all() or sorted(number) != list(range(len(rows))):
        found = ", ".join(rows["item_id"].iloc[:3]) or "no item"
        raise InputError(f"{log.items.path}: item_id", found, "the numbers from 0, each once")
    rows = rows.assign(item_id=number).sort_values("item_id")
    value = pd.to_numeric(rows["item_feature_0"], errors="coerce").replace([np.inf, -np.inf], np.nan)
    columns = {name: pd.factorize(rows[name])[0].tolist() for name in _ITEM_CATEGORIES}
    return [
        {
            "item_id": f"{log.campaign}/{item}",
            "item_feature_0": None if np.isnan(value.iloc[item]) else float(value.iloc[item]),
            **{name: f"{log.campaign}/{codes[item]}" for name, codes in columns.items()},
        }
        for item in range(len(rows))
    ]


def _sound(inputs: Inputs, block: CsvBlock, items: int, affinities: list[str]) -> pd.DataFrame:
    """Valid rows of a block, with numbers as numbers, `timestamp` in ms, and `number`, the row's place from 0."""
    rows = block.rows
    numbers: dict[str, Any] = {"number": block.numbers - 2}
    wrong: dict[str, Any] = {}
    moment = pd.to_datetime(rows["timestamp"], format="ISO8601", errors="coerce", utc=True)
    wrong["timestamp: no ISO 8601 time"] = moment.isna()
    numbers["timestamp"] = moment.fillna(pd.Timestamp(0, tz="UTC")).dt.as_unit("ms").astype("int64")
    for name, least, most in (("item_id", 0, items - 1), ("position", 1, None), ("click", 0, 1)):
        numbers[name], is_number = to_integers(rows[name], least)
        if most is not None:
            is_number &= numbers[name] <= most
        limits = f"from {least}" if most is None else "of the item context" if name == "item_id" else "0 or 1"
        wrong[f"{name}: no number {limits}"] = ~is_number
    propensity = pd.to_numeric(rows["propensity_score"], errors="coerce")
    numbers["propensity_score"] = propensity
    wrong["propensity_score: no number above 0, at most 1"] = ~((propensity > 0) & (propensity <= 1))
    affinity = rows[affinities].apply(pd.to_numeric, errors="coerce")
    wrong["user-item_affinity: no number from 0"] = ~((affinity >= 0) & np.isfinite(affinity)).all(axis=1)
    sound = block._replace(rows=pd.concat([rows[list(_USER)].assign(**numbers), affinity], axis=1))
    return inputs.sound(sound, wrong)
