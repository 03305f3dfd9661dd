"""Google Analytics 4 events, as BigQuery exports them: an event a row, of the tables `events_YYYYMMDD`.

What becomes what:

- *Request*: one list of items that a user is shown at one moment: a list of a `view_item_list` or a
  `view_search_results`. The list is the item's `item_list_name` or `item_list_id`, else the event's parameter of that
  name, else the name of the event. Which lists are search and which recommendation is told by the rule `lists`; lists
  that it does not name are dropped and counted.
- *Impression*: an item in it. Its position is `item_list_index` + 1, for Google's own examples count from 0 (a shop
  that counts from 1 gets positions from 2, in the same order); where an item of the list has no index, the items'
  order in the event. Its features are the event's own: the price that the user saw, the device, the country, the page,
  the hour (UTC) and the medium that first brought the user. Of a user's worth, the session's last click and other sums
  over time, which tell of what came after, nothing is read.
- *Query*, in the scenario `search` alone: the event's `search_term`, else that of the latest `view_search_results` of
  the session (`ga_session_id`), which often comes without items, just before the list.
- *Action*: an item of a `select_item` (click), an `add_to_cart` (cart) or a `purchase`. It has the scenario of its
  list where it names one. A click in a list that stands for no scenario is dropped, or it would be credited to an
  impression in another list; a cart or a purchase is kept, without scenario. Other events are dropped and counted: a
  refund does not undo a purchase, nor a `remove_from_cart` a cart.
- *User*: `user_pseudo_id`, the browser or the app. Not `user_id`: who logs in does so to buy, so its presence tells
  of what comes after. Events without it (no consent) are dropped and counted.
- *Repeats*: `events_intraday_*` tells what `events_*` tells, and exports may overlap. Equal items of one user, one
  microsecond and one list or action are one; so are purchases of an item with the same `transaction_id`, which a
  page loaded again reports again.
- *Item*: `item_id`, else `item_name` (Analytics asks for one of them). One row each, over all days: its most frequent
  name, brand and category, all levels of it. So these are not point in time.

Events come in no order: they are sorted by user and time on disk. Memory grows with the items, not with the events.

Source: Google's pages "[GA4] BigQuery Export schema" and "Measure ecommerce". `bq extract` as JSON Lines (integers are
text there) or Parquet, or the tables themselves. Tested with generated events in this schema, not on a real property.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson
from pydantic import Field

from pipelines.sources.base import Row, Source
from pipelines.sources.catalogue import Catalogue
from pipelines.sources.disk_sort import DiskSort
from pipelines.sources.export_row import BadRow, ExportRow, Repeated, Text
from pipelines.sources.inputs import Inputs
from pipelines.sources.lists import Lists
from usr_tf.errors import InputError

LISTS = {"*search*": "search", "*": "recommendation"}
"""The scenario of each list: search if its name says so, else recommendation."""

SEARCH = "search"
"""The scenario that has queries."""

SHOWN = ("view_search_results", "view_item_list")
ACTIONS = {"select_item": "click", "add_to_cart": "cart", "purchase": "purchase"}

_ORDER = {name: order for order, name in enumerate((*SHOWN, *ACTIONS))}
"""Of events at the same microsecond: a query comes before its list, and a list before what is done there."""

_COLUMNS = (
    "event_name",
    "event_timestamp",
    "user_pseudo_id",
    "event_params",
    "items",
    "device",
    "geo",
    "traffic_source",
    "platform",
    "ecommerce",
)

# A purchase often comes hours after the click, hence a day to credit it in. A shop with few of them takes `cart`.
# The daily export comes after the day's end, so counters lag by a day, as a snapshot that is published daily does. What
# the user did since is in `history_match`, which a request brings. A category is one word, a path: its trigrams match
# where words cannot.
SCHEMA = """\
scenarios: {scenarios}
tasks:
  - {{name: ctr, action: click}}
  - {{name: ctcvr, action: purchase}}
labels: {{attribution: 1d, global_window: 1d}}
history: {{actions: [click, cart, purchase], max_length: 50, queries: {{max_length: 10}}}}
split: {{valid: 0.1, test: 0.1}}
features:
  user_id:  {{group: user, type: categorical, min_count: 100}}
  item_id:  {{group: item, type: categorical, in_history: true, min_count: 5}}
  category: {{group: item, type: categorical, in_history: true, min_count: 5}}
  brand:    {{group: item, type: categorical, in_history: true, min_count: 5}}
  name:     {{group: item, type: text, min_count: 5}}
  price:    {{group: candidate, type: numeric, transform: log, buckets: 20}}
  query:    {{group: query, type: text, min_count: 5}}
  device:   {{group: context, type: categorical}}
  platform: {{group: context, type: categorical}}
  country:  {{group: context, type: categorical, min_count: 50}}
  medium:   {{group: context, type: categorical, min_count: 50}}
  hour:     {{group: context, type: categorical}}
  page:     {{group: context, type: categorical, min_count: 50}}
match:
  query_name:     {{features: [query, name]}}
  query_brand:    {{features: [query, brand], by: [coverage, ngram]}}
  query_category: {{features: [query, category], by: [ngram]}}
  past_name:      {{features: [history_queries, name]}}
history_match: [item_id, category, brand]
counters:
  item:       {{key: [item_id], actions: [click, purchase], windows: [7d, all], by_scenario: true, delay: 1d}}
  page_item:  {{key: [page, item_id], actions: [click], delay: 1d}}
  query_item: {{key: [query, item_id], actions: [click, purchase], delay: 1d}}
"""


class GA4(Source):
    """Log source of Google Analytics 4 events.

    Args:
      lists: The scenario of each list, by a pattern of its name or id; the first pattern that matches counts.
    """

    name = "ga4"

    def __init__(self, lists: Mapping[str, str] = LISTS):
        self._lists = Lists(lists)
        self._catalogue = Catalogue("name", "category", "brand")
        self._events: Counter[str] = Counter()
        self._seen_lists: Counter[str] = Counter()
        self._impressions = Counter(dict.fromkeys(self._lists.scenarios, 0))
        self._actions = Counter(dict.fromkeys(ACTIONS.values(), 0))
        self._dropped: Counter[str] = Counter()
        self._reason = ""
        """Of the last row that was rejected."""

    def schema(self) -> str:
        return SCHEMA.format(scenarios=json.dumps(self._lists.scenarios))

    def read(self, inputs: Inputs) -> Iterator[Row]:
        user = None
        for event in self._events_in_order(inputs):
            if user is None or event.user != user.id:
                user = _User(event.user)
            user.advance(event.timestamp)
            if event.name in ACTIONS:
                yield from (("actions", row) for row in self._actions_of(event, user))
            else:
                user.note_query(event)
                yield from (("impressions", row) for row in self._impressions_of(event, user))
        if not self._impressions.total():
            raise InputError(inputs.files[0].path, self._without_impressions(), _expected(self._lists))
        for row in self._catalogue.rows():
            yield "items", row

    def report(self) -> dict[str, Any]:
        return {
            "read": {"events": dict(self._events), "impressions_by_list": dict(self._seen_lists)},
            "written": {"impressions": dict(self._impressions), "actions": dict(self._actions)},
            "dropped": dict(+self._dropped),
        }

    def _events_in_order(self, inputs: Inputs) -> Iterator["_Event"]:
        """Relevant events, sorted by user and time."""
        paths = {file.path: place for place, file in enumerate(inputs.files)}
        rows = DiskSort(columns=6, keys=3)
        for record in inputs.records(_COLUMNS):
            try:
                value = orjson.loads(record.value) if isinstance(record.value, bytes) else record.value
                key = _Key.parse(value)
            except (orjson.JSONDecodeError, BadRow) as error:
                self._reason = str(error) if isinstance(error, BadRow) else "no JSON"
                inputs.reject(record.path, record.number, self._reason)
                continue
            self._events[key.name] += 1
            if key.name not in _ORDER:
                continue
            if not key.user:
                self._dropped["event_without_user"] += 1
                continue
            kept = orjson.dumps({name: value[name] for name in _COLUMNS if name in value}, default=str)
            rows.add([(key.user, key.timestamp, _ORDER[key.name], paths[record.path], record.number, kept)])
        for *_, place, number, kept in rows:
            try:
                yield _Event.parse(kept)
            except BadRow as error:
                inputs.reject(inputs.files[place].path, number, str(error))

    def _impressions_of(self, event: "_Event", user: "_User") -> Iterator[dict[str, Any]]:
        context = {
            "device": event.device.category if event.device else "",
            "platform": event.platform,
            "country": event.geo.country if event.geo else "",
            "medium": event.traffic_source.medium if event.traffic_source else "",
            "hour": str(event.timestamp // 3_600_000_000 % 24),
            "page": event.page,
        }
        for names, items in event.items_by_list().items():
            shown_list = (names or (event.name,))[0]
            scenario = self._lists.scenario_of(*(names or (event.name,)))
            self._seen_lists[shown_list] += len(items)
            if scenario is None:
                self._dropped["impression_in_other_list"] += len(items)
                continue
            for position, item in zip(_positions(items), items, strict=True):
                if not item.key:
                    self._dropped["impression_without_item"] += 1
                elif user.tells_again("impression", shown_list, item.key):
                    self._dropped["repeated_impression"] += 1
                else:
                    self._note(item)
                    self._impressions[scenario] += 1
                    yield {
                        "request_id": f"{event.user}/{event.timestamp}/{shown_list}",
                        "scenario": scenario,
                        "user_id": event.user,
                        "item_id": item.key,
                        "timestamp": event.timestamp // 1000,
                        "position": position,
                        "price": item.price if item.price and item.price > 0 else None,
                        "query": user.query(event) if scenario == SEARCH else "",
                        **context,
                    }

    def _actions_of(self, event: "_Event", user: "_User") -> Iterator[dict[str, Any]]:
        action = ACTIONS[event.name]
        for names, items in event.items_by_list().items():
            scenario = self._lists.scenario_of(*names) if names else None
            if action == "click" and names and scenario is None:
                self._dropped["click_in_other_list"] += len(items)
                continue
            for item in items:
                if not item.key:
                    self._dropped[f"{action}_without_item"] += 1
                elif user.tells_again(action, item.key) or (
                    action == "purchase" and user.bought_already(event, item.key)
                ):
                    self._dropped[f"repeated_{action}"] += 1
                else:
                    self._note(item)
                    self._actions[action] += 1
                    row = {"user_id": event.user, "item_id": item.key, "timestamp": event.timestamp // 1000}
                    yield {**row, "action": action, **({"scenario": scenario} if scenario else {})}

    def _note(self, item: "_Item") -> None:
        self._catalogue.add(item.key, item.name.lower(), item.category, item.brand)

    def _without_impressions(self) -> str:
        if not self._events:
            return f"no GA4 event ({self._reason})" if self._reason else "no rows"
        lists = ", ".join(repr(name) for name in self._seen_lists) or "none"
        return f"no impression to import; its lists are {lists}, its events {', '.join(self._events)}"


class _User:
    """State of one user; events arrive in time order."""

    def __init__(self, user: str):
        self.id = user
        self._moment = -1
        self._told: set[tuple[str, ...]] = set()
        self._queries: dict[str, str] = {}
        self._bought: set[tuple[str, str]] = set()

    def advance(self, moment: int) -> None:
        if moment != self._moment:
            self._moment = moment
            self._told.clear()

    def tells_again(self, *what: str) -> bool:
        """Whether the same event was read at this time already."""
        again = what in self._told
        self._told.add(what)
        return again

    def bought_already(self, event: "_Event", item: str) -> bool:
        order = event.ecommerce.transaction_id if event.ecommerce else ""
        again = bool(order) and (order, item) in self._bought
        self._bought.add((order, item))
        return again

    def note_query(self, event: "_Event") -> None:
        if event.name == "view_search_results":
            self._queries[event.param("ga_session_id")] = event.param("search_term")

    def query(self, event: "_Event") -> str:
        return event.param("search_term") or self._queries.get(event.param("ga_session_id"), "")


def _positions(items: list["_Item"]) -> list[int]:
    """`[items]` positions from 1."""
    if all(item.index.isdecimal() and len(item.index) < 10 for item in items):  # longer ones are no places
        return [int(item.index) + 1 for item in items]
    return list(range(1, len(items) + 1))


def _expected(lists: Lists) -> str:
    return f"{' or '.join(SHOWN)} with items in a list named as {', '.join(map(repr, lists.patterns))}"


# The part of the export that is read.


class _Key(ExportRow):
    name: str = Field(alias="event_name")
    user: Text = Field("", alias="user_pseudo_id")
    timestamp: int = Field(alias="event_timestamp", gt=0, lt=2**63)
    """Microseconds UTC."""


class _Value(ExportRow):
    string_value: Text = ""
    int_value: Text = ""


class _Param(ExportRow):
    key: str
    value: _Value | None = None


class _Item(ExportRow):
    item_id: Text = ""
    name: Text = Field("", alias="item_name")
    brand: Text = Field("", alias="item_brand")
    category1: Text = Field("", alias="item_category")
    category2: Text = Field("", alias="item_category2")
    category3: Text = Field("", alias="item_category3")
    category4: Text = Field("", alias="item_category4")
    category5: Text = Field("", alias="item_category5")
    price: float | None = None
    list_name: Text = Field("", alias="item_list_name")
    list_id: Text = Field("", alias="item_list_id")
    index: Text = Field("", alias="item_list_index")
    """A text in the export's schema."""

    @property
    def key(self) -> str:
        return self.item_id or self.name

    @property
    def category(self) -> str:
        levels = (self.category1, self.category2, self.category3, self.category4, self.category5)
        return "/".join(level for level in levels if level)


class _Device(ExportRow):
    category: Text = ""


class _Geo(ExportRow):
    country: Text = ""


class _TrafficSource(ExportRow):
    medium: Text = ""


class _Ecommerce(ExportRow):
    transaction_id: Text = ""


class _Event(_Key):
    params: Repeated[_Param] = Field([], alias="event_params")
    items: Repeated[_Item] = Field([])
    device: _Device | None = None
    geo: _Geo | None = None
    traffic_source: _TrafficSource | None = None
    platform: Text = ""
    ecommerce: _Ecommerce | None = None

    def param(self, key: str) -> str:
        value = next((param.value for param in self.params if param.key == key), None)
        return value.string_value or value.int_value if value else ""

    @property
    def page(self) -> str:
        """First two levels of the page path."""
        try:
            path = urlsplit(self.param("page_location")).path
        except ValueError:
            return ""
        return "/".join(path.split("/")[:3])

    def items_by_list(self) -> dict[tuple[str, ...], list[_Item]]:
        """Items of each list, by the names of the list (name and id, if present)."""
        common = self.param("item_list_name"), self.param("item_list_id")
        lists: dict[tuple[str, ...], list[_Item]] = {}
        for item in self.items:
            names = (item.list_name, item.list_id) if item.list_name or item.list_id else common
            lists.setdefault(tuple(name for name in names if name), []).append(item)
        return lists
