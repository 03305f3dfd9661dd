"""Kubernetes manifest: consistent references, valid configuration, no lost requests."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import serving
from tests.serving.tf_serving import flag, parse, parse_file

FOLDER = Path(serving.__file__).parent
MANIFEST = FOLDER / "kubernetes" / "usr.yaml"
KINDS = {
    "ConfigMap": "v1",
    "PersistentVolumeClaim": "v1",
    "Deployment": "apps/v1",
    "Service": "v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "PodDisruptionBudget": "policy/v1",
}
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


@pytest.fixture(scope="module")
def objects() -> dict[str, dict]:
    """Kind → object."""
    return {each["kind"]: each for each in yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))}


@pytest.fixture(scope="module")
def pod(objects) -> dict:
    return objects["Deployment"]["spec"]["template"]


@pytest.fixture(scope="module")
def container(pod) -> dict:
    (found,) = pod["spec"]["containers"]
    return found


@pytest.fixture(scope="module")
def flags(container) -> dict[str, str]:
    return dict(map(flag, container["args"]))


def test_there_is_one_object_of_each_kind_in_its_stable_api(objects):
    assert {kind: each["apiVersion"] for kind, each in objects.items()} == KINDS
    assert MANIFEST.read_text(encoding="utf-8").count("\nkind: ") == len(KINDS)


def test_objects_find_each_other(objects, pod, container):
    labels = pod["metadata"]["labels"]
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["Service"]["spec"]["selector"] == labels
    (spread,) = pod["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == labels
    target = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    deployment = objects["Deployment"]
    assert (target["kind"], target["apiVersion"]) == (deployment["kind"], deployment["apiVersion"])
    assert target["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]  # the autoscaler's, which an apply would undo

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 8500, "http": 8501}  # the image's entry point sets them
    for port in objects["Service"]["spec"]["ports"]:
        assert ports[port["targetPort"]] == port["port"]
    annotations = pod["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["http"])

    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
    assert not any("subPath" in mount for mount in container["volumeMounts"])
    assert volumes["config"]["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    claim = objects["PersistentVolumeClaim"]
    assert volumes["models"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_configuration_is_the_composes_own(objects, container, pod, flags):
    data = objects["ConfigMap"]["data"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    files = {value for name, value in flags.items() if name.endswith("_file")}
    assert files == {f"{mounts['config']}/{name}" for name in data}
    for name, message in (("models.config", "ModelServerConfig"), ("monitoring.config", "MonitoringConfig")):
        assert parse(data[name], message) == parse_file(FOLDER / "docker" / name, message)
    (model,) = parse(data["models.config"], "ModelServerConfig").model_config_list.config
    assert model.base_path == mounts["models"]
    monitoring = parse(data["monitoring.config"], "MonitoringConfig").prometheus_config
    assert pod["metadata"]["annotations"]["prometheus.io/path"] == monitoring.path
    assert flags["allow_version_labels_for_unavailable_models"] == "true"
    assert int(flags["model_config_file_poll_wait_seconds"]) > 0
    for probe in PROBES:
        asked = container[probe]["httpGet"]
        assert asked["port"] == "http"
        assert re.fullmatch(rf"/v1/models/{model.name}(/metadata)?", asked["path"])


def test_a_pod_that_goes_has_no_connection_left(objects, container, pod, flags):
    arguments = dict(pair.split("=") for pair in flags["grpc_channel_arguments"].split(","))
    age, grace = (int(arguments[f"grpc.max_connection_age{end}_ms"]) / 1000 for end in ("", "_grace"))
    program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert int(seconds) > 1.1 * age + grace  # gRPC varies the age by a tenth
    assert pod["spec"]["terminationGracePeriodSeconds"] > int(seconds)
    assert objects["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert objects["HorizontalPodAutoscaler"]["spec"]["minReplicas"] > 1
    assert objects["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_a_pod_is_ready_only_with_a_version_and_dies_only_when_it_is_silent(container):
    assert container["readinessProbe"]["httpGet"]["path"].endswith("/metadata")
    assert not container["livenessProbe"]["httpGet"]["path"].endswith("/metadata")
    patience = {name: container[name]["periodSeconds"] * container[name]["failureThreshold"] for name in PROBES}
    assert patience["readinessProbe"] < patience["livenessProbe"] < patience["startupProbe"]


def test_threads_are_those_that_the_container_asks_for(container, flags):
    resources = container["resources"]
    assert flags["tensorflow_inter_op_parallelism"] == resources["requests"]["cpu"]
    assert resources["limits"].keys() == {"memory"}


@pytest.mark.parametrize(
    ("kind", "change", "undo"),
    [
        ("Deployment", ["set", "image", "serving=another:1"], ("spec", "template", "spec", "containers", 0, "image")),
        ("Service", ["set", "selector", "app=another"], ("spec", "selector", "app")),
    ],
)
def test_kubectl_knows_every_field(objects, tmp_path, kind, change, undo):
    """`kubectl set --local` reads an object into Kubernetes' own types, without a server: it fails on a wrong type, and
    drops a field that there is not.
    """
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl on PATH")
    file = tmp_path / "object.yaml"
    file.write_text(yaml.safe_dump(objects[kind]), encoding="utf-8")
    verb, what, value = change
    command = [kubectl, verb, what, "--local", "-f", str(file), value, "-o", "yaml"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KUBECONFIG": "/dev/null"}
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert finished.returncode == 0, finished.stderr
    known = leaves(yaml.safe_load(finished.stdout))
    assert known.pop(undo) == value.partition("=")[2]
    for path, given in leaves(objects[kind]).items():
        assert path == undo or known.get(path) == given, path


def leaves(value, path: tuple = ()) -> dict[tuple, object]:
    """Path → each value that is neither a mapping nor a list."""
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    else:
        return {path: value}
    return {leaf: found for key, inner in pairs for leaf, found in leaves(inner, (*path, key)).items()}
