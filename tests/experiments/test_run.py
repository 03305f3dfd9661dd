"""With all jobs failed in the place of jobs that train."""

import json

import experiments.grid.run
from experiments.grid.models import TrainJob
from experiments.grid.run import run_experiments
from experiments.grid.spec import Spec, Tune
from experiments.grid.workers import Failure

FAILED = {"embedding_size": 3}


def spec(**keys) -> Spec:
    fields = {"title": "T", "question": "Q?", "baseline": "alone", "seeds": (10,)}
    return Spec(**fields | {"variants": {"alone": {}, "USR": FAILED}} | keys)


def fail(jobs: list[TrainJob], *_: object) -> list[Failure]:
    """Each job once, by the name that it has first."""
    found = {job.key: job for job in reversed(jobs) if job.config.embedding_size == FAILED["embedding_size"]}
    return [Failure(job.key, job.name, "no luck") for job in found.values()]


def test_a_failed_job_is_told_by_every_experiment_that_needs_it_whatever_it_calls_it(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments.grid.run, "_do", fail)
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
    assert (tmp_path / "results.md").read_text().count("Not done: ") == 6


def test_a_stage_with_nothing_to_do_draws_no_bar(tmp_path, capsys):
    assert experiments.grid.run._do([], tmp_path, 1, "tune") == []
    assert capsys.readouterr() == ("", "")
