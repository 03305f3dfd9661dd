"""Training killed ten times with SIGKILL: `pytest -s -m slow tests/usr_tf/test_kill.py` prints when."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.usr_tf.fixtures import small_config
from tests.usr_tf.test_resume import check_same_figures
from usr_tf.run import Run
from usr_tf.schema import SUCCESS
from usr_tf.training.checkpoints import newest_checkpoint

KILLS, EARLY = 10, (3, 7)
"""Two of the kills come at any moment of the first seconds, the others while the model trains."""
SETTINGS = {
    "usr": {"ie": False, "glmt": False},  # what is left has all the chance there is, and is traced sooner
    "position_tower": {"enabled": True},
    "train": {"epochs": 4, "patience": 4, "batch_size": 16, "checkpoint_minutes": 0.2 / 60},
}


class Try:
    """A process that trains."""

    def __init__(self, data: Path, run: Run, config: Path):
        self._run, self._before, self._start = run, newest_checkpoint(run), time.monotonic()
        flags = [f"--data={data}", f"--out={run.directory}", f"--config={config}"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "usr_tf.cli", "train", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def wait_for_a_checkpoint(self) -> float:
        """Seconds until there is a new one."""
        while newest_checkpoint(self._run) == self._before:
            assert self._process.poll() is None, self._process.stderr.read().decode()
            time.sleep(0.005)
        return time.monotonic() - self._start

    def wait_for_its_end(self) -> float:
        """Seconds until it is done."""
        _, errors = self._process.communicate()
        assert self._process.returncode == 0, errors.decode()
        return time.monotonic() - self._start

    def kill(self) -> float:
        """Seconds that it lived."""
        assert self._process.poll() is None, self._process.stderr.read().decode()
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()
        assert self._process.returncode == -signal.SIGKILL
        return time.monotonic() - self._start


@pytest.mark.slow
def test_a_run_killed_ten_times_ends_as_the_unbroken_one(toy_data, tmp_path):
    """The same steps, history and metrics to the last digit, for on one CPU the same operations give the same sums."""
    config = tmp_path / "config.yaml"
    config.write_text(small_config(**SETTINGS).to_yaml(), encoding="utf-8")
    whole, cut = (Run(tmp_path / name, small_config(), toy_data.schema) for name in ("whole", "cut"))

    unbroken = Try(toy_data.directory, whole, config)
    startup = unbroken.wait_for_a_checkpoint()
    training = unbroken.wait_for_its_end() - startup
    last = Path(newest_checkpoint(whole)).name
    print(f"\nunbroken: {startup:.1f} s to the first checkpoint, {training:.1f} s from there to {last}", flush=True)

    rng = random.Random(0)
    for number in range(1, KILLS + 1):
        attempt = Try(toy_data.directory, cut, config)
        if number in EARLY:
            time.sleep(rng.uniform(0, startup))
        else:
            attempt.wait_for_a_checkpoint()
            time.sleep(rng.uniform(0, training / KILLS))
        lived, found = attempt.kill(), newest_checkpoint(cut)
        aside = len(list(cut.latest.glob("*_temp*")))
        print(
            f"kill {number}: after {lived:.1f} s; newest is {found and Path(found).name}, {aside} half written",
            flush=True,
        )
        assert not (cut.directory / SUCCESS).exists()
    Try(toy_data.directory, cut, config).wait_for_its_end()

    assert Path(newest_checkpoint(cut)).name == last == f"step-{4 * 132}"
    check_same_figures(cut.directory, whole.directory)
    for name in ("history.jsonl", "metrics.json"):
        same = (cut.directory / name).read_bytes() == (whole.directory / name).read_bytes()
        print(f"{name}: the same figures{', to the byte' if same else ''}", flush=True)
    assert (
        len((cut.directory / "history.jsonl").read_text(encoding="utf-8").splitlines()) == SETTINGS["train"]["epochs"]
    )
    assert len(list(cut.latest.iterdir())) == 4  # index and data of two; nothing half written is left
