"""Served model of the benchmark: same shape as in the training benchmark, made by `usr-tf` commands.

`python -m benchmarks.serving.shop --work DIR [--usr] [--backbone mmoe]` makes one and prints its folder of versions.
Its weights are those of a short training: what they are is nothing to the time that a request takes.
"""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

import usr_tf  # noqa: F401  (before TensorFlow)

# isort: split
import numpy as np
import pandas as pd

from benchmarks.training.measure import BACKBONES, SCENARIOS
from benchmarks.training.ours import ARCHITECTURE, WITHOUT_USR
from benchmarks.training.workload import ACTIONS, HISTORY, Rows, Size, generate, schema
from usr_tf.schema import ITEM, ROW_FORMAT, SUCCESS, USER, Schema, history_column

IMPRESSIONS = 4_000
_DAY_MS, _START_MS = 86_400_000, 1_700_000_000_000


def make_serving(work: Path, backbone: str, usr: bool, vocabulary: int = Size().vocabulary) -> Path:
    """Folder of the exported versions, made on first use."""
    logs = work / f"logs-{vocabulary}"
    folder = work / f"{backbone}{'-usr' if usr else ''}-{vocabulary}-format-{ROW_FORMAT}"
    data, run, serving = work / f"data-{vocabulary}-format-{ROW_FORMAT}", folder / "run", folder / "serving"
    if not (logs / SUCCESS).exists():
        _write_logs(logs, Size(vocabulary, IMPRESSIONS))
    if not (data / SUCCESS).exists():
        from pipelines.preprocess import preprocess

        preprocess(str(logs), str(data))
    if not serving.exists():
        from serving.publishing.synthetic import synthetic_requests
        from serving.publishing.warmup import write_warmup_requests
        from usr_tf.config import load_config
        from usr_tf.data import open_data
        from usr_tf.export import export
        from usr_tf.run import open_run
        from usr_tf.train import train

        shutil.rmtree(folder, ignore_errors=True)
        settings = [*ARCHITECTURE, f"backbone={backbone}", "train.epochs=1", *(() if usr else WITHOUT_USR)]
        train(open_data(data), run, load_config(None, settings), verbose=False)
        opened = open_run(run)
        export(opened, serving, lambda version: write_warmup_requests(version, synthetic_requests(opened)))
    return serving


def request(candidates: int, vocabulary: int = Size().vocabulary, seed: int = 0) -> dict[str, np.ndarray]:
    """Request of a user with a full history, as the signature takes it, with strings as bytes."""
    layout, rng = schema(Size(vocabulary)), np.random.default_rng(seed)
    inputs: dict[str, np.ndarray] = {}
    for name, feature in layout.features.items():
        rows = candidates if feature.group == "item" else 1
        if feature.type == "numeric":
            inputs[name] = rng.normal(size=rows).astype(np.float32)
        else:
            inputs[name] = _strings(rng.integers(1, feature.hash_buckets + 1, rows))
    inputs[history_column(ITEM)] = _strings(rng.integers(1, vocabulary + 1, (1, HISTORY)))
    inputs[history_column("action")] = np.array([[ACTIONS[0].encode()] * HISTORY], object)
    inputs[history_column("scenario")] = np.array([[SCENARIOS[0].encode()] * HISTORY], object)
    inputs[history_column("age")] = np.arange(HISTORY, 0, -1, dtype=np.int64)[np.newaxis] * 3_600_000
    return inputs


def _strings(values: np.ndarray) -> np.ndarray:
    return values.astype(bytes).astype(object)


def _write_logs(logs: Path, size: Size) -> None:
    """Raw logs of the workload's first rows, one request per row."""
    layout, rows = schema(size), generate(size)
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    table = pd.DataFrame(dict(_columns(rows, layout)))
    table["request_id"] = [f"r{row}" for row in range(len(table))]
    table["scenario"] = np.array(SCENARIOS)[rows.scenario]
    table["timestamp"] = _START_MS + np.arange(len(table)) * (7 * _DAY_MS // len(table))
    of_group = {group: layout.features_of(group) for group in ("user", "item", "context")}
    tables = {
        "impressions": table[["request_id", "scenario", USER, ITEM, "timestamp", *of_group["context"]]],
        "users": table.drop_duplicates(USER)[list(of_group["user"])],
        "items": table.drop_duplicates(ITEM)[list(of_group["item"])],
        "actions": pd.concat(
            table.loc[rows.labels[:, place] > 0, ["request_id", "scenario", USER, ITEM, "timestamp"]].assign(
                action=action, timestamp=lambda chosen, place=place: chosen["timestamp"] + 1_000 * (place + 1)
            )
            for place, action in enumerate(ACTIONS)
        ),
    }
    for name, content in tables.items():
        content.to_json(logs / f"{name}.jsonl", orient="records", lines=True)
    (logs / "schema.yaml").write_text(layout.to_yaml(), encoding="utf-8")
    (logs / SUCCESS).touch()


def _columns(rows: Rows, layout: Schema) -> Iterator[tuple[str, np.ndarray]]:
    kinds = {"categorical": rows.fields.T.astype(str), "numeric": rows.numbers.T.astype(float)}
    for kind, columns in kinds.items():
        names = [name for name, feature in layout.features.items() if feature.type == kind]
        yield from zip(names, columns, strict=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--backbone", choices=BACKBONES, default="mmoe")
    parser.add_argument("--usr", action="store_true")
    arguments = parser.parse_args()
    print(make_serving(arguments.work, arguments.backbone, arguments.usr))


if __name__ == "__main__":
    main()
