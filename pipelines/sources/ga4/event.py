"""Event of Google Analytics 4: the part of an export's row that is read."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from pipelines.sources.export_row import ExportRow, Microseconds, Record, Repeated, Text, parse_text, plain_list
from pipelines.sources.lists import path_of

COLUMNS = (
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
PARAMS = ("ga_session_id", "item_list_id", "item_list_name", "page_location", "search_term")


class Key(ExportRow):
    """What every event has."""

    name: str = Field(alias="event_name")
    user: Text = Field("", alias="user_pseudo_id")
    timestamp: Microseconds = Field(alias="event_timestamp")


class _Value(ExportRow):
    string_value: Text = ""
    int_value: Text = ""
    float_value: Text = ""
    double_value: Text = ""


class _Param(ExportRow):
    key: str
    value: Record[_Value] = None


def _params(value: Any) -> Any:
    """List of the parameters that are read, from a list, from a map of keys to values, or from JSON text of one."""
    value = plain_list(parse_text(value))
    if isinstance(value, dict):
        value = list(value.items())
    if not isinstance(value, list):
        return value
    params = []
    for param in value:
        if isinstance(param, tuple | list) and len(param) == 2:
            param = {"key": param[0], "value": param[1]}
        if not (isinstance(param, dict) and isinstance(param.get("key"), str)):
            params.append(param)
        elif param["key"] in PARAMS:
            value = param.get("value")
            is_plain = value is not None and not isinstance(parse_text(value), dict)
            params.append({"key": param["key"], "value": {"string_value": str(value)} if is_plain else value})
    return params


class Item(ExportRow):
    """Item of an event."""

    item_id: Text = ""
    name: Text = Field("", alias="item_name")
    brand: Text = Field("", alias="item_brand")
    category1: Text = Field("", alias="item_category")
    category2: Text = Field("", alias="item_category2")
    category3: Text = Field("", alias="item_category3")
    category4: Text = Field("", alias="item_category4")
    category5: Text = Field("", alias="item_category5")
    price: float | None = None
    quantity: float | None = None
    list_name: Text = Field("", alias="item_list_name")
    list_id: Text = Field("", alias="item_list_id")
    index_text: Text = Field("", alias="item_list_index")

    @property
    def key(self) -> str:
        return self.item_id or self.name

    @property
    def index(self) -> int | None:
        """Place in the list, from 0 or from 1. It is a text in the export's schema; longer ones are no places."""
        return int(self.index_text) if self.index_text.isdecimal() and len(self.index_text) < 10 else None

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


class Event(Key):
    """Event with its items and context."""

    params: Annotated[list[_Param], BeforeValidator(_params)] = Field([], alias="event_params")
    items: Repeated[Item] = Field([])
    device: Record[_Device] = None
    geo: Record[_Geo] = None
    traffic_source: Record[_TrafficSource] = None
    platform: Text = ""
    ecommerce: Record[_Ecommerce] = None

    def param(self, key: str) -> str:
        value = next((param.value for param in self.params if param.key == key), None)
        if value is None:
            return ""
        return value.string_value or value.int_value or value.float_value or value.double_value

    @property
    def url(self) -> str:
        """Of the page."""
        return self.param("page_location")

    @property
    def page(self) -> str:
        """First two levels of the page path."""
        return "/".join(path_of(self.url).split("/")[:3])

    def list_names(self, item: Item) -> tuple[str, ...]:
        """Name and id, if present, of the list that an item is in."""
        names = (item.list_name, item.list_id)
        names = names if any(names) else (self.param("item_list_name"), self.param("item_list_id"))
        return tuple(name for name in names if name)

    def items_by_list(self) -> dict[tuple[str, ...], list[Item]]:
        """Items of each list, by the names of the list."""
        lists: dict[tuple[str, ...], list[Item]] = {}
        for item in self.items:
            lists.setdefault(self.list_names(item), []).append(item)
        return lists

    def items_as_one_list(self) -> dict[tuple[str, ...], list[Item]]:
        """All items, by the names of the list that most of them are in."""
        lists = self.items_by_list()
        return {max(lists, key=lambda names: len(lists[names])): self.items} if lists else {}
