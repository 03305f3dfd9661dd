"""Monitoring of served requests: drift of features and scores from training, and calibration once actions are known.

Reads a request log (`serving.request_log`), imports it, applies the training data's transform to it, and compares.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipelines.beam.output import read_json, read_schema
from pipelines.join.as_of import label
from pipelines.logs.locations import find_files
from pipelines.logs.tables import read_file
from pipelines.preprocess import preprocess
from pipelines.quality import drift
from pipelines.sources import import_logs
from pipelines.sources.request_log import RequestLogSource
from usr_tf.errors import InputError
from usr_tf.files import make_folder, replace_text, strict_json
from usr_tf.metrics.resample import Resample
from usr_tf.schema import ITEM, REQUEST, SCENARIO, TIMESTAMP, USER, Schema, Split

FLAG = "--limit"
_REPLICATES = 200
_LEVELS = (2.5, 97.5)
_UNLIMITED = tuple(f"{kind}=1e300" for kind in drift.DriftLimits.model_fields)
_KEYS = (USER, ITEM, REQUEST, SCENARIO, TIMESTAMP)


class MonitorLimits(drift.DriftLimits):
    """Limits of the drifts of `pipelines.quality.drift`, and of scores."""

    mean_score: float = Field(0.5, ge=0, allow_inf_nan=False)
    """Change of the mean score from the label's rate in training, as a share of that rate."""
    calibration: float = Field(0.25, ge=0, allow_inf_nan=False)
    """Distance of the calibration from 1, where its interval excludes 1."""


@dataclasses.dataclass(frozen=True)
class ScoreFigures:
    """Scores of a task in a scenario."""

    scenario: str
    task: str
    rows: int
    mean_score: float
    training_rate: float | None
    """Share of positives in the training split; None without rows."""
    labelled: int
    """Rows whose attribution window is over."""
    positives: int
    calibration: float | None
    """Sum of the scores of labelled rows over their positives; None without positives."""
    interval: tuple[float, float] | None
    """95 %, over users."""

    def excesses(self, limits: MonitorLimits) -> list[str]:
        """What is beyond its limit, in words."""
        found = []
        where = f"{self.scenario} {self.task}"
        if self.training_rate and abs(self.mean_score / self.training_rate - 1) > limits.mean_score:
            found.append(f"mean score {self.mean_score:.4g} of {where} (rate in training {self.training_rate:.4g})")
        if self.calibration is not None and self.interval is not None:
            low, high = self.interval
            if abs(self.calibration - 1) > limits.calibration and not low <= 1 <= high:
                found.append(f"calibration {self.calibration:.3g} of {where} (95 % {low:.3g} to {high:.3g})")
        return found


def monitor(
    requests: Sequence[str],
    data: str,
    out: str,
    action_files: Sequence[str] = (),
    limits: Sequence[str] = (),
    beam_args: Sequence[str] = (),
    progress: bool = False,
) -> dict[str, Any]:
    """Compares served requests with the data that the served model was trained on.

    Args:
      requests: files, patterns or directories of request logs.
      data: data directory of `preprocess`.
      out: directory to make: `logs` and `data` of the requests, and `monitor.json`.
      action_files: files of later actions; without them nothing is known of labels.
      limits: `KIND=NUMBER` of `MonitorLimits`.
      beam_args: Beam options.

    Returns:
      What `monitor.json` holds: `requests`, `versions`, `latency_ms`, `scores`, `drift`, and `beyond`, a text for each
      figure beyond its limit.

    Raises:
      InputError: unreadable requests, unfinished data, or `out` is taken.
    """
    allowed = drift.parse_limits(limits, MonitorLimits, FLAG)
    schema_path = f"{data.rstrip('/')}/schema.yaml"
    schema = read_schema(schema_path)
    folder = make_folder(out)
    logs = folder / "logs"
    log = _ScoreLog(schema)
    report = import_logs(RequestLogSource(schema_path, action_files, log.add), requests, logs, progress)
    imported = read_schema(str(logs / "schema.yaml")).model_copy(update={"split": Split(valid=0, test=0)})
    replace_text(logs / "schema.yaml", imported.to_yaml())
    served = preprocess(
        str(logs), str(folder / "data"), beam_args=beam_args, progress=progress, transform=data, drift_limits=_UNLIMITED
    )
    trained = read_json(f"{data.rstrip('/')}/stats.json")
    kinds = allowed.model_dump(include={*drift.DriftLimits.model_fields})
    drifts = [
        each
        for each in drift.compare(trained, served, schema, drift.DriftLimits(**kinds))
        if each.kind != "label_rate" or action_files
    ]
    figures = _score_figures(log.scores(), trained, imported, str(logs) if action_files else None)
    beyond = [
        f"{each.kind} {each.amount:.4g} of {each.scenario} {each.name}" for each in drifts if each.verdict == "beyond"
    ]
    beyond += [text for figure in figures for text in figure.excesses(allowed)]
    document = {
        "requests": report["read"]["requests"],
        "versions": report["versions"],
        "latency_ms": {f"p{q}": round(float(np.nanpercentile(log.latencies, q)), 3) for q in (50, 99)},
        "scores": [dataclasses.asdict(figure) for figure in figures],
        "drift": drift.document(drifts),
        "beyond": beyond,
    }
    replace_text(folder / "monitor.json", strict_json(document, indent=2) + "\n")
    return document


def describe(document: dict[str, Any]) -> str:
    """Table of the scores, and what is beyond its limit."""
    cells = [
        ("scenario", "task", "rows", "mean score", "training rate", "labelled", "positives", "calibration", "95 %")
    ]
    for row in document["scores"]:
        interval = "–".join(f"{bound:.3g}" for bound in row["interval"]) if row["interval"] else "–"
        numbers = (f"{row['rows']:,}", _short(row["mean_score"]), _short(row["training_rate"]))
        labels = (f"{row['labelled']:,}", f"{row['positives']:,}", _short(row["calibration"]), interval)
        cells.append((row["scenario"], row["task"], *numbers, *labels))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    latency = ", ".join(f"{name} {value} ms" for name, value in document["latency_ms"].items())
    versions = ", ".join(f"version {name}: {count:,}" for name, count in sorted(document["versions"].items()))
    lines.append(f"{document['requests']:,} requests ({versions}); {latency}")
    drifts = document["drift"]
    within = sum(each["verdict"] in ("within", "no data") for each in drifts)
    lines.append(f"drift: {within} of {len(drifts)} figures are within their limits or have no data")
    return "\n".join([*lines, *(f"beyond its limit: {text}" for text in document["beyond"])])


def refuse(document: dict[str, Any], out: str) -> None:
    """Fails if a figure is beyond its limit.

    Raises:
      InputError: names the first.
    """
    if document["beyond"]:
        first, *others = document["beyond"]
        more = f" and {len(others)} more" if others else ""
        raise InputError(f"{out}/monitor.json", f"{first}{more}", f"all figures within their limits, or a wider {FLAG}")


@dataclasses.dataclass(frozen=True)
class _Scores:
    """Candidates of all requests, in the order of the log."""

    keys: pa.Table
    """`_KEYS`, a row for each candidate."""
    outputs: dict[str, np.ndarray]
    """`[rows]` float64 by task."""


class _ScoreLog:
    """Collects the scores of the records that the import reads."""

    def __init__(self, schema: Schema):
        self.latencies: list[float] = []
        """Of each request, ms."""
        self._keys: dict[str, list[Any]] = {name: [] for name in _KEYS}
        self._outputs: dict[str, list[float]] = {name: [] for name in schema.task_names}

    def add(self, document: dict[str, Any]) -> None:
        """Adds a record.

        Raises:
          InputError: it has no score of each candidate for each task.
        """
        items, outputs = document["inputs"][ITEM], document.get("outputs") or {}
        for name in self._outputs:
            if len(outputs.get(name) or ()) != len(items):
                expected = f"{len(items)} scores {name}, one a candidate"
                raise InputError(f"request {document[REQUEST]}: outputs", ", ".join(outputs) or "nothing", expected)
        user = document["inputs"][USER]
        shared = {name: document[name] for name in (REQUEST, SCENARIO, TIMESTAMP)}
        for name, value in {**shared, USER: user[0] if isinstance(user, list) else user}.items():
            self._keys[name] += [value] * len(items)
        self._keys[ITEM] += items
        for name, scores in self._outputs.items():
            scores += outputs[name]
        self.latencies.append(document.get("latency_ms") or math.nan)

    def scores(self) -> _Scores:
        kinds = {TIMESTAMP: pa.int64()}
        keys = pa.table({name: pa.array(values, kinds.get(name, pa.string())) for name, values in self._keys.items()})
        return _Scores(keys, {name: np.array(scores, float) for name, scores in self._outputs.items()})


def _score_figures(log: _Scores, trained: dict, schema: Schema, logs: str | None) -> list[ScoreFigures]:
    scenarios = log.keys.column(SCENARIO).to_numpy()
    labels, known = _labels(log, schema, logs)
    figures = []
    for scenario in schema.scenarios:
        rows = scenarios == scenario
        if not rows.any():
            continue
        counts = trained["splits"]["train"].get(scenario, {})
        resample = Resample.of(log.keys.column(USER).to_numpy()[rows & known], _REPLICATES)
        for task in schema.task_names:
            scores, positives = log.outputs[task], labels[task][rows & known]
            rate = counts[task] / counts["impressions"] if counts.get("impressions") else None
            predicted, happened = resample.totals(scores[rows & known], positives.astype(float))
            with np.errstate(divide="ignore", invalid="ignore"):
                samples = predicted / happened
            enough = bool(positives.sum()) and bool(np.isfinite(samples[1:]).mean() > 0.9)
            interval = np.percentile(samples[1:][np.isfinite(samples[1:])], _LEVELS).tolist() if enough else None
            figures.append(
                ScoreFigures(
                    scenario,
                    task,
                    int(rows.sum()),
                    float(scores[rows].mean()),
                    rate,
                    int((rows & known).sum()),
                    int(positives.sum()),
                    float(samples[0]) if positives.sum() else None,
                    tuple(interval) if interval else None,
                )
            )
    return figures


def _labels(log: _Scores, schema: Schema, logs: str | None) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Scenario labels of each candidate, and whether its attribution window is over."""
    rows = len(log.keys)
    nothing = {task: np.zeros(rows, np.int64) for task in schema.task_names}, np.zeros(rows, bool)
    if logs is None:
        return nothing
    batches = [
        batch
        for number, path in enumerate(find_files(logs, "actions"))
        for batch, _ in read_file(path, number, schema, "actions")
    ]
    actions = pa.Table.from_batches(batches) if batches else None
    if actions is None or not len(actions):
        return nothing
    labels, _ = label(log.keys, actions, schema)
    last = actions.column(TIMESTAMP).to_numpy().max()
    return labels, log.keys.column(TIMESTAMP).to_numpy() <= last - schema.labels.attribution


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
