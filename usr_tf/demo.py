"""The main job once, on a simulated shop: simulate, preprocess, train, evaluate, export, serve, score."""

import json
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from pipelines.preprocess import preprocess
from pipelines.simulate import simulate
from pipelines.stats import describe
from serving.client import Ranker
from serving.ranking import format_ranking
from serving.server import serve_in_background
from serving.warmup import write_logged_requests
from usr_tf.config import load_config
from usr_tf.data import Data, open_data
from usr_tf.errors import InputError
from usr_tf.evaluate import evaluate, predict
from usr_tf.export import export
from usr_tf.report import format_table
from usr_tf.run import Run, open_run
from usr_tf.schema import ITEM
from usr_tf.train import train

_SETTINGS = ("train.epochs=3", "train.batch_size=256", "embedding_spread=0.3")  # each id is seen hundreds of times
_PARITY = 1e-5
"""How far a served probability may lie from the offline one."""


def demo(out: str | Path, impressions: int) -> None:
    """Runs the main job into `out` and prints what it made and where.

    Raises:
      InputError: `out` exists and is not empty.
    """
    out, console, start = Path(out), Console(), time.monotonic()
    if out.exists() and any(out.iterdir()):
        raise InputError(out, "files", "a new or an empty directory")
    logs, data_dir, run_dir, report, serving = (out / name for name in ("logs", "data", "run", "report", "serving"))

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
    step(f"evaluate → {report}/report.html")
    console.print(format_table(*evaluate(run, data, report)))
    step(f"export → {serving}")
    version = export(run, serving, lambda folder: write_logged_requests(folder, run.requests))
    console.print(f"{version}: signatures {', '.join(data.schema.scenarios)}, and each with _examples")
    step("serve, and score over gRPC")
    with serve_in_background(serving) as server, Ranker(server.address) as ranker:
        for scenario in data.schema.scenarios:
            request = json.loads((run.requests / f"{scenario}.jsonl").read_text(encoding="utf-8").splitlines()[0])
            file = out / f"request_{scenario}.json"
            file.write_text(json.dumps(request, indent=2), encoding="utf-8")
            asked = f"{scenario}: {request['inputs'].get('query') or 'no query'} ({file})"
            console.print(format_ranking(ranker.score(scenario, request), asked))
        requests, difference = serving_difference(run, data, ranker)
    if difference > _PARITY:
        raise RuntimeError(f"served and offline scores differ by {difference}, expected at most {_PARITY}")
    console.print(f"{requests} logged requests: served and offline scores differ by {difference:.1e} at the most")
    step("done")


def serving_difference(run: Run, data: Data, ranker: Ranker) -> tuple[int, float]:
    """The largest difference between served and offline probabilities of the run's sample of test requests.

    Returns:
      The number of requests, and the difference.
    """
    offline = predict(run.load_model(), data, "test")
    tasks = data.schema.task_names
    rows = zip(
        offline.request, offline.item, zip(*(offline.probabilities[task] for task in tasks), strict=True), strict=True
    )
    expected = {(request.decode(), item.decode()): scores for request, item, scores in rows}
    requests, worst = 0, 0.0
    for scenario in data.schema.scenarios:
        path = run.requests / f"{scenario}.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            request = json.loads(line)
            for row in ranker.score(scenario, request):
                served = [row[task] for task in tasks]
                worst = max(worst, np.abs(np.subtract(served, expected[request["request_id"], row[ITEM]])).max())
            requests += 1
    return requests, float(worst)
