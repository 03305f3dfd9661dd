"""Container files: valid for TF Serving, and consistent with each other and the clients."""

import http.server
import inspect
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format

import serving
from serving.client import Ranker
from tests.serving.tf_serving import METRICS, flag, parse_file

DOCKER = Path(serving.__file__).parent / "docker"
SERVERS = ("usr", "usr-batch")


@pytest.fixture(scope="module")
def services() -> dict:
    return read_yaml("docker-compose.yml")["services"]


def read_yaml(name: str) -> dict:
    return yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["models.config", "canary.config"])
def test_the_model_is_served_under_the_name_and_path_that_clients_and_compose_use(name, services):
    (model,) = parse_file(DOCKER / name, "ModelServerConfig").model_config_list.config
    assert model.name == inspect.signature(Ranker).parameters["model"].default
    assert model.model_platform == "tensorflow"
    for server in SERVERS:
        assert any(volume.endswith(f":{model.base_path}:ro") for volume in services[server]["volumes"])


def test_each_label_stands_on_a_version_that_is_loaded():
    (model,) = parse_file(DOCKER / "canary.config", "ModelServerConfig").model_config_list.config
    assert model.version_labels.keys() == {"stable", "canary"}
    assert {*model.version_labels.values()} == {*model.model_version_policy.specific.versions}
    assert model.version_labels["stable"] < model.version_labels["canary"]
    (plain,) = parse_file(DOCKER / "models.config", "ModelServerConfig").model_config_list.config
    assert not plain.version_labels
    assert plain.model_version_policy.latest.num_versions == 1


def test_the_servers_flags_are_tf_servings_and_its_files_are_there(services):
    for server in SERVERS:
        flags = dict(map(flag, services[server]["command"]))
        assert flags["allow_version_labels_for_unavailable_models"] == "true"
        assert int(flags["model_config_file_poll_wait_seconds"]) > 0
        files = [value for value in flags.values() if value.startswith("/config/")]
        assert len(files) == sum(name.endswith("_file") for name in flags)
        assert all((DOCKER / file.removeprefix("/config/")).is_file() for file in files)
        assert "./:/config:ro" in services[server]["volumes"]  # the folder, so that replaced files are seen


def test_only_the_batch_service_batches(services):
    batching = {name for name, service in services.items() if "--enable_batching=true" in service["command"]}
    assert batching == {"usr-batch"}
    assert services["usr-batch"]["profiles"] == ["batch"]
    assert dict(map(flag, services["usr-batch"]["command"]))["enable_model_warmup"] == "false"


def test_batches_have_a_size_that_the_scheduler_takes():
    parameters = parse_file(DOCKER / "batching.config", "BatchingParameters")
    assert parameters.enable_large_batch_splitting.value
    assert 0 < parameters.max_execution_batch_size.value <= parameters.max_batch_size.value
    assert parameters.num_batch_threads.value > 0
    with pytest.raises(text_format.ParseError, match="no field named"):
        text_format.Parse("max_batch_sizes { value: 1 }", parameters)


def test_prometheus_scrapes_where_the_server_tells_its_metrics(services):
    monitoring = parse_file(DOCKER / "monitoring.config", "MonitoringConfig").prometheus_config
    assert monitoring.enable
    scraped = read_yaml("prometheus.yml")
    (job,) = scraped["scrape_configs"]
    assert job["metrics_path"] == monitoring.path
    for target in job["static_configs"][0]["targets"]:
        host, _, port = target.partition(":")
        assert f"{port}:{port}" in services[host]["ports"]
    assert all((DOCKER / file).is_file() for file in scraped["rule_files"])
    assert services["prometheus"]["command"] == ["--config.file=/config/prometheus.yml"]


def test_alerts_read_metrics_that_tf_serving_has():
    (job,) = read_yaml("prometheus.yml")["scrape_configs"]
    (group,) = read_yaml("alerts.yml")["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(names) == len(set(names))
    for rule in group["rules"]:
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        selectors = re.findall(r"([:a-z_]+)\{([^}]*)\}", rule["expr"])
        assert selectors
        for metric, matchers in selectors:
            labels = dict(re.findall(r'(\w+)[=!]~?"([^"]*)"', matchers))
            assert labels.pop("job") == job["job_name"]
            assert labels.keys() <= METRICS.get(metric, set()), rule["alert"]
            assert metric in {*METRICS, "up"}, rule["alert"]
        kept = {name for names in re.findall(r"by \(([^)]*)\)", rule["expr"]) for name in names.split(", ")}
        assert kept <= {"instance", "le"}.union(*METRICS.values())


class Status(http.server.BaseHTTPRequestHandler):
    """REST's answer to a model's status, of which `body` is set by the test."""

    body = b""

    def do_GET(self):
        self.send_response(200 if self.path == "/v1/models/usr" else 404)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("state", "error", "healthy"),
    [("AVAILABLE", "OK", True), ("LOADING", "OK", False), ("END", "UNAVAILABLE", False)],
)
def test_the_health_check_tells_an_available_version(services, state, error, healthy):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash on PATH, which the image has")
    kind, name, option, command = services["usr"]["healthcheck"]["test"]
    assert (kind, name, option) == ("CMD", "bash", "-c")
    status = (
        f'{{"model_version_status": [{{"version": "1", "state": "{state}", "status": {{"error_code": "{error}"}}}}]}}'
    )
    with http.server.HTTPServer(("127.0.0.1", 0), type("OneStatus", (Status,), {"body": status.encode()})) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        here = command.replace("/8501", f"/{server.server_port}")
        assert here != command
        finished = subprocess.run([bash, "-c", here], capture_output=True, timeout=60)
        thread.join()
    assert (finished.returncode == 0) == healthy, finished.stderr
