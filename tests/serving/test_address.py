"""Addresses, environment proxies, and IPv6 end to end."""

import contextlib
import http.server
import os
import select
import socket
import threading

import pytest
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest

from serving.client.errors import Unavailable
from serving.client.transport import GrpcTransport, Retry
from serving.local_server import serve_in_background
from serving.network.address import Address, parse_address
from serving.network.proxy import Proxy, grpc_proxy, rest_proxy
from tests.serving.rankers import KINDS
from usr_tf.errors import InputError

ELSEWHERE = Address("models.example", 8500)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("text", "host", "port", "normal"),
    [
        ("localhost:8500", "localhost", 8500, "localhost:8500"),
        ("10.0.0.7:1", "10.0.0.7", 1, "10.0.0.7:1"),
        ("[::1]:8500", "::1", 8500, "[::1]:8500"),
        ("::1:8500", "::1", 8500, "[::1]:8500"),
        ("2001:db8::7:65535", "2001:db8::7", 65535, "[2001:db8::7]:65535"),
        ("[fe80::1%eth0]:80", "fe80::1%eth0", 80, "[fe80::1%eth0]:80"),
    ],
)
def test_addresses_are_read_in_every_spelling(text, host, port, normal):
    assert parse_address(text) == (host, port)
    assert str(parse_address(text)) == normal


@pytest.mark.parametrize(
    "text",
    ["", "localhost", ":8500", "localhost:", "localhost:http", "h:0", "h:65536", "h:٨", "::1", "a:b:80", "h/x:80"],
)
def test_what_is_no_address_is_refused_in_one_line(text):
    with pytest.raises(InputError, match=r"found no address, expected HOST:PORT, such as localhost:8500 or \[::1\]"):
        parse_address(text)


@pytest.mark.parametrize("kind", KINDS)
def test_no_ranker_takes_what_is_no_address(kind):
    with pytest.raises(InputError, match="'localhost': found no address"):
        KINDS[kind]("localhost")


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("model.localhost", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),
        ("::", True),
        ("127.1", True),
        ("LocalHost.", True),
        ("localhost.localdomain", True),
        ("ip6-localhost", True),
        (socket.gethostname(), True),
        ("localhost.example", False),
        ("10.1", False),
        ("10.0.0.7", False),
        ("2001:db8::7", False),
    ],
)
def test_local_addresses_never_take_a_proxy(monkeypatch, host, local):
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    address = Address(host, 8500)
    assert address.is_local == local
    assert (grpc_proxy(address) is None) == local
    assert (rest_proxy(address, "http") is None) == local


@pytest.mark.parametrize(
    ("no_proxy", "address", "direct"),
    [
        ("", ELSEWHERE, False),
        ("example", ELSEWHERE, True),
        (".example", ELSEWHERE, True),
        ("other,models.example:8500", ELSEWHERE, True),
        ("els.example", ELSEWHERE, False),
        ("*", ELSEWHERE, True),
        ("10.0.0.0/8", Address("10.1.2.3", 80), True),
        ("10.0.0.0/8", Address("11.1.2.3", 80), False),
        ("2001:db8::/32", Address("2001:db8::7", 80), True),
    ],
)
def test_no_proxy_lists_names_domains_and_networks(monkeypatch, no_proxy, address, direct):
    monkeypatch.setenv("https_proxy", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    expected = None if direct else Proxy("https_proxy", "http://proxy.example:3128")
    assert grpc_proxy(address) == rest_proxy(address, "https") == expected
    assert rest_proxy(address, "http") is None  # which only http_proxy would name


@pytest.mark.parametrize(
    ("name", "proxied"),
    [
        ("dns:///models.example:8500", True),
        ("dns:models.example:8500", True),
        ("ipv4:10.0.0.7:8500,10.0.0.8:8500", True),
        ("dns:///localhost:8500", False),
        ("ipv4:127.0.0.1:8500", False),
        ("ipv6:[::1]:8500", False),
        ("ipv6:%5B::1%5D:8500", False),
        ("unix:/tmp/usr.sock", False),
    ],
)
def test_a_name_in_a_scheme_of_grpc_takes_a_proxy_as_its_address_does(monkeypatch, name, proxied):
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    with contextlib.closing(GrpcTransport(name, None, Retry())) as transport:
        described = transport.describe(GetModelMetadataRequest(), 1)
    assert described.endswith("through the proxy proxy.example:3128 of http_proxy") == proxied


def test_a_proxy_is_named_without_its_password():
    assert str(Proxy("http_proxy", "http://me:secret@proxy.example:3128")) == (
        "the proxy proxy.example:3128 of http_proxy"
    )


# Live


@pytest.fixture(scope="module")
def versions(toy_models, tmp_path_factory):
    base = tmp_path_factory.mktemp("served")
    (base / "1").symlink_to(next(iter(toy_models.values())))
    return base


@contextlib.contextmanager
def tunnel(target: tuple[str, int]):
    """An HTTP proxy that leads every CONNECT and every GET to one server. Yields its URL and what it was asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_CONNECT(self):
            asked.append(f"CONNECT {self.path}")
            with socket.create_connection(target) as server:
                self.send_response(200)
                self.end_headers()
                self.wfile.flush()
                ends = {self.connection: server, server: self.connection}
                while True:
                    for ready in select.select(list(ends), [], [])[0]:
                        data = ready.recv(65536)
                        if not data:
                            return
                        ends[ready].sendall(data)

        def do_GET(self):
            asked.append(f"GET {self.path}")
            self.send_error(503)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            yield f"http://127.0.0.1:{proxy.server_address[1]}", asked
        finally:
            proxy.shutdown()


@pytest.mark.parametrize("kind", KINDS)
def test_a_local_server_is_asked_directly_whatever_the_environment_names(monkeypatch, versions, kind):
    for name in ("grpc_proxy", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with (
        serve_in_background(versions, rest_port=0) as server,
        KINDS[kind](server.rest_address if kind == "rest" else server.address) as ranker,
    ):
        assert "search" in ranker.metadata()


@pytest.mark.parametrize("kind", ["grpc", "asyncio"])
def test_another_machine_is_asked_through_the_proxy(monkeypatch, versions, kind):
    with serve_in_background(versions) as server, tunnel((server.host, server.port)) as (url, asked):
        monkeypatch.setenv("http_proxy", url)
        with KINDS[kind](str(ELSEWHERE)) as ranker:
            assert "search" in ranker.metadata()
    assert asked == ["CONNECT models.example:8500"]


def test_rest_asks_another_machine_through_the_proxy_and_names_it(monkeypatch):
    with tunnel(("127.0.0.1", 9)) as (url, asked):
        monkeypatch.setenv("http_proxy", url)
        through = rf"through the proxy {url.removeprefix('http://')} of http_proxy: found UNAVAILABLE"
        with KINDS["rest"](str(ELSEWHERE), retries=0) as ranker, pytest.raises(Unavailable, match=through):
            ranker.metadata()
    assert asked == ["GET http://models.example:8500/v1/models/usr/metadata"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_names_the_proxy(monkeypatch, kind):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        dead = f"127.0.0.1:{listening.getsockname()[1]}"
    monkeypatch.setenv("http_proxy", f"http://{dead}")
    with KINDS[kind](str(ELSEWHERE), retries=0, timeout=1) as ranker:
        for ask in (ranker.metadata, ranker.wait_until_ready):
            with pytest.raises(Unavailable) as caught:
                ask()
            asked = f"GetModelMetadata of usr, within 1 s, through the proxy {dead} of http_proxy"
            assert str(caught.value).startswith(f"models.example:8500: {asked}: found UNAVAILABLE")


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback address")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6_is_served_and_asked_with_and_without_brackets(versions, host):
    with serve_in_background(versions, host=host, rest_port=0) as server:
        assert server.address == f"[::1]:{server.port}"
        assert server.rest_address == f"[::1]:{server.rest_port}"
        for kind, ranker_type in KINDS.items():
            for asked in (host, "localhost" if localhost_is_ipv6() else host):
                port = server.rest_port if kind == "rest" else server.port
                with ranker_type(f"{asked}:{port}") as ranker:
                    assert "search" in ranker.metadata(), (kind, asked)


def localhost_is_ipv6() -> bool:
    try:
        return bool(socket.getaddrinfo("localhost", None, socket.AF_INET6))
    except OSError:
        return False


# A server that is starting


@pytest.mark.parametrize("kind", KINDS)
def test_a_ranker_waits_for_a_server_that_starts_later(versions, kind):
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    found = []
    with KINDS[kind](f"127.0.0.1:{port}", timeout=60, retries=0) as ranker:
        with pytest.raises(Unavailable):
            ranker.metadata()
        waiting = threading.Thread(target=lambda: found.append(ranker.wait_until_ready()))
        waiting.start()
        ports = {"rest_port": port} if kind == "rest" else {"port": port}
        with serve_in_background(versions, **ports):
            waiting.join()
    assert 0 < found[0] < 60


@pytest.mark.parametrize("kind", KINDS)
def test_a_ranker_gives_up_waiting_in_one_line(kind):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        dead = f"127.0.0.1:{listening.getsockname()[1]}"
    with (
        KINDS[kind](dead, timeout=1) as ranker,
        pytest.raises(Unavailable, match=f"^{dead}: GetModelMetadata of usr, within 1 s: found UNAVAILABLE") as caught,
    ):
        ranker.wait_until_ready()
    assert str(caught.value).endswith("expected a server that is ready")
