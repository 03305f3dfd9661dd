"""Client retries and timeouts against servers that fail on demand."""

import collections
import concurrent.futures
import contextlib
import http.server
import json
import pickle
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.predict_pb2 import PredictResponse

from serving.client import Ranker, RestRanker
from serving.client.errors import (
    DeadlineExceeded,
    NotFound,
    Overloaded,
    Refused,
    ServingError,
    Unavailable,
    serving_error,
)
from serving.client.transport import Retry
from serving.formats.rest_json import HTTP_STATUS
from serving.local_server.rest_json import write_answer, write_error, write_metadata
from tests.serving.rankers import InLoop
from usr_tf.cli import main
from usr_tf.errors import InputError

Code = grpc.StatusCode


class Script:
    """What the server is to do: `failures` are the codes of the first Predicts; then it answers."""

    def __init__(self):
        self.failures = collections.deque()
        self.calls = []

    def next(self):
        """The code of this Predict, or None for an answer."""
        self.calls.append(time.monotonic())
        return self.failures.popleft() if self.failures else None


def metadata():
    search = SignatureDef(method_name="tensorflow/serving/predict")
    search.inputs["x"].dtype = types_pb2.DT_FLOAT
    search.inputs["x"].tensor_shape.dim.add(size=-1)
    search.outputs["ctr"].dtype = types_pb2.DT_FLOAT
    response = GetModelMetadataResponse()
    response.metadata["signature_def"].Pack(SignatureDefMap(signature_def={"search": search}))
    return response


def answer():
    response = PredictResponse()
    response.outputs["ctr"].CopyFrom(tf.make_tensor_proto([0.5], tf.float32))
    return response


@contextlib.contextmanager
def grpc_server(script, port=0):
    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def GetModelMetadata(self, request, context):
            return metadata()

        def Predict(self, request, context):
            code = script.next()
            if code:
                context.abort(code, f"told to be {code.name}")
            return answer()

    options = [("grpc.max_receive_message_length", -1)]
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@contextlib.contextmanager
def rest_server(script, port=0):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply(200, write_metadata(metadata()))

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            code = script.next()
            if code:
                self.reply(HTTP_STATUS[code], write_error(f"told to be {code.name}"))
            else:
                self.reply(200, write_answer(answer(), rows=False))

        def reply(self, status, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


KINDS = {"grpc": (Ranker, grpc_server), "asyncio": (InLoop, grpc_server), "rest": (RestRanker, rest_server)}


@pytest.fixture(params=KINDS)
def scripted(request):
    """`with scripted(script, ...) as ranker`."""
    kind, serve = KINDS[request.param]

    @contextlib.contextmanager
    def connect(script, **options):
        with serve(script) as address, kind(address, **options) as ranker:
            yield ranker

    return connect


@pytest.mark.parametrize("failures", [1, 3])
def test_a_server_that_is_away_is_asked_again_after_pauses_that_grow(scripted, failures):
    script = Script()
    script.failures.extend([Code.UNAVAILABLE] * failures)
    with scripted(script) as ranker:
        assert ranker.predict("search", {"x": [1.0]})["ctr"].tolist() == [0.5]
    assert len(script.calls) == 1 + failures
    assert np.all(np.diff(script.calls) > np.array([0.04, 0.08, 0.16])[:failures] - 0.005)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_it_is_given_up_after_so_many_times(scripted, retries):
    script = Script()
    script.failures.extend([Code.UNAVAILABLE] * 9)
    with scripted(script, retries=retries) as ranker, pytest.raises(Unavailable) as caught:
        ranker.predict("search", {"x": [1.0]})
    assert len(script.calls) == 1 + retries
    assert caught.value.code == Code.UNAVAILABLE
    assert caught.value.address == ranker.address
    assert ": found UNAVAILABLE (told to be UNAVAILABLE), expected " in str(caught.value)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.RESOURCE_EXHAUSTED, Overloaded),  # too large for the server, or too much for it
        (Code.INVALID_ARGUMENT, Refused),
        (Code.NOT_FOUND, NotFound),
        (Code.DEADLINE_EXCEEDED, DeadlineExceeded),
        (Code.UNIMPLEMENTED, Refused),
        (Code.PERMISSION_DENIED, Refused),
        (Code.INTERNAL, ServingError),
    ],
)
def test_what_would_fail_again_or_make_it_worse_is_asked_once(scripted, code, kind):
    script = Script()
    script.failures.append(code)
    with scripted(script) as ranker, pytest.raises(ServingError, match=f"told to be {code.name}") as caught:
        ranker.predict("search", {"x": [1.0]})
    assert len(script.calls) == 1
    assert type(caught.value) is kind
    assert caught.value.code == code


def test_nothing_is_asked_again_past_the_deadline(scripted):
    script = Script()
    script.failures.extend([Code.UNAVAILABLE] * 9)
    with scripted(script, retries=4) as ranker:
        ranker.metadata()
        with pytest.raises((Unavailable, DeadlineExceeded)):
            ranker.predict("search", {"x": [1.0]}, timeout=0.1)
    assert len(script.calls) <= 2  # the pauses are of 0.05, 0.1, … s


def test_a_large_request_is_asked_again_too(scripted):
    script = Script()
    script.failures.extend([Code.UNAVAILABLE])
    with scripted(script) as ranker:
        ranker.predict("search", {"x": np.zeros(200_000, np.float32)})  # 800 kB; gRPC by itself keeps 256 KiB
    assert len(script.calls) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_comes_back_is_found_again(kind):
    connect, serve = KINDS[kind]
    with contextlib.ExitStack() as stack:
        with serve(Script()) as address:
            ranker = stack.enter_context(connect(address))
            ranker.predict("search", {"x": [1.0]})
        with pytest.raises(Unavailable):
            ranker.predict("search", {"x": [1.0]})
        stack.enter_context(serve(Script(), int(address.rpartition(":")[2])))
        deadline = time.monotonic() + 20
        while True:
            try:
                assert ranker.predict("search", {"x": [1.0]})["ctr"].tolist() == [0.5]
                break
            except Unavailable:
                assert time.monotonic() < deadline


def test_pauses_of_many_clients_differ():
    pauses = [list(Retry().pauses()) for _ in range(50)]
    for i, expected in enumerate((0.05, 0.1, 0.2)):
        column = [row[i] for row in pauses]
        assert 0.8 * expected <= min(column) < max(column) <= 1.2 * expected
        assert len(set(column)) > 25


def test_grpc_is_told_the_same_policy():
    (method,) = json.loads(Retry(2).service_config())["methodConfig"]
    assert method["retryPolicy"] == {
        "maxAttempts": 3,
        "initialBackoff": "0.05s",
        "maxBackoff": "1.0s",
        "backoffMultiplier": 2.0,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }


def test_errors_tell_everything_in_one_line_and_survive_pickling():
    error = serving_error(Code.NOT_FOUND, "no\n such model", "host:1", "Predict search of usr")
    assert str(error) == (
        "host:1: Predict search of usr: found NOT_FOUND (no such model), expected a model and version that it serves"
    )
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is NotFound
    assert (str(copy), copy.code, copy.message) == (str(error), Code.NOT_FOUND, "no such model")


def test_the_command_tells_what_lies_with_the_server_in_one_line(tmp_path, capsys):
    script = Script()
    script.failures.append(Code.RESOURCE_EXHAUSTED)
    (tmp_path / "request.json").write_text('{"inputs": {"x": [1.0]}}')
    with grpc_server(script) as address:
        asked = [f"--address={address}", "--scenario=search", f"--request={tmp_path}/request.json"]
        assert main(["score", *asked]) == 1  # 2 would say that the input is wrong
    (line,) = capsys.readouterr().err.splitlines()
    assert "found RESOURCE_EXHAUSTED (told to be RESOURCE_EXHAUSTED), expected room for the request" in line


def test_what_lies_with_the_server_is_no_input_error():
    for code in Code:
        users = code.name in (
            "UNAVAILABLE", "DEADLINE_EXCEEDED", "NOT_FOUND", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE",
            "UNIMPLEMENTED", "PERMISSION_DENIED", "UNAUTHENTICATED",
        )  # fmt: skip
        assert isinstance(serving_error(code, "", "host:1", "a call"), InputError) == users
