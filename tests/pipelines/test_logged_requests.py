import bisect
import json
from collections import defaultdict

from pipelines.join.logged_requests import REQUESTS_PER_SCENARIO, _to_request
from tests.pipelines.tiny import expected_history, parse_rows, read_lines


def test_logged_requests_hold_the_raw_features_of_the_test_rows(made):
    tables, schema = made.shop.tables, made.shop.schema
    in_test = {row["request_id"][0] for row in parse_rows(made.data, "test")}
    slates = defaultdict(list)
    for row in tables["impressions"]:
        if row["request_id"] in in_test:
            slates[row["request_id"]].append(row)
    assert len(slates) < REQUESTS_PER_SCENARIO  # so all of them are there
    items = {row["item_id"]: row for row in tables["items"]}
    cities = {row["user_id"]: row["city"] or "" for row in tables["users"]}

    seen = set()
    for scenario in schema.scenarios:
        for document in read_lines(made.data / "requests" / f"{scenario}.jsonl"):
            slate = slates[document["request_id"]]
            inputs, first = document["inputs"], slate[0]
            seen.add(document["request_id"])
            assert document["scenario"] == first["scenario"] == scenario
            assert set(inputs) == {*schema.features, *schema.history_columns}
            assert inputs["user_id"] == first["user_id"]
            assert inputs["city"] == cities.get(first["user_id"], "")
            assert inputs["query"] == (first["query"] or "")
            assert inputs["device"] == (first["device"] or "")
            assert inputs["item_id"] == [row["item_id"] for row in slate]  # in the order of their positions
            assert inputs["words"] == [items[row["item_id"]]["words"] for row in slate]
            for price, row in zip(inputs["price"], slate, strict=True):
                known = items[row["item_id"]]["price"]
                assert price is None if known is None else abs(price - known) < 1e-4
            expected = expected_history(first, tables["impressions"], tables["actions"], tables["items"], schema)
            words = expected["history_words"]
            expected["history_words"] = [words[start : start + 2] for start in range(0, len(words), 2)]
            assert {name: inputs[name] for name in schema.history_columns} == expected
    assert seen == slates.keys()


def test_lines_are_in_order(made):
    for path in sorted((made.data / "requests").iterdir()):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines
        assert all(bisect.bisect_left(lines, line) == number for number, line in enumerate(lines))


def test_a_request_that_is_not_one_moment_of_one_user_is_left_out(made):
    schema = made.shop.schema
    row = {name: ["x"] for name in (*schema.features, *schema.history_columns, "scenario", "raw_item_id")}
    rows = [{**row, "position": [position], "history_age": [7]} for position in (2, 1)]
    [(_, (_, whole))] = _to_request(("r", rows), schema)
    assert json.loads(whole)["inputs"]["history_age"] == [7]
    rows[1]["history_age"] = [8]
    assert list(_to_request(("r", rows), schema)) == []
