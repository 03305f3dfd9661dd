"""Facts of TF Serving that no Python package has: flags, metrics, and messages of two text files.

Copied as facts from github.com/tensorflow/serving at 2.19 and 2.20:

- flags: `tensorflow_serving/model_servers/main.cc`, those that a deployment of ours may want;
- metrics: `servables/tensorflow/util.cc`, `saved_model_warmup_util.cc`, and TensorFlow's `cc/saved_model/loader.cc`,
  with the labels of each;
- messages: `servables/tensorflow/session_bundle_config.proto` and `config/monitoring_config.proto`.
"""

import functools
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

FLAGS = {
    "allow_version_labels_for_unavailable_models",
    "batching_parameters_file",
    "enable_batching",
    "enable_grpc_healthcheck_service",
    "enable_model_warmup",
    "file_system_poll_wait_seconds",
    "grpc_channel_arguments",
    "grpc_max_threads",
    "max_num_load_retries",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "monitoring_config_file",
    "num_request_iterations_for_warmup",
    "port",
    "rest_api_port",
    "rest_api_timeout_in_ms",
    "ssl_config_file",
    "tensorflow_inter_op_parallelism",
    "tensorflow_intra_op_parallelism",
    "tensorflow_session_parallelism",
}
METRICS = {
    ":tensorflow:cc:saved_model:load_attempt_count": {"model_path", "status"},
    ":tensorflow:serving:model_warmup_latency_count": {"model_path", "status"},
    ":tensorflow:serving:request_count": {"model_name", "status"},
    ":tensorflow:serving:request_latency_bucket": {"model_name", "API", "entrypoint", "le"},
    ":tensorflow:serving:request_latency_count": {"model_name", "API", "entrypoint"},
}
_FIELDS = {
    "BatchingParameters": {
        "max_batch_size": (1, "Int64Value"),
        "batch_timeout_micros": (2, "Int64Value"),
        "max_enqueued_batches": (3, "Int64Value"),
        "num_batch_threads": (4, "Int64Value"),
        "thread_pool_name": (5, "StringValue"),
        "enable_large_batch_splitting": (8, "BoolValue"),
        "max_execution_batch_size": (9, "Int64Value"),
    },
    "PrometheusConfig": {"enable": (1, bool), "path": (2, str)},
    "MonitoringConfig": {"prometheus_config": (1, "PrometheusConfig")},
}


def parse(text: str, message: str) -> Any:
    """Parses a text file as the server does: `ModelServerConfig`, `BatchingParameters` or `MonitoringConfig`."""
    if message == "ModelServerConfig":
        return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    return text_format.Parse(text, _message(message)())


def parse_file(path: Path, message: str) -> Any:
    return parse(path.read_text(encoding="utf-8"), message)


def flag(argument: str) -> tuple[str, str]:
    """`--name=value`, checked to be a flag of the server."""
    name, equals, value = argument.removeprefix("--").partition("=")
    assert argument.startswith("--"), argument
    assert equals, argument
    assert name in FLAGS, argument
    return name, value


@functools.cache
def _message(name: str) -> type:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="text_files.proto", package="tensorflow.serving", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for key, (number, kind) in fields.items():
            added = described.field.add(name=key, number=number, label=field.LABEL_OPTIONAL)
            if kind in (bool, str):
                added.type = field.TYPE_BOOL if kind is bool else field.TYPE_STRING
            else:
                added.type = field.TYPE_MESSAGE
                added.type_name = f".tensorflow.serving.{kind}" if kind in _FIELDS else f".google.protobuf.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))
