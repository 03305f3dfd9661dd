"""Google Analytics 360 sessions, as BigQuery exports them: JSON Lines, a session a line.

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
- *Item*: one row a SKU, over all days: a catalogue. Its name, price and category are the most frequent ones, the
  category that of the category lists in which it is shown, as search lists do not name it. So prices and categories are
  not point in time: today's catalogue would serve as well.

Source: BigQuery Export schema of Google Analytics 360 (`ga_sessions_YYYYMMDD`). Integers may be numbers or text.
"""

import html
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pipelines.sources.base import REJECTED, Advance, Source, read_lines
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
SCHEMA = """\
scenarios: [{scenarios}]
tasks:
  - {{name: ctr, action: click}}
  - {{name: ctcvr, action: cart}}
labels: {{attribution: 1h, global_window: 1d}}
history: {{actions: [click, cart, purchase], max_length: 20}}
split: {{valid: 0.1, test: 0.1}}
features:
  user_id:  {{group: user, type: categorical, min_count: 200}}
  item_id:  {{group: item, type: categorical, in_history: true}}
  category: {{group: item, type: categorical, in_history: true}}
  name:     {{group: item, type: text, min_count: 2}}
  price:    {{group: item, type: numeric, transform: log}}
  query:    {{group: query, type: text}}
  device:   {{group: context, type: categorical}}
  country:  {{group: context, type: categorical, min_count: 5}}
  channel:  {{group: context, type: categorical}}
  hour:     {{group: context, type: categorical}}
  page:     {{group: context, type: categorical, min_count: 5}}
"""


class GA360(Source):
    """The import of GA360 sessions.

    Args:
      lists: The scenario that each `productListName` stands for. Other lists are dropped and counted.
    """

    name = "ga360"

    def __init__(self, lists: Mapping[str, str] = LISTS):
        self._lists = dict(lists)
        self._catalogue = _Catalogue()
        self._read = Counter(sessions=0, hits=0)
        self._seen_lists: Counter[str] = Counter()
        self._impressions = Counter(dict.fromkeys(self._lists.values(), 0))
        self._actions = Counter(dict.fromkeys(ACTIONS.values(), 0))
        self._variants: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    def schema(self) -> str:
        return SCHEMA.format(scenarios=", ".join(self._impressions))

    def read(self, paths: Sequence[Path], advance: Advance) -> Iterator[tuple[str, dict[str, Any]]]:
        unsettled: list[tuple[dict[str, Any], str]] = []
        reason = ""
        for line in read_lines(paths, advance):
            try:
                visit = _Visit.model_validate_json(line.text)
            except pydantic.ValidationError as error:
                reason = _reason(error)
                yield REJECTED, {"file": str(line.path), "line": line.number, "reason": reason}
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
            raise InputError(paths[0], self._without_impressions(reason), f"products shown in {_joined(self._lists)}")
        yield from (("actions", row) for row in self._settle(unsettled))
        for row in self._catalogue.rows():
            yield "items", row

    def report(self) -> dict[str, Any]:
        return {
            "read": {**self._read, "impressions_by_list": dict(self._seen_lists)},
            "written": {
                "impressions": dict(self._impressions),
                "actions": dict(self._actions),
                "items": self._catalogue.size,
            },
            "actions_on_variants": dict(self._variants),
            "dropped": dict(self._dropped),
        }

    def _impressions_of(self, visit: "_Visit") -> Iterator[dict[str, Any]]:
        context = {
            "device": visit.device.category if visit.device else "",
            "country": visit.geo.country if visit.geo else "",
            "channel": visit.channel,
        }
        for hit in visit.hits:
            in_list: set[tuple[str, str]] = set()
            for product in hit.products or ():
                if not product.is_impression:
                    continue
                self._seen_lists[product.list_name] += 1
                scenario = self._lists.get(product.list_name)
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
            for product in hit.products or ():
                if product.is_impression or (action == "click" and not product.is_click):
                    continue
                scenario = self._lists.get(product.list_name)
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
    """What the visits tell of each product. Grows with the number of products, not of visits."""

    def __init__(self) -> None:
        self._products: dict[str, _Told] = {}

    @property
    def size(self) -> int:
        return sum(told.kept for told in self._products.values())

    def add(self, product: "_Product", shown: bool) -> None:
        told = self._products.setdefault(product.sku, _Told())
        told.shown += shown
        told.kept |= shown
        told.names[product.name] += 1
        told.brands[product.brand] += 1
        if product.price:
            told.prices[product.price] += 1
        if shown and "${" not in product.category:
            told.categories[product.category.strip("/")] += 1

    def is_shown(self, sku: str) -> bool:
        return sku in self._products and self._products[sku].shown > 0

    def keep(self, sku: str) -> None:
        """Gives a product that is shown nowhere its row."""
        self._products[sku].kept = True

    def shown_skus_by_name(self) -> dict[str, str]:
        """The SKU that is shown most, of those that bear a name."""
        shown = [(told.shown, sku, told.names) for sku, told in self._products.items() if told.shown]
        return {
            name: sku for _, sku, names in sorted(shown, key=lambda row: (row[0], row[1])) for name in names if name
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        for sku, told in sorted(self._products.items()):
            if told.kept:
                price = _most_frequent(told.prices)
                yield {
                    "item_id": sku,
                    "name": " ".join(html.unescape(_most_frequent(told.names) or "").lower().split()),
                    "category": _most_frequent(told.categories) or "",
                    "brand": _most_frequent(told.brands) or "",
                    "price": None if price is None else price / 1e6,
                }


class _Told:
    __slots__ = ("brands", "categories", "kept", "names", "prices", "shown")

    def __init__(self) -> None:
        self.shown = 0
        self.kept = False
        self.names: Counter[str] = Counter()
        self.categories: Counter[str] = Counter()
        self.brands: Counter[str] = Counter()
        self.prices: Counter[int] = Counter()


def _most_frequent(counts: Counter[Any]) -> Any:
    """The most frequent value that says something, the smallest of equals; None where there is none."""
    return min((value for value in counts if value != ""), key=lambda value: (-counts[value], value), default=None)


def _first_levels(path: str) -> str:
    """`/a/b/c.html?d=e` → `/a/b`: few enough values to learn from."""
    return "/" + "/".join([level for level in path.partition("?")[0].partition("#")[0].split("/") if level][:2])


def _joined(names: Any) -> str:
    return ", ".join(repr(name) for name in names)


def _reason(error: pydantic.ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return "no JSON"
    key = ".".join(part for part in first["loc"] if isinstance(part, str))
    return f"{key}: {first['msg']}" if key else first["msg"]


# The part of the export that is read. BigQuery leaves out what is null, or writes `(not set)`.

_Text = Annotated[str, BeforeValidator(lambda value: "" if value is None or value == "(not set)" else value)]


class _Record(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)


class _Product(_Record):
    sku: _Text = Field("", alias="productSKU")
    name: _Text = Field("", alias="v2ProductName")
    category: _Text = Field("", alias="v2ProductCategory")
    brand: _Text = Field("", alias="productBrand")
    price: int | None = Field(None, alias="productPrice")
    """In millionths of the currency."""
    list_name: _Text = Field("", alias="productListName")
    position: int | None = Field(None, alias="productListPosition")
    is_impression: bool | None = Field(None, alias="isImpression")
    is_click: bool | None = Field(None, alias="isClick")


class _Page(_Record):
    path: _Text = Field("", alias="pagePath")
    query: _Text = Field("", alias="searchKeyword")


class _Ecommerce(_Record):
    action_type: _Text = ""


class _Hit(_Record):
    number: int = Field(alias="hitNumber")
    time: int
    """Milliseconds since the visit's start."""
    hour: int | None = None
    page: _Page | None = None
    ecommerce: _Ecommerce | None = Field(None, alias="eCommerceAction")
    products: list[_Product] | None = Field(None, alias="product")


class _Device(_Record):
    category: _Text = Field("", alias="deviceCategory")


class _Geo(_Record):
    country: _Text = ""


class _Visit(_Record):
    user: str = Field(alias="fullVisitorId", min_length=1)
    start: int = Field(alias="visitStartTime", gt=0)
    """Seconds UTC."""
    hits: list[_Hit] = Field(min_length=1)
    channel: _Text = Field("", alias="channelGrouping")
    device: _Device | None = None
    geo: _Geo | None = Field(None, alias="geoNetwork")

    def timestamp(self, hit: _Hit) -> int:
        return self.start * 1000 + hit.time
