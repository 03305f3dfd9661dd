import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf

from tests.usr_tf.fixtures import small_config
from usr_tf.errors import InputError
from usr_tf.training.strategies import any_worker, default_strategy, is_chief, sum_over_replicas, writable_directory

ROOT = Path(__file__).parents[2]
TWO = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}


def tf_config(cluster: dict, job: str, index: int) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})


# TF_CONFIG


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", r"found '\{' \(JSONDecodeError"),
        ("[]", r"found '\[\]' \(AttributeError"),
        ('{"cluster": {"worker": 3}}', r"\(TypeError"),
        (json.dumps({"cluster": TWO}), r"\(KeyError: 'task'\)"),
        (json.dumps({"cluster": TWO, "task": {"type": "worker", "index": "first"}}), r"\(ValueError"),
        (tf_config(TWO, "worker", 2), "found the task worker 2, expected one of its cluster: worker 0 to 1"),
        (tf_config(TWO, "chief", 0), "found the task chief 0"),
        (tf_config({"ps": ["127.0.0.1:3"], **TWO}, "ps", 0), "found the jobs ps, worker, expected worker"),
    ],
)
def test_a_malformed_tf_config_is_refused(monkeypatch, text, found):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match=f"^TF_CONFIG: .*{found}"):
        default_strategy()


@pytest.mark.parametrize("text", ["", "{}", tf_config({"worker": ["127.0.0.1:1"]}, "worker", 0)])
def test_one_worker_trains_alone(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    strategy = default_strategy()
    assert strategy.num_replicas_in_sync == 1
    assert is_chief(strategy)
    assert any_worker(True, strategy)
    assert not any_worker(False, strategy)
    assert float(sum_over_replicas(tf.constant(3.0))) == 3.0


@pytest.mark.parametrize(
    ("weights_on", "expected"),
    [("device", tf.distribute.MirroredStrategy), ("host", tf.distribute.experimental.CentralStorageStrategy)],
)
def test_gpus_are_all_taken(monkeypatch, weights_on, expected):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert type(default_strategy(weights_on)) is expected


def test_weights_on_the_host_of_several_workers_are_refused(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config(TWO, "worker", 0))
    with pytest.raises(InputError, match=r"train\.weights_on: found 'host' with 2 workers"):
        default_strategy("host")


# Who writes where


def strategy_of(cluster: dict, job: str, index: int) -> SimpleNamespace:
    """The part of a strategy that tells which worker this is."""
    spec = tf.train.ClusterSpec(cluster)
    return SimpleNamespace(cluster_resolver=tf.distribute.cluster_resolver.SimpleClusterResolver(spec, "", job, index))


@pytest.mark.parametrize(
    ("cluster", "chief"),
    [(TWO, ("worker", 0)), ({"chief": ["127.0.0.1:3"], **TWO}, ("chief", 0))],
    ids=["first worker", "chief"],
)
def test_one_task_is_the_chief(cluster, chief):
    tasks = [(job, index) for job, addresses in cluster.items() for index in range(len(addresses))]
    assert [task for task in tasks if is_chief(strategy_of(cluster, *task))] == [chief]


def test_the_chief_writes_the_run_and_others_a_copy_that_is_removed(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "logs").mkdir()
    (run / "checkpoints" / "step-3.index").write_text("kept")
    with writable_directory(run, strategy_of(TWO, "worker", 0)) as directory:
        assert directory == run
    with writable_directory(run, strategy_of(TWO, "worker", 1)) as directory:
        assert directory != run
        assert (directory / "checkpoints" / "step-3.index").read_text() == "kept"
        assert not (directory / "logs").exists()
        (directory / "config.yaml").write_text("a worker's own")
    assert not directory.exists()
    assert not (run / "config.yaml").exists()
    with writable_directory(tmp_path / "new", strategy_of(TWO, "worker", 1)) as directory:
        assert not directory.exists()


# Replicas and workers for real


@pytest.mark.slow
def test_weights_on_the_host_train_as_one():
    command = [sys.executable, "-m", "tests.usr_tf.two_replicas", "shared_bottom", "host"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip().endswith("ok")


class Workers:
    """Two processes on this machine that run `usr-tf train` together."""

    def __init__(self, data: Path, out: Path, config: Path, folder: Path):
        folder.mkdir()
        self.temporary = [folder / f"temporary{index}" for index in range(2)]
        self.logs = [folder / f"worker{index}.log" for index in range(2)]
        cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
        program = "import sys; from usr_tf.cli import main; sys.exit(main())"
        flags = [f"--data={data}", f"--out={out}", f"--config={config}"]
        self.processes = []
        for index, (temporary, log) in enumerate(zip(self.temporary, self.logs, strict=True)):
            temporary.mkdir()
            task = {"TF_CONFIG": tf_config(cluster, "worker", index), "TMPDIR": str(temporary)}
            with log.open("w") as file:
                command = [sys.executable, "-c", program, "train", *flags]
                self.processes.append(
                    subprocess.Popen(command, cwd=ROOT, env=os.environ | task, stdout=file, stderr=subprocess.STDOUT)
                )

    def wait(self, timeout: float = 300) -> list[int]:
        """Their exit statuses. None is left running."""
        end = time.monotonic() + timeout
        try:
            return [process.wait(max(0.1, end - time.monotonic())) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()

    def told(self) -> str:
        return "\n".join(log.read_text()[-3000:] for log in self.logs)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def history_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """Without the contrastive loss, whose negatives are those of a replica."""
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    config = small_config(usr={"contrastive": False}, train={"epochs": 2, "checkpoint_steps": 6})
    path.write_text(config.to_yaml())
    return path


@pytest.fixture(scope="module")
def one_worker(toy_data, config, tmp_path_factory) -> Path:
    from usr_tf.config import load_config
    from usr_tf.train import train

    run = tmp_path_factory.mktemp("one") / "run"
    train(toy_data, run, load_config(config), verbose=0)
    return run


@pytest.mark.slow
def test_two_workers_train_as_one_and_the_chief_alone_writes(toy_data, config, one_worker, tmp_path):
    run = tmp_path / "run"
    workers = Workers(toy_data.directory, run, config, tmp_path / "workers")
    assert workers.wait() == [0, 0], workers.told()
    assert_same_history(run, one_worker)
    assert {path.name for path in run.iterdir()} == {path.name for path in one_worker.iterdir()}
    assert [sorted(temporary.glob("usr_tf*")) for temporary in workers.temporary] == [[], []]
    assert "epoch 1/2" in workers.logs[0].read_text()
    assert "epoch 1/2" not in workers.logs[1].read_text()


@pytest.mark.slow
def test_when_a_worker_is_killed_the_others_stop_and_all_go_on_together(toy_data, config, one_worker, tmp_path):
    run = tmp_path / "run"
    workers = Workers(toy_data.directory, run, config, tmp_path / "workers")
    while not list((run / "checkpoints").glob("latest/*.index")) and workers.processes[0].poll() is None:
        time.sleep(0.05)
    workers.processes[1].send_signal(signal.SIGKILL)
    statuses = workers.wait()
    assert statuses[1] == -signal.SIGKILL
    assert statuses[0] != 0, workers.told()
    assert not (run / "_SUCCESS").exists()
    workers = Workers(toy_data.directory, run, config, tmp_path / "again")
    assert workers.wait() == [0, 0], workers.told()
    assert_same_history(run, one_worker)


MIRRORED = """
import os, sys
import usr_tf
import tensorflow as tf
import tf_keras as keras
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
data, run, config, last = sys.argv[1:]

class Killed(keras.callbacks.Callback):
    steps = 0
    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps == int(last):
            os._exit(9)

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
usr_tf.train.train(usr_tf.open_data(data), run, usr_tf.load_config(config), strategy, False, [Killed()])
"""
"""Trains on two logical CPUs, and ends its process after so many steps."""


@pytest.mark.slow
def test_a_run_on_two_replicas_goes_on_in_another_process(toy_data, config, one_worker, tmp_path):
    for last, status in ((22, 9), (0, 0)):  # in the second epoch
        arguments = [toy_data.directory, tmp_path / "run", config, last]
        done = subprocess.run([sys.executable, "-c", MIRRORED, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == status, done.stderr[-3000:]
    assert_same_history(tmp_path / "run", one_worker)


def assert_same_history(run: Path, expected: Path) -> None:
    epochs, others = history_of(run), history_of(expected)
    assert [set(epoch) for epoch in epochs] == [set(epoch) for epoch in others]
    for epoch, other in zip(epochs, others, strict=True):
        assert epoch == pytest.approx(other, rel=1e-5)
