"""Experiment runner with failing jobs instead of training."""

import json

import pytest
from absl import flags

import usr_tf.experiments.grid.runner
from usr_tf.cli.experiments import VERBS, _command
from usr_tf.errors import InputError
from usr_tf.experiments.grid.runner import run_experiments
from usr_tf.experiments.grid.spec import Spec, Tune
from usr_tf.experiments.grid.training_jobs import TrainJob
from usr_tf.experiments.grid.worker_processes import Failure

FAILED = {"embedding_size": 3}


def spec(**keys) -> Spec:
    fields = {"title": "T", "question": "Q?", "baseline": "alone", "seeds": (10,)}
    return Spec(**fields | {"variants": {"alone": {}, "USR": FAILED}} | keys)


def fail(jobs: list[TrainJob], *_: object) -> list[Failure]:
    """Each job once, by the name that it has first."""
    found = {job.key: job for job in reversed(jobs) if job.config.embedding_size == FAILED["embedding_size"]}
    return [Failure(job.key, job.name, "no luck") for job in found.values()]


def test_a_failed_job_is_told_by_every_experiment_that_needs_it_whatever_it_calls_it(tmp_path, monkeypatch):
    monkeypatch.setattr(usr_tf.experiments.grid.runner, "_do", fail)
    specs = {
        "one": spec(),
        "other": spec(variants={"alone": {}, "small": FAILED}),
        "namesake": spec(variants={"alone": {}, "USR": {"embedding_size": 4}}),
        "tuned": spec(tune=Tune(values=(0.1, 0.2), variants=("USR",))),
        "tuned_too": spec(variants={"alone": {}, "small": FAILED}, tune=Tune(values=(0.1, 0.2), variants=("small",))),
    }
    results = run_experiments(specs, tmp_path)
    assert [len(each.failures) for each in results] == [1, 1, 0, 2, 2]
    assert results[0].failures[0].name == "USR on shop of 200,000 impressions, seed 10, similarity 0.3"
    assert json.loads((tmp_path / "other.json").read_text())["failures"][0]["reason"] == "no luck"
    told = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert told.count("Not done: ") == 6
    assert "| [Q?](#t) | alone | USR: not done |" in told
    assert "- *USR* against *alone*: nothing can be told, not all models are there." in told


def test_where_nothing_can_be_written_is_told_before_anything_is_done(tmp_path):
    (tmp_path / "file").touch()
    for arguments in ({"out": tmp_path / "file"}, {"out": tmp_path, "document": tmp_path / "file" / "results.md"}):
        with pytest.raises(InputError, match=r"file: found no writable directory \("):
            run_experiments({"one": spec()}, **arguments)


def test_data_that_are_not_there_are_told_before_another_spec_tunes(tmp_path, monkeypatch):
    monkeypatch.setattr(usr_tf.experiments.grid.runner, "_do", lambda *_: pytest.fail("a job was begun"))
    specs = {"tuned": spec(tune=Tune(values=(0.1, 0.2), variants=("USR",))), "one": spec(data={"toy": "nowhere"})}
    with pytest.raises(InputError, match=r"nowhere: found no stats\.json, expected a directory that"):
        run_experiments(specs, tmp_path)


def test_the_command_that_results_name_is_the_one_that_was_typed():
    values = flags.FlagValues()
    VERBS["experiment"].define(values)
    typed = ["--spec=a", "--spec=b", "--small", "--set=star.tower=[1, 2]", "--seeds=3", "--workers=1", "--out=here"]
    values(["experiment", *typed])
    told = "usr-tf experiment --spec=a --spec=b --small --seeds=3 '--set=star.tower=[1, 2]' --out=OUT"
    assert _command("experiment", values) == told


def test_a_stage_with_nothing_to_do_draws_no_bar(tmp_path, capsys):
    assert usr_tf.experiments.grid.runner._do([], tmp_path, 1, "tune") == []
    assert capsys.readouterr() == ("", "")
