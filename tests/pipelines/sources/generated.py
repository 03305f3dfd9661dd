"""Random small files in the published schema of each log source."""

import csv
import json
import random
from pathlib import Path

START = 1_700_000_000_000
"""Milliseconds UTC, of a Tuesday."""


def write_ga4(folder: Path, users: int = 60, seed: int = 0) -> Path:
    """Two days of a GA4 export, as `bq extract --destination_format=NEWLINE_DELIMITED_JSON` writes them."""
    draw = random.Random(seed)
    items = [_ga4_item(draw, number) for number in range(30)]
    events = []
    for user in range(users):
        events += _ga4_session(draw, f"{user}.{START}", START + draw.randrange(2 * 86_400_000), items)
    draw.shuffle(events)  # an export has no order
    folder.mkdir(parents=True, exist_ok=True)
    for day, part in enumerate((events[::2], events[1::2])):
        lines = "".join(json.dumps(event) + "\n" for event in part)
        (folder / f"events_2023111{day + 4}").write_text(lines, encoding="utf-8")
    return folder


def _ga4_item(draw: random.Random, number: int) -> dict:
    return {
        "item_id": f"SKU{number}",
        "item_name": f"{draw.choice(['Red', 'Blue'])} {draw.choice(['Shirt', 'Cup'])}",
        "item_brand": draw.choice(["Acme", "(not set)"]),
        "item_category": draw.choice(["Apparel", "Home"]),
        "item_category2": draw.choice(["Adult", None]),
        "price": round(draw.uniform(1, 90), 2),
        "quantity": None,
        "item_list_id": "(not set)",
        "item_list_name": "(not set)",
        "item_list_index": "(not set)",
    }


def _ga4_session(draw: random.Random, user: str, moment: int, items: list[dict]) -> list[dict]:
    events = []
    common = {
        "user_pseudo_id": user,
        "user_id": None,
        "platform": "WEB",
        "device": {"category": draw.choice(["mobile", "desktop"]), "operating_system": "Android"},
        "geo": {"country": draw.choice(["France", "Peru"]), "city": "(not set)"},
        "traffic_source": {"medium": draw.choice(["organic", "(none)"]), "source": "google", "name": "(direct)"},
    }

    def happen(name: str, shown: list[dict], after: int, **params: object) -> None:
        nonlocal moment
        moment += after
        named = {"ga_session_id": moment // 86_400_000, "page_location": "https://shop.example/a/b/c?d=e", **params}
        values = [
            {"key": key, "value": {"int_value" if isinstance(value, int) else "string_value": str(value)}}
            for key, value in named.items()
        ]
        events.append({**common, "event_name": name, "event_timestamp": str(moment * 1000), "event_params": values})
        events[-1]["items"] = shown
        events[-1]["ecommerce"] = {"transaction_id": f"T{moment}" if name == "purchase" else None}

    for _ in range(draw.randrange(1, 4)):
        happen("page_view", [], 100)
        found = draw.random() < 0.5
        if found:
            happen("view_search_results", [], 50, search_term=draw.choice(["red shirt", "acme home cup"]))
        listed = {"item_list_name": "Search Results"} if found else {"item_list_id": draw.choice(["home", "related"])}
        shown = [item | listed | {"item_list_index": str(place)} for place, item in enumerate(draw.sample(items, 8))]
        happen("view_item_list", shown, 100)
        for item in draw.sample(shown, draw.randrange(3)):
            happen("select_item", [item], 3_000)
            if draw.random() < 0.5:
                happen("add_to_cart", [item | {"quantity": "1"}], 3_000)
                happen("purchase", [item | {"quantity": "1"}], 60_000)
    return events


def write_csv(path: Path, columns: str, rows: list[tuple], delimiter: str = ",") -> None:
    """A CSV file with these columns, named in one string."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
        writer.writerow(columns.split(delimiter))
        writer.writerows(rows)


REC_INTER = (
    "user_id,item_id,playing_time,duration_ms,time,timestamp,click,forward,like,follow,search,search_item_related"
)
SRC_INTER = (
    "user_id,search_session_id,search_session_time,search_session_timestamp,keyword,search_source,item_id,click_cnt,"
    "item_type"
)
USER_FEATURES = "user_id,search_active_level,rec_active_level,onehot_feat1,onehot_feat2"
ITEM_FEATURES = (
    "item_id,caption,author_id,item_type,upload_time,upload_type,"
    + ",".join(
        f"{level}_level_category_{part}"
        for level in ("first", "second", "third", "fourth")
        for part in ("id", "name", "name_en")
    )
)  # fmt: skip
SOCIAL_NETWORK = "user_id,user_follow_id"


def write_kuaisar(folder: Path, users: int = 20, hand_outs: int = 6, seed: int = 0) -> Path:
    """The five files of KuaiSAR, `hand_outs` of recommendation and as many searches a user."""
    draw = random.Random(seed)
    items = range(40 * 10**9, 40 * 10**9 + 50)
    recommended, found = [], []
    for user in range(users):
        moment = START + draw.randrange(86_400_000)
        for number in range(hand_outs):
            moment += draw.randrange(60_000, 3_600_000)
            for item in draw.sample(items, 5):
                click = draw.randrange(2)
                watched = float(draw.randrange(60_000)) if click else 0.0
                acts = [click * (draw.random() < 0.2) for _ in range(3)]
                recommended.append(
                    (user, item, watched, 45400.0, "2023-05-22 15:53:20", float(moment), click, *map(int, acts), 0, 0)
                )
            moment += draw.randrange(60_000, 3_600_000)
            words, source = [draw.randrange(9) for _ in range(2)], draw.choice(["USER_INPUT", "FEED"])
            for item in draw.sample(items, 4):
                kind, click = draw.choice(["VIDEO", "VIDEO", "VIDEO", "USER"]), int(draw.random() < 0.3)
                session = user * hand_outs + number
                found.append(
                    (user, session, "2023-05-22 21:58:52", moment, str(words), source, item, click, kind)
                )  # fmt: skip
    write_csv(folder / "rec_inter.csv", REC_INTER, recommended)
    write_csv(folder / "src_inter.csv", SRC_INTER, found)
    write_csv(folder / "user_features.csv", USER_FEATURES, [(user, 1, 2, user % 3, user % 8) for user in range(users)])
    levels = [(9, "搞笑", "Funny"), (0, "空", "empty")]
    rows = [
        (item, str([item % 7, item % 5]), item % 6, "NORMAL", "2023-04-22", "LongImport",
         *draw.choice(levels), *draw.choice(levels), *levels[1], *levels[1])
        for item in items
    ]  # fmt: skip
    write_csv(folder / "item_features.csv", ITEM_FEATURES, rows)
    write_csv(folder / "social_network.csv", SOCIAL_NETWORK, [(1, 2)])
    return folder


QUERIES = "queryId;sessionId;userId;timeframe;duration;eventdate;searchstring.tokens;categoryId;items;is.test"
CLICKS = "queryId;timeframe;itemId"
VIEWS = "sessionId;userId;itemId;timeframe;eventdate"
PURCHASES = "sessionId;userId;timeframe;eventdate;ordernumber;itemId"
PRODUCTS = "itemId;pricelog2;product.name.tokens"
CATEGORIES = "itemId;categoryId"


def write_diginetica(folder: Path, sessions: int = 60, seed: int = 0) -> Path:
    """The six files of Diginetica that matter: some sessions a day for ten days."""
    draw = random.Random(seed)
    items = range(1, 21)
    tables: dict[str, list[tuple]] = {name: [] for name in ("queries", "clicks", "views", "purchases")}
    query = 0
    for session in range(1, sessions + 1):
        user, day, ms = draw.choice(["NA", session % 7]), f"2016-05-{session * 10 // sessions + 10:02}", 16_000_000
        for _ in range(draw.randrange(1, 4)):
            query, ms = query + 1, ms + draw.randrange(100_000)
            shown = draw.sample(items, 6)
            words, category = ("", draw.randrange(1, 9)) if draw.random() < 0.6 else ("12,7", 0)
            listed, test = ",".join(map(str, shown)), "TRUE" if draw.random() < 0.1 else "FALSE"
            tables["queries"].append((query, session, user, ms, 300, day, words, category, listed, test))
            for item in draw.sample(shown, draw.randrange(3)):
                ms += draw.randrange(10_000)
                tables["clicks"].append((query, ms, item))
                tables["views"].append((session, user, item, ms + 900, day))
                if draw.random() < 0.4:
                    tables["purchases"].append((session, user, ms + 30_000, day, query, item))
    for rows in tables.values():
        draw.shuffle(rows)
    write_csv(folder / "train-queries.csv", QUERIES, tables["queries"], ";")
    write_csv(folder / "train-clicks.csv", CLICKS, tables["clicks"], ";")
    write_csv(folder / "train-item-views.csv", VIEWS, tables["views"], ";")
    write_csv(folder / "train-purchases.csv", PURCHASES, tables["purchases"], ";")
    write_csv(folder / "products.csv", PRODUCTS, [(item, item % 12, f"{item},{item % 5}") for item in items], ";")
    write_csv(folder / "product-categories.csv", CATEGORIES, [(item, item % 4) for item in items], ";")
    return folder


OBD_ROWS = (
    ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,user_feature_2,user_feature_3,"
    "user-item_affinity_0,user-item_affinity_1,user-item_affinity_2"
)
OBD_CONTEXT = ",item_id,item_feature_0,item_feature_1,item_feature_2,item_feature_3"


def write_obd(folder: Path, rows: int = 400, seed: int = 0) -> Path:
    """Three campaigns of three items under both policies; `bts` displays item 2 half of the time, which clicks most."""
    draw = random.Random(seed)
    chances = {"bts": (0.2, 0.3, 0.5), "random": (1 / 3, 1 / 3, 1 / 3)}
    for policy, of_items in chances.items():
        for campaign in ("all", "men", "women"):
            items = [(n, n, n / 2, f"{policy}{n % 2}", f"{policy}{n}", policy) for n in range(3)]
            write_csv(folder / f"{policy}_{campaign}_item_context.csv", OBD_CONTEXT, items)
            lines = []
            for number in range(rows):
                item = draw.choices(range(3), of_items)[0]
                time = f"2019-11-{24 + number * 7 // rows} {number * 24 * 7 // rows % 24:02}:00:00.{number:06}+00:00"
                click = int(draw.random() < 0.1 * (1 + item))
                visitor = [draw.choice("ab") for _ in range(4)]
                affinity = [draw.choice(["0.0", "0.0", "1.0"]) for _ in range(3)]
                lines.append((number, time, item, draw.randint(1, 3), click, of_items[item], *visitor, *affinity))
            write_csv(folder / f"{policy}_{campaign}.csv", OBD_ROWS, lines)
    return folder
