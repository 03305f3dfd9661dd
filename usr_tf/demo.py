"""Demo: every step once on a simulated shop, from logs to served scores.

Where LightGBM is installed, the evaluation compares the model with trees on the same rows.
"""

import importlib.util
import time
from pathlib import Path

from rich.console import Console

from pipelines.preprocess import preprocess
from pipelines.quality.row_counts import describe
from pipelines.simulator.simulate import simulate
from serving.client import Ranker
from serving.client.ranking import format_ranking
from serving.formats.logged_requests import read_requests
from serving.local_server import serve_in_background
from serving.publishing.golden import TOLERANCE, golden_requests, largest_difference, logged_inputs
from serving.publishing.offline_scores import snapshot_scorer
from serving.publishing.synthetic import synthetic_requests
from serving.publishing.warmup import write_warmup_requests
from usr_tf.baseline.config import make_config
from usr_tf.baseline.train import train_baseline
from usr_tf.config import load_config
from usr_tf.data import Data, open_data
from usr_tf.errors import InputError
from usr_tf.evaluate import evaluate, predict
from usr_tf.evaluation.report import format_table
from usr_tf.export import export
from usr_tf.files import strict_json
from usr_tf.run import Run, open_run
from usr_tf.train import train

_SETTINGS = ("train.epochs=4",)
"""The default configuration: the second or third epoch is the best of so small a shop."""


def demo(out: str | Path, impressions: int) -> None:
    """Runs every step into `out` and prints each result and its path.

    Raises:
      InputError: `out` exists and is not empty.
    """
    out, console, start = Path(out), Console(), time.monotonic()
    if out.exists() and any(out.iterdir()):
        raise InputError(out, "files", "a new or an empty directory")
    names = ("logs", "data", "run", "trees", "report", "serving")
    logs, data_dir, run_dir, trees_dir, report, serving = (out / name for name in names)

    def step(text: str) -> None:
        console.print(f"\n[bold]{time.monotonic() - start:4.0f} s  {text}[/bold]")

    step(f"simulate → {logs}")
    made = simulate(logs, impressions)
    console.print(", ".join(f"{rows:,} {table}" for table, rows in made["counts"].items()))
    step(f"preprocess → {data_dir}")
    console.print(describe(preprocess(str(logs), str(data_dir), progress=True)))
    data = open_data(data_dir)
    step(f"train → {run_dir}")
    train(data, run_dir, load_config(overrides=_SETTINGS))
    run = open_run(run_dir)
    baselines = []
    if importlib.util.find_spec("lightgbm"):
        step(f"baseline → {trees_dir}")
        baselines.append(train_baseline(data, trees_dir, make_config(), console.print))
    step(f"evaluate → {report}/report.html")
    console.print(format_table(*evaluate(run, data, report, baselines=baselines)))
    step(f"export → {serving}")
    version = export(run, serving, lambda folder: write_warmup_requests(folder, synthetic_requests(run)))
    console.print(f"{version}: signatures {', '.join(data.schema.scenarios)}, and each with _examples")
    step("serve, and score over gRPC")
    with serve_in_background(serving) as server, Ranker(server.address) as ranker:
        for scenario in data.schema.scenarios:
            request = read_requests(run.requests / f"{scenario}.jsonl")[0].document
            file = out / f"request_{scenario}.json"
            file.write_text(strict_json(request, indent=2), encoding="utf-8")
            asked = f"{scenario}: {request['inputs'].get('query') or 'no query'} ({file})"
            print(format_ranking(ranker.score(scenario, request), asked))
        requests, difference = serving_difference(run, data, ranker)
    if difference > TOLERANCE:
        raise RuntimeError(f"served and offline scores differ by {difference}, expected at most {TOLERANCE}")
    console.print(f"{requests} logged requests: served and offline scores differ by {difference:.1e} at the most")
    step("done")


def serving_difference(run: Run, data: Data, ranker: Ranker) -> tuple[int, float]:
    """Largest difference between served and offline probabilities of the run's logged requests.

    Returns:
      The number of requests, and the difference.
    """
    predictions = predict(run.load_model(), data, "test")
    golden = golden_requests(run.requests, run.schema, predictions, snapshot_scorer(run))
    specs = ranker.metadata()
    served = [ranker.predict(*logged_inputs(request, specs)) for request in golden]
    return len(golden), largest_difference(golden, served).value
