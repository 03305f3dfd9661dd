import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import usr_tf.experiments.grid.worker_processes
from tests.experiments.fake_jobs import FakeJob
from usr_tf.experiments.grid.worker_processes import Failure, locked, pending, run_jobs


def done(work: Path) -> list[str]:
    return (work / "done.txt").read_text().split()


def test_what_a_job_needs_comes_first_and_once(tmp_path):
    base = FakeJob("base")
    assert run_jobs([FakeJob("a", (base,)), FakeJob("b", (base,)), base], tmp_path, workers=2) == []
    assert done(tmp_path)[0] == "base"
    assert sorted(done(tmp_path)) == ["a", "b", "base"]


def test_what_is_done_is_not_done_again(tmp_path):
    jobs = [FakeJob("a"), FakeJob("b")]
    (tmp_path / "a").touch()
    assert list(pending(jobs, tmp_path)) == ["b"]
    run_jobs(jobs, tmp_path, workers=1)
    assert done(tmp_path) == ["b"]
    assert pending(jobs, tmp_path) == {}


def test_a_job_that_fails_leaves_the_others_be_and_takes_along_what_needs_it(tmp_path):
    bad, odd = FakeJob("bad", error="input"), FakeJob("odd", error="no such luck")
    told = {}
    failures = run_jobs(
        [bad, odd, FakeJob("after", (bad,)), FakeJob("good")],
        tmp_path,
        workers=1,
        ended=lambda job, reason: told.update({job.key: reason}),
    )
    assert failures[0] == Failure("bad", "job bad", "here: found nothing, expected something")
    assert failures[1] == Failure("after", "job after", "needs job bad, which failed")
    assert failures[2].name == "job odd"
    assert failures[2].reason.startswith("RuntimeError: no such luck (fake_jobs.py, line ")
    assert done(tmp_path) == ["good"]
    assert told.keys() == {"bad", "odd", "after", "good"}
    assert told["good"] is None


def test_a_job_whose_worker_dies_is_tried_once_more(tmp_path):
    unlucky, deadly = FakeJob("unlucky", deaths=1), FakeJob("deadly", deaths=9)
    assert run_jobs([deadly, unlucky, FakeJob("good")], tmp_path, workers=1) == [
        Failure("deadly", "job deadly", "its worker died 2 times (signal 9)")
    ]
    assert sorted(done(tmp_path)) == ["good", "unlucky"]
    assert (tmp_path / "deadly.tries").read_text() == "xx"


@pytest.mark.parametrize(("most", "workers"), [(10**6, 1), (0, 3)])
def test_a_worker_that_has_grown_is_replaced(tmp_path, monkeypatch, most, workers):
    monkeypatch.setattr(usr_tf.experiments.grid.worker_processes, "_MOST_MIB", most)
    assert run_jobs([FakeJob("a"), FakeJob("b"), FakeJob("c")], tmp_path, workers=1) == []
    assert done(tmp_path) == ["a", "b", "c"]
    assert len({*(tmp_path / "workers.txt").read_text().split()}) == workers


@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_when_the_main_process_ends_its_workers_end_and_the_rest_is_done_later(tmp_path, how):
    held = tmp_path / "held"
    held.touch()
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "tests.experiments.fake_jobs", str(tmp_path), str(held)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        main = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
        while not (tmp_path / "cut.begun").exists():
            assert main.poll() is None
        if how == "killed":
            main.kill()
        else:
            os.killpg(main.pid, signal.SIGINT)  # Ctrl-C reaches the workers too
        main.wait()
        with locked(tmp_path / "locks" / "cut"):  # had while its worker lives
            assert done(tmp_path) == ["done"]
    assert run_jobs([FakeJob("done"), FakeJob("cut"), FakeJob("later")], tmp_path, workers=1) == []
    assert done(tmp_path) == ["done", "cut", "later"]
