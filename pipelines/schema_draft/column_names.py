"""Names that columns of logs usually have, and what they say of a column."""

import re

KEYS: dict[str, tuple[str, ...]] = {
    "timestamp": ("ts", "time", "event_time", "event_ts", "event_timestamp", "created_at", "datetime", "unixtime"),
    "user_id": ("user", "uid", "userid", "customer_id", "visitor_id", "member_id", "client_id", "user_pseudo_id"),
    "item_id": ("item", "iid", "itemid", "sku", "product_id", "product", "goods_id", "article_id", "asin", "offer_id"),
    "request_id": ("request", "req_id", "search_id", "impression_id", "slate_id", "page_view_id", "pvid", "trace_id"),
    "scenario": ("channel", "surface", "page_type", "scene", "placement", "source"),
    "action": ("event", "event_type", "event_name", "action_type", "behavior", "behaviour", "type"),
    "position": ("rank", "pos", "slot", "display_position", "item_position"),
    "query": ("query_text", "search_term", "search_query", "keyword", "keywords", "search_keyword", "q"),
}
"""Other names of the columns that mean something to us, the likeliest first."""

CLICKS = ("click", "clicks", "select_item", "item_click", "product_click", "detail", "view_item", "open")
PURCHASES = ("purchase", "purchases", "buy", "order", "transaction", "pay", "conversion")
CARTS = ("cart", "add_to_cart", "addtocart", "add2cart", "basket", "atc")
"""Names of actions, the likeliest first."""

_LABEL = re.compile(
    r"(is_|has_|was_|label_?)?(click(ed|s)?|purchased?|bought|ordered|convert(ed)?|conversion|label|target|carted)"
    r"|(dwell|watch)_?time.*|revenue|gmv|reward"
)
_LOGGED = re.compile(
    r"propensity.*|oracle_.*|(model_?)?version|experiment.*|bucket_?id|log_?id|row_?id|ingest.*|etl.*|_.*"
)
_PRICE = re.compile(r".*(price|cost|amount|msrp).*")
_TITLE = re.compile(r"(item_?|product_?)?(title|name|headline|caption)")
_ID = re.compile(r"id|.*_id|.*_?sku|.*_code|.*_no|zip.*|postal.*")
_MOMENT = re.compile(r".*(_at|_time|_ts|_date|timestamp|date|datetime)|(created|updated).*")
_LOCATOR = re.compile(r".*(url|uri|image|img|link|thumbnail|href).*")


def is_label(name: str) -> bool:
    """Whether it sounds like what happened after the impression."""
    return bool(_LABEL.fullmatch(name.lower()))


def is_bookkeeping(name: str) -> bool:
    """Whether it sounds like a record of how the row came to be."""
    return bool(_LOGGED.fullmatch(name.lower()))


def is_price(name: str) -> bool:
    return bool(_PRICE.fullmatch(name.lower()))


def is_title(name: str) -> bool:
    return bool(_TITLE.fullmatch(name.lower()))


def is_id(name: str) -> bool:
    return bool(_ID.fullmatch(name.lower()))


def is_moment(name: str) -> bool:
    return bool(_MOMENT.fullmatch(name.lower()))


def is_locator(name: str) -> bool:
    """Whether it sounds like the address of something."""
    return bool(_LOCATOR.fullmatch(name.lower()))


def renamed_keys(columns: set[str], keys: tuple[str, ...]) -> dict[str, str]:
    """Columns that stand for keys which a table lacks: `{"event_ts": "timestamp"}`."""
    found = {}
    by_name = {_flat(name): name for name in columns}
    for key in keys:
        if key not in columns:
            names = (by_name[_flat(other)] for other in (key, *KEYS[key]) if _flat(other) in by_name)
            other = next((name for name in names if name not in found and name not in keys), None)
            if other is not None:
                found[other] = key
    return found


def first_of(names: tuple[str, ...], values: set[str]) -> str | None:
    """The value that is one of `names`, whatever its case, the likeliest first."""
    by_name = {_flat(value): value for value in values}
    return next((by_name[_flat(name)] for name in names if _flat(name) in by_name), None)


def _flat(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
