"""Backends of feature stores: memory, SQLite, and a real Redis server where one is installed."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from serving.features.backend import Backend
from serving.features.redis import RedisBackend
from serving.features.sqlite import SQLiteBackend
from tests.serving.features.memory import MemoryBackend


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory) -> Iterator[str]:
    """A Redis server of our own on a free port, without its file."""
    pytest.importorskip("redis", reason="the package redis is not installed")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline, "redis-server does not start"
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def open_backend(request, tmp_path) -> Iterator[Callable[[str], Backend]]:
    """Opens an empty backend by a name; the same name opens the same values."""
    opened: list[Backend] = []
    in_memory: dict[str, MemoryBackend] = {}

    def open_one(name: str) -> Backend:
        if request.param == "memory":
            backend = in_memory.setdefault(name, MemoryBackend())
        elif request.param == "sqlite":
            backend = SQLiteBackend(tmp_path / name)
        else:
            url = request.getfixturevalue("redis_url")
            backend = RedisBackend(url, prefix=f"{tmp_path.name}:{name}:")
        opened.append(backend)
        return backend

    yield open_one
    for backend in opened:
        backend.close()
