"""Diginetica: search and category browsing of an online shop, in CSV files of the CIKM Cup 2016, track 2.

What becomes what:

- *Request*: a row of `train-queries.csv`. With words (`searchstring.tokens`) it is a search, without them a category
  page (`categoryId`): browsing without a query is the recommendation side.
- *Impression*: an item of the request's `items`, at its place in that list.
- *Action*: a click of `train-clicks.csv`, which names its query; a view of `train-item-views.csv`; a purchase of
  `train-purchases.csv`. A click opens the item's page, so a view mostly follows it.
- *Time*: a session's first `eventdate` at midnight UTC plus `timeframe`, milliseconds of the session. So the order and
  the distance of the events of a session are exact. The time of day is not published, nor the order of the sessions of
  one day: the split by time is as exact as the day, and there is no feature of the hour.
- *User*: the session. With a user's sessions of a day in no order, a history across them would hold what came after.
- *Features*: the `userId` that the request's own row tells (`NA` for most), as `customer`; the category that is
  browsed; the words of the query; the items' words, category and binary logarithm of the price. `duration`, the time
  spent on the page, tells of what came after.
- *Dropped*: requests with `is.test`, whose clicks are withheld, and the clicks that name them; what is done in sessions
  without any request; an item told twice in a request.

Events are sorted by query and by session on disk; one session and the items' categories are held in memory.

Source: CIKM Cup 2016 Track 2, "Personalized E-Commerce Search Challenge" (DIGINETICA), the task's data description and
headers. Tested with generated files in this schema, not on the public ones.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipelines.sources.base import Row, Source
from pipelines.sources.disk_sort import DiskSort
from pipelines.sources.inputs import CsvBlock, InputFile, Inputs, to_integers, tuples
from usr_tf.errors import InputError

# A request shows some twenty items. A customer gets an embedding after several of them, and is
# no user feature, as a session's first rows may not know him yet.
# Words are ids. The match assumes the same ones in queries and names, and compares whole ids, not characters. Sessions
# of one day are in no order, so counters lag by a day: what counts happened on an earlier date.
SCHEMA = """\
scenarios: [search, recommendation]
tasks:
  - {name: ctr, action: click}
  - {name: ctcvr, action: purchase}
labels: {attribution: 1d, global_window: 1d}
history: {actions: [click, view, purchase], max_length: 50, queries: {max_length: 10}}
split: {valid: 0.1, test: 0.1}
features:
  item_id:       {group: item, type: categorical, in_history: true, min_count: 10}
  category:      {group: item, type: categorical, in_history: true}
  name:          {group: item, type: text, min_count: 10}
  price_log2:    {group: item, type: numeric, buckets: 20}
  query:         {group: query, type: text, min_count: 10}
  list_category: {group: context, type: categorical, min_count: 20}
  customer:      {group: context, type: categorical, min_count: 100}
match:
  query_name: {features: [query, name], by: [overlap, coverage, bm25]}
  past_name:  {features: [history_queries, name]}
history_match: [item_id, category]
counters:
  item:              {key: [item_id], actions: [click, purchase], windows: [7d, all], by_scenario: true, delay: 1d}
  query_item:        {key: [query, item_id], actions: [click, purchase], delay: 1d}
  list_item:         {key: [list_category, item_id], actions: [click, purchase], delay: 1d}
  customer_category: {key: [customer, category], actions: [click, purchase], delay: 1d}
"""

_QUERIES = (
    "queryId",
    "sessionId",
    "userId",
    "timeframe",
    "eventdate",
    "searchstring.tokens",
    "categoryId",
    "items",
    "is.test",
)
_CLICKS = ("queryId", "timeframe", "itemId")
_VIEWS = ("sessionId", "userId", "itemId", "timeframe", "eventdate")
_PURCHASES = ("sessionId", "userId", "timeframe", "eventdate", "itemId")

_REQUEST, _CLICK, _VIEW, _PURCHASE = range(4)
_ACTIONS = {_CLICK: "click", _VIEW: "view", _PURCHASE: "purchase"}
_DAY_MS = 86_400_000


class _Event(NamedTuple):
    session: str
    ms: int
    """Of the session."""
    kind: int
    day: int
    """Since 1970."""
    query: str = ""
    """The request's id, of a request or a click."""
    words: str = ""
    category: str = ""
    customer: str = ""
    items: str = ""
    """Of a request; the one item of an action."""


class Diginetica(Source):
    """The import of Diginetica's files: the four `train-` ones of events, `products` and `product-categories`."""

    name = "diginetica"

    def __init__(self) -> None:
        self._read: Counter[str] = Counter()
        self._impressions = Counter(search=0, recommendation=0)
        self._actions = Counter(dict.fromkeys(_ACTIONS.values(), 0))
        self._dropped: Counter[str] = Counter()

    def schema(self) -> str:
        return SCHEMA

    def read(self, inputs: Inputs) -> Iterator[Row]:
        products, categories = inputs.file("products.csv"), inputs.file("product-categories.csv")
        for _, events in itertools.groupby(self._events_by_session(inputs), key=lambda event: event.session):
            yield from self._of_session(list(events))
        if not self._impressions.total():
            raise InputError(inputs.file("train-queries.csv").path, "no impression to import", "requests with items")
        yield from self._items(inputs, products, categories)

    def report(self) -> dict[str, Any]:
        return {
            "read": dict(self._read),
            "written": {"impressions": dict(self._impressions), "actions": dict(self._actions)},
            "dropped": dict(+self._dropped),
        }

    def _events_by_session(self, inputs: Inputs) -> Iterator["_Event"]:
        """All events, by session, time and kind."""
        events = DiskSort(columns=9, keys=3)
        events.add(self._requests_and_clicks(inputs))
        for kind, name, columns in (
            (_VIEW, "train-item-views.csv", _VIEWS),
            (_PURCHASE, "train-purchases.csv", _PURCHASES),
        ):
            for rows in self._blocks(inputs, name, columns):
                fields = tuples(rows, "sessionId", "timeframe", "eventdate", "itemId")
                events.add(_Event(session, ms, kind, day, items=item) for session, ms, day, item in fields)
        return map(_Event._make, events)

    def _requests_and_clicks(self, inputs: Inputs) -> Iterator["_Event"]:
        """A click learns its session from the request that it names."""
        by_query = DiskSort(columns=9, keys=2)
        for rows in self._blocks(inputs, "train-queries.csv", _QUERIES):
            test = rows["is.test"].str.upper() == "TRUE"
            self._dropped["test_request"] += int(test.sum())
            fields = ("sessionId", "timeframe", "eventdate", "searchstring.tokens", "categoryId", "userId", "items")
            by_query.add((row[0], _REQUEST, *row[1:]) for row in tuples(rows[~test], "queryId", *fields))
        for rows in self._blocks(inputs, "train-clicks.csv", _CLICKS):
            fields = tuples(rows, "queryId", "timeframe", "itemId")
            by_query.add((query, _CLICK, None, ms, None, "", "", "", item) for query, ms, item in fields)
        of_query: dict[str, _Event] = {}
        for query, kind, session, ms, day, words, category, customer, items in by_query:
            if kind == _REQUEST:
                of_query = {query: _Event(session, ms, kind, day, query, words, category, customer, items)}
                yield of_query[query]
            elif query in of_query:
                yield of_query[query]._replace(ms=ms, kind=kind, items=items)
            else:
                self._dropped["click_without_request"] += 1

    def _of_session(self, events: list["_Event"]) -> Iterator[Row]:
        if all(event.kind != _REQUEST for event in events):
            self._dropped["action_of_session_without_request"] += len(events)
            return
        start = min(event.day for event in events) * _DAY_MS
        for event in events:
            row: dict[str, Any] = {"user_id": event.session, "timestamp": start + event.ms}
            if event.query:
                row |= {"request_id": event.query, "scenario": "search" if event.words else "recommendation"}
            if event.kind == _REQUEST:
                yield from self._of_request(event, row)
            else:
                self._actions[_ACTIONS[event.kind]] += 1
                yield "actions", {**row, "item_id": event.items, "action": _ACTIONS[event.kind]}

    def _of_request(self, event: "_Event", row: dict[str, Any]) -> Iterator[Row]:
        row |= {
            "query": event.words.replace(",", " "),
            "list_category": "" if event.category == "0" else event.category,
            "customer": event.customer,
        }
        listed = [item for item in event.items.split(",") if item]
        shown: dict[str, int] = {}
        for position, item in enumerate(listed, start=1):
            shown.setdefault(item, position)
        self._dropped["impression_repeated_in_list"] += len(listed) - len(shown)
        self._impressions[row["scenario"]] += len(shown)
        for item, position in shown.items():
            yield "impressions", {**row, "item_id": item, "position": position}

    def _blocks(self, inputs: Inputs, name: str, columns: tuple[str, ...]) -> Iterator[pd.DataFrame]:
        """Sound rows of a file of events: times as integers, days since 1970, and no `NA`."""
        for block in inputs.csv_blocks(inputs.file(name), columns, delimiter=";"):
            self._read[name] += len(block.rows)
            rows = block.rows.replace("NA", "")
            rows["timeframe"], is_number = to_integers(rows["timeframe"], 0)
            wrong = {f"{key}: none": rows[key] == "" for key in ("queryId", "sessionId", "itemId") if key in columns}
            wrong["timeframe: no number from 0"] = ~is_number
            if "eventdate" in columns:
                day = pd.to_datetime(rows["eventdate"], format="%Y-%m-%d", errors="coerce")
                wrong["eventdate: no date"] = day.isna()
                rows["eventdate"] = (day - pd.Timestamp(0)).dt.days.fillna(0).astype("int64")
            yield inputs.sound(block._replace(rows=rows), wrong)

    def _items(self, inputs: Inputs, products: InputFile, categories: InputFile) -> Iterator[Row]:
        category_of: dict[str, str] = {}
        for block in inputs.csv_blocks(categories, ("itemId", "categoryId"), delimiter=";"):
            category_of.update(tuples(_with_items(inputs, block), "itemId", "categoryId"))
        for block in inputs.csv_blocks(products, ("itemId", "pricelog2", "product.name.tokens"), delimiter=";"):
            rows = _with_items(inputs, block)
            prices = pd.to_numeric(rows["pricelog2"], errors="coerce").replace([np.inf, -np.inf], np.nan)
            for item, price, name in zip(rows["itemId"], prices, rows["product.name.tokens"], strict=True):
                yield (
                    "items",
                    {
                        "item_id": item,
                        "category": category_of.get(item, ""),
                        "name": name.replace(",", " "),
                        "price_log2": None if np.isnan(price) else float(price),
                    },
                )


def _with_items(inputs: Inputs, block: CsvBlock) -> pd.DataFrame:
    return inputs.sound(block, {"itemId: none": block.rows["itemId"] == ""})
