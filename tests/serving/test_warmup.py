"""Warm-up records: written and read back."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.publishing.warmup import (
    FILE,
    MAX_RECORDS,
    write_logged_requests,
    write_warmup_records,
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


def test_every_signature_is_warmed_up_with_logged_requests_and_a_scenario_with_every_size(export, tmp_path):
    version = export(7)
    lines = [
        document(items=["a", "b"], history=["c"], query="tea\u2028green"),
        document(items=["zzz"], history=["a", "b", "c"]),
    ]
    text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
    (tmp_path / "search.jsonl").write_text(text, encoding="utf-8")
    assert write_logged_requests(version, tmp_path, candidates=(1, 5)) == 4 + 3 + 2 + 1

    records = read_warmup_records(version)
    sizes = [inputs["item_id"].tolist() for name, inputs in records if name == "search"]
    assert sizes == [[b"a", b"b"], [b"zzz"], [b"zzz"], [b"zzz"] * 5]  # the one with most values, repeated
    assert all(len(inputs["attributes"]) == len(inputs["item_id"]) for name, inputs in records if name == "search")
    assert [inputs["history_item_id"].shape[1] for name, inputs in records if name == "search"] == [1, 3, 3, 3]
    blank = [inputs["item_id"].tolist() for name, inputs in records if name == "recommendation"]
    assert blank == [[b""], [b""], [b""] * 5]  # never logged
    assert [len(inputs["examples"]) for name, inputs in records if name == "search_examples"] == [2, 1]
    assert [len(inputs["examples"]) for name, inputs in records if name == "serving_default"] == [1]


def test_few_enough_records_are_written_for_any_number_of_logged_requests(export, tmp_path):
    version = export(7)
    line = json.dumps(document(items=["a"], history=[])) + "\n"
    for scenario in ("search", "recommendation"):
        (tmp_path / f"{scenario}.jsonl").write_text(line * 400)
    assert write_logged_requests(version, tmp_path, per_scenario=400) <= MAX_RECORDS


def document(items: list[str], history: list[str], query: str = "tea") -> dict:
    inputs = {"user_id": "u", "query": query, "item_id": items, "price": [0.5] * len(items)}
    return {"scenario": "search", "inputs": inputs | {"attributes": [["x"]] * len(items), "history_item_id": history}}
