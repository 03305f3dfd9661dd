"""HTTP server of the page: three files, and JSON from the playground."""

import asyncio
import functools
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from serving.client.errors import ServingError
from serving.network.address import Address, ip_address, without_brackets
from usr_tf.errors import InputError
from usr_tf.play.page_request import PageRequest
from usr_tf.play.playground import Playground
from usr_tf.schema import parse_model

_FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
_FOLDER = Path(__file__).parent / "page"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_LOG = logging.getLogger(__name__)


def serve_page(playground: Playground, host: str = "127.0.0.1", port: int = 8600) -> None:
    """Serves until SIGINT or SIGTERM. Main thread only.

    Args:
      host: address to listen on.
      port: 0 takes any free port.

    Raises:
      InputError: the address cannot be bound.
    """
    asyncio.run(_serve(playground, without_brackets(host), port))


def warning_of(host: str) -> str | None:
    """What listening on an address opens to other machines; None for a loopback address."""
    if _is_loopback(host):
        return None
    return (
        f"--host {host}: everyone who reaches this machine can read the users, histories and requests of the logs, and "
        "act on the page for every user. There is no password, and no encryption."
    )


def application(playground: Playground, host: str = "127.0.0.1") -> web.Application:
    """aiohttp application of the page.

    Args:
      host: what it will listen on. On a loopback address, requests have to name one too: a page of another site whose
        name leads here (DNS rebinding) is refused.
    """
    app = web.Application(middlewares=[_guard(_is_loopback(host))])
    for path, name in _FILES.items():
        app.router.add_get(path, functools.partial(_file, _FOLDER / name))
    answers: dict[str, Callable[[Any], Any]] = {
        "/api/shop": lambda body: playground.describe(),
        "/api/users": lambda body: playground.users(_text(body, "find")),
        "/api/user": lambda body: playground.user(_text(body, "user")),
        "/api/rank": lambda body: playground.rank(_page(body)),
        "/api/why": lambda body: playground.explain(_page(body), _text(body, "item"), _number(body, "model")),
        "/api/act": lambda body: playground.act(_page(body), _text(body, "item"), _text(body, "action")),
        "/api/reset": lambda body: playground.reset(),
    }
    for path, answer in answers.items():
        app.router.add_post(path, functools.partial(_answer, answer))
    return app


async def _serve(playground: Playground, host: str, port: int) -> None:
    runner = web.AppRunner(application(playground, host), access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            place = Address(host, port)
            raise InputError(
                place, f"no free address ({error.strerror})", "one to listen on: --host, --port"
            ) from error
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        bound = Address(*runner.addresses[0][:2])
        if warning := warning_of(host):
            print(warning, flush=True)
        print(f"Page at http://{bound}/; Ctrl-C stops it.", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


def _guard(local: bool) -> Middleware:
    """Refuses requests of other sites, and gives errors as JSON."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _check_origin(request, local)
            response = await handler(request)
        except web.HTTPException as error:
            response = _json({"error": error.text or error.reason}, error.status)
        except InputError as error:
            response = _json({"error": str(error)}, 400)
        except ServingError as error:
            response = _json({"error": str(error)}, 502)
        except Exception:
            _LOG.exception("%s", request.path)
            response = _json({"error": f"{request.path}: an error of the program; its log has the details"}, 500)
        response.headers.update(_HEADERS)
        return response

    return guard


def _is_loopback(host: str) -> bool:
    ip = ip_address(without_brackets(host))
    return ip.is_loopback if ip else host.lower() == "localhost" or host.lower().endswith(".localhost")


def _check_origin(request: web.Request, local: bool) -> None:
    name = urlsplit(f"//{request.host}").hostname or ""
    if local and not _is_loopback(name):
        raise web.HTTPForbidden(text=f"Host {request.host!r} is not this machine")
    if request.method == "POST":
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="a POST has to be application/json")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text=f"Origin {origin!r} is another site")


async def _file(path: Path, request: web.Request) -> web.StreamResponse:
    return web.FileResponse(path)


async def _answer(answer: Callable[[Any], Any], request: web.Request) -> web.StreamResponse:
    try:
        body = orjson.loads(await request.read())
    except ValueError as error:
        raise InputError("body", f"no JSON ({error})", "a JSON object") from error
    if not isinstance(body, dict):
        raise InputError("body", type(body).__name__, "a JSON object")
    return _json(await asyncio.to_thread(answer, body))


def _json(document: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")


def _page(body: dict[str, Any]) -> PageRequest:
    return parse_model(PageRequest, body.get("page"), "page")


def _text(body: dict[str, Any], key: str) -> str:
    if not isinstance(body.get(key), str):
        raise InputError(key, repr(body.get(key))[:100], "a text")
    return body[key]


def _number(body: dict[str, Any], key: str) -> int:
    if type(body.get(key)) is not int:
        raise InputError(key, repr(body.get(key))[:100], "an integer")
    return body[key]
