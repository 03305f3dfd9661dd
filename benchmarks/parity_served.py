"""Served parity: gRPC scores of logged requests against offline scores of the same rows, by both signatures.

A run keeps a sample of 200 requests a scenario. For more, the logs are preprocessed once more, with the run's own
transform and nine tenths of them as test split; offline scores are those of the run's model on these rows.

    python -m benchmarks.parity_served --run demo_out/run --serving demo_out/serving --logs demo_out/logs

Exits with 1 where a difference is above 1e-5.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import usr_tf  # noqa: F401  (before TensorFlow)

# isort: split
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pipelines.preprocess import preprocess
from serving.client import Ranker
from serving.formats.logged_requests import LoggedRequest
from serving.local_server import serve_in_background
from serving.publishing.golden import TOLERANCE, golden_requests, logged_inputs
from usr_tf.evaluate import predict
from usr_tf.run import Run, open_run, open_run_data
from usr_tf.schema import EXAMPLES_SUFFIX, Split

_KINDS = {"request": "", "examples": EXAMPLES_SUFFIX}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="directory of the run")
    parser.add_argument("--serving", required=True, help="directory of the versions exported from it")
    parser.add_argument("--logs", required=True, help="log directory that its data were made of")
    parser.add_argument("--requests", type=int, default=1000, help="of each scenario")
    parser.add_argument("--json", help="file to write the figures to")
    arguments = parser.parse_args()

    golden = logged_requests(open_run(arguments.run), arguments.logs, arguments.requests)
    with serve_in_background(arguments.serving) as server:
        figures = {
            "requests": arguments.requests,
            "version": server.version,
            "scenarios": compare(server.address, golden),
        }
    table = Table(title=f"served beside offline scores, {arguments.requests} requests a scenario over gRPC")
    for column in ("scenario", "task", "signature", "requests", "scores", "mean", "max"):
        table.add_column(column, justify="right" if column in ("requests", "scores", "mean", "max") else "left")
    rows = [row for scenario in figures["scenarios"].values() for row in scenario]
    for row in rows:
        sizes = (f"{row['requests']:,}", f"{row['scores']:,}")
        table.add_row(row["scenario"], row["task"], row["signature"], *sizes, f"{row['mean']:.1e}", f"{row['max']:.1e}")
    Console().print(table)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 1 if max(row["max"] for row in rows) > TOLERANCE else 0


def logged_requests(run: Run, logs: str, count: int) -> list[LoggedRequest]:
    """`count` logged requests of each scenario, with the offline scores of their rows."""
    with tempfile.TemporaryDirectory() as folder:
        schema = run.schema.model_copy(update={"split": Split(valid=0.05, test=0.9)})
        Path(folder, "schema.yaml").write_text(schema.to_yaml(), encoding="utf-8")
        preprocess(
            logs,
            f"{folder}/data",
            f"{folder}/schema.yaml",
            progress=True,
            transform=str(run.directory),
            logged_requests=count,
        )
        data = open_run_data(run, f"{folder}/data")
        predictions = predict(run.load_model(), data, "test", progress=True)
        golden = golden_requests(data.directory / "requests", run.schema, predictions)
    for scenario in run.schema.scenarios:
        found = sum(request.scenario == scenario for request in golden)
        if found != count:
            sys.exit(f"{logs}: found {found} requests of {scenario}, expected {count}: simulate or log more")
    return golden


def compare(address: str, golden: Sequence[LoggedRequest]) -> dict[str, list[dict]]:
    """Differences between served and expected scores: per scenario, a row per task and kind of signature."""
    with Ranker(address) as ranker:
        return {
            scenario: list(_differences(ranker, [request for request in golden if request.scenario == scenario]))
            for scenario in dict.fromkeys(request.scenario for request in golden)
        }


def _differences(ranker: Ranker, golden: Sequence[LoggedRequest]) -> Iterator[dict]:
    specs = ranker.metadata()
    for kind, suffix in _KINDS.items():
        text = f"{golden[0].scenario}, {kind}"
        served = [
            ranker.predict(*logged_inputs(request, specs, suffix))
            for request in track(golden, text, console=Console(stderr=True))
        ]
        for task in golden[0].expected:
            expected = np.concatenate([request.expected[task] for request in golden])
            apart = np.abs(np.concatenate([scores[task] for scores in served]) - expected)
            yield {
                "scenario": golden[0].scenario,
                "task": task,
                "signature": kind,
                "requests": len(golden),
                "scores": len(apart),
                "mean": float(apart.mean()),
                "max": float(apart.max()),
            }


if __name__ == "__main__":
    sys.exit(main())
