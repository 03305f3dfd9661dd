"""Verbs for models: training to export, and the demo."""

import functools
import shlex
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

        from usr_tf.training.cost import format_cost, model_cost

        data = open_data(values.data)
        console = Console(width=None if sys.stdout.isatty() else 140)
        console.print(format_cost(model_cost(data, config), data, config), highlight=False)
        return
    if not values.out:
        raise InputError(f"{PROGRAM} train: --out", "nothing", "this required flag")

    from usr_tf.train import train

    train(open_data(values.data), values.out, config)
    print(f"{values.out}: the run; its best epoch's validation figures are in metrics.json")


def _baseline_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("data", None, "Data directory of preprocess", flag_values=values)
    flags.DEFINE_string("out", None, "Run directory to make", flag_values=values)
    flags.DEFINE_enum(
        "objective",
        "binary",
        ["binary", "lambdarank"],
        "binary: a model a task; lambdarank: LambdaMART, one model that orders each request",
        flag_values=values,
    )
    families = ["match", "history_match", "counters", "past_queries"]
    flags.DEFINE_multi_enum("without", [], families, "Family of signals to leave out", flag_values=values)
    flags.DEFINE_multi_string("set", None, "key=value of LightGBM, such as num_leaves=63", flag_values=values)
    flags.DEFINE_integer("seed", 0, "The same seed, data and parameters make the same model", 0, flag_values=values)


def _baseline(values: flags.FlagValues, _: Sequence[str]) -> None:
    from usr_tf.baseline.config import make_config

    config = make_config(values.objective, values.seed, values["set"].value or [], values.without)

    from usr_tf.baseline.train import train_baseline
    from usr_tf.data import open_data

    train_baseline(open_data(values.data), values.out, config, print)
    print(f"{values.out}: the tree run; what its trees use is in importances.json")


def _evaluate_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("run", None, "Run directory of train or baseline", flag_values=values)
    flags.DEFINE_string("data", None, "Data directory; the one trained on when absent", flag_values=values)
    flags.DEFINE_enum("split", "test", ["train", "valid", "test"], "Split to evaluate on", flag_values=values)
    flags.DEFINE_string("out", None, "Report directory to make", flag_values=values)
    flags.DEFINE_string("beside", None, "Another run on the same data, to show its views beside", flag_values=values)
    flags.DEFINE_multi_string(
        "slice", [], "Features to slice the figures by, such as category,device", flag_values=values
    )
    flags.DEFINE_multi_string(
        "baseline", None, "Run on the same data to compare with, such as one of baseline", flag_values=values
    )


def _evaluate(values: flags.FlagValues, _: Sequence[str]) -> None:
    from rich.console import Console

    from usr_tf.evaluate import evaluate
    from usr_tf.evaluation.report import format_table
    from usr_tf.run import open_any_run, open_run, open_run_data

    run, baselines = open_any_run(values.run), [open_any_run(run) for run in values["baseline"].value or []]
    data, beside = open_run_data(run, values.data), open_run(values.beside) if values.beside else None
    slices = list(dict.fromkeys(name.strip() for names in values["slice"].value for name in names.split(",")))
    document, details = evaluate(
        run, data, values.out, values.split, progress=True, beside=beside, slices=slices, baselines=baselines
    )
    Console().print(format_table(document, details))
    print(f"{values.out}: metrics.json, details.json, report.html")


def _export_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("run", None, "Run directory of train", flag_values=values)
    flags.DEFINE_string("out", None, "Directory of the model's versions", flag_values=values)
    flags.DEFINE_enum(
        "counters",
        None,
        ["snapshot", "request"],
        "Where counters come from, in place of the run's export.counters: a snapshot in the model, or each request",
        flag_values=values,
    )


def _export(values: flags.FlagValues, _: Sequence[str]) -> None:
    from serving.publishing.synthetic import synthetic_requests
    from serving.publishing.warmup import write_warmup_requests
    from usr_tf.export import export
    from usr_tf.run import open_run

    run = open_run(values.run)
    write_warmup = functools.partial(write_warmup_requests, requests=synthetic_requests(run))
    print(export(run, values.out, write_warmup, values.counters))


def _explain_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "run", None, "Run directory of train; of baseline, to list what its trees use", flag_values=values
    )
    flags.DEFINE_string(
        "request", None, "Request, a JSON file as `usr-tf score` takes it; not for a tree run", flag_values=values
    )
    flags.DEFINE_string("scenario", None, "Scenario; the request's own when absent", flag_values=values)
    flags.DEFINE_string("item", None, "Candidate to explain", flag_values=values)
    flags.DEFINE_integer("top", 1, "In place of --item: so many candidates, the best first", 1, flag_values=values)
    flags.DEFINE_string("task", None, "Task to rank and sort by; the first when absent", flag_values=values)
    flags.DEFINE_string("against", None, "Candidate that each is compared with", flag_values=values)
    flags.DEFINE_integer(
        "steps", 64, "Points on each path; doubled until 0.1 % of the difference is left over", 2, flag_values=values
    )
    flags.DEFINE_string("out", None, "Directory for explanation.html and explanation.json", flag_values=values)


def _explain(values: flags.FlagValues, _: Sequence[str]) -> None:
    from rich.console import Console

    from usr_tf.baseline.importances import format_importances
    from usr_tf.baseline.run import is_tree_run, open_tree_run

    if is_tree_run(values.run):
        given = [name for name in values if name != "run" and values[name].present]
        if given:
            raise InputError(f"{PROGRAM} explain: --{given[0]}", "a tree run", "--run alone, which lists importances")
        for table in format_importances(open_tree_run(values.run).importances):
            Console().print(table)
        return
    if not values.request:
        raise InputError(f"{PROGRAM} explain: --request", "nothing", "this required flag")

    from serving.formats.contract import schema_specs
    from serving.formats.logged_requests import read_requests
    from serving.formats.request import load_request, request_inputs
    from usr_tf.counter_snapshot import open_snapshot
    from usr_tf.evaluation.explain import (
        BACKGROUND,
        Explainer,
        difference,
        format_difference,
        format_explanation,
        write_page,
    )
    from usr_tf.run import open_run

    if values.item and values["top"].present:
        raise InputError(f"{PROGRAM} explain: --item, --top", "both", "one of these flags")
    run, document = open_run(values.run), load_request(values.request)
    scenario, task = values.scenario or document.get("scenario"), values.task or run.schema.task_names[0]
    if scenario is None:
        raise InputError(f"{PROGRAM} explain: --scenario", "nothing", "this flag, or the key in the request")
    if document.get("scenario", scenario) != scenario:
        raise InputError(f"{values.request}: scenario", repr(document["scenario"]), repr(scenario))
    specs, logged = (
        schema_specs(run.schema, counters=run.config.export.counters == "request"),
        run.requests / f"{scenario}.jsonl",
    )
    request = request_inputs(document["inputs"], specs, values.request)
    shown = read_requests(logged)[:BACKGROUND] if logged.exists() else []
    background = [request_inputs(each.inputs, specs, logged) for each in shown]

    explainer = Explainer(run.load_model(), run.transform, open_snapshot(run))
    other = explainer.choose(scenario, request, task, values.against) if values.against else []
    rows = [row for row in explainer.choose(scenario, request, task, values.item, values.top) if row not in other]
    if not rows:
        raise InputError(f"{PROGRAM} explain: --against", f"{values.against!r} itself", "another candidate")
    explained = explainer.explain(scenario, request, rows + other, background, values.steps, progress=True)
    against = explained.pop() if other else None

    console = Console(width=None if sys.stdout.isatty() else 140)
    for each in explained:
        console.print(format_explanation(each, task))
        if against:
            console.print(format_difference(each, against, difference(each, against), task))
    if values.out:
        chosen = ("run", "request", "scenario", "item", "top", "task", "against", "steps", "out")
        given = [f"--{name}={values[name].value}" for name in chosen if values[name].present]
        write_page(values.out, explained, task, against, shlex.join([PROGRAM, "explain", *given]))
        print(f"{values.out}: explanation.html, explanation.json")


def _compare_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("run", None, "Run directory of train or baseline: A", flag_values=values)
    flags.DEFINE_string("with", None, "Run directory of train or baseline: B", flag_values=values)
    flags.DEFINE_string("data", None, "Data directory; each run's own when absent", flag_values=values)
    flags.DEFINE_enum("split", "test", ["train", "valid", "test"], "Split to compare on", flag_values=values)
    flags.DEFINE_string("out", None, "JSON file to write all figures to", flag_values=values)


def _compare(values: flags.FlagValues, _: Sequence[str]) -> None:
    from rich.console import Console

    from usr_tf.compare import compare_runs, format_comparison, write_comparison
    from usr_tf.run import open_any_run

    runs = open_any_run(values.run), open_any_run(values["with"].value)
    document = compare_runs(*runs, values.data, values.split, progress=True)
    Console().print(format_comparison(document))
    if values.out:
        write_comparison(document, values.out)


VERBS = {
    "train": Verb(
        "Train a model",
        _train_flags,
        _train,
        ("data",),
        "set",
        example="--data DATA --out RUN --set backbone=mmoe train.epochs=3",
        extras=("train",),
        resumes=True,
    ),
    "baseline": Verb(
        "Train LightGBM on the same rows, to compare with",
        _baseline_flags,
        _baseline,
        ("data", "out"),
        "set",
        example="--data DATA --out TREES --objective lambdarank",
        extras=("train", "baseline"),
    ),
    "evaluate": Verb(
        "Figures and a report of a run",
        _evaluate_flags,
        _evaluate,
        ("run", "out"),
        example="--run RUN --baseline TREES --out REPORT",
        extras=("train",),
    ),
    "compare": Verb(
        "Two runs on the same rows, tested",
        _compare_flags,
        _compare,
        ("run", "with"),
        example="--run RUN_A --with RUN_B",
        extras=("train",),
    ),
    "export": Verb(
        "Write a SavedModel for TF Serving",
        _export_flags,
        _export,
        ("run", "out"),
        example="--run RUN --out SERVING",
        extras=("train",),
    ),
    "explain": Verb(
        "Tell what moved a candidate's scores",
        _explain_flags,
        _explain,
        ("run",),
        example="--run RUN --request request.json --top 3",
        extras=("train",),
    ),
}

DEMO = {
    "demo": Verb(
        "Everything once, on a simulated shop: logs to served scores",
        _demo_flags,
        _demo,
        ("out",),
        example="--out demo_out",
        extras=("train", "pipelines"),
    ),
}
