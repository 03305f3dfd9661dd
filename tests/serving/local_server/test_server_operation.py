"""Server operation: health, reflection, limits, draining, metrics, access log, configuration file."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tensorflow_serving.apis import model_pb2

from serving.local_server import serve_in_background
from tests.serving.local_server.test_server import SEARCH_CTR, TIMEOUT, Caller, eventually, predict_request, refusal

Health = health_pb2.HealthCheckResponse
Code = grpc.StatusCode


@contextlib.contextmanager
def serving(export, **options):
    with (
        serve_in_background(export.base, poll_seconds=0.05, **options) as server,
        Caller(server.address) as caller,
    ):
        yield server, caller


class Held:
    """Keeps the runs of a server's version from ending until they are let go."""

    def __init__(self, server, monkeypatch):
        self.entered, self.leave, self.runs = threading.Semaphore(0), threading.Semaphore(0), 0
        servable = server.models.find(model_pb2.ModelSpec(name="usr"))
        predict = servable.predict

        def held(request):
            self.runs += 1
            self.entered.release()
            assert self.leave.acquire(timeout=TIMEOUT)
            return predict(request)

        monkeypatch.setattr(servable, "predict", held)

    def wait(self):
        assert self.entered.acquire(timeout=TIMEOUT)


def check(channel, service=""):
    return (
        health_pb2_grpc.HealthStub(channel)
        .Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT)
        .status
    )


def metric(server, line):
    found = [row.split()[-1] for row in server.metrics_text().decode().splitlines() if row.startswith(line + " ")]
    return float(found[0]) if found else None


# Health and reflection


def test_health_is_told_overall_and_for_each_service(export):
    export(1)
    with serving(export) as (_, caller):
        for service in ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService", "ModelService"):
            assert check(caller.channel, service) == Health.SERVING
        assert refusal(lambda: check(caller.channel, "other"))[0] == Code.NOT_FOUND


def test_a_server_whose_versions_have_gone_is_not_serving(export):
    export(1)
    with serving(export) as (_, caller):
        shutil.rmtree(export.base / "1")
        eventually(lambda: check(caller.channel) == Health.NOT_SERVING)
        export(2)
        eventually(lambda: check(caller.channel) == Health.SERVING)


def test_reflection_describes_the_methods(export, search_inputs):
    export(1)
    with serving(export) as (_, caller):
        database = ProtoReflectionDescriptorDatabase(caller.channel)
        assert set(database.get_services()) == {
            "tensorflow.serving.PredictionService",
            "tensorflow.serving.ModelService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        service = DescriptorPool(database).FindServiceByName("tensorflow.serving.PredictionService")
        assert service.methods_by_name["Predict"].input_type.full_name == "tensorflow.serving.PredictRequest"


# Bounds


def test_beyond_the_workers_and_the_queue_a_request_is_refused_at_once(export, search_inputs, monkeypatch):
    export(1)
    with serving(export, workers=1, max_queue=1) as (server, caller):
        held = Held(server, monkeypatch)
        request = predict_request(search_inputs)
        accepted = [caller.stub.Predict.future(request, timeout=TIMEOUT) for _ in range(2)]
        held.wait()
        eventually(lambda: metric(server, "usr_serving_requests_queued") == 1)
        assert metric(server, "usr_serving_requests_running") == 1
        assert refusal(lambda: caller.predict(search_inputs)) == (
            Code.RESOURCE_EXHAUSTED,
            "1 requests are running and 1 are waiting",
        )
        assert check(caller.channel) == Health.SERVING  # it has its place aside
        assert caller.status()

        held.leave.release(2)
        for future in accepted:
            np.testing.assert_allclose(list(future.result().outputs["ctr"].float_val), SEARCH_CTR, rtol=1e-6)
        eventually(lambda: metric(server, "usr_serving_requests_running") == 0)


def test_a_client_that_hangs_up_frees_its_place_and_is_not_run(export, search_inputs, monkeypatch):
    export(1)
    with serving(export, workers=1, max_queue=1) as (server, caller):
        held = Held(server, monkeypatch)
        first = caller.stub.Predict.future(predict_request(search_inputs), timeout=TIMEOUT)
        held.wait()
        with Caller(server.address) as other:
            pending = other.stub.Predict.future(predict_request(search_inputs), timeout=TIMEOUT)
            eventually(lambda: metric(server, "usr_serving_requests_queued") == 1)
        # Its channel is closed: the connection breaks off.
        assert pending.code() == Code.CANCELLED
        eventually(lambda: metric(server, "usr_serving_requests_queued") == 0)
        eventually(lambda: metric(server, ':tensorflow:serving:request_count{model_name="",status="CANCELLED"}') == 1)
        held.leave.release(2)
        first.result()
        caller.predict(search_inputs)
        assert held.runs == 2


def test_a_request_whose_deadline_passes_in_the_queue_is_not_run(export, search_inputs, monkeypatch):
    export(1)
    with serving(export, workers=1, max_queue=1) as (server, caller):
        held = Held(server, monkeypatch)
        first = caller.stub.Predict.future(predict_request(search_inputs), timeout=TIMEOUT)
        held.wait()
        request = predict_request(search_inputs)
        assert refusal(lambda: caller.stub.Predict(request, timeout=0.05))[0] == Code.DEADLINE_EXCEEDED
        eventually(lambda: metric(server, "usr_serving_requests_queued") == 0)
        held.leave.release()
        first.result()
        assert held.runs == 1


def test_a_request_that_is_too_large_is_refused_by_grpc(export, search_inputs):
    export(1)
    with serving(export, max_request_bytes=10_000) as (_, caller):
        assert caller.predict(search_inputs)
        search_inputs["query"] = np.array([b"x" * 10_000], object)
        code, message = refusal(lambda: caller.predict(search_inputs))
        assert code == Code.RESOURCE_EXHAUSTED
        assert "larger than max" in message


def test_a_small_request_for_a_large_tensor_is_refused(export, search_inputs):
    export(1)
    with serving(export, max_request_bytes=10_000) as (_, caller):
        request = predict_request(search_inputs)
        for size, code in ((100, Code.INVALID_ARGUMENT), (2**33, Code.RESOURCE_EXHAUSTED)):
            request.inputs["price"].CopyFrom(
                tf.make_tensor_proto(np.zeros(1, np.float32)),
            )
            request.inputs["price"].tensor_shape.dim[0].size = size
            assert refusal(lambda: caller.stub.Predict(request, timeout=TIMEOUT))[0] == code


def test_bytes_that_are_no_message_are_refused(export):
    export(1)
    with serving(export) as (server, caller):
        for name in ("PredictionService/Predict", "PredictionService/GetModelMetadata", "ModelService/GetModelStatus"):
            call = caller.channel.unary_unary(f"/tensorflow.serving.{name}")
            for message in (b"\xff\xff\xff", b"\x0a\x03\x0a\x01\xff"):  # no proto; a name that is not UTF-8
                assert refusal(lambda call=call, message=message: call(message, timeout=TIMEOUT))[0] == Code.INTERNAL
        assert refusal(lambda: caller.channel.unary_unary("/tensorflow.serving.X/Y")(b"", timeout=TIMEOUT))[0] == (
            Code.UNIMPLEMENTED
        )
        assert server.version == 1


def test_a_fault_of_the_server_is_internal_and_does_not_end_it(export, search_inputs, monkeypatch, caplog):
    export(1)
    with serving(export) as (server, caller):
        servable = server.models.find(model_pb2.ModelSpec(name="usr"))
        with monkeypatch.context() as patch:
            patch.setattr(servable, "predict", lambda _: {}["nothing"])
            assert refusal(lambda: caller.predict(search_inputs)) == (Code.INTERNAL, "KeyError in the server")
        assert "Predict failed" in caplog.text
        assert caller.predict(search_inputs)


# Metrics and the access log


def test_requests_are_counted_under_tf_servings_names(export, search_inputs):
    export(1)
    with serving(export) as (server, caller):
        for _ in range(3):
            caller.predict(search_inputs)
        refusal(lambda: caller.predict(search_inputs, signature="browse"))
        refusal(lambda: caller.predict(search_inputs, name="other"))
        caller.status()  # is no Predict

        count = ":tensorflow:serving:request_count"
        assert metric(server, count + '{model_name="usr",status="OK"}') == 3
        assert metric(server, count + '{model_name="usr",status="FAILED_PRECONDITION"}') == 1
        assert metric(server, count + '{model_name="",status="NOT_FOUND"}') == 1  # names of strangers are not kept
        labels = '{API="Predict",entrypoint="GRPC",model_name="usr"}'
        assert metric(server, f":tensorflow:serving:request_latency_count{labels}") == 3
        assert metric(server, f":tensorflow:serving:request_latency_sum{labels}") > 0
        assert metric(server, 'usr_serving_live_version{model_name="usr",version="1"}') == 1
        assert metric(server, "process_resident_memory_bytes") > 0


def test_gRPC_and_REST_share_the_bound_the_metrics_and_the_log(export, search_inputs, monkeypatch, tmp_path):
    export(1)
    path = tmp_path / "access.log"
    with serving(export, workers=1, max_queue=0, rest_port=0, access_log=str(path)) as (server, caller):
        held = Held(server, monkeypatch)
        accepted = caller.stub.Predict.future(predict_request(search_inputs), timeout=TIMEOUT)
        held.wait()
        url = f"http://{server.rest_address}/v1/models/usr"
        refused = httpx.post(f"{url}:predict", content=b"no JSON, which no one reads", trust_env=False)
        assert refused.status_code == 429
        assert refused.json() == {"error": "1 requests are running and 0 are waiting"}
        held.leave.release()
        accepted.result()
        assert httpx.post(f"{url}:predict", content=b"no JSON", trust_env=False).status_code == 400
        assert httpx.get(f"{url}/metadata", trust_env=False).status_code == 200
        count = ":tensorflow:serving:request_count"
        for status in ("OK", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"):
            assert metric(server, count + f'{{model_name="usr",status="{status}"}}') == 1

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [[line[key] for key in ("entrypoint", "method", "model", "status")] for line in lines] == [
        ["REST", "Predict", "usr", "RESOURCE_EXHAUSTED"],
        ["GRPC", "Predict", "usr", "OK"],
        ["REST", "Predict", "usr", "INVALID_ARGUMENT"],
        ["REST", "GetModelMetadata", "usr", "OK"],
    ]


def test_every_request_leaves_a_line(export, search_inputs, tmp_path):
    export(4)
    path = tmp_path / "access.log"
    with serving(export, access_log=str(path)) as (_, caller):
        caller.predict(search_inputs)
        refusal(lambda: caller.predict(search_inputs, signature="browse"))
        refusal(lambda: caller.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")(b"\xff"))
        caller.status()

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = ("method", "model", "version", "signature", "candidates", "status")
    assert [[line[key] for key in kept] for line in lines] == [
        ["Predict", "usr", 4, "search", 3, "OK"],
        ["Predict", "usr", 4, "browse", None, "FAILED_PRECONDITION"],
        ["Predict", None, None, None, None, "INTERNAL"],
        ["GetModelStatus", "usr", None, None, None, "OK"],
    ]
    assert all(line["peer"].startswith("ipv4:127.0.0.1:") for line in lines)
    assert min(lines[0]["run_ms"], lines[3]["run_ms"]) > 0  # 0 is of one that nobody took up


# The configuration file


def write_config(path, base, policy, **labels):
    marks = " ".join(f'version_labels {{ key: "{label}" value: {version} }}' for label, version in labels.items())
    path.with_suffix(".new").write_text(
        f'model_config_list {{ config {{ name: "usr" base_path: "{base}" model_platform: "tensorflow" '
        f"model_version_policy {{ {policy} }} {marks} }} }}"
    )
    path.with_suffix(".new").rename(path)


def resolves(server, label):
    try:
        return server.models.find(model_pb2.ModelSpec(name="usr", version_label=label))
    except tf.errors.InvalidArgumentError:
        return None


def test_a_canary_runs_beside_the_stable_version_by_its_label(export, search_inputs, tmp_path):
    export(1, bias=0.5)
    export(2, bias=0.25)
    config = tmp_path / "models.config"
    write_config(config, export.base, "specific { versions: 1 }", stable=1)
    with (
        serve_in_background(model_config_file=config, poll_seconds=0.05) as server,
        Caller(server.address) as caller,
    ):

        def ask(label):
            request = predict_request(search_inputs)
            request.model_spec.version_label = label
            response = caller.stub.Predict(request, timeout=TIMEOUT)
            ctr, ctcvr = (response.outputs[name].float_val[0] for name in ("ctr", "ctcvr"))
            return response.model_spec.version.value, ctcvr / ctr

        assert ask("stable") == (1, pytest.approx(0.5))
        assert refusal(lambda: ask("canary")) == (
            Code.INVALID_ARGUMENT,
            "Unrecognized servable version label: canary",
        )
        write_config(config, export.base, "specific { versions: 1 versions: 2 }", stable=1, canary=2)
        eventually(lambda: resolves(server, "canary"))
        assert ask("stable") == (1, pytest.approx(0.5))
        assert ask("canary") == (2, pytest.approx(0.25))

        write_config(config, export.base, "specific { versions: 2 }", stable=2)
        eventually(lambda: ask("stable")[0] == 2)  # not one request fails on the way
        eventually(lambda: server.models.live() == {"usr": [2]})


# Reloading and draining


def test_reloading_under_load_fails_no_request(export, search_inputs):
    export(1)
    with serving(export) as (server, caller):
        request = predict_request(search_inputs, output_filter=["ctr"])
        stop, failed, seen = threading.Event(), [], set()

        def load():
            while not stop.is_set():
                try:
                    response = caller.stub.Predict(request, timeout=TIMEOUT)
                    np.testing.assert_allclose(list(response.outputs["ctr"].float_val), SEARCH_CTR, rtol=1e-6)
                    seen.add(response.model_spec.version.value)
                except Exception as error:
                    failed.append(error)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for version in (2, 3):
                export(version)
                eventually(lambda version=version: version in seen)
            shutil.rmtree(export.base / "3")
            eventually(lambda: server.version == 2)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not failed
        assert seen == {1, 2, 3}


def test_draining_turns_health_off_and_finishes_what_was_accepted(export, search_inputs, monkeypatch):
    export(1)
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(contextlib.ExitStack())
        server = running.enter_context(serve_in_background(export.base, workers=1))
        caller = stack.enter_context(Caller(server.address))
        held = Held(server, monkeypatch)
        watch = health_pb2_grpc.HealthStub(caller.channel).Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
        assert next(watch).status == Health.SERVING
        accepted = [caller.stub.Predict.future(predict_request(search_inputs), timeout=TIMEOUT) for _ in range(3)]
        held.wait()
        eventually(lambda: metric(server, "usr_serving_requests_queued") == 2)

        closing = threading.Thread(target=running.close)  # as SIGTERM does
        closing.start()
        assert next(watch).status == Health.NOT_SERVING
        eventually(lambda: not listens(server.port))
        held.leave.release(3)
        for future in accepted:
            assert future.result().model_spec.version.value == 1
        closing.join(TIMEOUT)
        assert not closing.is_alive()


def test_a_version_that_is_being_loaded_while_the_server_stops_goes_too(export, monkeypatch):
    export(1)
    with contextlib.ExitStack() as running:
        server = running.enter_context(serve_in_background(export.base, poll_seconds=0.01))
        loading, go_on, refresh = threading.Event(), threading.Event(), server.models.refresh
        monkeypatch.setattr(server.models, "refresh", lambda: (loading.set(), go_on.wait(TIMEOUT), refresh()))
        assert loading.wait(TIMEOUT)
        export(2)
        closing = threading.Thread(target=running.close)
        closing.start()
        eventually(lambda: not listens(server.port))
        go_on.set()
        closing.join(TIMEOUT)
        assert not closing.is_alive()
        assert server.models.live() == {"usr": []}


def test_a_request_that_outlasts_the_grace_is_broken_off(export, search_inputs, monkeypatch):
    export(1)
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(contextlib.ExitStack())
        server = running.enter_context(serve_in_background(export.base, drain_seconds=0))
        caller = stack.enter_context(Caller(server.address))
        held = Held(server, monkeypatch)
        future = caller.stub.Predict.future(predict_request(search_inputs), timeout=TIMEOUT)
        held.wait()
        running.close()
        assert future.exception().code() in (Code.UNAVAILABLE, Code.CANCELLED)
        held.leave.release()


def test_the_program_serves_by_the_configuration_file_until_a_signal(export, search_inputs, tmp_path):
    export(1)
    export(2)
    config = tmp_path / "models.config"
    write_config(config, export.base, "all {}", stable=1)
    program = "import gc, sys; from usr_tf.cli import main; code = main(); print(gc.get_freeze_count()); sys.exit(code)"
    command = [sys.executable, "-c", program, "serve", f"--model_config_file={config}", "--port=0"]
    command += [f"--rest_port={free_port()}", "--access_log=-"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        try:
            told = next(line for line in process.stderr if line.startswith("Serving usr versions 1, 2 at 127.0.0.1:"))
            assert "; REST at 127.0.0.1:" in told
            with Caller(told.split(" at ")[1].split(";")[0]) as caller:
                assert caller.predict(search_inputs).model_spec.version.value == 2
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=TIMEOUT) == 0
            assert json.loads(process.stdout.readline())["candidates"] == 3
            assert int(process.stdout.readline()) > 100_000  # TensorFlow's own objects, which are no garbage
        finally:
            process.kill()


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT).close()
    except ConnectionRefusedError:
        return False
    return True


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]
