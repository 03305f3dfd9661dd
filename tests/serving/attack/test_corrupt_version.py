"""Damaged version under load: refused while the old one serves, loaded after repair."""

import contextlib
import threading
from pathlib import Path

import numpy as np
from tensorflow_serving.apis import get_model_status_pb2

from serving.local_server import serve_in_background
from serving.publishing.warmup import write_warmup_records
from tests.serving.local_server.test_server import SEARCH_CTR, TIMEOUT, Caller, eventually, predict_request

State = get_model_status_pb2.ModelVersionStatus


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


DAMAGES = {
    "graph cut short": lambda version: cut(version / "saved_model.pb"),
    "graph empty": lambda version: (version / "saved_model.pb").write_bytes(b""),
    "no variables": lambda version: (version / "variables" / "variables.index").unlink(),
    "variables cut short": lambda version: cut(version / "variables" / "variables.data-00000-of-00001"),
    "variables damaged": lambda version: flip(version / "variables" / "variables.data-00000-of-00001"),
    "no vocabulary": lambda version: next((version / "assets").iterdir()).unlink(),
    "vocabulary damaged": lambda version: next((version / "assets").iterdir()).write_text("a\nb\na\n"),
    "warm-up that fails": lambda version: write_warmup_records(version, [("browse", {"x": np.zeros(1)})]),
    "warm-up cut short": lambda version: cut(write_warmup_records(version, [("browse", {"x": np.zeros(1)})])),
}


@contextlib.contextmanager
def load(caller: Caller, request):
    """Asks all the time from two threads. Yields the versions that answered; fails if one request did."""
    stop, failed, seen = threading.Event(), [], set()

    def ask() -> None:
        while not stop.is_set():
            try:
                response = caller.stub.Predict(request, timeout=TIMEOUT)
                version = response.model_spec.version.value
                ctr, ctcvr = (np.array(response.outputs[name].float_val) for name in ("ctr", "ctcvr"))
                np.testing.assert_allclose(ctr, SEARCH_CTR, rtol=1e-6)
                np.testing.assert_allclose(ctcvr, bias(version) * ctr, rtol=1e-6)
                seen.add(version)
            except Exception as error:
                failed.append(error)
            stop.wait(0.002)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed


def bias(version: int) -> float:
    return 0.25 if version % 2 else 0.5


def test_a_damaged_version_is_refused_under_load_and_taken_once_repaired(export, search_inputs, tmp_path):
    export(1, bias(1))
    with (
        serve_in_background(export.base, poll_seconds=0.05) as server,
        Caller(server.address) as caller,
        load(caller, predict_request(search_inputs)) as seen,
    ):
        for version, damage in enumerate(DAMAGES.values(), start=2):
            path = export(version, bias(version)).rename(tmp_path / "damaged")
            whole = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
            damage(path)
            path.rename(export.base / str(version))
            eventually(lambda version=version: state(caller, version) == State.END)
            assert caller.status()[version].status.error_code
            assert server.version == version - 1
            assert version not in seen

            (export.base / str(version)).rename(path)
            for file in set(path.rglob("*")) - set(whole):
                file.unlink() if file.is_file() else None
            for file, content in whole.items():
                file.write_bytes(content)
            path.rename(export.base / str(version))
            eventually(lambda version=version: version in seen)


def state(caller: Caller, version: int):
    statuses = caller.status()
    return statuses[version].state if version in statuses else None
