"""Warm-up records: written and read back."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.formats.logged_requests import LoggedRequest
from serving.publishing.warmup import (
    FILE,
    MAX_RECORDS,
    write_warmup_records,
    write_warmup_requests,
)
from tests.serving.warmup_records import read_warmup_records


def test_records_read_back_as_written(tmp_path, search_inputs):
    path = write_warmup_records(tmp_path, [("search", search_inputs), ("recommendation", search_inputs)])
    assert path == tmp_path / "assets.extra" / "tf_serving_warmup_requests"

    records = read_warmup_records(tmp_path)
    assert [signature for signature, _ in records] == ["search", "recommendation"]
    for _, inputs in records:
        assert inputs.keys() == search_inputs.keys()
        for name, array in inputs.items():
            assert array.dtype == search_inputs[name].dtype
            assert array.tolist() == search_inputs[name].tolist()


def test_the_file_is_a_tfrecord_of_predict_logs(tmp_path, search_inputs):
    write_warmup_records(tmp_path, [("search", search_inputs)], model_name="shop")
    (record,) = tf.data.TFRecordDataset(str(tmp_path / FILE)).as_numpy_iterator()
    request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == ("shop", "search")
    assert request.inputs["price"].dtype == tf.float32.as_datatype_enum


def test_no_file_is_no_records(tmp_path):
    assert read_warmup_records(tmp_path) == []


def test_more_records_than_tf_serving_takes(tmp_path):
    requests = [("search", {"user_id": np.array([b"u"])})] * (MAX_RECORDS + 1)
    with pytest.raises(ValueError, match=r"at most 1000 warm-up records\. Received: 1001"):
        write_warmup_records(tmp_path, requests)
    assert not (tmp_path / FILE).exists()

    write_warmup_records(tmp_path, requests[:MAX_RECORDS])
    assert len(read_warmup_records(tmp_path)) == MAX_RECORDS
    with tf.io.TFRecordWriter(str(tmp_path / FILE)) as writer:
        for _ in requests:
            writer.write(b"")
    with pytest.raises(tf.errors.InvalidArgumentError, match="exceeds the maximum"):
        read_warmup_records(tmp_path)


def test_every_signature_is_warmed_up_with_requests_and_a_scenario_with_every_size(export):
    version = export(7)
    requests = [request(items=["a", "b"], history=["c"]), request(items=["zzz"], history=["a", "b", "c"])]
    assert write_warmup_requests(version, {"search": requests}, candidates=(1, 5)) == 4 + 3 + 2 + 1

    records = read_warmup_records(version)
    sizes = [inputs["item_id"].tolist() for name, inputs in records if name == "search"]
    assert sizes == [[b"a", b"b"], [b"zzz"], [b"zzz"], [b"zzz"] * 5]  # the one with most values, repeated
    assert all(len(inputs["attributes"]) == len(inputs["item_id"]) for name, inputs in records if name == "search")
    assert [inputs["history_item_id"].shape[1] for name, inputs in records if name == "search"] == [1, 3, 3, 3]
    blank = [inputs["item_id"].tolist() for name, inputs in records if name == "recommendation"]
    assert blank == [[b""], [b""], [b""] * 5]  # never logged
    assert [len(inputs["examples"]) for name, inputs in records if name == "search_examples"] == [2, 1]
    assert [len(inputs["examples"]) for name, inputs in records if name == "serving_default"] == [1]


def test_few_enough_records_are_written_for_any_number_of_requests(export):
    requests = [request(items=["a"], history=[])] * 400
    both = dict.fromkeys(("search", "recommendation"), requests)
    assert write_warmup_requests(export(7), both, per_scenario=400) <= MAX_RECORDS


def request(items: list[str], history: list[str]) -> LoggedRequest:
    inputs = {"user_id": "u", "query": "tea", "item_id": items, "price": [0.5] * len(items)}
    inputs |= {"attributes": [["x"]] * len(items), "history_item_id": history}
    return LoggedRequest("r1", "search", inputs)
