"""KuaiSAR: search and recommendation of the short-video app Kuaishou, of the same users, in CSV files.

What becomes what:

- *Impression*: a row of `rec_inter.csv` (scenario recommendation) or `src_inter.csv` (search). A request is what the
  system hands out to a user at one moment: the rows of a user with one `timestamp`, or of one search session. The files
  tell no position, and their order stands for none.
- *Click*: `click`, or `click_cnt` above 0. In recommendation there are like, follow and forward too; search has clicks
  alone, so the task is the click in both, and the others serve history.
- *Time*: the timestamps, milliseconds UTC; `time` is the same in Beijing's. When a user clicked is not published, only
  when the videos were handed out, several at once and before the user saw them. An action must not be known too early,
  so it is dated to the end of what its hand-out was watched for: the timestamp plus the `playing_time` of all its
  videos, an hour at the most, as the label has to stay within the attribution window. A search click has the time of
  its session.
- *Features*: the items', the encrypted ones of the users, the words of the query, the search's source and the hour in
  Beijing. Left out, as they may tell of what came after: `playing_time`, `search` and `search_item_related`, which are
  outcomes, and the users' activity levels, active days of "the past month", which may be the month of the logs. Also
  left out: `social_network.csv`, in which 576 users have friends.
- *Dropped*: results of a search that are no `VIDEO` and no `IMAGE_ATLAS`, as recommendation shows nothing else; rows
  that tell the same item of the same hand-out again. What a search session tells again is left to preprocess, which
  sets it aside; its clicks count all the same.
- *Item*: all rows of `item_features.csv`; 0 and 1970 stand for nothing.

Rows of recommendation are sorted by user and time on disk; all else streams. Memory does not grow with the rows.

Source: Sun et al., "KuaiSAR: A Unified Search And Recommendation Dataset", CIKM 2023 (arXiv 2306.07705), and the field
descriptions of kuaisar.github.io, for KuaiSAR_v2 and KuaiSAR-small alike. Tested with generated files in this schema,
not on the public ones.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pandas as pd

from pipelines.sources.base import Row, Source
from pipelines.sources.disk_sort import DiskSort
from pipelines.sources.inputs import CsvBlock, Inputs, to_integers, tuples
from usr_tf.errors import InputError

SHOWN_TYPES = ("VIDEO", "IMAGE_ATLAS")
ACTIONS = ("click", "like", "follow", "forward")
WATCHED_AT_MOST_MS = 3_600_000
"""As long as the attribution window of `SCHEMA`."""

# 25,877 users in 19 days, hundreds of rows each; most of the 6.9 million items are shown once or twice.
# Words are ids. The match assumes the same ones in queries and captions, and compares whole ids, not characters.
# Counters lag by an hour, in which what was handed out is watched and a search is clicked.
SCHEMA = """\
scenarios: [search, recommendation]
tasks:
  - {name: ctr, action: click}
labels: {attribution: 1h, global_window: 1d}
history: {actions: [click, like, follow, forward], max_length: 50, queries: {max_length: 20}}
split: {valid: 0.1, test: 0.1}
features:
  user_id:       {group: user, type: categorical, min_count: 20}
  onehot_feat1:  {group: user, type: categorical}
  onehot_feat2:  {group: user, type: categorical}
  item_id:       {group: item, type: categorical, in_history: true, min_count: 10}
  author_id:     {group: item, type: categorical, in_history: true, min_count: 10}
  category:      {group: item, type: categorical, in_history: true}
  subcategory:   {group: item, type: categorical, in_history: true, min_count: 10}
  caption:       {group: item, type: text, min_count: 20}
  item_type:     {group: item, type: categorical}
  upload_type:   {group: item, type: categorical}
  query:         {group: query, type: text, min_count: 20}
  search_source: {group: context, type: categorical}
  hour:          {group: context, type: categorical}
match:
  query_caption: {features: [query, caption], by: [overlap, coverage, bm25]}
  past_caption:  {features: [history_queries, caption]}
history_match: [item_id, author_id, category, subcategory]
counters:
  item:        {key: [item_id], actions: [click], windows: [1d, all], by_scenario: true, delay: 1h}
  author:      {key: [author_id], actions: [click, follow], delay: 1h}
  user_author: {key: [user_id, author_id], actions: [click], prior: 5, delay: 1h}
  user_topic:  {key: [user_id, subcategory], actions: [click], prior: 10, delay: 1h}
  query_item:  {key: [query, item_id], actions: [click], delay: 1h}
"""

_SEARCH = (
    "user_id",
    "search_session_id",
    "search_session_timestamp",
    "keyword",
    "search_source",
    "item_id",
    "click_cnt",
    "item_type",
)
_RECOMMENDATION = ("user_id", "item_id", "timestamp", "playing_time", *ACTIONS)
_USERS = ("user_id", "onehot_feat1", "onehot_feat2")
_ITEMS = (
    "item_id",
    "author_id",
    "first_level_category_id",
    "second_level_category_id",
    "caption",
    "item_type",
    "upload_type",
)


class KuaiSAR(Source):
    """Log source of KuaiSAR's files `rec_inter`, `src_inter`, `item_features` and `user_features`."""

    name = "kuaisar"

    def __init__(self) -> None:
        self._read: Counter[str] = Counter()
        self._impressions = Counter(search=0, recommendation=0)
        self._actions = Counter(dict.fromkeys(ACTIONS, 0))
        self._dropped: Counter[str] = Counter()

    def schema(self) -> str:
        return SCHEMA

    def read(self, inputs: Inputs) -> Iterator[Row]:
        recommendations, searches = inputs.file("rec_inter.csv"), inputs.file("src_inter.csv")
        items, users = inputs.file("item_features.csv"), inputs.file("user_features.csv")
        for block in inputs.csv_blocks(searches, _SEARCH):
            self._read["src_inter.csv"] += len(block.rows)
            yield from self._of_searches(_sound(inputs, block, "search_session_timestamp", ("click_cnt",)))
        rows = DiskSort(columns=4 + len(ACTIONS), keys=3)
        for block in inputs.csv_blocks(recommendations, _RECOMMENDATION):
            self._read["rec_inter.csv"] += len(block.rows)
            block.rows["playing_time"], _ = to_integers(block.rows["playing_time"], 0)
            sound = _sound(inputs, block, "timestamp", ACTIONS)
            rows.add(tuples(sound, "user_id", "timestamp", "item_id", "playing_time", *ACTIONS))
        for (user, moment), handed_out in itertools.groupby(rows, key=lambda row: row[:2]):
            yield from self._of_hand_out(user, moment, [row[2:] for row in handed_out])
        if not self._impressions.total():
            raise InputError(recommendations.path, "no impression to import", "rows of KuaiSAR, here or of a search")
        for block in inputs.csv_blocks(users, _USERS):
            for row in tuples(inputs.sound(block, {"user_id: none": block.rows["user_id"] == ""}), *_USERS):
                yield "users", dict(zip(_USERS, row, strict=True))
        for block in inputs.csv_blocks(items, _ITEMS):
            yield from _items(inputs.sound(block, {"item_id: none": block.rows["item_id"] == ""}))

    def report(self) -> dict[str, Any]:
        return {
            "read": dict(self._read),
            "written": {"impressions": dict(self._impressions), "actions": dict(self._actions)},
            "dropped": dict(+self._dropped),
        }

    def _of_searches(self, rows: pd.DataFrame) -> Iterator[Row]:
        known = rows["item_type"].isin(SHOWN_TYPES)
        for kind, count in rows["item_type"][~known].value_counts().items():
            self._dropped[f"search_result_of_type_{kind}"] += count
        rows = rows[known].assign(keyword=_words(rows["keyword"][known]))
        self._impressions["search"] += len(rows)
        for user, session, moment, query, source, item, clicks, _ in tuples(rows, *_SEARCH):
            request = f"search/{user}/{session}/{moment}"
            yield "impressions", _impression("search", request, user, moment, item, query, source)
            if clicks > 0:
                yield "actions", self._action("click", "search", request, user, moment, item)

    def _of_hand_out(self, user: str, moment: int, shown: list[tuple[Any, ...]]) -> Iterator[Row]:
        """Rows of one user and time: `(item, play time, 0 or 1 for each of ACTIONS)`, by item."""
        request = f"recommendation/{user}/{moment}"
        watched = moment + min(sum(row[1] for row in shown), WATCHED_AT_MOST_MS)
        for item, told in itertools.groupby(shown, key=lambda row: row[0]):
            rows = list(told)
            self._dropped["repeated_impression"] += len(rows) - 1
            self._impressions["recommendation"] += 1
            yield "impressions", _impression("recommendation", request, user, moment, item, "", "")
            for place, action in enumerate(ACTIONS, start=2):
                if any(row[place] > 0 for row in rows):
                    yield "actions", self._action(action, "recommendation", request, user, watched, item)

    def _action(self, action: str, scenario: str, request: str, user: str, moment: int, item: str) -> dict[str, Any]:
        self._actions[action] += 1
        return {
            "user_id": user,
            "item_id": item,
            "timestamp": moment,
            "action": action,
            "request_id": request,
            "scenario": scenario,
        }


def _impression(
    scenario: str, request: str, user: str, moment: int, item: str, query: str, source: str
) -> dict[str, Any]:
    return {
        "request_id": request,
        "scenario": scenario,
        "user_id": user,
        "item_id": item,
        "timestamp": moment,
        "query": query,
        "search_source": source,
        "hour": str((moment // 3_600_000 + 8) % 24),
    }


def _items(rows: pd.DataFrame) -> Iterator[Row]:
    rows = rows.assign(caption=_words(rows["caption"]))
    for item, author, category, subcategory, caption, kind, upload in tuples(rows, *_ITEMS):
        yield (
            "items",
            {
                "item_id": item,
                "author_id": "" if author == "0" else author,
                "category": "" if category == "0" else category,
                "subcategory": "" if subcategory == "0" else subcategory,
                "caption": caption,
                "item_type": kind,
                "upload_type": upload,
            },
        )


def _sound(inputs: Inputs, block: CsvBlock, moment: str, flags: tuple[str, ...]) -> pd.DataFrame:
    """Valid rows of a block, with time and flags as integers."""
    wrong = {f"{name}: none": block.rows[name] == "" for name in ("user_id", "item_id")}
    for name in (moment, *flags):
        least = 1 if name == moment else 0
        block.rows[name], is_number = to_integers(block.rows[name], least)
        wrong[f"{name}: no number from {least}"] = ~is_number
    return inputs.sound(block, wrong)


def _words(lists: pd.Series) -> pd.Series:
    """Word ids as text: `[20, 34, 3]` → `20 34 3`."""
    return lists.str.replace(r"[\[\],\s]+", " ", regex=True).str.strip()
