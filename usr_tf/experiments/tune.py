"""Hyperparameter search with Optuna: `usr-tf tune`.

The study lies in `OUT/journal.log`. The same command goes on with it, and may run several times at once. Whoever runs a
trial holds the lock of its folder, so a trial whose lock is free and that never ended was killed: it has failed, and
does not count.
"""

import contextlib
import csv
import fcntl
import gc
import io
import json
import math
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import tf_keras as keras
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from usr_tf.config import Config, load_config
from usr_tf.data import Data
from usr_tf.errors import InputError
from usr_tf.experiments.grid.worker_processes import locked
from usr_tf.experiments.objective import is_higher_better, is_of_validation, value_in
from usr_tf.experiments.search_space import Choices, Space, default_space, load_space, setting
from usr_tf.experiments.tune_page import tune_page
from usr_tf.files import make_folder, replace_text
from usr_tf.train import train
from usr_tf.training.nan_guard import NotFiniteError

_STARTUP_TRIALS = 5
"""Trials that are not pruned: there is no median of fewer."""
_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)


def tune(
    data: Data,
    out: str | Path,
    trials: int = 30,
    *,
    space_path: str | None = None,
    config_path: str | None = None,
    overrides: Sequence[str] = (),
    objective: str = "val_nll",
    seed: int = 0,
    command: str = "",
) -> optuna.Study:
    """Trains models until the study has a number of finished or pruned trials.

    Leaves in `out`: `config.yaml`, the best configuration, whole; `trials.csv`; `report.html`; `journal.log`.

    Args:
      space_path: keys and where to look; a default space around the configuration's defaults when absent, less what
        `overrides` set.
      objective: a figure of an epoch's validation, such as `val_nll` or `val_search/ctr_auc`, of which the best epoch
        counts; or SCENARIO/TASK/FIGURE of `metrics.json`, such as `overall/ctr/gauc`.

    Raises:
      InputError: a bad space, configuration or objective, a directory of another study, or broken data.
    """
    out = Path(out)
    if trials < 1:
        raise InputError("--trials", str(trials), "a whole number from 1")
    overrides = [*overrides, *([f"train.monitor={objective}"] if is_of_validation(objective) else [])]
    base = load_config(config_path, overrides)
    fixed = {override.partition("=")[0] for override in overrides}
    if space_path:
        space = load_space(space_path, config_path, overrides)
        for key in sorted(fixed & space.keys()):
            raise InputError("--set", repr(key), f"a key that {space_path} does not search")
    else:
        space = {key: axis for key, axis in default_space(base).items() if key not in fixed}
    study = _open(out, data, base, space, objective, seed)
    search = _Search(study, data, out, space, config_path, overrides, objective)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("tune", total=trials)
        while True:
            with search.asking(), contextlib.ExitStack() as stack:
                search.fail_lost()
                bar.update(task, completed=search.count(_COUNTED))
                if search.count((*_COUNTED, TrialState.RUNNING)) >= trials:
                    break
                # A new stream for each trial: one that goes on must not draw the first trials' values again
                study.sampler = TPESampler(seed=seed * 1_000_003 + len(study.trials))
                trial = study.ask()
                stack.enter_context(_held(out, trial.number))
                lock = stack.pop_all()
            with lock:
                search.run(trial)
            search.write()
    search.write()  # what a killed process had told the study but not written
    best = best_trials(study)
    if best:
        values = {trial.number: values_of(trial) for trial in best}
        replace_text(out / "report.html", tune_page(study, best, values, objective, command))
    return study


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Finished trials, best first."""
    ended = study.get_trials(states=[TrialState.COMPLETE])
    return sorted(ended, key=lambda trial: trial.value, reverse=_maximises(study))


def values_of(trial: FrozenTrial) -> dict[str, Any]:
    """Values of a trial by key."""
    return {
        key: json.loads(value.partition("=")[2]) if isinstance(value, str) else value
        for key, value in trial.params.items()
    }


def _maximises(study: optuna.Study) -> bool:
    return study.direction == optuna.study.StudyDirection.MAXIMIZE


def _open(out: Path, data: Data, base: Config, space: Space, objective: str, seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction = "maximize" if is_higher_better(objective, data.schema) else "minimize"
    make_folder(out)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(out / "journal.log"))),
        study_name="tune",
        direction=direction,
        pruner=optuna.pruners.MedianPruner(_STARTUP_TRIALS, n_warmup_steps=1),
        load_if_exists=True,
    )
    asked = {
        "data": str(data.directory.resolve()),
        "config": base.model_dump(mode="json"),
        "space": {key: axis.model_dump(mode="json") for key, axis in space.items()},
        "objective": objective,
        "seed": seed,
    }
    for key, value in asked.items():
        text = json.dumps(value, sort_keys=True)
        if study.user_attrs.get(key, text) != text:
            raise InputError(out, f"a study of another {key}", "a new directory, or that study's own arguments")
        study.set_user_attr(key, text)
    return study


@contextlib.contextmanager
def _held(out: Path, number: int) -> Iterator[None]:
    """Lock of a trial, which the system releases when its process dies."""
    with locked(_folder(out, number) / "lock"):
        yield


def _folder(out: Path, number: int) -> Path:
    return out / "trials" / str(number)


@dataclass(frozen=True)
class _Search:
    """Study and the settings common to its trials."""

    study: optuna.Study
    data: Data
    out: Path
    space: Space
    config_path: str | None
    overrides: Sequence[str]
    objective: str

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Lock of the study: one process at a time begins or ends a trial.

        A running trial therefore either has its lock held or is lost.
        """
        with locked(self.out / "ask.lock"):
            yield

    def count(self, states: Iterable[TrialState]) -> int:
        return len(self.study.get_trials(deepcopy=False, states=tuple(states)))

    def fail_lost(self) -> None:
        """Marks trials as failed whose process has died."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            folder = _folder(self.out, trial.number)
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "lock").open("a") as file, contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.study.tell(trial.number, state=TrialState.FAIL)
                shutil.rmtree(folder)

    def run(self, trial: Trial) -> None:
        """Runs one trial."""
        folder, began = _folder(self.out, trial.number), time.time()
        config = load_config(self.config_path, [*self.overrides, *_suggest(trial, self.space)])
        higher = config.train.monitor.endswith("auc")  # which is the objective where that is of validation
        report = _Report(trial, config.train.monitor, opposed=higher != _maximises(self.study))
        try:
            metrics = train(self.data, folder / "run", config, verbose=False, callbacks=[report])
            value = self._value(metrics, report.values)
            trial.set_user_attr("seconds", round(time.time() - began, 1))
            self._tell(trial, report, value)
        except optuna.TrialPruned:
            self._tell(trial, report, state=TrialState.PRUNED)
        except InputError as error:
            diverged = isinstance(error.__cause__, NotFiniteError)
            self._tell(trial, report, state=TrialState.PRUNED if diverged else TrialState.FAIL)
            if not diverged:  # the next trial would meet it too
                raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            keras.backend.clear_session()
            gc.collect()

    def _tell(
        self, trial: Trial, report: "_Report", value: float | None = None, state: TrialState | None = None
    ) -> None:
        trial.set_user_attr("epochs", len(report.values))
        with self.asking():
            self.study.tell(trial, value, state)

    def _value(self, metrics: Mapping[str, Any], epochs: Sequence[float]) -> float:
        """Objective value of a finished run."""
        if is_of_validation(self.objective):
            defined = [value for value in epochs if math.isfinite(value)]
            if not defined:
                raise InputError("--objective", f"{self.objective!r}, undefined in validation", "one that is defined")
            return max(defined) if _maximises(self.study) else min(defined)
        return value_in(metrics, self.objective)

    def write(self) -> None:
        """Writes the trials and the best configuration."""
        table = io.StringIO()
        writer = csv.writer(table)
        writer.writerow(["trial", "state", self.objective, "epochs", "seconds", *self.space])
        for trial in self.study.get_trials(deepcopy=False):
            told = [trial.user_attrs.get(name) for name in ("epochs", "seconds")]
            values = values_of(trial)
            # Of a pruned one Optuna keeps what it reported last, which need not be of the objective
            value = trial.value if trial.state == TrialState.COMPLETE else None
            writer.writerow([trial.number, trial.state.name.lower(), value, *told, *map(values.get, self.space)])
        replace_text(self.out / "trials.csv", table.getvalue())
        best = best_trials(self.study)
        if best:
            settings = [setting(key, value) for key, value in values_of(best[0]).items()]
            config = load_config(self.config_path, [*self.overrides, *settings])
            replace_text(self.out / "config.yaml", config.to_yaml())


class _Report(keras.callbacks.Callback):
    """Callback that reports each epoch to the pruner and stops a pruned trial."""

    def __init__(self, trial: Trial, figure: str, opposed: bool):
        super().__init__()
        self._trial, self._figure, self._sign = trial, figure, -1.0 if opposed else 1.0
        self.values: list[float] = []

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self._figure not in logs:
            raise InputError("--data", "no rows to validate with", "some, which the trials are compared by")
        self.values.append(float(logs[self._figure]))
        self._trial.report(self._sign * self.values[-1], epoch)
        if self._trial.should_prune():
            raise optuna.TrialPruned


def _suggest(trial: Trial, space: Space) -> list[str]:
    """Suggested values of a trial."""
    settings = []
    for key, axis in space.items():
        if isinstance(axis, Choices):  # storage knows plain values alone
            texts = {setting(key, choice): None for choice in axis.choices}
            settings.append(trial.suggest_categorical(key, list(texts)))
        elif isinstance(axis.low, int) and isinstance(axis.high, int):
            settings.append(setting(key, trial.suggest_int(key, axis.low, axis.high, log=axis.log)))
        else:
            settings.append(setting(key, trial.suggest_float(key, axis.low, axis.high, log=axis.log)))
    return settings
