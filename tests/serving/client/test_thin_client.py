"""The client needs neither TensorFlow nor Beam: imports, calls, and the size of a fresh install."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serving.local_server import serve_in_background
from tests.serving.client.test_client import SEARCH

ROOT = Path(__file__).parents[3]
MAX_BYTES = 120e6
MAX_IMPORT_SECONDS = 0.7
HEAVY = ("apache_beam", "pandas", "pyarrow", "rich", "tensorflow", "tensorflow_serving", "tf_keras")
USE = f"""
import asyncio, json, sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY}:
            raise ImportError(f"{{name}} is refused")

sys.meta_path.insert(0, Refused())
grpc_address, rest_address, request = sys.argv[1:]
from serving.client import AsyncRanker, Ranker, RestRanker
from usr_tf.cli import main

document = json.load(open(request))
with Ranker(grpc_address) as ranker, RestRanker(rest_address) as rest:
    ranking = ranker.score("search", document, by="ctr + 5 * ctcvr")
    assert rest.score("search", document, by="ctr + 5 * ctcvr") == ranking
    assert ranker.metadata() == rest.metadata()

async def ask():
    async with AsyncRanker(grpc_address) as ranker:
        return await ranker.score("search", document, by="ctr + 5 * ctcvr")

assert asyncio.run(ask()) == ranking
assert main(["score", "--address", grpc_address, "--scenario", "search", "--request", request, "--json"]) == 0
heavy = {{name.partition(".")[0] for name in sys.modules}} & {{*{HEAVY}}}
assert not heavy, heavy
"""
SIZE = """
import pathlib, sysconfig
folder = pathlib.Path(sysconfig.get_path("purelib"))
installers = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
files = (path for path in folder.rglob("*") if path.is_file())
print(sum(file.stat().st_size for file in files if not file.relative_to(folder).parts[0].startswith(installers)))
"""
IMPORT = "import time; import serving.client; print(time.process_time())"


@pytest.fixture(scope="module")
def served(toy_models, tmp_path_factory):
    """Arguments of `USE`: addresses of a server, and a request document."""
    base = tmp_path_factory.mktemp("served")
    (base / "1").symlink_to(toy_models[0.5])
    request = base / "request.json"
    request.write_text(json.dumps({"inputs": SEARCH}))
    with serve_in_background(base, rest_port=0) as server:
        yield server.address, server.rest_address, str(request)


def _run(python, *arguments, **options):
    done = subprocess.run([python, *arguments], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_calls_import_neither_tensorflow_nor_beam(served):
    rows = _run(sys.executable, "-c", USE, *served, cwd=ROOT).splitlines()
    assert [json.loads(row)["item_id"] for row in rows] == ["a", "zzz", "b"]


@pytest.mark.slow
def test_a_fresh_install_is_small_starts_fast_and_works(served, tmp_path):
    """Downloads the wheels of the extra `client`."""
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    options = {"cwd": tmp_path, "env": environment}
    source = tmp_path / "source"  # a build leaves files behind
    built = shutil.ignore_patterns(".*", "*.egg-info", "*_out", "build", "dist", "docs", "notebooks", "site", "tests")
    shutil.copytree(ROOT, source, ignore=built)
    _run(sys.executable, *pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, source, **options)
    (wheel,) = tmp_path.glob("usr_tf-*.whl")
    _run(sys.executable, "-m", "venv", tmp_path / "venv", **options)
    python = tmp_path / "venv" / "bin" / "python"
    _run(python, *pip, "install", "--constraint", ROOT / "constraints.txt", f"{wheel}[client]", **options)

    size, seconds = int(_run(python, "-c", SIZE, **options)), float(_run(python, "-c", IMPORT, **options))
    print(f"{size / 1e6:.0f} MB, {seconds:.2f} s")
    assert size < MAX_BYTES
    assert seconds < MAX_IMPORT_SECONDS  # of the processor: others run beside it
    assert len(_run(python, "-c", USE, *served, **options).splitlines()) == 3
