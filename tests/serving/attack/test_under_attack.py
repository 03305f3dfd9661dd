"""Malformed requests and killed servers: errors are reported, and service continues."""

import shutil
import threading
import time

import numpy as np
import pytest

from serving.client import Ranker, RestRanker
from serving.client.errors import ServingError, Unavailable
from tests.serving.attack.fuzz import Report, fuzz_grpc, fuzz_rest, garble
from tests.serving.attack.malformed import Good
from tests.serving.attack.process import ServerProcess
from tests.serving.local_server.test_server import SEARCH_CTR, eventually, predict_request

MAX_REQUEST_BYTES = 64 * 2**20
MAX_GROWN_BYTES = 100 * 2**20
SECONDS = 300
TOY_REST = {
    "signature_name": "search",
    "inputs": {
        "user_id": ["u"],
        "query": ["tea"],
        "item_id": ["a", "b", "zzz"],
        "price": [0, -1, -4],
        "attributes": [["x", ""], ["", ""], ["x", "y"]],
        "history_item_id": [["a", "c"]],
    },
}


@pytest.fixture(scope="module")
def server(toy_models, tmp_path_factory):
    base = tmp_path_factory.mktemp("served")
    shutil.copytree(toy_models[0.5], base / "1")
    with ServerProcess(base) as server:
        yield server


@pytest.fixture
def toy(search_inputs):
    return Good(predict_request(search_inputs), ("item_id", "price", "attributes"), MAX_REQUEST_BYTES)


def check(report: Report, server: ServerProcess) -> None:
    print(f"\n{report}")
    assert not report.failures, "\n".join(report.failures)
    assert report.grown_bytes < MAX_GROWN_BYTES
    assert "Predict failed" not in server.log()  # what a fault of the server leaves there


def test_malformed_requests_are_refused_and_good_ones_score_as_before(server, toy):
    check(fuzz_grpc(server, [toy], 400), server)


def test_malformed_json_is_refused_and_good_requests_score_as_before(server):
    check(fuzz_rest(server, TOY_REST, 100), server)


def test_connections_that_speak_no_protocol_hinder_nobody(server, toy):
    garble(server.port, 20)
    garble(server.rest_port, 20)
    check(fuzz_grpc(server, [toy], 8), server)


@pytest.mark.slow
def test_twenty_thousand_malformed_requests(server, toy):
    check(fuzz_grpc(server, [toy], 18_000, seed=1), server)
    check(fuzz_rest(server, TOY_REST, 2_000, seed=1), server)


def test_clients_of_a_server_that_is_killed_are_told_and_come_back_to_the_next_one(server, search_inputs):
    restarted, answered, told, back, wrong = threading.Event(), [], [], [], []
    end = time.monotonic() + SECONDS

    def use(ranker: Ranker) -> None:
        while not (ranker in back or time.monotonic() > end):
            try:
                ctr = ranker.predict("search", search_inputs)["ctr"]
                np.testing.assert_allclose(ctr, SEARCH_CTR, rtol=1e-6)
                (back if ranker in told else answered).append(ranker)
            except Unavailable:
                told.append(ranker)
                restarted.wait(SECONDS)
                time.sleep(0.05)  # it looks for the server again within 5 s
            except (ServingError, AssertionError) as error:
                wrong.append(error)
                return

    with (
        Ranker(server.address) as first,
        Ranker(server.address, retries=0) as second,
        RestRanker(server.rest_address, retries=0) as third,
    ):
        rankers = [first, second, third]
        threads = [threading.Thread(target=use, args=[ranker]) for ranker in rankers]
        for thread in threads:
            thread.start()
        eventually(lambda: set(rankers) <= set(answered) or wrong, SECONDS)
        server.kill()
        eventually(lambda: set(rankers) <= set(told) or wrong, SECONDS)
        server.start()
        restarted.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert set(back) == set(rankers)
