"""Publishing: exports a run as a served version if it passes parity, score and metric checks.

The version contains what the next one is compared with, `assets.extra/metrics.json`, the metrics of its run, and what
a server is checked by, `assets.extra/golden.jsonl`. No logged request gets into it.
"""

import json
import shutil
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from serving.formats.logged_requests import LoggedRequest, format_requests
from serving.formats.signatures import signature_specs
from serving.local_server.servable import Servable
from serving.publishing.golden import (
    TOLERANCE,
    Difference,
    golden_requests,
    largest_difference,
    predict_requests,
    response_scores,
    synthetic_golden,
    write_golden,
)
from serving.publishing.labels import CANARY, STABLE, Rollout, read_rollout, write_rollout
from serving.publishing.offline_scores import OfflineScorer, snapshot_scorer
from serving.publishing.synthetic import synthetic_requests
from serving.publishing.versions import changing, list_versions, remove, remove_old, withdraw
from serving.publishing.warmup import write_warmup_requests
from usr_tf.data import Data
from usr_tf.errors import InputError
from usr_tf.evaluate import predict
from usr_tf.export import export
from usr_tf.files import replace_text
from usr_tf.run import Run
from usr_tf.schema import EXAMPLES_SUFFIX

METRICS = "metrics.json"
_CONSTANT = 1e-6
"""Scores that differ by no more than this share of the largest are one score."""

Figures = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Scenario → task → figure."""


class Published(NamedTuple):
    """Result of `publish`: the new version and its comparison with the served one."""

    version: Path
    label: str | None
    """The label that it got, where labels are kept."""
    requests: int
    difference: Difference
    served: int | None
    """The version that the figures were compared with; None for the first, or where that has none."""
    gains: dict[tuple[str, str], float]
    """(scenario, task) → AUC less that of the version served."""
    removed: list[int]

    def __str__(self) -> str:
        lines = [
            f"{self.version}: " + (f"the {self.label} version" if self.label else "the newest version"),
            f"{self.requests} golden requests, off by at most {self.difference}",
        ]
        if self.gains:
            gains = ", ".join(f"{scenario}.{task} {gain:+.4f}" for (scenario, task), gain in self.gains.items())
            lines.append(f"AUC beside version {self.served}: {gains}")
        else:
            lines.append("AUC: no version with figures to compare with")
        if self.removed:
            lines.append(f"removed: {', '.join(map(str, self.removed))}")
        return "\n".join(lines)


def publish(
    run: Run,
    data: Data,
    out: str | Path,
    margin: float = 0.002,
    keep: int = 3,
    config_file: str | Path | None = None,
    model: str = "usr",
    progress: bool = False,
    golden_file: str | Path | None = None,
) -> Published:
    """Exports the run as `OUT/<version>/` if it passes every check; otherwise leaves nothing.

    Args:
      data: data of the run's training; its test split has the rows of the logged requests.
      margin: largest allowed loss of AUC relative to the version served now.
      keep: number of versions to keep, at least 1, in addition to those with a label or to be loaded.
      config_file: text `ModelServerConfig` with labels; without it, the newest version is served.
      model: name of the model in that file.
      progress: whether to show a progress bar on standard error.
      golden_file: where to write the golden requests of real rows, with labels. They hold personal data
        (docs/privacy.md), so nothing is written when absent.

    Raises:
      InputError: a failed check, with what was found and what was expected.
    """
    if keep < 1:
        raise ValueError(f"`keep` should be at least 1. Received: keep={keep}")
    out = Path(out)
    if golden_file and Path(golden_file).resolve().is_relative_to(out.resolve()):
        raise InputError("--golden", f"a file in {out}", "one elsewhere: it holds personal data, and servers read that")
    with changing(out):
        rollout = _rollout_before(config_file, model, out) if config_file else None
        served = rollout.stable if rollout else max(list_versions(out), default=None)
        metrics = run.directory / METRICS
        figures, gains = _read_figures(metrics), {}
        if served is not None and _metrics_of(out, served).exists():
            gains = check_figures(figures, _read_figures(_metrics_of(out, served)), margin, metrics)
        predictions = predict(run.load_model(), data, "test", progress=progress)
        golden = golden_requests(run.requests, run.schema, predictions, snapshot_scorer(run))
        requests = synthetic_requests(run)
        synthetic = synthetic_golden(requests, OfflineScorer(run))
        differences = []

        def check(folder: Path) -> None:
            write_warmup_requests(folder, requests)
            differences.append(check_scores(folder, [*golden, *synthetic]))
            write_golden(folder, synthetic)
            shutil.copyfile(metrics, folder / "assets.extra" / METRICS)
            if golden_file:
                replace_text(Path(golden_file), format_requests(golden))

        version = export(run, out, check)
        needed: frozenset[int] = frozenset()
        if rollout and config_file:
            try:
                write_rollout(config_file, model, rollout.begin(int(version.name)))
            except InputError:
                remove(out, int(version.name))
                raise
            needed = read_rollout(config_file, model).loaded
            _withdraw_rolled_back(out, rollout, needed)
        label = None if rollout is None else STABLE if rollout.stable is None else CANARY
        removed = remove_old(out, keep, needed)
    return Published(version, label, len(golden), differences[0], served if gains else None, gains, removed)


def promote(out: str | Path, config_file: str | Path, model: str = "usr") -> Rollout:
    """Makes the canary the stable version and returns the new labels.

    Raises:
      InputError: there is no canary, or its folder is gone.
    """
    out = Path(out)
    with changing(out):
        rollout = read_rollout(config_file, model)
        if rollout.canary is None:
            raise InputError(config_file, "no canary", "one, which `usr-tf publish --model_config_file` makes")
        _check_folder(CANARY, rollout.canary, config_file, out)
        write_rollout(config_file, model, rollout.promote())
        return read_rollout(config_file, model)


def roll_back(out: str | Path) -> tuple[Path, int]:
    """Takes the newest version out of service; the previous one serves again.

    Returns:
      Where the newest version is kept, and the version that serves.

    Raises:
      InputError: there is no version before.
    """
    out = Path(out)
    with changing(out):
        *_, before, newest = [None, None, *sorted(list_versions(out))]
        if before is None:
            found = "no version" if newest is None else f"version {newest} alone"
            raise InputError(out, found, "one before it to go back to")
        return withdraw(out, newest), before


def roll_back_labels(out: str | Path, config_file: str | Path, model: str = "usr") -> Rollout:
    """Drops the canary, or without one makes the previous version stable. Changes no folder.

    The version's folder stays where it is, for servers that have yet to read the file; the next `publish` takes it
    out of service.

    Raises:
      InputError: there is neither a canary, nor a version before that servers have loaded.
    """
    out = Path(out)
    with changing(out):
        rollout, versions = read_rollout(config_file, model), list_versions(out)
        if rollout.stable is None:
            raise InputError(config_file, f"no label {STABLE}", f"one, which `usr-tf publish` gives a version of {out}")
        if rollout.canary is None and rollout.before(versions & rollout.loaded) is None:
            found = f"no version before {rollout.stable} that is in {out} and loaded"
            raise InputError(config_file, found, "one among the model's specific versions, to make stable")
        write_rollout(config_file, model, rollout.back(versions))
        return read_rollout(config_file, model)


def check_figures(new: Figures, served: Figures, margin: float, place: object) -> dict[tuple[str, str], float]:
    """AUC gain over the served version, by scenario and task; raises below the margin.

    Raises:
      InputError: an AUC is more than `margin` lower; names the scenario and task with the largest loss.
    """
    gains = {}
    for scenario, tasks in served.items():
        for task, figures in tasks.items():
            if figures["auc"] is None:
                continue
            auc = new.get(scenario, {}).get(task, {}).get("auc")
            if auc is None:
                raise InputError(f"{place}: {scenario}.{task}.auc", "none", f"one near {figures['auc']:.4f}, as served")
            gains[scenario, task] = auc - figures["auc"]
    worst = min(gains, key=gains.__getitem__, default=None)
    if worst is not None and gains[worst] < -margin:
        scenario, task = worst
        auc = served[scenario][task]["auc"]
        found, expected = (
            f"{auc + gains[worst]:.5f}",
            f"at least {auc - margin:.5f}, the served version's less {margin:g}",
        )
        raise InputError(f"{place}: {scenario}.{task}.auc", found, expected)
    return gains


def check_scores(version_dir: str | Path, requests: Sequence[LoggedRequest]) -> Difference:
    """Loads a version as a server does, with warm-up, and checks requests with both kinds of signature.

    Returns:
      The largest difference from the expected scores.

    Raises:
      InputError: the version does not load; or a score is not a number, the same for all candidates, or too far off.
    """
    try:
        servable = Servable(str(version_dir), 0)
    except tf.errors.OpError as error:
        raise InputError("the export", f"one that does not load ({error.message})", "a SavedModel that does") from error
    specs = signature_specs(servable.signatures)
    differences = []
    for suffix in ("", EXAMPLES_SUFFIX):
        served = [response_scores(servable.predict(asked)) for asked in predict_requests(requests, specs, suffix)]
        _refuse_dead(requests, served)
        differences.append(largest_difference(requests, served))
    worst = max(differences, key=lambda difference: difference.value)
    if worst.value > TOLERANCE:
        raise InputError("golden requests", f"a score off by {worst}", f"offline scores to {TOLERANCE:g}")
    return worst


def _rollout_before(config_file: str | Path, model: str, out: Path) -> Rollout:
    """Labels before a new version; what servers chose by number becomes `stable`.

    Raises:
      InputError: there is a canary already, or the stable version is not in `out`.
    """
    rollout, versions = read_rollout(config_file, model), list_versions(out)
    if rollout.canary is not None:
        expected = "none: --promote or --rollback comes first"
        raise InputError(config_file, f"version {rollout.canary} as {CANARY}", expected)
    if rollout.stable is None:
        return Rollout(max(versions & rollout.loaded or versions, default=None))
    _check_folder(STABLE, rollout.stable, config_file, out)
    return rollout


def _check_folder(label: str, version: int, config_file: str | Path, out: Path) -> None:
    if version not in list_versions(out):
        raise InputError(config_file, f"version {version} as {label}", f"a version that is in {out}")


def _withdraw_rolled_back(out: Path, before: Rollout, needed: Set[int]) -> None:
    """Withdraws rolled-back versions: newer than stable, except the canary.

    By now no server has them.
    """
    for version in list_versions(out) - needed:
        if before.stable is not None and version > before.stable:
            withdraw(out, version)


def _refuse_dead(requests: Sequence[LoggedRequest], served: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Refuses non-finite scores, and tasks that score all candidates of every request alike."""
    spread: dict[tuple[str, str], float] = {}
    for request, scores in zip(requests, served, strict=True):
        for task, values in scores.items():
            if not np.isfinite(values).all():
                row = int(np.argmin(np.isfinite(values)))
                where = f"{task} of item {request.item(row)} in request {request.request_id} of {request.scenario}"
                raise InputError("golden requests", f"{values[row]} ({where})", "a number")
            if len(values) > 1:
                apart = float(np.ptp(values) / max(np.abs(values).max(), np.finfo(np.float32).tiny))
                spread[request.scenario, task] = max(apart, spread.get((request.scenario, task), 0.0))
    for (scenario, task), apart in spread.items():
        if apart <= _CONSTANT:
            raise InputError("golden requests", f"one {task} for all candidates of {scenario}", "scores that rank them")


def _metrics_of(out: Path, version: int) -> Path:
    return out / str(version) / "assets.extra" / METRICS


def _read_figures(path: Path) -> Figures:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text, parse_constant=lambda _: None)["scenarios"]  # NaN, which no margin would refuse
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(path, f"no figures ({error})", "the metrics.json of a run") from error
