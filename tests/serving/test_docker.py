"""Container files: valid for TF Serving, and consistent with each other and the clients."""

import http.server
import inspect
import json
import re
import shutil
import subprocess
import threading
import types
from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format
from prometheus_client.parser import text_string_to_metric_families

import serving
from serving.client import Ranker
from serving.local_server.admission import Admission
from serving.local_server.call import Call
from serving.local_server.metrics import Metrics
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
    batching = {name for name, service in services.items() if "--enable_batching=true" in service.get("command", ())}
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
        check_query(rule["expr"], METRICS | {"up": set()}, job["job_name"])


def check_query(query: str, metrics: dict[str, set[str]], job: str) -> set[str]:
    """Checks that a query reads metrics of the job with labels that they have; returns their names."""
    selectors = re.findall(r"([:a-z_]+)\{([^}]*)\}", query)
    assert selectors
    for metric, matchers in selectors:
        assert metric in metrics, query
        labels = dict(re.findall(r'(\w+)[=!]~?"([^"]*)"', matchers))
        assert labels.pop("job") == job
        assert labels.keys() <= metrics[metric], query
    kept = {name for names in re.findall(r"by \(([^)]*)\)", query) for name in names.split(", ")}
    assert kept <= {"instance"}.union(*(metrics[metric] for metric, _ in selectors)), query
    return {metric for metric, _ in selectors}


@pytest.fixture(scope="module")
def local_metrics() -> list:
    """Metric families of the local server after a request."""
    admission = Admission(1, 1)
    metrics = Metrics(admission, lambda: {"usr": (1,)}, {"access_log": types.SimpleNamespace(dropped=3)})
    call = Call("Predict", "GRPC", "")
    call.ask("usr")
    call.status, call.ended = "OK", call.arrived
    metrics.observe(call)
    families = list(text_string_to_metric_families(metrics.text().decode()))
    admission.close()
    return families


def test_metrics_of_our_own_are_named_as_prometheus_names_them(local_metrics):
    own = [family for family in local_metrics if "usr" in family.name]
    assert {family.name for family in own} == {
        "usr_serving_dropped_records", "usr_serving_live_version", "usr_serving_requests_queued",
        "usr_serving_requests_running",
    }  # fmt: skip
    for family in own:  # no colon, which is for recording rules; the parser knows a counter by its suffix _total
        assert re.fullmatch(r"[a-z_]+", family.name)
        assert family.documentation
        assert family.type == ("counter" if "dropped" in family.name else "gauge")


def test_the_dashboard_reads_metrics_that_the_servers_have(local_metrics):
    local = {sample.name: set(sample.labels) for family in local_metrics for sample in family.samples}
    for name in METRICS.keys() & local.keys():
        assert local[name] <= METRICS[name], name
    (job,) = read_yaml("prometheus.yml")["scrape_configs"]
    board = json.loads((DOCKER / "dashboard.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    read = set().union(*(check_query(query, local | METRICS | {"up": set()}, job["job_name"]) for query in queries))
    assert read > {*METRICS}
    assert {name for name in read if name.startswith("usr_")} == {
        "usr_serving_live_version", "usr_serving_requests_queued", "usr_serving_requests_running",
    }  # fmt: skip
    (model,) = board["templating"]["list"]
    of_label = re.fullmatch(r"label_values\((.*), (\w+)\)", model["query"]["query"])
    assert of_label[2] in METRICS[check_query(of_label[1], METRICS, job["job_name"]).pop()]
    assert {name for query in queries for name in re.findall(r"\$(\w+)", query)} == {model["name"], "__rate_interval"}


def test_the_dashboard_has_panels_side_by_side_with_a_title_and_a_unit():
    board = json.loads((DOCKER / "dashboard.json").read_text(encoding="utf-8"))
    ids, places = [], []
    for panel in board["panels"]:
        ids.append(panel["id"])
        assert panel["title"]
        assert panel["type"] in ("row", "stat", "timeseries")
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["fieldConfig"]["defaults"]["unit"] in ("bytes", "percentunit", "reqps", "short", "µs")
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        places += [(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
    assert len(ids) == len(set(ids))
    assert len(places) == len(set(places))


def test_grafana_finds_the_dashboard_and_prometheus(services):
    volumes = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    (provider,) = read_yaml("grafana/dashboards/usr.yml")["providers"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert volumes == {"./grafana": "/etc/grafana/provisioning", "./dashboard.json": home}
    assert Path(home).parent == Path(provider["options"]["path"])
    (source,) = read_yaml("grafana/datasources/prometheus.yml")["datasources"]
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert f"{port}:{port}" in services[host]["ports"]
    board = json.loads((DOCKER / "dashboard.json").read_text(encoding="utf-8"))
    targets = [target for panel in board["panels"] for target in panel.get("targets", ())]
    for each in (*targets, *board["templating"]["list"], *board["annotations"]["list"]):
        assert each["datasource"] == {"type": source["type"], "uid": source["uid"]}


def test_what_has_no_password_listens_on_this_machine_alone(services):
    for name in ("grafana", "store"):
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
    assert services["store"]["volumes"] == ["store:/data"]
    assert "store" in read_yaml("docker-compose.yml")["volumes"]


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
