"""Does USR help? Every backbone with and without it, on simulated shops or on given data.

Run from the repository: `python -m benchmarks.usr_gain --work DIR [--json FILE]`, or `--data NAME=DATA …` for data that
`usr-tf preprocess` made. What is in DIR already is not done again, so an interrupted run goes on.

- Every model gets the same budget: of `EPOCHS`, the one with the least validation loss.
- The better of two learning rates is taken for every backbone, with USR and without: by the mean validation AUC over
  scenarios and tasks, in a shop of its own at the first similarity; with `--data`, in those data.
- An interval is a paired bootstrap: seeds (each a shop of its own, and new initial weights) are drawn, then users
  within each, the same for both models.
  There is none where more than a tenth of the draws leave a figure undefined, nor where a figure itself is.
- *gap* is the share of (oracle − backbone) that USR closes.
- The ablation takes one part of USR away at a time: Δ is what the whole has over the rest. The interest extractor
  hands on the product of interest and item, which is not USR's own; "backbone with product" has it of the mean history.
"""

import argparse
import functools
import gc
import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.metrics import roc_auc_score

from benchmarks.shops import Shop, make_shop
from usr_tf.metrics import Predictions, paired_bootstrap_sample
from usr_tf.schema import SUCCESS, load_schema

BACKBONES = ("shared_bottom", "mmoe", "ple", "star", "m2m", "apg")
SIMILARITIES = (0.3, 0.9)
FIRST_SEED, TUNING_SEED = 10, 9
LEARNING_RATES = (0.001, 0.003)
EPOCHS, BATCH = 2, 1024
REPLICATES = 1000
OF_SHOPS = ("embedding_spread=0.3",)
"""Set for every model of a shop, which has so few ids that each is seen hundreds of times."""

_PARTS = {part: (f"usr.{part}=false",) for part in ("ie", "fg", "glmt", "contrastive")}
_ALONE = sum(_PARTS.values(), ())
ABLATION: Mapping[str, tuple[str, ...]] = {
    **{f"without {part}": settings for part, settings in _PARTS.items()},
    "backbone with product": (*_ALONE, "history.product=true"),
}
VARIANTS: Mapping[str, tuple[str, ...]] = {"backbone": _ALONE, "usr": (), **ABLATION}
"""What each variant sets in the configuration."""


class Job(NamedTuple):
    """One model to train and to score the test split with."""

    name: str
    """Of its data."""
    data: Path
    backbone: str
    variant: str
    learning_rate: float
    seed: int
    settings: tuple[str, ...]
    """Further `key=value` of the configuration."""

    def result(self, work: Path) -> Path:
        budget = f"{EPOCHS}-epochs-of-{BATCH}"
        place = hashlib.sha256(str(self.data.resolve()).encode()).hexdigest()[:8]
        parts = (place, self.backbone, self.variant, f"{self.learning_rate:g}", self.seed, *self.settings)
        return work / "results" / budget / f"{'_'.join(map(str, parts)).replace(' ', '-')}.pkl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="directory of shops and results, kept")
    parser.add_argument("--data", metavar="NAME=DATA", help="what preprocess made of real logs, instead of shops")
    parser.add_argument("--backbones", nargs="+", default=BACKBONES, choices=(*BACKBONES, "pepnet"))
    parser.add_argument("--similarity", type=float, nargs="+", default=SIMILARITIES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--impressions", type=int, default=200_000)
    parser.add_argument("--ablate", nargs="*", default=BACKBONES[:1], help="which of them to ablate")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every model")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    arguments.ablate = [backbone for backbone in arguments.ablate if backbone in arguments.backbones]
    seeds = range(FIRST_SEED, FIRST_SEED + arguments.seeds)
    pairs = [(backbone, variant) for variant in ("backbone", "usr") for backbone in arguments.backbones]
    ablation = [(backbone, variant) for variant in ABLATION for backbone in arguments.ablate]
    with multiprocessing.get_context("spawn").Pool(arguments.workers, _use_one_thread) as pool:
        if arguments.data:
            name, _, folder = arguments.data.partition("=")
            data = {(name, seed): Path(folder) for seed in seeds}
            tuning = (name, FIRST_SEED, Path(folder))
        else:
            shops = [Shop(arguments.impressions, rho, seed) for rho in arguments.similarity for seed in seeds]
            shops.append(Shop(arguments.impressions, arguments.similarity[0], TUNING_SEED))
            made = _run(pool, functools.partial(make_shop, work=arguments.work), shops, "make shops")
            data = {(f"similarity {shop.similarity}", shop.seed): path for shop, path in zip(shops, made, strict=True)}
            tuning = (*data.popitem()[0], made[-1])
        do = functools.partial(_do, work=arguments.work)
        name, seed, folder = tuning
        settings = (*(() if arguments.data else OF_SHOPS), *arguments.set)
        grid = [Job(name, folder, *pair, rate, seed, settings) for pair in pairs for rate in LEARNING_RATES]
        found = dict(zip(grid, _run(pool, do, grid, "tune learning rates"), strict=True))
        rates = {
            pair: max((job for job in grid if (job.backbone, job.variant) == pair), key=found.get).learning_rate
            for pair in pairs
        }
        first = next(iter(data))[0]
        jobs = [
            Job(name, folder, *pair, rates.get(pair) or rates[pair[0], "usr"], seed, settings)
            for (name, seed), folder in data.items()
            for pair in (*pairs, *(ablation if name == first else ()))
        ]
        _run(pool, do, jobs, "train")
    figures = {
        "learning_rates": {", ".join(pair): rate for pair, rate in rates.items()},
        "gain": _compare(jobs, arguments.work, ["backbone"]),
        "ablation": _compare(jobs, arguments.work, ABLATION),
    }
    _report(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _run(pool: Any, function: Callable, tasks: Sequence, what: str) -> list:
    return list(track(pool.imap(function, tasks), what, len(tasks), console=Console(stderr=True)))


def _use_one_thread() -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _do(job: Job, work: Path) -> float:
    """Trains a model and keeps what it says of the test split. Returns its mean validation AUC."""
    result = job.result(work)
    if not result.exists():
        import tf_keras as keras

        from usr_tf.config import load_config
        from usr_tf.data import open_data
        from usr_tf.evaluate import predict
        from usr_tf.run import open_run
        from usr_tf.train import train

        settings = {
            "seed": job.seed,
            "backbone": job.backbone,
            "train.learning_rate": job.learning_rate,
            "train.epochs": EPOCHS,
            "train.batch_size": BATCH,
            "train.patience": 0,
        }
        overrides = [*job.settings, *VARIANTS[job.variant], *(f"{key}={value}" for key, value in settings.items())]
        data, run = open_data(job.data), work / "runs" / result.stem
        if not (run / SUCCESS).exists():
            train(data, run, load_config(None, overrides), verbose=0)
        epochs = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
        predictions = predict(open_run(run).load_model(), data, "test")
        result.parent.mkdir(parents=True, exist_ok=True)
        aside = result.with_suffix(f".{os.getpid()}")
        best = min(epochs, key=lambda epoch: epoch["val_nll"])
        found = [value for name, value in best.items() if name.startswith("val_") and name.endswith("_auc")]
        aside.write_bytes(pickle.dumps((float(np.nanmean(found)), predictions)))
        aside.rename(result)
        shutil.rmtree(run)
        keras.backend.clear_session()
        gc.collect()
    return _load(job, work)[0]


def _load(job: Job, work: Path) -> tuple[float, Predictions]:
    return pickle.loads(job.result(work).read_bytes())


def _compare(jobs: Sequence[Job], work: Path, variants: Sequence[str]) -> list[dict]:
    """What `usr` has over each of `variants`: a row for each of the data, backbone, scenario and task."""
    rows = []
    of = {(job.name, job.backbone, job.variant, job.seed): job for job in jobs}
    for name, backbone in dict.fromkeys((job.name, job.backbone) for job in jobs):
        for variant in variants:
            seeds = [seed for *key, seed in of if key == [name, backbone, variant]]
            pairs = [[_load(of[name, backbone, which, seed], work)[1] for which in ("usr", variant)] for seed in seeds]
            schema = load_schema(of[name, backbone, "usr", seeds[0]].data / "schema.yaml") if seeds else None
            for number, scenario in enumerate(schema.scenarios if schema else ()):
                parts = [[rows.only(rows.scenario == number) for rows in pair] for pair in pairs]
                for task in schema.task_names:
                    row = {"data": name, "backbone": backbone, "variant": variant, "scenario": scenario, "task": task}
                    rows.append(row | _gain(parts, task))
    return rows


def _gain(pairs: Sequence[Sequence[Predictions]], task: str) -> dict[str, Any]:
    """Mean AUC over the seeds of the first and the second of each pair, and what lies between them."""
    auc = np.array([[_auc(rows.labels[task], rows.probabilities[task]) for rows in pair] for pair in pairs])
    oracle = np.mean([_auc(b.labels[task], b.oracle[task]) if task in b.oracle else np.nan for _, b in pairs])
    usr, other = auc.mean(axis=0)
    # One draw of users for all seeds: on given data they are the same users, in shops others whatever the draw.
    drawn = np.stack([paired_bootstrap_sample(*pair, task, replicates=REPLICATES, seed=7) for pair in pairs])
    chosen = np.random.default_rng(8).integers(len(pairs), size=(len(pairs), REPLICATES))
    sample = np.take_along_axis(drawn, chosen, axis=0).mean(axis=0)
    defined = sample[np.isfinite(sample)]
    enough = np.isfinite(usr - other) and len(defined) >= 0.9 * REPLICATES
    low, high = np.quantile(defined, [0.025, 0.975]) if enough else (np.nan, np.nan)
    gap = (usr - other) / (oracle - other) if oracle > other else np.nan
    figures = {
        "auc": other, "usr_auc": usr, "gain": usr - other, "low": low, "high": high, "oracle_auc": oracle, "gap": gap,
    }  # fmt: skip
    positives = int(sum(a.labels[task].sum() for a, _ in pairs))
    return {name: None if np.isnan(value) else float(value) for name, value in figures.items()} | {
        "positives": positives,
        "seeds": len(pairs),
    }


def _auc(labels: np.ndarray, scores: np.ndarray) -> float:
    return float(roc_auc_score(labels, scores)) if 0 < labels.sum() < len(labels) else float("nan")


def _report(figures: dict) -> None:
    for title, rows in (("USR on every backbone", figures["gain"]), ("USR without a part", figures["ablation"])):
        table = Table(title=title)
        for column in ("data", "backbone", "against", "scenario", "task"):
            table.add_column(column)
        for column in ("AUC", "with USR", "Δ", "95 %", "oracle", "gap"):
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(
                *(row[key] for key in ("data", "backbone", "variant", "scenario", "task")),
                *("–" if row[key] is None else form.format(**row) for key, form in _FIGURES.items()),
            )
        Console(width=160).print(table)
    print("learning rates:", figures["learning_rates"])


_FIGURES = {
    "auc": "{auc:.4f}",
    "usr_auc": "{usr_auc:.4f}",
    "gain": "{gain:+.4f}",
    "low": "{low:+.4f} to {high:+.4f}",
    "oracle_auc": "{oracle_auc:.4f}",
    "gap": "{gap:+.0%}",
}

if __name__ == "__main__":
    main()
