"""Killed and unkilled experiments on the toy data: `pytest -s -m slow tests/experiments/test_kill.py`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.usr_tf.fixtures import small_config
from usr_tf.data import open_data
from usr_tf.experiments.grid.data_jobs import DataJob, Given, OneScenario

ALONE = {"usr.ie": False, "usr.fg": False, "usr.contrastive": False}
"""Traced sooner."""


def write_spec(path: Path, data: Path) -> Path:
    sizes = small_config().model_dump(mode="json")["shared_bottom"]
    spec = {
        "title": "Toy",
        "question": "Do the others' rows help?",
        "data": {"toy": str(data)},
        "seeds": 1,
        "budget": {"epochs": 2, "batch_size": 64},
        "settings": {
            **ALONE,
            "embedding_size": 4,
            "train.checkpoint_steps": 1,
            "shared_bottom.bottom": sizes["bottom"],
        },
        "variants": {"joint": {"usr.glmt": False}, "global labels": {}, "one a scenario": {"usr.glmt": False}},
        "baseline": "joint",
        "per_scenario": ["one a scenario"],
    }
    path.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return path


def start(spec: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "usr_tf.cli", "experiment", f"--spec={spec}", f"--out={out}", "--workers=1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


def wait_for(process: subprocess.Popen, happened) -> None:
    while not happened():
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.01)


def worker_of(process: subprocess.Popen) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return next(int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())


@pytest.mark.slow
def test_an_experiment_that_is_killed_ends_as_the_unbroken_one(toy_folder, tmp_path):
    """The worker is killed in the middle of a model, and later the main process; what was done is not done again."""
    spec = write_spec(tmp_path / "toy.yaml", toy_folder)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(start(spec, whole))

    def results() -> list[Path]:
        return [path for path in (cut / "work" / "results").glob("*") if not path.name.startswith(".")]

    def training() -> bool:
        return any((cut / "work" / "runs").glob("*/checkpoints/latest/*.index"))

    first = start(spec, cut)
    wait_for(first, lambda: results() and training())
    os.kill(worker_of(first), signal.SIGKILL)
    print(f"\nworker killed with {len(results())} models done", flush=True)
    wait_for(first, lambda: len(results()) >= 2 and training())
    first.send_signal(signal.SIGKILL)
    first.communicate()
    finished = {path: path.stat().st_mtime_ns for path in results()}
    print(f"main process killed with {len(finished)} models done", flush=True)
    assert 2 <= len(finished) < 4

    finish(start(spec, cut))
    assert len(results()) == 4
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    for name in ("toy.json", "toy.csv", "results.md", "report.html"):
        texts = [(folder / name).read_text(encoding="utf-8").replace(str(folder), "") for folder in (cut, whole)]
        assert texts[0] == texts[1], name
        print(f"{name}: equal", flush=True)
    figures = json.loads((cut / "toy.json").read_text(encoding="utf-8"))["comparisons"]
    assert len(figures) == 2 * 4  # variants, and scenarios times tasks
    assert figures[0]["auc"] != figures[0]["baseline_auc"]


@pytest.mark.slow
def test_one_scenarios_data_lack_the_others_rows_in_training_alone(toy_folder, tmp_path):
    whole = DataJob(Given(str(toy_folder)))
    one = DataJob(OneScenario(whole.source, "search"))
    for job in (whole, one):
        job.do(tmp_path)
    all_rows, rows = (job.rows(tmp_path) for job in (whole, one))
    assert [name for name in rows if not np.array_equal(rows[name], all_rows[name])] == ["user_seen", "item_seen"]
    data, kept = open_data(toy_folder), open_data(one.directory(tmp_path))
    for split in ("train", "valid"):
        counts = kept.stats["splits"][split]
        assert counts["search"] == data.stats["splits"][split]["search"]
        assert set(counts["recommendation"].values()) == {0}
        assert sum(shard.records for shard in kept.read_through(split)) == kept.rows(split)
        assert {int(number) for features, _ in kept.validation(256, split) for number in features["scenario"]} == {0}
    assert kept.rows("test") == data.rows("test")
