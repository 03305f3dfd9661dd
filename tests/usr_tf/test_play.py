"""`usr-tf play` without a browser: rankings of the page against served scores, edits, actions, and the HTTP server."""

import asyncio
import contextlib
import json

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer

from serving.features import FeatureStore
from serving.features.backend import Stored
from serving.formats.logged_requests import read_requests
from serving.local_server import serve_in_background
from tests.once import made_once
from tests.usr_tf.fixtures import write_toy_logs
from usr_tf.errors import InputError
from usr_tf.play import Playground
from usr_tf.play.logged_shop import LoggedShop, read_shop
from usr_tf.play.overlay import Overlay
from usr_tf.play.page_request import PageRequest
from usr_tf.play.scorers import ServedModel
from usr_tf.play.web import application, warning_of
from usr_tf.schema import parse_model, parse_schema


def add_oracle(logs) -> None:
    """True probabilities that fall with the item's number, so that an oracle ranks `i00` first."""
    path = logs / "impressions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["oracle_ctr"] = (100 - int(row["item_id"][1:])) / 200
        row["oracle_ctcvr"] = row["oracle_ctr"] / 2
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Logs of the toy run, with an oracle. Read only."""
    return made_once(tmp_path_factory, "play_logs", lambda folder: add_oracle(write_toy_logs(folder / "logs"))) / "logs"


@pytest.fixture(scope="module")
def shop(logs):
    return read_shop(logs)


@pytest.fixture(scope="module")
def model(toy_version, toy_run):
    with (
        serve_in_background(toy_version.parent) as server,
        contextlib.closing(ServedModel(toy_version.parent, server.address, toy_run.directory)) as served,
    ):
        yield served


@pytest.fixture
def play(shop, model) -> Playground:
    return Playground(*shop, [model, model])


def page_of(document, **changes) -> PageRequest:
    about = {"user": document.inputs["user_id"], "scenario": document.scenario, "request_id": document.request_id}
    return PageRequest(**{"task": "ctr", **about, **changes})


def any_slate(shop: LoggedShop, **values):
    return next(
        slate
        for slate in shop.slates.values()
        if len(set(slate.items)) == 5 and all(getattr(slate, name) == value for name, value in values.items())
    )


def page_of_slate(slate, **changes) -> PageRequest:
    about = {"user": slate.user_id, "scenario": slate.scenario, "request_id": slate.request_id}
    return PageRequest(**{"task": "ctr", **about, **changes})


def by_item(page, ranking) -> dict[str, float]:
    return {item["id"]: score for item, score in zip(page["items"], ranking["scores"]["ctr"], strict=True)}


def document(logged, **inputs):
    return {"scenario": logged.scenario, "inputs": {**logged.inputs, **inputs}}


def scores_of(model, document) -> dict[str, float]:
    return dict(zip(document["inputs"]["item_id"], model.score(document)["ctr"].tolist(), strict=True))


@pytest.mark.parametrize("scenario", ["search", "recommendation"])
def test_a_logged_request_has_the_scores_of_its_logged_features(play, model, toy_run, scenario):
    """The page rebuilds each from the events of the logs, as preprocess does."""
    logged = read_requests(toy_run.requests / f"{scenario}.jsonl")
    assert len(logged) > 20
    for request in logged[:20]:
        page = play.rank(page_of(request))
        served, same, logged_order, oracle = page["rankings"]
        assert by_item(page, served) == pytest.approx(scores_of(model, document(request)), abs=1e-6)
        assert (
            served["order"] == same["order"] == np.argsort(-np.array(served["scores"]["ctr"]), kind="stable").tolist()
        )
        assert logged_order["order"] == list(range(len(page["items"])))
        assert [page["items"][row]["id"] for row in oracle["order"]] == sorted(request.inputs["item_id"])
        best = sorted((100 - int(item[1:])) / 200 for item in request.inputs["item_id"])[-3:]
        assert oracle["expected"] == pytest.approx(sum(best))


def test_edits_change_what_the_model_reads(play, model, toy_run):
    request = next(
        each for each in read_requests(toy_run.requests / "search.jsonl") if len(each.inputs["history_age"]) > 2
    )
    items = request.inputs["item_id"]
    edits = {
        "inputs": {"query": "soap", "interests": "cake, tea"},
        "items": {items[1]: {"price": "7.5", "title": ""}},
        "history": [0, 2],
    }
    page = play.rank(page_of(request, edits=edits))
    changed = document(
        request,
        query="soap",
        interests=["cake", "tea"],
        price=[7.5 if item == items[1] else old for item, old in zip(items, request.inputs["price"], strict=True)],
        title=["" if item == items[1] else old for item, old in zip(items, request.inputs["title"], strict=True)],
        **{
            name: [value for place, value in enumerate(values) if place not in (0, 2)]
            for name, values in request.inputs.items()
            if name.startswith("history_")
        },
    )
    assert by_item(page, page["rankings"][0]) == pytest.approx(scores_of(model, changed), abs=1e-6)
    assert by_item(page, page["rankings"][0]) != pytest.approx(scores_of(model, document(request)), abs=1e-4)
    assert [entry["place"] for entry in page["history"] if entry["dropped"]] == [2, 0]


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"inputs": {"user_id": "u01"}}, "edits: user_id: found no feature that can be edited, expected one of "),
        ({"items": {"i99": {"price": "1"}}}, "edits.items: found 'i99', expected an item of the page"),
        ({"history": [99]}, "edits.history: found [99], expected places in a history of "),
        ({"inputs": {"spend": "much"}}, "edits.inputs.spend: found 'much', expected a number"),
    ],
)
def test_an_edit_that_cannot_be_made(play, shop, edits, message):
    with pytest.raises(InputError) as error:
        play.rank(page_of_slate(any_slate(shop[0], scenario="search"), edits=edits))
    assert str(error.value).startswith(message)


def test_an_action_reaches_the_next_page_through_the_store_and_can_be_forgotten(play, shop):
    slate = any_slate(shop[0], scenario="search")
    before = play.rank(page_of_slate(slate))
    done = play.act(page_of_slate(slate), slate.items[2], "purchase")
    assert done == {"acted": slate.moment + 20_000, "moment": slate.moment + 120_000, "actions": ["click", "purchase"]}
    after = play.rank(page_of_slate(slate, moment=done["moment"], items=list(slate.items)))
    assert [(each["item_id"], each["action"], each["scenario"], each["age"]) for each in after["history"][:2]] == [
        (slate.items[2], "purchase", "search", 99_999),
        (slate.items[2], "click", "search", 100_000),
    ]
    scores = [by_item(page, page["rankings"][0]) for page in (before, after)]
    assert scores[0] != pytest.approx(scores[1], abs=1e-6)
    feed = play.rank(PageRequest(user=slate.user_id, scenario="recommendation", task="ctr", moment=done["moment"]))
    play.act(
        PageRequest(user=slate.user_id, scenario="recommendation", task="ctr", moment=done["moment"]),
        feed["items"][0]["id"],
        "click",
    )
    again = play.rank(page_of_slate(slate, moment=done["moment"] + 120_000, items=list(slate.items)))
    assert (again["history"][0]["item_id"], again["history"][0]["scenario"]) == (
        feed["items"][0]["id"],
        "recommendation",
    )
    play.reset()
    assert play.rank(page_of_slate(slate)) == before


def test_a_query_finds_its_words_and_a_new_user_has_a_feed(play):
    found = play.rank(PageRequest(user="nobody", scenario="search", task="ctcvr", query="TEA nothing"))
    assert {item["title"].split()[0] for item in found["items"]} == {"Tea"}
    assert found["history"] == []
    assert [ranking["kind"] for ranking in found["rankings"]] == ["model", "model"]
    assert play.rank(PageRequest(user="nobody", scenario="search", task="ctr", query="zzz"))["rankings"] == []
    feed = play.rank(PageRequest(user="nobody", scenario="recommendation", task="ctr"))
    assert len(feed["items"]) == 20
    assert not play.user("nobody")["known"]
    assert all("u1" in each["id"] for each in play.users("u1")["users"])


@pytest.mark.slow
def test_why_explains_the_served_score(play, shop):
    slate = any_slate(shop[0], scenario="search")
    page = play.rank(page_of_slate(slate))
    answer = play.explain(page_of_slate(slate), slate.items[3], 1)
    task = answer["explanation"]["tasks"]["ctr"]
    assert answer["apart"] is None
    assert answer["explanation"]["item"] == slate.items[3]
    assert task["probability"] == pytest.approx(by_item(page, page["rankings"][1])[slate.items[3]], abs=1e-5)
    moved = sum(task["features"].values()) + sum(task["history"])
    assert moved == pytest.approx(task["log_odds"] - task["baseline_log_odds"], abs=0.01)


def test_a_store_has_the_schema_of_the_logs(logs, toy_run):
    loaded, base = Overlay(), Overlay()
    FeatureStore(loaded, toy_run.schema)  # with forms of texts that the logs do not name
    assert read_shop(logs, loaded)[1] is loaded
    FeatureStore(base, parse_schema(toy_run.schema.to_yaml().replace("max_length: 4", "max_length: 3")))
    with pytest.raises(InputError, match="--store: found a store of another schema, expected one of "):
        read_shop(logs, base)


def test_a_model_that_takes_what_the_logs_lack(logs, model, tmp_path):
    """Named before the page opens."""
    for path in logs.iterdir():
        (tmp_path / path.name).write_text(
            path.read_text().replace("  spend:", "  outlay:").replace('"spend"', '"outlay"')
        )
    with pytest.raises(InputError, match=r"inputs.spend: found nothing, expected a number"):
        Playground(*read_shop(tmp_path), [model])


def test_an_overlay_leaves_what_is_below_as_it_is():
    base = Overlay()
    base.write({"a": Stored(b"1"), "b": Stored(b"2")})
    above = Overlay(base)
    above.transact(lambda transaction: transaction.write({"a": None, "c": Stored(b"3")}))
    assert above.read(["a", "b", "c", "d"]) == [None, b"2", b"3", None]
    assert base.read(["a", "b", "c", "d"]) == [b"1", b"2", None, None]


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "message"),
    [
        ("GET", "/", {"Host": "shop.example:80"}, "", 403, "Host 'shop.example:80' is not this machine"),
        ("POST", "/api/shop", {"Content-Type": "text/plain"}, "{}", 415, "a POST has to be application/json"),
        ("POST", "/api/shop", {**JSON, "Origin": "http://shop.example"}, "{}", 403, "is another site"),
        ("POST", "/api/shop", {**JSON, "Origin": "null"}, "{}", 403, "is another site"),
        ("POST", "/api/shop", JSON, "{", 400, "body: found no JSON"),
        ("POST", "/api/shop", JSON, "[]", 400, "body: found list, expected a JSON object"),
        ("POST", "/api/user", JSON, "{}", 400, "user: found None, expected a text"),
        ("POST", "/api/rank", JSON, '{"page": {"user": "u", "task": "ctr"}}', 400, "page: scenario: found nothing"),
        ("GET", "/api/shop", {}, "", 405, "Method Not Allowed"),
        ("GET", "/../web.py", {}, "", 404, "Not Found"),
    ],
)
def test_the_server_refuses(play, method, path, headers, body, status, message):
    async def ask():
        async with TestClient(TestServer(application(play))) as client:
            response = await client.request(method, path, headers=headers, data=body)
            return response.status, response.headers, await response.json()

    found, headers, answer = asyncio.run(ask())
    assert found == status
    assert message in answer["error"]
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_the_server_answers_from_this_machine(play, shop):
    slate = any_slate(shop[0])
    page = page_of_slate(slate).model_dump()

    async def ask():
        async with TestClient(TestServer(application(play))) as client:
            texts = [await (await client.get(path)).text() for path in ("/", "/page.css", "/page.js")]
            answers = [
                await (await client.post(f"/api/{name}", json=body)).json()
                for name, body in (("shop", {}), ("users", {"find": ""}), ("rank", {"page": page}))
            ]
            return texts, answers

    texts, (about, users, ranked) = asyncio.run(ask())
    assert not [text for text in texts if "https://" in text.replace("http://www.w3.org/2000/svg", "")]
    assert [each["name"] for each in about["scenarios"] if each["queries"]] == ["search"]
    assert [model["explains"] for model in about["models"]] == [True, True]
    assert slate.user_id in {each["id"] for each in users["users"]}
    assert {item["id"] for item in ranked["items"]} == set(slate.items)


def test_a_page_for_other_machines_says_what_it_opens():
    assert [warning_of(host) for host in ("127.0.0.1", "localhost", "::1", "[::1]", "127.8.0.1")] == [None] * 5
    for host in ("0.0.0.0", "::", "10.0.0.7", "shop.example"):
        assert "everyone who reaches this machine can read the users" in warning_of(host)


def test_a_page_request_names_what_is_wrong():
    with pytest.raises(InputError, match=r"page: colour: found an unknown key, expected one of edits, items, "):
        parse_model(PageRequest, {"user": "u", "scenario": "s", "task": "t", "colour": 1}, "page")
