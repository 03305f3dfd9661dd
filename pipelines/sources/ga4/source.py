"""Google Analytics 4 events, as BigQuery exports them: an event a row, of the tables `events_YYYYMMDD`.

What becomes what:

- *Request*: one list of items that a user is shown at one moment: a list of a `view_item_list` or a
  `view_search_results`, or of the events that `shown` names. The list is the item's `item_list_name` or `item_list_id`,
  else the event's parameter of that name, else the name of the event. Which lists are search and which recommendation
  is told by the rule `lists`, by the list's name or by its page; lists that it does not name are dropped and counted.
- *Impression*: an item in it. Its position is `item_list_index`, which Google's own examples count from 0 and other
  shops from 1: from 0 where any index of a shown list is 0, else from 1, for all of the import. Where half of a list's
  items or more have no index, positions are the items' order in the event; where fewer have none, these have no
  position. Its features are the event's own: the price that the user saw, the device, the country, the page, the hour
  (in `timezone`) and the medium that first brought the user. Of a user's worth, the session's last click and other sums
  over time, which tell of what came after, nothing is read.
- *Query*, in the scenario `search` alone: the event's `search_term`, else that of the latest `view_search_results` or
  `search` of the session (`ga_session_id`), which often comes without items, just before the list.
- *Action*: an item of a `select_item` (click), an `add_to_cart` (cart) or a `purchase`, or of the events that `actions`
  names. It has the scenario of its list where it names one; where a rule of `lists` asks for the page, a `select_item`
  alone does, as other events happen on other pages than the list. A click in a list that stands for no scenario is
  dropped, or it would be credited to an impression in another list; a cart or a purchase is kept, without scenario.
  Other events are dropped and counted: a refund does not undo a purchase, nor a `remove_from_cart` a cart.
- *Several items*: a purchase means all its items. Of another action, `several` tells which one (`acted_items`).
- *Both*: an event may show a list and act on an item of it. Its items are then one list, whose request id the action
  has; one item alone is no list, only what was acted on. An item acted on that has replaced the first one of the list
  is an impression only if it is in the list at its own place too: else whatever is in that place would be a click.
- *Variants*: an action on an item that is shown nowhere goes to the most shown item of the same name, if there is one:
  purchases often name the id of a size or colour.
- *User*: `user_pseudo_id`, the browser or the app. Not `user_id`: who logs in does so to buy, so its presence tells
  of what comes after. Events without it (no consent) are dropped and counted.
- *Repeats*: `events_intraday_*` tells what `events_*` tells, and exports may overlap. Equal items of one user, one
  microsecond and one list or action are one; so are purchases of an item with the same `transaction_id`, which a
  page loaded again reports again.
- *Item*: `item_id`, else `item_name` (Analytics asks for one of them). One row each, over all days: its most frequent
  name, brand and category, all levels of it. So these are not point in time.
- *Missing values*: null, `(not set)`, `(data deleted)` and the other words of `export_row.MISSING`.

Events come in no order: they are sorted by user and time on disk. Memory grows with the items, and with the actions on
items that are not shown before, not with the events.

Source: Google's pages "[GA4] BigQuery Export schema" and "Measure ecommerce". `bq extract` as JSON Lines (integers are
text there), Parquet or Avro, or the tables themselves. Tested with generated events in this schema, and with a public
sample of events of Google's own shop.
"""

import json
import zoneinfo
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from pipelines.sources.base import Row, Source
from pipelines.sources.catalogue import Catalogue
from pipelines.sources.disk_sort import DiskSort
from pipelines.sources.export_row import BadRow
from pipelines.sources.ga4.acted_items import EXTRA, ActedItems, replaces_first
from pipelines.sources.ga4.event import COLUMNS, Event, Item, Key
from pipelines.sources.inputs import Inputs
from pipelines.sources.lists import Lists
from usr_tf.errors import InputError

LISTS = {"*search*": "search", "*": "recommendation"}
"""The scenario of each list: search if its name says so, else recommendation."""

SEARCH = "search"
"""The scenario that has queries."""

SEARCHES = ("view_search_results", "search")
"""Events that tell the query of a session."""
SHOWN = ("view_search_results", "view_item_list")
SELECTION = "select_item"
"""The event that happens in the list itself, on its page."""
ACTIONS = {SELECTION: "click", "add_to_cart": "cart", "purchase": "purchase"}
TASKS = {"ctr": "click", "ctcvr": "purchase"}

_PAGES_IN_REPORT = 50

# A purchase often comes hours after the click, hence a day to credit it in. A shop with few of them takes `cart`.
# The daily export comes after the day's end, so counters lag by a day, as a snapshot that is published daily does. What
# the user did since is in `history_match`, which a request brings. A category is one word, a path: its trigrams match
# where words cannot.
SCHEMA = """\
scenarios: {scenarios}
tasks:
{tasks}
labels: {{attribution: 1d, global_window: 1d}}
history: {{actions: [{actions}], max_length: 50, queries: {{max_length: 10}}}}
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
  item:       {{key: [item_id], actions: [{task_actions}], windows: [7d, all], by_scenario: true, delay: 1d}}
  page_item:  {{key: [page, item_id], actions: [{first_action}], delay: 1d}}
  query_item: {{key: [query, item_id], actions: [{task_actions}], delay: 1d}}
"""


class GA4(Source):
    """Log source of Google Analytics 4 events.

    Args:
      lists: The scenario of each list, by a pattern of its name or id, or of its page; the first that matches counts.
      shown: Names of the events that show lists.
      actions: The action of each event that is one, beside the events in `ACTIONS` of other actions.
      several: Which of several items an action means: rules of `acted_items`, in the order in which to try them.
      timezone: IANA name of the time zone of the feature `hour`.
      tasks: The action of each task of the schema, in the order of their chain.

    Raises:
      InputError: an unknown time zone or rule, or a task of an action that no event stands for.
    """

    name = "ga4"

    def __init__(
        self,
        lists: Mapping[str, str] = LISTS,
        shown: Sequence[str] = SHOWN,
        actions: Mapping[str, str] = ACTIONS,
        several: Sequence[str] = (EXTRA,),
        timezone: str = "UTC",
        tasks: Mapping[str, str] = TASKS,
    ):
        self.lists = Lists(lists)
        self.shown = tuple(shown)
        kept = {event: action for event, action in ACTIONS.items() if action not in actions.values()}
        self.actions = kept | dict(actions)
        self.tasks = dict(tasks)
        for task, action in self.tasks.items():
            if action not in self.actions.values():
                known = ", ".join(dict.fromkeys(self.actions.values()))
                raise InputError(f"--task {task}", repr(action), f"an action that an event stands for: {known}")
        self.timezone = _zone(timezone)
        self.several = tuple(several)
        self._acted = ActedItems(self.several)
        self._order = {name: order for order, name in reversed([*enumerate((*SEARCHES, *self.shown, *self.actions))])}
        """Of events at the same microsecond: a query comes before its list, and a list before what is done there."""
        self._first_index = 1
        self._catalogue = Catalogue("name", "category", "brand")
        self._impressions_of_item: Counter[str] = Counter()
        self._kept_items: set[str] = set()
        self._events: Counter[str] = Counter()
        self._seen_lists: Counter[str] = Counter()
        self._seen_pages: Counter[str] = Counter()
        self._impressions = Counter(dict.fromkeys(self.lists.scenarios, 0))
        self._actions = Counter(dict.fromkeys(sorted(self.actions.values(), key=_usual_order), 0))
        self._variants: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    def schema(self) -> str:
        actions = list(self.tasks.values())
        return SCHEMA.format(
            scenarios=json.dumps(self.lists.scenarios),
            tasks="\n".join(f"  - {{name: {name}, action: {action}}}" for name, action in self.tasks.items()),
            actions=", ".join(self._actions),
            task_actions=", ".join(dict.fromkeys(actions)),
            first_action=actions[0],
        )

    def read(self, inputs: Inputs) -> Iterator[Row]:
        user = None
        unsettled: list[tuple[dict[str, Any], str]] = []
        for event in self._events_in_order(inputs):
            if user is None or event.user != user.id:
                user = _User(event.user)
            user.advance(event.timestamp)
            user.note_query(event)
            requests: dict[str, tuple[str, str]] = {}
            acted = self._acted_items(event, user) if event.name in self.actions else []
            if event.name in self.shown:
                for row in self._impressions_of(event, user, acted):
                    requests[row["item_id"]] = row["request_id"], row["scenario"]
                    yield "impressions", row
            for row, name in self._actions_of(event, user, acted, requests):
                if row["item_id"] in self._impressions_of_item:
                    yield "actions", self._counted(row)
                else:  # perhaps a later event shows it, or it is a variant
                    unsettled.append((row, name))
            user.listed = set(requests) or user.listed
        if not self._impressions.total():
            raise InputError(inputs.files[0].path, self._without_impressions(inputs), self._expected())
        yield from (("actions", row) for row in self._settle(unsettled))
        for row in self._catalogue.rows():
            if row["item_id"] in self._impressions_of_item or row["item_id"] in self._kept_items:
                yield "items", row

    def report(self) -> dict[str, Any]:
        return {
            "read": {
                "events": dict(self._events),
                "impressions_by_list": dict(self._seen_lists),
                "impressions_by_page": dict(self._seen_pages.most_common(_PAGES_IN_REPORT)),
                "index_from": self._first_index,
            },
            "written": {"impressions": dict(self._impressions), "actions": dict(self._actions)},
            "actions_of_several_items": {action: dict(counts) for action, counts in self._acted.counts.items()},
            "actions_on_variants": dict(self._variants),
            "dropped": dict(+self._dropped),
        }

    def advice(self) -> str:
        events = ", ".join(f"{name} {count:,}" for name, count in self._events.most_common())
        return (
            f"Events read: {events}. --action EVENT=ACTION names the event that stands for an action, such as "
            f"--action view_item=click; --task NAME=ACTION another action, such as --task {next(iter(self.tasks))}=cart"
        )

    def _events_in_order(self, inputs: Inputs) -> Iterator[Event]:
        """Relevant events, sorted by user and time."""
        rows = DiskSort(columns=4, keys=3)
        for record in inputs.records(COLUMNS):
            try:
                event = self._event_of(record.value)
            except BadRow as error:
                inputs.reject(record.path, record.number, str(error))
                continue
            if event is None:
                continue
            if event.name in self.shown and any(item.index == 0 for item in event.items):
                self._first_index = 0
            kept = event.model_dump_json(by_alias=True, exclude_defaults=True).encode()
            rows.add([(event.user, event.timestamp, self._order[event.name], kept)])
        for *_, kept in rows:
            yield Event.model_validate(orjson.loads(kept))  # faster than from JSON

    def _event_of(self, value: Any) -> Event | None:
        """Event of a row; None where it shows nothing and is no action of a known user."""
        try:
            value = orjson.loads(value) if isinstance(value, bytes) else value
        except orjson.JSONDecodeError as error:
            raise BadRow("no JSON") from error
        key = Key.parse(value)
        self._events[key.name] += 1
        if key.name not in self._order:
            return None
        if not key.user:
            self._dropped["event_without_user"] += 1
            return None
        return Event.parse(value)

    def _acted_items(self, event: Event, user: "_User") -> list[Item]:
        action = self.actions[event.name]
        items = [item for item in event.items if item.key]
        if not items and event.items:
            self._dropped[f"{action}_without_item"] += len(event.items)
        acted = self._acted.of(action, items, self._first_index, user.listed)
        if items and not acted:
            self._dropped[f"{action}_of_several_items"] += 1
        return acted

    def _impressions_of(self, event: Event, user: "_User", acted: Sequence[Item]) -> Iterator[dict[str, Any]]:
        """Yields the items that an event shows.

        Args:
          acted: What the event acts on.
        """
        moment = datetime.fromtimestamp(event.timestamp // 1_000_000, UTC)
        context = {
            "device": event.device.category if event.device else "",
            "platform": event.platform,
            "country": event.geo.country if event.geo else "",
            "medium": event.traffic_source.medium if event.traffic_source else "",
            "hour": str(moment.astimezone(self.timezone).hour),
            "page": event.page,
        }
        acts = event.name in self.actions
        if acts and len({item.key for item in event.items}) == 1:
            self._dropped["impression_of_acted_item"] += 1
            return
        in_first_place = {item.key for item in acted if replaces_first(item, event.items, self._first_index)}
        for names, items in (event.items_as_one_list() if acts else event.items_by_list()).items():
            names = names or (event.name,)
            scenario = self.lists.scenario_of(*names, page=event.url)
            self._seen_lists[names[0]] += len(items)
            self._seen_pages[event.page] += len(items)
            if scenario is None:
                self._dropped["impression_in_other_list"] += len(items)
                continue
            for position, item in zip(self._positions(items), items, strict=True):
                if not item.key:
                    self._dropped["impression_without_item"] += 1
                elif item.key in in_first_place:
                    self._dropped["impression_of_acted_item"] += 1
                elif user.tells_again("impression", names[0], item.key):
                    self._dropped["repeated_impression"] += 1
                else:
                    self._note(item)
                    self._impressions[scenario] += 1
                    self._impressions_of_item[item.key] += 1
                    yield {
                        "request_id": f"{event.user}/{event.timestamp}/{names[0]}",
                        "scenario": scenario,
                        "user_id": event.user,
                        "item_id": item.key,
                        "timestamp": event.timestamp // 1000,
                        **({"position": position} if position else {}),
                        "price": item.price if item.price and item.price > 0 else None,
                        "query": user.query(event) if scenario == SEARCH else "",
                        **context,
                    }

    def _actions_of(
        self, event: Event, user: "_User", acted: Sequence[Item], requests: Mapping[str, tuple[str, str]]
    ) -> Iterator[tuple[dict[str, Any], str]]:
        """Yields each action and the name of its item.

        Args:
          acted: What the event acts on.
          requests: Request and scenario of each item that this event shows.
        """
        for item in acted:
            action = self.actions[event.name]
            names = event.list_names(item)
            request, scenario = requests.get(item.key, (None, self._scenario_of_action(event, names)))
            if action == "click" and names and scenario is None and not self._is_on_other_page(event):
                self._dropped["click_in_other_list"] += 1
            elif user.tells_again(action, item.key) or (action == "purchase" and user.bought_already(event, item.key)):
                self._dropped[f"repeated_{action}"] += 1
            else:
                self._note(item)
                row = {"user_id": event.user, "item_id": item.key, "timestamp": event.timestamp // 1000}
                row |= {"action": action, **({"scenario": scenario} if scenario else {})}
                yield row | ({"request_id": request} if request else {}), item.name.lower()

    def _scenario_of_action(self, event: Event, names: tuple[str, ...]) -> str | None:
        if self._is_on_other_page(event) or not (names or self.lists.reads_pages):
            return None
        return self.lists.scenario_of(*names, page=event.url)

    def _is_on_other_page(self, event: Event) -> bool:
        """Whether an action may happen on another page than the list that rules of pages ask for."""
        return self.lists.reads_pages and event.name != SELECTION

    def _settle(self, unsettled: Iterable[tuple[dict[str, Any], str]]) -> Iterator[dict[str, Any]]:
        """Actions on items that had not been shown, those on variants moved to the item of the same name."""
        by_frequency = sorted(self._impressions_of_item.items(), key=lambda entry: (entry[1], entry[0]))
        shown_as = {name: item for item, _ in by_frequency for name in self._catalogue.told(item, "name") if name}
        for row, name in unsettled:
            if row["item_id"] not in self._impressions_of_item:
                if name in shown_as:
                    self._variants[row["action"]] += 1
                    row["item_id"] = shown_as[name]
                else:
                    self._kept_items.add(row["item_id"])
            yield self._counted(row)

    def _counted(self, row: dict[str, Any]) -> dict[str, Any]:
        self._actions[row["action"]] += 1
        return row

    def _note(self, item: Item) -> None:
        self._catalogue.add(item.key, item.name.lower(), item.category, item.brand)

    def _positions(self, items: Sequence[Item]) -> list[int | None]:
        """`[items]` positions from 1."""
        if 2 * sum(item.index is None for item in items) >= len(items):
            return list(range(1, len(items) + 1))
        return [None if item.index is None else item.index + 1 - self._first_index for item in items]

    def _expected(self) -> str:
        lists = f"{' or '.join(self.shown)} with items in a list named as {', '.join(map(repr, self.lists.patterns))}"
        return lists if self._events else f"{lists}: rows of BigQuery's export as JSON, Parquet or Avro"

    def _without_impressions(self, inputs: Inputs) -> str:
        if not self._events:
            reason = inputs.most_frequent_reason
            return f"no GA4 event ({reason})" if reason else "no rows"
        lists = ", ".join(repr(name) for name in self._seen_lists) or "none"
        return f"no impression to import; its lists are {lists}, its events {', '.join(self._events)}"


class _User:
    """State of one user; events arrive in time order."""

    def __init__(self, user: str):
        self.id = user
        self.listed: set[str] = set()
        """Items of the list that was shown last."""
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

    def bought_already(self, event: Event, item: str) -> bool:
        order = event.ecommerce.transaction_id if event.ecommerce else ""
        again = bool(order) and (order, item) in self._bought
        self._bought.add((order, item))
        return again

    def note_query(self, event: Event) -> None:
        if event.name in SEARCHES:
            self._queries[event.param("ga_session_id")] = event.param("search_term")

    def query(self, event: Event) -> str:
        return event.param("search_term") or self._queries.get(event.param("ga_session_id"), "")


def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InputError("--timezone", repr(name), "an IANA name, such as Europe/Paris") from error


def _usual_order(action: str) -> int:
    usual = list(ACTIONS.values())
    return usual.index(action) if action in usual else len(usual)
