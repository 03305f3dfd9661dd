"""Verbs from training data to a SavedModel, and the demonstration of all."""

import sys
from collections.abc import Sequence

from absl import flags

from usr_tf.cli.verb import PROGRAM, Verb
from usr_tf.errors import InputError


def _demo_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("out", "demo_out", "Directory to make", flag_values=values)
    flags.DEFINE_integer("impressions", 200_000, "Impressions to simulate", flag_values=values)


def _demo(values: flags.FlagValues, _: Sequence[str]) -> None:
    from usr_tf.demo import demo

    demo(values.out, values.impressions)


def _train_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("data", None, "Data directory of preprocess", flag_values=values)
    flags.DEFINE_string(
        "out",
        None,
        "Run directory to make, or an unfinished one to go on with; not for --dry_run",
        flag_values=values,
    )
    flags.DEFINE_string("config", None, "Configuration file; the package's default when absent", flag_values=values)
    flags.DEFINE_multi_string("set", None, "key=value, such as backbone=mmoe or usr.ie=false", flag_values=values)
    flags.DEFINE_bool(
        "dry_run", False, "Print what the model costs (parameters, memory, FLOPs), and do nothing", flag_values=values
    )


def _train(values: flags.FlagValues, _: Sequence[str]) -> None:
    from usr_tf.config import load_config

    config = load_config(values.config, values["set"].value or [])

    from usr_tf.data import open_data

    if values.dry_run:
        from rich.console import Console

        from usr_tf.cost import format_cost, model_cost

        data = open_data(values.data)
        console = Console(width=None if sys.stdout.isatty() else 140)
        console.print(format_cost(model_cost(data, config), data, config), highlight=False)
        return
    if not values.out:
        raise InputError(f"{PROGRAM} train: --out", "nothing", "this required flag")

    from usr_tf.train import train

    train(open_data(values.data), values.out, config)
    print(f"{values.out}: the run; its best epoch's validation figures are in metrics.json")


def _evaluate_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("run", None, "Run directory of train", flag_values=values)
    flags.DEFINE_string("data", None, "Data directory; the one trained on when absent", flag_values=values)
    flags.DEFINE_enum("split", "test", ["train", "valid", "test"], "Split to evaluate on", flag_values=values)
    flags.DEFINE_string("out", None, "Report directory to make", flag_values=values)


def _evaluate(values: flags.FlagValues, _: Sequence[str]) -> None:
    from rich.console import Console

    from usr_tf.evaluate import evaluate
    from usr_tf.report import format_table
    from usr_tf.run import open_run, open_run_data

    run = open_run(values.run)
    document, details = evaluate(run, open_run_data(run, values.data), values.out, values.split, progress=True)
    Console().print(format_table(document, details))
    print(f"{values.out}: metrics.json, details.json, report.html")


def _export_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("run", None, "Run directory of train", flag_values=values)
    flags.DEFINE_string("out", None, "Directory of the model's versions", flag_values=values)


def _export(values: flags.FlagValues, _: Sequence[str]) -> None:
    from serving.warmup import write_logged_requests
    from usr_tf.export import export
    from usr_tf.run import open_run

    run = open_run(values.run)
    print(export(run, values.out, lambda version: write_logged_requests(version, run.requests)))


VERBS = {
    "train": Verb("Train a model", _train_flags, _train, ("data",), "set"),
    "evaluate": Verb("Figures and a report of a run", _evaluate_flags, _evaluate, ("run", "out")),
    "export": Verb("Write a SavedModel for TF Serving", _export_flags, _export, ("run", "out")),
}

DEMO = {
    "demo": Verb("Everything once, on a simulated shop: logs to served scores", _demo_flags, _demo, ("out",)),
}
