"""Drafts of `schema.yaml` from logs whose columns have other names, types and traps."""

import json

import pytest

from pipelines.schema_draft import draft_schema
from usr_tf.cli import main
from usr_tf.errors import InputError
from usr_tf.schema import parse_schema

NOON = 1_760_011_200


def write(folder, table, rows, suffix=".jsonl"):
    folder.mkdir(exist_ok=True)
    (folder / f"{table}{suffix}").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def shop(tmp_path):
    """Logs of 300 requests: seconds, other names, columns that are no features."""
    impressions = [
        {"search_id": f"r{n}", "channel": "search" if n % 3 else "home", "visitor_id": n % 40, "sku": f"s{n % 90 + k}"}
        | {"event_ts": NOON + n, "rank": k + 1, "keyword": "green tea" if n % 3 else "", "device": "phone"}
        | {"app": ("ios", "web")[n % 2], "price_now": 5.5 + k + n % 7, "is_clicked": k, "score": 0.1 * k}
        for n in range(300)
        for k in range(3)
    ]
    actions = [
        {"visitor_id": n % 40, "sku": f"s{n % 90}", "event_ts": NOON + n + 1, "event": ("Click", "Click", "buy")[n % 3]}
        for n in range(300)
    ]
    items = [
        {
            "sku": f"s{n}",
            "title": f"fine green tea {n}",
            "brand_id": n % 9,
            "stock": n * n,
            "colours": ["a", "b"][: n % 3],
        }
        | {
            "vector": [0.5, n / 7, 1.0],
            "image_url": f"http://x/{n}",
            "created_at": f"2025-01-{n % 28 + 1:02}",
            "mixed": n,
        }
        for n in range(95)
    ]
    items[3]["mixed"] = "three"
    folder = tmp_path / "logs"
    write(folder, "impressions", impressions)
    write(folder, "actions", actions)
    write(folder, "items", items)
    return folder


def test_a_draft_finds_keys_units_tasks_types_and_signals(shop):
    text = draft_schema(str(shop))
    schema = parse_schema(text)
    assert schema.timestamp_unit == "s"
    assert schema.scenarios == ("search", "home")
    assert [(task.name, task.action) for task in schema.tasks] == [("ctr", "Click"), ("ctcvr", "buy")]
    assert schema.columns == {
        "event_ts": "timestamp",
        "visitor_id": "user_id",
        "sku": "item_id",
        "search_id": "request_id",
        "channel": "scenario",
        "rank": "position",
        "keyword": "query",
        "event": "action",
    }
    assert {name: (feature.group, feature.type) for name, feature in schema.features.items()} == {
        "user_id": ("user", "categorical"),
        "item_id": ("item", "categorical"),
        "query": ("query", "text"),
        "app": ("context", "categorical"),
        "price_now": ("candidate", "numeric"),
        "score": ("candidate", "numeric"),
        "title": ("item", "text"),
        "brand_id": ("item", "categorical"),
        "stock": ("item", "numeric"),
        "colours": ("item", "categorical_list"),
        "vector": ("item", "vector"),
    }
    assert schema.features["vector"].width == 3
    assert schema.features["title"].shares == "query"
    assert schema.history_features == ("item_id", "brand_id")
    assert schema.match["query_title"].features == ("query", "title")
    assert schema.counters["query_item"].actions == ("Click", "buy")
    for name, reason in (
        ("device", "the same value in all rows ('phone')"),
        ("is_clicked", "sounds like what happened after the impression"),
        ("image_url", "an address"),
        ("created_at", "a moment"),
        ("mixed", "values of several kinds (integer, text)"),
    ):
        [line] = [line for line in text.splitlines() if line.startswith(f"  # {name}:")]
        assert reason in line


def test_the_command_writes_a_file_once(shop, capsys):
    out = shop / "schema.yaml"
    assert main(["schema", "--infer", str(shop), "--out", str(out)]) == 0
    assert parse_schema(out.read_text()).scenarios == ("search", "home")
    assert main(["schema", "--infer", str(shop), "--out", str(out)]) == 2
    assert "found a file there already" in capsys.readouterr().err
    assert main(["schema", "--infer", str(shop)]) == 0
    assert capsys.readouterr().out == out.read_text()


def test_csv_gives_types_as_json_does(shop):
    rows = [json.loads(line) for line in (shop / "items.jsonl").read_text().splitlines()]
    (shop / "items.jsonl").unlink()
    lines = [f"{row['sku']},{row['title']},{row['stock']},{'|'.join(row['colours'])}" for row in rows]
    (shop / "items.csv").write_text("\n".join(["sku,title,stock,colours", *lines]))
    features = parse_schema(draft_schema(str(shop))).features
    assert {name: features[name].type for name in ("title", "stock", "colours")} == {
        "title": "text",
        "stock": "numeric",
        "colours": "categorical_list",
    }


def test_logs_without_a_key_or_with_too_many_scenarios_are_refused(shop):
    rows = [json.loads(line) for line in (shop / "impressions.jsonl").read_text().splitlines()]
    write(shop, "impressions", [{**row, "channel": row["search_id"]} for row in rows])
    with pytest.raises(InputError, match=r"column 'scenario': found 300 values \(.*expected at most 20 scenarios"):
        draft_schema(str(shop))
    write(shop, "impressions", [{name: row[name] for name in row if name != "search_id"} for row in rows])
    with pytest.raises(InputError, match=r"column 'request_id': found only .*, expected it, or one named request"):
        draft_schema(str(shop))
    write(shop, "impressions", [])
    with pytest.raises(InputError, match=r"impressions\.jsonl: found no rows"):
        draft_schema(str(shop))


def test_columns_of_every_name_and_kind_give_a_schema_that_holds(shop):
    odd = {"on": "a", "null": "b", "ctr": "c", "raw_x": "d", "a\nb": "e", "é": "f"}
    lists = {"wide": [0.5] * 5000, "nan": [0.5, float("nan")], "gaps": ["a", None], "ragged": [0.5]}
    rows = [json.loads(line) for line in (shop / "items.jsonl").read_text().splitlines()]
    values = [{name: f"{value}{n % 2}" for name, value in odd.items()} for n in range(len(rows))]
    items = [{**row, **value, **lists} for row, value in zip(rows, values, strict=True)]
    items[0]["ragged"] = [0.5, 1.5]
    write(shop, "items", items)
    text = draft_schema(str(shop))
    schema = parse_schema(text)
    assert {"on", "null", "gaps"} <= schema.features.keys()
    assert not {"ctr", "raw_x", "wide", "nan", "ragged"} & schema.features.keys()
    for name in ("ctr", "raw_x", "a b", "wide", "nan", "ragged"):
        assert f"\n  # {name}: " in text


@pytest.mark.parametrize(
    ("table", "column", "value", "message"),
    [
        ("impressions", "channel", "home page", "column 'scenario': found 'home page', expected letters, digits"),
        ("impressions", "channel", None, "column 'scenario': found no value"),
        ("actions", "event", "Add to cart", "column 'action': found 'Add to cart', expected letters, digits"),
        ("actions", "event", None, "column 'action': found no value"),
    ],
)
def test_scenarios_and_actions_that_cannot_be_names_are_refused(shop, table, column, value, message):
    rows = [json.loads(line) for line in (shop / f"{table}.jsonl").read_text().splitlines()]
    write(shop, table, [{**row, column: value} for row in rows])
    with pytest.raises(InputError, match=message):
        draft_schema(str(shop))
