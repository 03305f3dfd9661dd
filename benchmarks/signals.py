"""Benchmark: cost of signals in preprocessing, model loading and requests, on one simulated shop.

python -m benchmarks.signals --impressions 200000 --json FILE

"Without" is the same shop by its schema without match, history_match, counters and past queries. Models are untrained:
what they cost does not depend on their weights.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import usr_tf  # (before TensorFlow)

# isort: split
import tensorflow as tf
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.alternate import alternate
from benchmarks.command_cost import run_command
from benchmarks.logged_request import longest_history
from pipelines.simulator.simulate import simulate
from usr_tf.export import export
from usr_tf.schema import load_schema

WAYS = ("without", "with")
SCENARIO = "search"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--impressions", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=500, help="candidates of a request")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--json", help="file to write the figures to")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        simulate(work / "logs", arguments.impressions)
        schemas = {"with": work / "logs" / "schema.yaml", "without": work / "without.yaml"}
        signals = len(load_schema(schemas["with"]).signals)
        document = yaml.safe_load(schemas["with"].read_text(encoding="utf-8"))
        document["history"].pop("queries")
        raw = {key: value for key, value in document.items() if key not in ("match", "history_match", "counters")}
        schemas["without"].write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
        figures = {way: preprocess(work, way, schemas[way]) for way in WAYS}
        requests = {}
        for way in WAYS:
            requests[way], figures[way]["first request, s"] = load(work, way, arguments.items)
        timed = alternate(requests, arguments.repeats)
    for way in WAYS:
        figures[way] |= {f"request {name}, ms": value for name, value in timed["milliseconds"][way].items()}
    table = Table(title=f"{arguments.impressions:,} impressions, {signals} signals, {arguments.items} candidates")
    for name in ("", *WAYS, "ratio"):
        table.add_column(name, justify="right" if name else "left")
    for name, value in figures["without"].items():
        other = figures["with"][name]
        table.add_row(name, f"{value:.2f}", f"{other:.2f}", f"{other / value:.2f}")
    Console().print(table)
    if arguments.json:
        result = {"impressions": arguments.impressions, "signals": signals, "items": arguments.items, **figures}
        Path(arguments.json).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def preprocess(work: Path, way: str, schema: Path) -> dict[str, float]:
    """Cost of `usr-tf preprocess`."""
    spent = run_command("preprocess", f"--logs={work}/logs", f"--schema={schema}", f"--out={work / way}")
    return {
        "preprocess CPU, s": spent.cpu_seconds,
        "preprocess wall, s": spent.wall_seconds,
        "preprocess peak memory, GB": spent.peak_bytes / 1e9,
    }


def load(work: Path, way: str, items: int) -> tuple[Callable[[], None], float]:
    """A request to an exported model, and the seconds until the first one is answered."""
    data = usr_tf.open_data(work / way)
    model = usr_tf.USRModel.from_data(data)
    model.compile()
    version = export(usr_tf.save_run(model, data, work / f"run_{way}"), work / f"serving_{way}")
    start = time.perf_counter()
    signature = tf.saved_model.load(str(version)).signatures[SCENARIO]
    inputs = longest_history(data.directory / "requests" / f"{SCENARIO}.jsonl", signature, items)
    tensors = {name: tf.constant(values) for name, values in inputs.items()}

    def request() -> None:
        signature(**tensors)["ctr"].numpy()

    request()
    return request, time.perf_counter() - start


if __name__ == "__main__":
    main()
