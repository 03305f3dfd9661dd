"""Package of a Dataflow worker, installed in a fresh environment."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.pipelines.tiny import read_rows

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_wheel_alone_runs_the_job_with_the_same_rows(made, tmp_path):
    """As pipelines/docker/Dockerfile has it, without the image: `pip install -c constraints.txt` of the extra."""
    run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT])
    [wheel] = tmp_path.glob("usr_tf-*.whl")
    venv.create(tmp_path / "worker", with_pip=True)
    python = tmp_path / "worker" / "bin" / "python"
    run([python, "-m", "pip", "install", "-c", ROOT / "constraints.txt", f"{wheel}[pipelines]"])
    run([python, "-m", "pip", "check"])
    out = tmp_path / "data"
    run([python, "-m", "pipelines.preprocess", f"--logs={made.logs}", f"--out={out}", "--partitions=3"], cwd=tmp_path)
    assert read_rows(out, "train") == read_rows(made.data, "train")


def run(command, cwd=ROOT):
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
