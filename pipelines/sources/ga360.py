"""Google Analytics 360 sessions, as BigQuery exports them: a session a row.

What becomes what:

- *Impression*: a product with `isImpression`, in a list (`productListName`) that stands for a scenario. A request is
  one list of one hit. Its features are the hit's and the visitor's own; `totals` is never read, for it sums up the
  whole session, and so tells of what came after.
- *Action*: a product that is not an impression, by `eCommerceAction.action_type`: click, cart or purchase. A click
  names its list; where that is `(not set)` it gets no scenario, nor do carts and purchases, which have no list. A click
  in a list that stands for no scenario is dropped, or it would be credited to an impression in another list.
- *Repeats*: GA fires a click when a product's preview opens, often twice, and again when its page is opened from
  there; an order page often reports its purchase twice. Within `REPEAT_MS` of the first such event of a visit, the
  others are dropped.
- *Variants*: carts name the SKU that was shown, purchases often that of a size or colour which is never shown. An
  action on a SKU that is shown nowhere goes to the most shown SKU of the same name, if there is one.
- *Item*: one row a SKU, over all days: a catalogue. Its name and category are the most frequent ones, the category that
  of the category lists in which it is shown, as search lists do not name it. So categories are not point in time:
  today's catalogue would serve as well.
- *Price*: `productPrice` of the impression, what the visitor saw. In the public export 9 % of the impressions have
  another price than their SKU's most frequent one.

Source: BigQuery Export schema of Google Analytics 360 (`ga_sessions_YYYYMMDD`), as JSON, where integers may be numbers
or text, as Parquet or Avro, or the tables themselves.
"""

import html
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from pipelines.sources.base import Row, Source
from pipelines.sources.catalogue import Catalogue
from pipelines.sources.export_row import BadRow, ExportRow, Record, Repeated, Seconds, Text
from pipelines.sources.inputs import Inputs
from pipelines.sources.lists import Lists
from usr_tf.errors import InputError

LISTS = {"Search Results": "search", "Category": "recommendation"}
"""The scenario that each list of products stands for. GA's own names; a shop may have chosen others."""

ACTIONS = {"1": "click", "3": "cart", "6": "purchase"}

REPEAT_MS = {"click": 10_000, "purchase": 10_000}
"""How long after an action of a visit on an item another one is the same one told again.

Measured on the 2,495 clicks of the public demo shop: 842 follow another click on the item within 10 s, 221 of them
within 1 s; 50 follow after 10 to 15 s, and fewer still later. Dropping the repeats changes no label. Carts show no
peak at once after another, and may be one more piece: they are kept.
"""

# One session shows some 30 products. A visitor gets an embedding after several of them: with one for everybody, the
# model learns the visitors of the training split by heart, of whom few come back.
# Google exports a day after its end, so counters lag by a day, as a snapshot that is published daily does. What the
# visitor did in this visit is in `history_match`, which a request brings. A category is one word, a path: its trigrams
# match where words cannot.
SCHEMA = """\
scenarios: {scenarios}
tasks:
  - {{name: ctr, action: click}}
  - {{name: ctcvr, action: cart}}
labels: {{attribution: 1h, global_window: 1d}}
history: {{actions: [click, cart, purchase], max_length: 20, queries: {{max_length: 10}}}}
split: {{valid: 0.1, test: 0.1}}
features:
  user_id:  {{group: user, type: categorical, min_count: 200}}
  item_id:  {{group: item, type: categorical, in_history: true}}
  category: {{group: item, type: categorical, in_history: true}}
  name:     {{group: item, type: text, min_count: 2}}
  price:    {{group: candidate, type: numeric, transform: log, buckets: 10}}
  query:    {{group: query, type: text}}
  device:   {{group: context, type: categorical}}
  country:  {{group: context, type: categorical, min_count: 5}}
  channel:  {{group: context, type: categorical}}
  hour:     {{group: context, type: categorical}}
  page:     {{group: context, type: categorical, min_count: 5}}
match:
  query_name:     {{features: [query, name]}}
  query_category: {{features: [query, category], by: [ngram]}}
  past_name:      {{features: [history_queries, name]}}
history_match: [item_id, category]
counters:
  item:       {{key: [item_id], actions: [click, cart], windows: [30d, all], by_scenario: true, delay: 1d}}
  page_item:  {{key: [page, item_id], actions: [click, cart], delay: 1d}}
  query_item: {{key: [query, item_id], actions: [click, cart], delay: 1d}}
"""


class GA360(Source):
    """Log source of Google Analytics 360 sessions.

    Args:
      lists: The scenario that each `productListName` stands for, by a pattern. Other lists are dropped and counted.

    Raises:
      InputError: a pattern is one of pages.
    """

    name = "ga360"

    def __init__(self, lists: Mapping[str, str] = LISTS):
        self._lists = Lists(lists)
        if self._lists.reads_pages:
            raise InputError(
                "--list", "a pattern of the page", "patterns of productListName, which GA360 has for every list"
            )
        self._catalogue = _Catalogue()
        self._read = Counter(sessions=0, hits=0)
        self._seen_lists: Counter[str] = Counter()
        self._impressions = Counter(dict.fromkeys(self._lists.scenarios, 0))
        self._actions = Counter(dict.fromkeys(ACTIONS.values(), 0))
        self._variants: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    def schema(self) -> str:
        return SCHEMA.format(scenarios=json.dumps(self._lists.scenarios))

    def read(self, inputs: Inputs) -> Iterator[Row]:
        unsettled: list[tuple[dict[str, Any], str]] = []
        for record in inputs.records(_COLUMNS):
            try:
                visit = _Visit.parse(record.value)
            except BadRow as error:
                inputs.reject(record.path, record.number, str(error))
                continue
            self._read.update(sessions=1, hits=len(visit.hits))
            for row in self._impressions_of(visit):
                yield "impressions", row
            for row, name in self._actions_of(visit):
                if self._catalogue.is_shown(row["item_id"]):
                    yield "actions", self._counted(row)
                else:  # perhaps a later line shows it, or it is a variant
                    unsettled.append((row, name))
        if not self._impressions.total():
            expected = f"products shown in {_joined(self._lists.patterns)}"
            raise InputError(inputs.files[0].path, self._without_impressions(inputs.most_frequent_reason), expected)
        yield from (("actions", row) for row in self._settle(unsettled))
        for row in self._catalogue.rows():
            yield "items", row

    def report(self) -> dict[str, Any]:
        return {
            "read": {**self._read, "impressions_by_list": dict(self._seen_lists)},
            "written": {"impressions": dict(self._impressions), "actions": dict(self._actions)},
            "actions_on_variants": dict(self._variants),
            "dropped": dict(+self._dropped),
        }

    def _impressions_of(self, visit: "_Visit") -> Iterator[dict[str, Any]]:
        context = {
            "device": visit.device.category if visit.device else "",
            "country": visit.geo.country if visit.geo else "",
            "channel": visit.channel,
        }
        for hit in visit.hits:
            in_list: set[tuple[str, str]] = set()
            for product in hit.products:
                if not product.is_impression:
                    continue
                self._seen_lists[product.list_name] += 1
                scenario = self._lists.scenario_of(product.list_name)
                if scenario is None or not product.sku or (product.list_name, product.sku) in in_list:
                    other = "impression_without_sku" if not product.sku else "impression_repeated_in_list"
                    self._dropped["impression_in_other_list" if scenario is None else other] += 1
                    continue
                in_list.add((product.list_name, product.sku))
                self._impressions[scenario] += 1
                self._catalogue.add(product, shown=True)
                yield {
                    # A visit that spans midnight is two rows of one visitId, each with its own start.
                    "request_id": f"{visit.user}/{visit.start}/{hit.number}/{product.list_name}",
                    "scenario": scenario,
                    "user_id": visit.user,
                    "item_id": product.sku,
                    "timestamp": visit.timestamp(hit),
                    **({"position": product.position} if (product.position or 0) >= 1 else {}),
                    "price": product.price / 1e6 if product.price else None,
                    "query": hit.page.query if hit.page and scenario == "search" else "",
                    **context,
                    "hour": "" if hit.hour is None else str(hit.hour),
                    "page": _first_levels(hit.page.path) if hit.page else "",
                }

    def _actions_of(self, visit: "_Visit") -> Iterator[tuple[dict[str, Any], str]]:
        """Yields each action and the name of its product."""
        last_kept: dict[tuple[str, str, str], int] = {}
        for hit in sorted(visit.hits, key=lambda hit: hit.time):
            action = ACTIONS.get(hit.ecommerce.action_type) if hit.ecommerce else None
            if action is None:
                continue
            for product in hit.products:
                if product.is_impression or (action == "click" and not product.is_click):
                    continue
                scenario = self._lists.scenario_of(product.list_name) if product.list_name else None
                if not product.sku:
                    self._dropped[f"{action}_without_sku"] += 1
                    continue
                if action == "click" and product.list_name and scenario is None:
                    self._dropped["click_in_other_list"] += 1
                    continue
                timestamp, key = visit.timestamp(hit), (action, product.sku, product.list_name)
                if action in REPEAT_MS and timestamp - last_kept.get(key, -REPEAT_MS[action]) < REPEAT_MS[action]:
                    self._dropped[f"duplicate_{action}"] += 1
                    continue
                last_kept[key] = timestamp
                self._catalogue.add(product, shown=False)
                row = {"user_id": visit.user, "item_id": product.sku, "timestamp": timestamp, "action": action}
                yield row | ({"scenario": scenario} if scenario else {}), product.name

    def _settle(self, unsettled: list[tuple[dict[str, Any], str]]) -> Iterator[dict[str, Any]]:
        shown_as = self._catalogue.shown_skus_by_name()
        for row, name in unsettled:
            if not self._catalogue.is_shown(row["item_id"]):
                if name in shown_as:
                    self._variants[row["action"]] += 1
                    row["item_id"] = shown_as[name]
                else:
                    self._catalogue.keep(row["item_id"])
            yield self._counted(row)

    def _counted(self, row: dict[str, Any]) -> dict[str, Any]:
        self._actions[row["action"]] += 1
        return row

    def _without_impressions(self, reason: str) -> str:
        if not self._read["sessions"]:
            return f"no GA360 session ({reason})" if reason else "no rows"
        return f"no impression to import; its lists are {_joined(self._seen_lists) or 'none'}"


class _Catalogue:
    """Displayed products, and products with actions only."""

    def __init__(self) -> None:
        self._told = Catalogue("name", "category", "brand")
        self._shown: Counter[str] = Counter()
        self._kept: set[str] = set()

    def add(self, product: "_Product", shown: bool) -> None:
        # Where an item is acted on says nothing of where it belongs.
        category = product.category.strip("/") if shown and "${" not in product.category else ""
        self._told.add(product.sku, product.name, category, product.brand)
        if shown:
            self._shown[product.sku] += 1
            self._kept.add(product.sku)

    def is_shown(self, sku: str) -> bool:
        return sku in self._shown

    def keep(self, sku: str) -> None:
        """Adds the row of a product that was never displayed."""
        self._kept.add(sku)

    def shown_skus_by_name(self) -> dict[str, str]:
        """Most displayed SKU of each product name."""
        by_frequency = sorted(self._shown.items(), key=lambda entry: (entry[1], entry[0]))
        return {name: sku for sku, _ in by_frequency for name in self._told.told(sku, "name") if name}

    def rows(self) -> Iterator[dict[str, Any]]:
        for row in self._told.rows():
            if row["item_id"] in self._kept:
                row["name"] = " ".join(html.unescape(row["name"] or "").lower().split())
                row["category"], row["brand"] = row["category"] or "", row["brand"] or ""
                yield row


def _first_levels(path: str) -> str:
    """First two levels of a page path: `/a/b/c.html?d=e` → `/a/b`."""
    return "/" + "/".join([level for level in path.partition("?")[0].partition("#")[0].split("/") if level][:2])


def _joined(names: Any) -> str:
    return ", ".join(repr(name) for name in names)


# The part of the export that is read.

_COLUMNS = ("fullVisitorId", "visitStartTime", "hits", "channelGrouping", "device", "geoNetwork")


class _Product(ExportRow):
    sku: Text = Field("", alias="productSKU")
    name: Text = Field("", alias="v2ProductName")
    category: Text = Field("", alias="v2ProductCategory")
    brand: Text = Field("", alias="productBrand")
    price: int | None = Field(None, alias="productPrice", lt=2**53)
    """In millionths of the currency."""
    list_name: Text = Field("", alias="productListName")
    position: int | None = Field(None, alias="productListPosition", lt=2**53)
    is_impression: bool | None = Field(None, alias="isImpression")
    is_click: bool | None = Field(None, alias="isClick")


class _Page(ExportRow):
    path: Text = Field("", alias="pagePath")
    query: Text = Field("", alias="searchKeyword")


class _Ecommerce(ExportRow):
    action_type: Text = ""


class _Hit(ExportRow):
    number: int = Field(alias="hitNumber", lt=2**53)
    time: int = Field(lt=2**53)
    """Milliseconds since the visit's start."""
    hour: int | None = None
    page: Record[_Page] = None
    ecommerce: Record[_Ecommerce] = Field(None, alias="eCommerceAction")
    products: Repeated[_Product] = Field([], alias="product")


class _Device(ExportRow):
    category: Text = Field("", alias="deviceCategory")


class _Geo(ExportRow):
    country: Text = ""


class _Visit(ExportRow):
    user: str = Field(alias="fullVisitorId", min_length=1)
    start: Seconds = Field(alias="visitStartTime")
    hits: Repeated[_Hit] = Field(min_length=1)
    channel: Text = Field("", alias="channelGrouping")
    device: Record[_Device] = None
    geo: Record[_Geo] = Field(None, alias="geoNetwork")

    def timestamp(self, hit: _Hit) -> int:
        return self.start * 1000 + hit.time
