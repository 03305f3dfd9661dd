"""`usr-tf play` in a real browser: type, click, buy, edit, and see what is ranked. Needs Playwright and Chromium."""

import asyncio
import contextlib
import json
import os
import shutil
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest
from aiohttp import web

from serving.local_server import serve_in_background
from tests.usr_tf.fixtures import write_toy_logs
from tests.usr_tf.test_play import add_oracle
from usr_tf.play import Playground
from usr_tf.play.logged_shop import read_shop
from usr_tf.play.scorers import ServedModel
from usr_tf.play.web import application

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("no Chromium: apt-get install chromium", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")

HTML = "<img src=x onerror=document.title='run'>"
WAIT_MS = 120_000
SHOTS = os.environ.get("PLAY_SCREENSHOTS")
"""Folder for screenshots; none are kept without it."""


@contextlib.contextmanager
def served(app: web.Application):
    """Address of an application that a thread serves: Playwright's own loop runs in this one."""
    started: Future = Future()

    async def run() -> None:
        runner, stop, loop = web.AppRunner(app), asyncio.Event(), asyncio.get_running_loop()
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        started.set_result((runner.addresses[0][1], lambda: loop.call_soon_threadsafe(stop.set)))
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=[run()], daemon=True)
    thread.start()
    port, request_stop = started.result()
    yield f"http://127.0.0.1:{port}/"
    request_stop()
    thread.join()


@pytest.fixture(scope="module")
def address(toy_version, toy_run, tmp_path_factory):
    logs = write_toy_logs(tmp_path_factory.mktemp("page") / "logs")
    add_oracle(logs)
    items = [json.loads(line) for line in (logs / "items.jsonl").read_text().splitlines()]
    items[4]["title"] = f"Cake {HTML}"
    (logs / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    with serve_in_background(toy_version.parent) as server, contextlib.ExitStack() as stack:
        models = [
            stack.enter_context(contextlib.closing(ServedModel(toy_version.parent, server.address, run)))
            for run in (toy_run.directory, None)
        ]
        yield stack.enter_context(served(application(Playground(*read_shop(logs), models))))


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as manager:
        browser = manager.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Page:
    """The page in a browser window."""

    def __init__(self, browser, address: str, **options):
        self.page = browser.new_context(**options).new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("request", lambda request: self.errors.append(request.url) if address not in request.url else None)
        self.page.goto(address)
        self.page.wait_for_selector(".row")

    @contextlib.contextmanager
    def ranked(self):
        """Waits until the page that the work asks for is there."""
        before = self.page.evaluate("document.body.dataset.ranked")
        yield
        self.page.wait_for_function("before => document.body.dataset.ranked !== before", arg=before)

    def items(self, kind: str = "model") -> list[str]:
        ranking = self.page.locator(f".ranking[data-kind={kind}]").first
        return ranking.locator(".row").evaluate_all("rows => rows.map(row => row.dataset.item)")

    def scores(self) -> list[float]:
        ranking = self.page.locator(".ranking[data-kind=model]").first
        return [float(text.split("\n")[0]) for text in ranking.locator(".row .score").all_inner_texts()]

    def shot(self, name: str) -> None:
        if SHOTS:
            self.page.screenshot(path=str(Path(SHOTS, f"{name}.png")))


@pytest.fixture
def window(browser, address):
    window = Page(browser, address, viewport={"width": 1500, "height": 950})
    yield window
    assert window.errors == []
    window.page.context.close()


def test_type_click_buy_and_edit(window):
    page = window.page
    with window.ranked():
        page.locator("#slates button[data-scenario=search]").first.click()
    assert [each.get_attribute("data-kind") for each in page.locator(".ranking").all()] == [
        "model", "model", "logged", "oracle"
    ]  # fmt: skip
    assert len(window.items()) == 5
    assert window.scores() == sorted(window.scores(), reverse=True)
    assert window.items("oracle") == sorted(window.items())
    window.shot("logged-request")

    page.fill("#query", "cake")
    with window.ranked():
        page.press("#query", "Enter")
    titles = page.locator(".ranking").first.locator(".title").all_inner_texts()
    assert titles
    assert all(title.startswith("Cake") for title in titles)
    assert page.locator(".ranking img").count() == 0
    assert page.title() == "usr-tf play"

    bought = window.items()[1]
    page.locator(f".ranking .row[data-item={bought}]").first.click()
    actions = page.locator("#history li").count()
    before = window.scores()
    with window.ranked():
        page.click("[data-action=purchase]")
    history = page.locator("#history li").all_inner_texts()
    assert "purchase · search · 2 min ago" in history[0]
    assert len(history) == min(actions + 2, 4)  # history.max_length of the toy schema
    assert window.scores() != before

    before = window.items(), window.scores()
    with window.ranked():
        page.locator("#history button").first.click()
    assert "dropped" in page.locator("#history li").first.get_attribute("class")
    with window.ranked():
        page.fill("[data-feature=price]", "1000")
        page.keyboard.press("Tab")
    assert (window.items(), window.scores()) != before
    with window.ranked():
        page.click("#undo")
    assert (window.items(), window.scores()) == before

    page.click("[data-why='0']")
    page.wait_for_selector(".effects")
    assert page.locator(".effects .name").count() > 5
    assert page.locator("[data-why='1']").is_disabled()  # the second model has no run
    window.shot("why")

    with window.ranked():
        page.locator("[data-feature=spend]").fill("much")
        page.keyboard.press("Tab")
    assert "edits.inputs.spend: found 'much', expected a number" in page.locator("#problem").inner_text()
    window.errors.clear()  # the console tells of the refused request

    with window.ranked():
        page.click("#reset")
    assert "2 min ago" not in page.locator("#history").inner_text()


def test_keyboard_alone(window):
    page = window.page
    with window.ranked():
        page.keyboard.press("2")
    assert "recommendation · candidates of the catalogue · 20 items" in page.locator("#where").inner_text()
    page.keyboard.press("j")
    page.keyboard.press("j")
    chosen = window.items()[1]
    page.keyboard.press("Enter")
    assert page.locator("#item .faint").first.inner_text() == chosen
    with window.ranked():
        page.keyboard.press("c")
    assert "click · recommendation" in page.locator("#history li").first.inner_text()
    page.keyboard.press("Escape")
    assert page.locator("#item").is_hidden()
    assert page.evaluate("document.activeElement.dataset.item") == chosen
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.closest('.ranking').className") == "ranking model second current"
    page.keyboard.press("u")
    page.keyboard.type(HTML)
    with window.ranked():
        page.keyboard.press("Enter")
    assert page.locator("#profile").inner_text() == "unknown to the logs: a new user"
    assert page.title() == "usr-tf play"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone(browser, address, scheme):
    window = Page(
        browser,
        address,
        viewport={"width": 390, "height": 844},
        color_scheme=scheme,
        device_scale_factor=2,
        has_touch=True,
    )
    page = window.page
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator(".ranking:visible").count() == 1
    page.locator("#tabs button").nth(2).tap()
    assert page.locator(".ranking:visible").get_attribute("data-kind") == "logged"
    window.shot(f"phone-{scheme}")
    page.locator(".ranking:visible .row").first.tap()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("#item .acts button").first.is_visible()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 22)"
    assert dark == (scheme == "dark")
    window.shot(f"phone-item-{scheme}")
    assert window.errors == []
    page.context.close()
