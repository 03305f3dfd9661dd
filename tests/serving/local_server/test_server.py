"""The local server answers as TF Serving does, over real gRPC on loopback."""

import asyncio
import shutil
import signal
import socket
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.local_server.model_server import ModelServer, _serve_until_signal, serve_in_background
from serving.publishing.warmup import FILE, write_warmup_records
from usr_tf.errors import InputError

SEARCH_CTR = 1 / (1 + np.exp(-np.array([4.0, 3.0, 4.0])))  # conftest.search_inputs
RECOMMENDATION_CTR = 1 / (1 + np.exp(-np.array([3.0, 2.0, 3.0])))
State = get_model_status_pb2.ModelVersionStatus
TIMEOUT = 20


class Caller:
    """Bare stubs, so that the tests see what any client sees."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.model_stub = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def predict(self, inputs, signature="search", name="usr", version=None, output_filter=()):
        request = predict_request(inputs, signature, name, version, output_filter)
        return self.stub.Predict(request, timeout=TIMEOUT)

    def status(self, name="usr", version=None):
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = name
        if version is not None:
            request.model_spec.version.value = version
        response = self.model_stub.GetModelStatus(request, timeout=TIMEOUT)
        return {status.version: status for status in response.model_version_status}


def predict_request(inputs, signature="search", name="usr", version=None, output_filter=()):
    request = predict_pb2.PredictRequest(output_filter=output_filter)
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    for alias, value in inputs.items():
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
    return request


def eventually(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def caller(toy_models, tmp_path_factory):
    base = tmp_path_factory.mktemp("served")
    shutil.copytree(toy_models[0.5], base / "7")
    with serve_in_background(base) as server, Caller(server.address) as caller:
        yield caller


def refusal(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


# Predict


@pytest.mark.parametrize(("signature", "ctr"), [("search", SEARCH_CTR), ("recommendation", RECOMMENDATION_CTR)])
def test_predict_runs_the_signature(caller, search_inputs, signature, ctr):
    response = caller.predict(search_inputs, signature)

    assert set(response.outputs) == {"ctr", "ctcvr"}
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["ctr"]), ctr, rtol=1e-6)
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["ctcvr"]), 0.5 * ctr, rtol=1e-6)
    assert response.model_spec.name == "usr"
    assert response.model_spec.version.value == 7
    assert response.model_spec.signature_name == signature


def test_predict_fills_the_typed_field_that_clients_read(caller, search_inputs):
    output = caller.predict(search_inputs).outputs["ctr"]

    np.testing.assert_allclose(list(output.float_val), SEARCH_CTR, rtol=1e-6)
    assert not output.tensor_content
    assert [dim.size for dim in output.tensor_shape.dim] == [3]


def test_predict_with_no_signature_name_runs_serving_default(caller):
    example = tf.train.Example()
    example.features.feature["item_id"].bytes_list.value.append(b"c")
    example.features.feature["price"].float_list.value.append(-3.0)
    response = caller.predict({"examples": np.array([example.SerializeToString()], object)}, signature="")

    assert list(response.outputs["ctr"].float_val) == [0.5]  # sigmoid(1 + 2 - 3)
    assert response.model_spec.signature_name == "serving_default"


def test_predict_takes_any_number_of_items_and_history(caller, search_inputs):
    none = {
        **search_inputs,
        "item_id": np.empty(0, object),
        "price": np.empty(0, np.float32),
        "attributes": np.empty((0, 1), object),
        "history_item_id": np.empty((1, 0), object),
    }
    assert caller.predict(none).outputs["ctr"].tensor_shape.dim[0].size == 0

    n = 400_000  # above 4 MiB, gRPC's own limit
    many = {
        **search_inputs,
        "item_id": np.full(n, b"a-long-unknown-item"),
        "price": np.zeros(n, np.float32),
        "attributes": np.full((n, 1), b""),
    }
    assert predict_request(many).ByteSize() > 4 * 2**20
    assert caller.predict(many, output_filter=["ctr"]).outputs["ctr"].tensor_shape.dim[0].size == n


def test_predict_returns_the_outputs_asked_for(caller, search_inputs):
    assert set(caller.predict(search_inputs, output_filter=["ctcvr"]).outputs) == {"ctcvr"}
    assert set(caller.predict(search_inputs, output_filter=["ctr", "ctcvr"]).outputs) == {"ctr", "ctcvr"}


def test_predict_takes_the_version_it_serves(caller, search_inputs):
    assert caller.predict(search_inputs, version=7).model_spec.version.value == 7


def test_concurrent_requests_get_their_own_answers(caller, search_inputs):
    def ask(i):
        shifted = {**search_inputs, "price": np.array([i, i, i], np.float32)}
        return list(caller.predict(shifted, output_filter=["ctr"]).outputs["ctr"].float_val)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(-20, 20)))
    for i, answer in zip(range(-20, 20), answers, strict=True):
        np.testing.assert_allclose(answer, 1 / (1 + np.exp(-(np.array([4.0, 4.0, 8.0]) + i))), rtol=1e-5)


# What it refuses: TF Serving's codes and messages.

NAMES = "attributes,history_item_id,item_id,price,query,user_id"
REFUSALS = {
    "unknown model": (
        {"name": "other"},
        grpc.StatusCode.NOT_FOUND,
        "Servable not found for request: Latest(other)",
    ),
    "unknown version": (
        {"version": 3},
        grpc.StatusCode.NOT_FOUND,
        "Servable not found for request: Specific(usr, 3)",
    ),
    "no model name": (
        {"name": ""},
        grpc.StatusCode.INVALID_ARGUMENT,
        "ModelSpec has no name specified.",
    ),
    "unknown signature": (
        {"signature": "browse"},
        grpc.StatusCode.FAILED_PRECONDITION,
        'Serving signature key "browse" not found.',
    ),
    "unknown output": (
        {"output_filter": ["cvr"]},
        grpc.StatusCode.INVALID_ARGUMENT,
        "output tensor alias not found in signature: cvr Outputs expected to be in the set {ctcvr,ctr}.",
    ),
    "output twice": (
        {"output_filter": ["ctr", "ctr"]},
        grpc.StatusCode.INVALID_ARGUMENT,
        "duplicate output tensor alias: ctr",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_predict_refuses(caller, search_inputs, case):
    arguments, code, message = REFUSALS[case]
    assert refusal(lambda: caller.predict(search_inputs, **arguments)) == (code, message)


def test_predict_refuses_a_missing_input(caller, search_inputs):
    del search_inputs["price"]
    sent = "attributes,history_item_id,item_id,query,user_id"
    assert refusal(lambda: caller.predict(search_inputs)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        f"input size does not match signature: 5!=6 len({{{sent}}}) != len({{{NAMES}}}). "
        "Sent extra: {}. Missing but required: {price}.",
    )


def test_predict_refuses_an_extra_input(caller, search_inputs):
    search_inputs["brand"] = search_inputs["item_id"]
    sent = "attributes,brand,history_item_id,item_id,price,query,user_id"
    assert refusal(lambda: caller.predict(search_inputs)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        f"input size does not match signature: 7!=6 len({{{sent}}}) != len({{{NAMES}}}). "
        "Sent extra: {brand}. Missing but required: {}.",
    )


def test_predict_refuses_a_misnamed_input(caller, search_inputs):
    search_inputs["cost"] = search_inputs.pop("price")
    sent = "attributes,cost,history_item_id,item_id,query,user_id"
    assert refusal(lambda: caller.predict(search_inputs)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Signature input alias: price(feed name: search_price:0) not found in request and no default value provided. "
        f"Inputs expected to be in the request {{{sent}}}, or default input alias set: ",
    )


@pytest.mark.parametrize(
    ("price", "sent"),
    [(np.zeros(3), "double"), (np.array([b"a", b"b", b"c"]), "string"), (np.zeros(3, np.int64), "int64")],
)
def test_predict_refuses_a_wrong_dtype(caller, search_inputs, price, sent):
    search_inputs["price"] = price
    # The session numbers its arguments by the names of their tensors: search_price:0 is the fourth.
    message = f"Expects arg[3] to be float but {sent} is provided"
    assert refusal(lambda: caller.predict(search_inputs)) == (grpc.StatusCode.INVALID_ARGUMENT, message)


def test_predict_refuses_shapes_that_do_not_go_together(caller, search_inputs):
    search_inputs["price"] = np.zeros(2, np.float32)
    code, message = refusal(lambda: caller.predict(search_inputs))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "Incompatible shapes: [3] vs. [2]" in message


@pytest.mark.parametrize("shape", [[], [3, 1], [1] * 60, [3] + [1] * 35])
def test_predict_refuses_shapes_that_the_signature_does_not_allow(caller, search_inputs, shape):
    request = predict_request(search_inputs)
    request.inputs["price"].CopyFrom(tf.make_tensor_proto(np.zeros(int(np.prod(shape)), np.float32)))
    del request.inputs["price"].tensor_shape.dim[:]
    for size in shape:
        request.inputs["price"].tensor_shape.dim.add(size=size)
    assert refusal(lambda: caller.stub.Predict(request, timeout=TIMEOUT)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        f"input price has shape {shape}, which is not compatible with the signature's [-1]",
    )


def test_predict_refuses_a_malformed_tensor(caller, search_inputs):
    for damage in ("negative size", "too few bytes", "no dtype", "unknown dtype"):
        request = predict_request(search_inputs)
        price = request.inputs["price"]
        if damage == "negative size":
            price.tensor_shape.dim[0].size = -1
        elif damage == "too few bytes":
            price.tensor_content = b"\0" * 11
        else:
            price.dtype = 0 if damage == "no dtype" else 999
        assert refusal(lambda request=request: caller.stub.Predict(request, timeout=TIMEOUT)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "tensor parsing error: price",
        )


def test_a_refusal_may_quote_bytes_that_are_no_text(caller):
    code, message = refusal(lambda: caller.predict({"examples": np.array([b"\xff"], object)}, signature=""))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("Could not parse example input, value: '\ufffd'")


def test_predict_refuses_a_request_for_no_model(caller):
    request = predict_pb2.PredictRequest()
    assert refusal(lambda: caller.stub.Predict(request, timeout=TIMEOUT)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Missing ModelSpec",
    )


def test_predict_refuses_a_version_label(caller, search_inputs):
    request = predict_request(search_inputs)
    request.model_spec.version_label = "canary"
    assert refusal(lambda: caller.stub.Predict(request, timeout=TIMEOUT)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Unrecognized servable version label: canary",
    )


def test_long_messages_are_cut_as_tf_serving_cuts_them(caller, search_inputs):
    code, message = refusal(lambda: caller.predict(search_inputs, signature="x" * 2000))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert message == f'Serving signature key "{"x" * 1001}...TRUNCATED'
    assert len(message) == 1024 + len("...TRUNCATED")
    # Bytes, not characters: of more than 8 KiB gRPC would refuse the refusal.
    code, message = refusal(lambda: caller.predict(search_inputs, signature="茶" * 2000))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert message == f'Serving signature key "{"茶" * 333}...TRUNCATED'


def test_other_methods_are_unimplemented(caller):
    request = classification_pb2.ClassificationRequest()
    code, _ = refusal(lambda: caller.stub.Classify(request, timeout=TIMEOUT))
    assert code == grpc.StatusCode.UNIMPLEMENTED


# GetModelMetadata and GetModelStatus


def metadata_request(*fields, name="usr"):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = name
    return request


def test_metadata_holds_the_signatures(caller):
    response = caller.stub.GetModelMetadata(metadata_request("signature_def"), timeout=TIMEOUT)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)

    assert response.model_spec.name == "usr"
    assert response.model_spec.version.value == 7
    search = signatures.signature_def["search"]
    assert sorted(search.inputs) == NAMES.split(",")
    assert search.inputs["history_item_id"].dtype == tf.string.as_datatype_enum
    assert [dim.size for dim in search.inputs["history_item_id"].tensor_shape.dim] == [1, -1]
    assert search.method_name == "tensorflow/serving/predict"


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (get_model_metadata_pb2.GetModelMetadataRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (
            metadata_request(),
            "INVALID_ARGUMENT",
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (
            metadata_request("signature_def", "graph"),
            "INVALID_ARGUMENT",
            "Metadata field graph is not supported",
        ),
        (
            metadata_request("signature_def", name="other"),
            "NOT_FOUND",
            "Servable not found for request: Latest(other)",
        ),
    ],
)
def test_metadata_refuses(caller, request_, code, message):
    assert refusal(lambda: caller.stub.GetModelMetadata(request_, timeout=TIMEOUT)) == (
        grpc.StatusCode[code],
        message,
    )


def test_status_tells_the_version_that_is_available(caller):
    for statuses in (caller.status(), caller.status(version=7)):
        assert list(statuses) == [7]
        assert statuses[7].state == State.AVAILABLE
        assert statuses[7].status.error_code == 0


def test_status_refuses(caller):
    assert refusal(lambda: caller.status(name="other")) == (
        grpc.StatusCode.NOT_FOUND,
        "Could not find any versions of model other",
    )
    assert refusal(lambda: caller.status(version=3)) == (
        grpc.StatusCode.NOT_FOUND,
        "Could not find version 3 of model usr",
    )
    request = get_model_status_pb2.GetModelStatusRequest()
    assert refusal(lambda: caller.model_stub.GetModelStatus(request, timeout=TIMEOUT)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Missing ModelSpec",
    )


# Versions


def test_a_new_version_takes_over_and_the_old_one_goes(export, search_inputs):
    export(1, bias=0.5)
    with serve_in_background(export.base, poll_seconds=0.05) as server, Caller(server.address) as caller:
        assert caller.predict(search_inputs).model_spec.version.value == 1
        servable = server.models.find(predict_request({}).model_spec)
        old, graph = weakref.ref(servable), weakref.ref(servable._session.graph)
        del servable
        export(2, bias=0.25)
        # Not one request fails while the version changes.
        eventually(lambda: caller.predict(search_inputs).model_spec.version.value == 2)

        ctcvr = tf.make_ndarray(caller.predict(search_inputs).outputs["ctcvr"])
        np.testing.assert_allclose(ctcvr, 0.25 * SEARCH_CTR, rtol=1e-6)
        code, message = refusal(lambda: caller.predict(search_inputs, version=1))
        assert (code, message) == (grpc.StatusCode.NOT_FOUND, "Servable not found for request: Specific(usr, 1)")
        eventually(lambda: old() is None and graph() is None)  # and with them the session and its memory
        assert {v: s.state for v, s in caller.status().items()} == {1: State.END, 2: State.AVAILABLE}


def test_deleting_the_newest_version_goes_back_to_the_one_before(export, search_inputs):
    export(9)
    export(10)  # above 9, though "10" < "9"
    with serve_in_background(export.base, poll_seconds=0.05) as server, Caller(server.address) as caller:
        assert caller.predict(search_inputs).model_spec.version.value == 10
        shutil.rmtree(export.base / "10")
        eventually(lambda: caller.predict(search_inputs).model_spec.version.value == 9)

        shutil.rmtree(export.base / "9")
        eventually(lambda: caller.status()[9].state == State.END)
        code, _ = refusal(lambda: caller.predict(search_inputs))
        assert code == grpc.StatusCode.NOT_FOUND


def test_a_broken_version_leaves_the_old_one_serving_until_it_is_whole(export, search_inputs):
    export(1)
    with serve_in_background(export.base, poll_seconds=0.05) as server, Caller(server.address) as caller:
        broken = export.base / "2"
        shutil.copytree(export.base / "1", broken, ignore=lambda *_: ["variables"])
        eventually(lambda: 2 in caller.status() and caller.status()[2].state == State.END)

        status = caller.status()
        assert status[2].status.error_code != 0
        assert "variables" in status[2].status.error_message
        assert status[1].state == State.AVAILABLE
        assert caller.predict(search_inputs).model_spec.version.value == 1

        shutil.copytree(export.base / "1" / "variables", broken / "variables")
        eventually(lambda: caller.predict(search_inputs).model_spec.version.value == 2)


def test_a_broken_newest_version_at_the_start_is_stepped_over(export, search_inputs):
    export(1)
    (export.base / "2").mkdir()
    (export.base / "2" / "saved_model.pb").write_bytes(b"not a SavedModel")
    with serve_in_background(export.base) as server, Caller(server.address) as caller:
        assert caller.predict(search_inputs).model_spec.version.value == 1
        assert caller.status()[2].state == State.END


# Warm-up


def test_warm_up_records_run_before_the_version_takes_traffic(export, search_inputs):
    export(1)
    with serve_in_background(export.base, poll_seconds=0.05) as server, Caller(server.address) as caller:
        # A record that the model refuses shows that records are run: the version must not go live, as in TF Serving.
        staged = export.base / "staging"
        shutil.copytree(export.base / "1", staged)
        write_warmup_records(staged, [("search", search_inputs), ("browse", search_inputs)])
        staged.rename(export.base / "2")
        eventually(lambda: 2 in caller.status() and caller.status()[2].state == State.END)
        assert caller.status()[2].status.error_code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        assert 'Serving signature key "browse" not found.' in caller.status()[2].status.error_message
        assert server.version == 1

        write_warmup_records(export.base / "2", [("search", search_inputs), ("recommendation", search_inputs)])
        eventually(lambda: server.version == 2)


def test_a_damaged_warm_up_file_is_a_broken_version(export, search_inputs):
    version = export(1)
    path = write_warmup_records(version, [("search", search_inputs)])
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="version 1 which does not load"), serve_in_background(export.base):
        pass
    (version / FILE).unlink()
    with serve_in_background(export.base) as server:
        assert server.version == 1


# Start and stop


def test_start_refuses_what_it_cannot_serve(tmp_path, export):
    with pytest.raises(InputError, match="no such folder"), serve_in_background(tmp_path / "absent"):
        pass
    with pytest.raises(InputError, match="no version to serve"), serve_in_background(export.base):
        pass
    with pytest.raises(InputError, match="a SavedModel itself"), serve_in_background(export(1)):
        pass


def test_start_refuses_a_taken_port(export):
    export(1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{port}"), serve_in_background(export.base, port=port):
            pass


@pytest.mark.parametrize(("argument", "value"), [("port", -1), ("port", 70_000), ("poll_seconds", 0)])
def test_constructor_refuses(argument, value):
    with pytest.raises(ValueError, match=rf"Received: {argument}={value}"):
        ModelServer("models", **{argument: value})


def test_as_an_async_context_manager(export, search_inputs):
    export(1)

    async def ask():
        request = predict_request(search_inputs, name="shop")
        server = ModelServer(export.base, name="shop", port=0)
        async with server, grpc.aio.insecure_channel(server.address) as channel:
            return await prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=TIMEOUT)

    np.testing.assert_allclose(list(asyncio.run(ask()).outputs["ctr"].float_val), SEARCH_CTR, rtol=1e-6)


def test_a_server_that_still_loads_its_models_dies_of_a_signal():
    handlers = []

    class Loading:
        async def __aenter__(self):
            handlers.append(signal.getsignal(signal.SIGTERM))
            raise InputError("models", "nothing", "a model")

        async def __aexit__(self, *_): ...

    with pytest.raises(InputError):
        asyncio.run(_serve_until_signal(Loading()))
    assert handlers == [signal.SIG_DFL]
