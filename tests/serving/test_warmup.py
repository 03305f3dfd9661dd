"""Warm-up records: TF Serving's file, written and read back."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.warmup import FILE, MAX_RECORDS, read_warmup_records, write_warmup_records


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
