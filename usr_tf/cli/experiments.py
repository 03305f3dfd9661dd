"""Verbs that compare models: grids of runs, tuning, A/B tests."""

import shlex
import sys
from collections.abc import Sequence

from absl import flags

from usr_tf.cli.verb import PROGRAM, Verb
from usr_tf.errors import InputError


def _experiment_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_multi_string(
        "spec",
        None,
        "YAML file, or the name of one that comes with the package; several run as one",
        flag_values=values,
    )
    flags.DEFINE_string("out", None, "Directory of tables and page", flag_values=values)
    flags.DEFINE_string(
        "work",
        None,
        "Directory of data and finished jobs, for all experiments; OUT/work when absent",
        flag_values=values,
    )
    flags.DEFINE_integer("workers", 2, "Processes of one thread each", 1, flag_values=values)
    flags.DEFINE_bool("small", False, "Take each spec's small size", flag_values=values)
    flags.DEFINE_integer("impressions", None, "Of each shop, in place of the spec's", 1, flag_values=values)
    flags.DEFINE_integer("seeds", None, "How many, in place of the spec's", 1, flag_values=values)
    flags.DEFINE_integer("epochs", None, "Of each model, in place of the spec's", 1, flag_values=values)
    flags.DEFINE_multi_string("data", None, "NAME=DATA of preprocess, in the shops' place", flag_values=values)
    flags.DEFINE_multi_string("set", None, "key=value of the configuration, for every model", flag_values=values)
    flags.DEFINE_string("document", None, "Write the Markdown to this file too", flag_values=values)


def _experiment(values: flags.FlagValues, _: Sequence[str]) -> None:
    from rich.console import Console

    from usr_tf.experiments.grid.runner import format_table, run_experiments
    from usr_tf.experiments.grid.spec import load_specs, overriding

    override = overriding(
        impressions=values.impressions,
        seeds=values.seeds,
        epochs=values.epochs,
        data=values.data or (),
        settings=values["set"].value or (),
    )
    specs = load_specs(values.spec, values.small, override)
    results = run_experiments(
        specs,
        values.out,
        values.workers,
        work=values.work,
        command=_command("experiment", values),
        document=values.document,
    )
    console = Console(width=None if sys.stdout.isatty() else 160)
    for each in results:
        console.print(format_table(each))
    print(f"{values.out}: results.md, report.html, and .json and .csv of each experiment")
    failures = [failure for each in results for failure in each.failures]
    if failures:
        for failure in dict.fromkeys(failures):
            print(f"failed: {failure.name}: {failure.reason}", file=sys.stderr)
        sys.exit(1)


def _tune_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("data", None, "Data directory of preprocess", flag_values=values)
    flags.DEFINE_string("out", None, "Directory of the study; one that is there goes on", flag_values=values)
    flags.DEFINE_integer("trials", 30, "Trials in all that end or are pruned", flag_values=values)
    flags.DEFINE_string(
        "space", None, "YAML file of keys and where to look; a default one when absent", flag_values=values
    )
    flags.DEFINE_string("config", None, "Configuration file; the package's default when absent", flag_values=values)
    flags.DEFINE_multi_string("set", None, "key=value that every trial has", flag_values=values)
    flags.DEFINE_string(
        "objective",
        "val_nll",
        "An epoch's validation figure, or SCENARIO/TASK/FIGURE of metrics.json",
        flag_values=values,
    )
    flags.DEFINE_integer("seed", 0, "Of the search", 0, flag_values=values)


def _tune(values: flags.FlagValues, _: Sequence[str]) -> None:
    from rich.console import Console

    from usr_tf.data import open_data
    from usr_tf.experiments.tune import best_trials, tune, values_of
    from usr_tf.experiments.tune_page import format_table

    study = tune(
        open_data(values.data),
        values.out,
        values.trials,
        space_path=values.space,
        config_path=values.config,
        overrides=values["set"].value or [],
        objective=values.objective,
        seed=values.seed,
        command=_command("tune", values),
    )
    best = best_trials(study)
    found = {trial.number: values_of(trial) for trial in best}
    Console(width=None if sys.stdout.isatty() else 160).print(format_table(best, found, values.objective))
    made = "config.yaml (for usr-tf train --config), trials.csv, report.html" if best else "trials.csv; no trial ended"
    print(f"{values.out}: {made}")


def _abtest_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("a", None, "Model A: a directory of export, or a version in it", flag_values=values)
    flags.DEFINE_string("b", None, "Model B, tested against it", flag_values=values)
    flags.DEFINE_string(
        "logs",
        None,
        "Log directory of simulate: the shop that goes on. Or real logs of several policies with their propensities",
        flag_values=values,
    )
    flags.DEFINE_string("out", None, "Directory of the document (JSON) and the page (HTML)", flag_values=values)
    flags.DEFINE_integer("days", 14, "Days of the test", flag_values=values)
    flags.DEFINE_integer("users", None, "So many of the shop's users; all when absent", flag_values=values)
    flags.DEFINE_string("by", "ctr + 5 * ctcvr", "Formula to rank by", flag_values=values)
    flags.DEFINE_float("explore", 0.1, "Share of the places filled by any candidate, above 0 to 1", flag_values=values)
    flags.DEFINE_float(
        "temperature", 2.0, "Places of the ranking over which an item's weight falls by e", flag_values=values
    )
    flags.DEFINE_integer("seed", 0, "Of luck and of the split", flag_values=values)
    flags.DEFINE_float("share", 0.5, "Share of the users who see B", flag_values=values)
    flags.DEFINE_integer("workers", None, "Processes; one a core when absent", 1, flag_values=values)


def _abtest(values: flags.FlagValues, _: Sequence[str]) -> None:
    from pipelines.simulator.simulate import is_simulated

    if is_simulated(values.logs):
        _replay(values)
    else:
        _evaluate_policies(values)


def _evaluate_policies(values: flags.FlagValues) -> None:
    from rich.console import Console

    from usr_tf.experiments.off_policy import evaluate_policies, format_table

    for flag in ("days", "users", "share", "workers"):
        if values[flag].present:
            raise InputError(
                f"{PROGRAM} abtest: --{flag}", "logs of no simulated shop", "logs of usr-tf simulate beside it"
            )
    document = evaluate_policies(
        values.logs,
        values.out,
        [path for path in (values.a, values.b) if path],
        by=values.by if values["by"].present else None,
        explore=values.explore,
        temperature=values.temperature,
        seed=values.seed,
        command=_command("abtest", values),
    )
    Console(width=None if sys.stdout.isatty() else 160).print(format_table(document))
    print(f"{values.out}: off_policy.json, off_policy.html")


def _replay(values: flags.FlagValues) -> None:
    import dataclasses

    from rich.console import Console

    from usr_tf.experiments.abtest import Settings, abtest, format_table

    for flag in ("a", "b"):
        if values[flag].value is None:
            raise InputError(f"{PROGRAM} abtest: --{flag}", "nothing", "a model for each arm of the simulated shop")
    settings = Settings(**{field.name: values[field.name].value for field in dataclasses.fields(Settings)})
    document = abtest(
        values.a,
        values.b,
        values.logs,
        values.out,
        settings,
        workers=values.workers,
        command=_command("abtest", values),
    )
    Console(width=None if sys.stdout.isatty() else 160).print(format_table(document))
    print(f"{values.out}: abtest.json, abtest.html")


def _command(verb: str, values: flags.FlagValues) -> str:
    """The typed command without its output flags."""
    arguments = [PROGRAM, verb]
    for name in values:
        flag = values[name]
        if flag.value is None or flag.value == flag.default or name in ("out", "work", "document", "workers"):
            continue
        if isinstance(flag.value, bool):
            arguments.append(f"--{name}" if flag.value else f"--no{name}")
        else:
            arguments += [
                f"--{name}={value}" for value in (flag.value if isinstance(flag.value, list) else [flag.value])
            ]
    return shlex.join([*arguments, "--out=OUT"])


VERBS = {
    "experiment": Verb(
        "Grids of configuration and seed, compared",
        _experiment_flags,
        _experiment,
        ("spec", "out"),
        "set",
        tensorflow=False,
        example="--spec backbones --seeds 3 --out OUT",
        extras=("train", "pipelines"),
        resumes=True,
    ),
    "abtest": Verb(
        "Two exported models as rankers of the simulated shop that goes on, or policies of real logs",
        _abtest_flags,
        _abtest,
        ("logs", "out"),
        example="--a SERVING_A --b SERVING_B --logs LOGS --out OUT",
        extras=("train", "pipelines"),
    ),
    "tune": Verb(
        "Search for the best configuration",
        _tune_flags,
        _tune,
        ("data", "out"),
        "set",
        example="--data DATA --out STUDY --trials 30",
        extras=("train",),
        resumes=True,
    ),
}
