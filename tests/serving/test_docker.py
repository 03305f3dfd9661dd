"""The container's files agree with each other and with the client's defaults."""

import inspect
import re
from pathlib import Path

import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

import serving
from serving.client import Client

DOCKER = Path(serving.__file__).parent / "docker"


def test_the_model_is_served_under_the_name_and_path_that_clients_and_compose_use():
    config = text_format.Parse((DOCKER / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert model.name == inspect.signature(Client).parameters["model"].default

    services = yaml.safe_load((DOCKER / "docker-compose.yml").read_text())["services"]
    for service in services.values():
        assert any(volume.endswith(f":{model.base_path}:ro") for volume in service["volumes"])
        files = re.findall(r"=/config/(\S+)", "\n".join(service["command"]))
        assert files
        assert all((DOCKER / file).is_file() for file in files)


def test_only_the_batch_service_batches():
    services = yaml.safe_load((DOCKER / "docker-compose.yml").read_text())["services"]
    batching = {name for name, service in services.items() if "--enable_batching=true" in service["command"]}
    assert batching == {"usr-batch"}
    assert services["usr-batch"]["profiles"] == ["batch"]
