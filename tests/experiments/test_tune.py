"""Tuning with a fake training."""

import usr_tf

# isort: split
import csv
import functools
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import yaml

import usr_tf.experiments.tune
from usr_tf.config import BACKBONE_NAMES, Config, load_config
from usr_tf.data import Data
from usr_tf.errors import InputError
from usr_tf.experiments.search_space import Choices, Range, default_space, load_space
from usr_tf.experiments.tune import best_trials, tune, values_of
from usr_tf.experiments.tune_page import tune_page
from usr_tf.training.nan_guard import NotFiniteError

SPACE = {
    "train.learning_rate": {"low": 0.0001, "high": 1.0, "log": True},
    "shared_bottom.bottom": {"choices": [[8], [16, 8]]},
    "embedding_size": {"low": 2, "high": 6},
}
EPOCHS = 4
SCHEMA = SimpleNamespace(scenarios=("search",), task_names=("ctr",))


class FakeTrain:
    """Its loss is least at a learning rate of 0.01, and falls from epoch to epoch."""

    def __init__(self) -> None:
        self.configs: list[Config] = []
        self.fails: Exception | None = None
        self.auc: float | Callable[[int], float] = 1.0

    def __call__(self, data, out: Path, config: Config, verbose, callbacks) -> dict:
        out.mkdir(parents=True)
        self.configs.append(config)
        if self.fails:
            raise self.fails
        loss = abs(math.log10(config.train.learning_rate) + 2)
        for epoch in range(EPOCHS):
            for callback in callbacks:
                auc = self.auc(epoch) if callable(self.auc) else self.auc - loss / 10
                callback.on_epoch_end(epoch, {"val_nll": loss + 1 / (1 + epoch), "val_search/ctr_auc": auc})
        return {"overall": {"ctr": {"gauc": 1 - loss / 10, "ne": None}}, "scenarios": {}}


@pytest.fixture
def train(monkeypatch):
    fake = FakeTrain()
    monkeypatch.setattr(usr_tf.experiments.tune, "train", fake)
    monkeypatch.setattr(usr_tf.experiments.tune.gc, "collect", lambda: 0)  # collecting is slow
    monkeypatch.setattr(usr_tf.experiments.tune, "tune_page", lambda *_: "")  # so do its pictures
    return fake


@pytest.fixture
def search(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(SPACE, sort_keys=False), encoding="utf-8")

    def run(trials: int, out: str = "out", **arguments) -> optuna.Study:
        return tune(Data(tmp_path / "data", SCHEMA), tmp_path / out, trials, space_path=str(path), **arguments)

    return run


def test_it_finds_the_best_and_writes_a_configuration_to_train_with(train, search, tmp_path, monkeypatch):
    monkeypatch.setattr(usr_tf.experiments.tune, "tune_page", tune_page)
    study = search(12, overrides=["train.epochs=9"])
    best = best_trials(study)[0]
    assert best.value == pytest.approx(abs(math.log10(best.params["train.learning_rate"]) + 2) + 1 / EPOCHS)
    assert best.value < 1  # the learning rate is within a factor of 6 of the right one
    config = load_config(tmp_path / "out" / "config.yaml")
    assert config == train.configs[best.number].model_copy(update={"data": None})
    assert config.train.epochs == 9
    assert list(config.shared_bottom.bottom) == values_of(best)["shared_bottom.bottom"]
    with (tmp_path / "out" / "trials.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 12
    assert float(table[best.number]["val_nll"]) == best.value
    assert {row["state"] for row in table} == {"complete", "pruned"}
    assert {bool(row["val_nll"]) for row in table if row["state"] == "pruned"} == {False}
    assert not list((tmp_path / "out" / "trials").iterdir())
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Search for the best val_nll" in report
    assert "mathdefault" not in report  # the learning rate's axis is logarithmic, its ticks plain numbers
    assert ">[16, 8]<" in report  # the names of choices stand at the left


def test_a_study_that_goes_on_is_the_unbroken_one(train, search):
    whole = search(4)
    search(2, out="cut")
    cut = search(4, out="cut")
    assert [trial.params for trial in cut.trials] == [trial.params for trial in whole.trials]
    assert len(train.configs) == 8


def test_another_seed_is_another_search(train, search):
    assert search(2).trials[1].params != search(2, out="other", seed=1).trials[1].params


def test_a_trial_whose_process_was_killed_has_failed_and_does_not_count(train, search):
    study = search(2)
    study.ask()  # and nobody holds its lock
    again = search(3)
    assert [trial.state.name for trial in again.trials] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]


def test_a_trial_that_another_process_runs_is_left_alone_and_counts(train, search, tmp_path):
    study = search(2)
    trial = study.ask()
    with usr_tf.experiments.tune._held(tmp_path / "out", trial.number):
        again = search(3)
    assert [trial.state.name for trial in again.trials] == ["COMPLETE", "COMPLETE", "RUNNING"]


def test_a_diverging_configuration_counts_and_any_other_trouble_ends_the_search(train, search):
    train.fails = InputError("run", "loss NaN", "finite losses")
    train.fails.__cause__ = NotFiniteError(0, 3, ["loss"])
    assert [trial.state.name for trial in search(2).trials] == ["PRUNED", "PRUNED"]
    train.fails = InputError("part-0", "a break", "whole records")
    with pytest.raises(InputError, match="part-0"):
        search(2, out="broken")


@pytest.mark.parametrize("objective", ["val_search/ctr_auc", "overall/ctr/gauc"])
def test_a_figure_that_is_better_the_higher_is_maximised(train, search, objective):
    best = best_trials(search(3, objective=objective))
    assert best[0].value == max(trial.value for trial in best)
    assert abs(math.log10(best[0].params["train.learning_rate"]) + 2) == pytest.approx(10 * (1 - best[0].value))
    monitor = objective if objective.startswith("val_") else "val_nll"
    assert {config.train.monitor for config in train.configs} == {monitor}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": "overall/ctr/calibration"}, "--objective: found 'overall/ctr/calibration', expected a figure"),
        (
            {"objective": "overall/ctr/ne"},
            "--objective: found 'overall/ctr/ne', undefined on the validation split, expected one that is defined: g",
        ),
        ({"objective": "serch/ctr/auc"}, "--objective: found 'serch/ctr/auc', expected val_FIGURE or SCENARIO/TASK/F"),
        (
            {"objective": "val_serch/ctr_auc"},
            "--objective: found 'val_serch/ctr_auc', expected a loss of validation, or",
        ),
        (
            {"objective": "val_ctr_auc"},
            "--objective: found 'val_ctr_auc', expected a loss of validation, or one of val_",
        ),
        ({"objective": "overall/ctc/auc"}, "--objective: found 'overall/ctc/auc', expected val_FIGURE or SCENARIO/TA"),
        ({"objective": "nll"}, "--objective: found 'nll', expected val_FIGURE or SCENARIO/TASK/FIGURE: of overall"),
        ({"trials": 0}, "--trials: found 0"),
    ],
)
def test_a_bad_question_is_refused(train, search, arguments, message):
    with pytest.raises(InputError) as error:
        search(**({"trials": 1} | arguments))
    assert message in str(error.value)
    assert len(train.configs) == (arguments.get("objective") == "overall/ctr/ne")  # else before anything is trained


def test_epochs_that_do_not_define_the_objective_do_not_count(train, search):
    train.auc = lambda epoch: math.nan if epoch in (0, 2) else 0.5 + epoch / 10
    (best,) = best_trials(search(1, objective="val_search/ctr_auc"))
    assert best.value == pytest.approx(0.8)


def test_an_objective_that_validation_does_not_define_ends_the_search(train, search):
    """Optuna fails such a trial, which does not count, and the next would meet the same: it would never end."""
    train.auc = math.nan
    with pytest.raises(InputError, match="--objective: found 'val_search/ctr_auc', undefined in validation"):
        search(1, objective="val_search/ctr_auc")


def test_what_a_killed_process_had_not_written_is_written_later(train, search, tmp_path):
    search(2)
    whole = {name: (tmp_path / "out" / name).read_text() for name in ("config.yaml", "trials.csv")}
    for name in whole:
        (tmp_path / "out" / name).unlink()
    search(2)
    assert {name: (tmp_path / "out" / name).read_text() for name in whole} == whole


def test_another_question_to_the_same_study_is_refused(train, search):
    search(1)
    with pytest.raises(InputError, match="found a study of another config, expected"):
        search(2, overrides=["usr.ie=false"])


def test_what_is_set_is_not_searched(train, search, tmp_path):
    with pytest.raises(InputError, match=r"--set: found 'embedding_size', expected a key that .*space\.yaml does not"):
        search(1, overrides=["embedding_size=3"])
    study = tune(Data(tmp_path / "data", SCHEMA), tmp_path / "default", 1, overrides=["embedding_size=3"])
    assert "embedding_size" not in study.trials[0].params
    assert "train.learning_rate" in study.trials[0].params
    assert train.configs[0].embedding_size == 3


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"train.rate": {"low": 1, "high": 2}}, "space.yaml: train.rate: found 1 (default.yaml with --set: train.rate"),
        ({"embedding_size": {"low": 0, "high": 4}}, "space.yaml: embedding_size: found 0 ("),
        (
            {"embedding_size": {"low": 4, "high": 4}},
            "space.yaml: embedding_size: high: found 4, expected more than low",
        ),
        ({"embedding_size": {"low": 0, "high": 4, "log": True}}, "low: found 0, expected a number above 0"),
        ({"embedding_size": {"choices": []}}, "space.yaml: embedding_size: choices"),
        ({"embedding_size": {"least": 3}}, "space.yaml: embedding_size: "),
        ({"usr.ie": {"choices": [True, "perhaps"]}}, "usr.ie: found 'perhaps' ("),
        ([], "space.yaml: found no keys"),
    ],
)
def test_a_bad_space_is_refused_in_a_line(tmp_path, space, message):
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(space), encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_space(path)
    assert message in str(error.value)


@pytest.mark.parametrize("backbone", BACKBONE_NAMES)
def test_the_default_space_is_bounded_and_the_configuration_takes_all_of_it(tmp_path, backbone):
    space = default_space(load_config(None, [f"backbone={backbone}"]))
    path = tmp_path / "space.yaml"
    path.write_text(
        yaml.safe_dump({key: axis.model_dump(mode="json") for key, axis in space.items()}), encoding="utf-8"
    )
    assert load_space(path) == {
        key: axis
        if isinstance(axis, Range)
        else Choices(choices=[list(c) if isinstance(c, list) else c for c in axis.choices])
        for key, axis in space.items()
    }
    assert any(key.startswith(backbone) for key in space)
    for key, axis in space.items():
        default = functools.reduce(getattr, key.split("."), Config())
        if isinstance(axis, Range):
            assert axis.low < default < axis.high, key
        else:
            assert default in [tuple(choice) if isinstance(choice, list) else choice for choice in axis.choices], key


def test_the_default_space_has_no_weight_of_a_part_that_is_switched_off():
    assert not [
        key for key in default_space(load_config(None, ["usr.glmt=false", "usr.contrastive=false"])) if "usr." in key
    ]
