"""The console program `usr-tf`: each verb reads its flags and makes one call of the library.

Exit status: 0 done, 2 the user's input is wrong (one line, no traceback), 1 anything else.
"""

import dataclasses
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from absl import flags

from usr_tf.errors import InputError

_PROGRAM = "usr-tf"


@dataclasses.dataclass(frozen=True)
class Verb:
    """A command: its flags, and what it does with them.

    `more` names the flag that arguments without a flag belong to: `--set a=1 b=2`. `beam` lets options
    after `--` through to Beam; `tensorflow` tells whether it takes TensorFlow's time to start.
    """

    summary: str
    define: Callable[[flags.FlagValues], None]
    run: Callable[[flags.FlagValues, Sequence[str]], object]
    required: tuple[str, ...] = ()
    more: str | None = None
    beam: bool = False
    tensorflow: bool = True


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `usr-tf VERB --flags`, and returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if arguments else 2
    name, *rest = arguments
    verb = VERBS.get(name)
    if verb is None:
        return _refuse(f"{_PROGRAM}: found {name!r}, expected one of {', '.join(VERBS)}")
    if "-h" in rest or "--help" in rest:
        print(_help(name, verb))
        return 0
    try:
        values, beam_options = _parse(name, verb, rest)
        if verb.tensorflow:
            _quiet()
        verb.run(values, beam_options)
    except InputError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    return 0


def _parse(name: str, verb: Verb, arguments: list[str]) -> tuple[flags.FlagValues, list[str]]:
    beam_options: list[str] = []
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, beam_options = arguments[:cut], arguments[cut + 1 :]
    place = f"{_PROGRAM} {name}"
    if beam_options and not verb.beam:
        raise InputError(place, f"options after -- ({beam_options[0]})", "none")
    values = flags.FlagValues()
    verb.define(values)
    try:
        extra = values([name, *arguments])[1:]
    except flags.Error as error:
        raise InputError(place, " ".join(str(error).split()), f"flags that {place} --help lists") from error
    if extra and verb.more is None:
        raise InputError(place, f"the argument {extra[0]!r}", "flags alone")
    if verb.more:
        values[verb.more].value = [*(values[verb.more].value or []), *extra]
    for flag in verb.required:
        if not values[flag].value:
            raise InputError(f"{place}: --{flag}", "nothing", "this required flag")
    return values, beam_options


def _refuse(line: str) -> int:
    print(line, file=sys.stderr)
    return 2


def _quiet() -> None:
    """Keeps the libraries' chatter out of the way; with `TF_CPP_MIN_LOG_LEVEL` set, TensorFlow's stays."""
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("usr_tf").setLevel(logging.WARNING)  # ours are few, and about what the user has
    warnings.filterwarnings("ignore")
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)  # TensorFlow says that there is no GPU before it reads its log level
        import tensorflow as tf
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    tf.get_logger().setLevel("ERROR")


def _usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        [f"usage: {_PROGRAM} VERB [--flags]", "", *lines, "", f"{_PROGRAM} VERB --help tells a verb's flags."]
    )


def _help(name: str, verb: Verb) -> str:
    values = flags.FlagValues()
    verb.define(values)
    lines = [f"usage: {_PROGRAM} {name} [--flags]" + (" [-- BEAM OPTIONS]" if verb.beam else ""), "", verb.summary, ""]
    for flag in sorted(values):
        default = "required" if flag in verb.required else values[flag].default_as_str
        lines.append(f"  --{flag}: {values[flag].help}" + (f" ({default})" if default else ""))
    return "\n".join(lines)


def _demo_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("out", "demo_out", "Directory to make", flag_values=values)
    flags.DEFINE_integer("impressions", 200_000, "Impressions to simulate", flag_values=values)


def _demo(values: flags.FlagValues, _: Sequence[str]) -> None:
    from usr_tf.demo import demo

    demo(values.out, values.impressions)


def _simulate_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("out", None, "Log directory to make", flag_values=values)
    flags.DEFINE_integer("impressions", 200_000, "Rows of the impressions table", flag_values=values)
    flags.DEFINE_integer("seed", 0, "The same seed and flags make the same bytes", flag_values=values)
    flags.DEFINE_string(
        "scenarios", "2", "How many scenarios, or their names with commas, such as search,home", flag_values=values
    )
    flags.DEFINE_float(
        "similarity",
        0.3,
        "Weight ρ, 0 to 1, of what all scenarios share in each one's tastes, which correlate by ρ²",
        flag_values=values,
    )
    flags.DEFINE_float("needs", 0.8, "Chance, 0 to 1, that a wish outlasts its request", flag_values=values)
    flags.DEFINE_float(
        "label_noise", 0.0, "Share, 0 to 1, of impressions whose credited actions are chance", flag_values=values
    )
    flags.DEFINE_float(
        "global_label_noise",
        None,
        "The same of the actions that only global labels see; as --label_noise when absent",
        flag_values=values,
    )
    flags.DEFINE_integer("workers", None, "Processes; one a core if that pays when absent", flag_values=values)


def _simulate(values: flags.FlagValues, _: Sequence[str]) -> None:
    from pipelines.simulate import simulate

    asked = values.scenarios
    made = simulate(
        values.out,
        values.impressions,
        values.seed,
        values.similarity,
        values.label_noise,
        global_label_noise=values.global_label_noise,
        scenarios=int(asked) if asked.isdecimal() else [name.strip() for name in asked.split(",")],
        needs=values.needs,
        workers=values.workers,
    )
    print(f"{values.out}: " + ", ".join(f"{rows:,} {table}" for table, rows in made["counts"].items()))
    for scenario, rates in made["rates"].items():
        print(f"{scenario}: " + ", ".join(f"{name} {_short(value)}" for name, value in rates.items()))


def _import_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "source", None, "Whose logs: ga360, ga4, kuaisar, diginetica, or MODULE:CLASS of your own", flag_values=values
    )
    flags.DEFINE_multi_string(
        "input", None, "Files, patterns, directories, gs://… too, or bigquery:PROJECT.DATASET.TABLE", flag_values=values
    )
    flags.DEFINE_multi_string(
        "list", None, "PATTERN=scenario: what a list of items stands for; the first that matches", flag_values=values
    )
    flags.DEFINE_string("out", None, "Log directory to make", flag_values=values)


def _import(values: flags.FlagValues, _: Sequence[str]) -> None:
    import json

    from pipelines.sources import import_logs
    from pipelines.sources.lists import parse_lists

    logging.basicConfig(level=logging.ERROR)  # Beam's file systems tell of every attempt
    sys.path.append(os.getcwd())  # where a MODULE of the user's own lies
    options = {"lists": parse_lists(values["list"].value)} if values["list"].value else {}
    print(json.dumps(import_logs(values.source, values.input, values.out, options=options), indent=2))


def _preprocess_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("logs", None, "Log directory", flag_values=values)
    flags.DEFINE_string("out", None, "Data directory to make", flag_values=values)
    flags.DEFINE_string("schema", None, "Schema to use in place of LOGS/schema.yaml", flag_values=values)
    flags.DEFINE_multi_string(
        "table",
        [],
        "TABLE=WHERE of a table that is not in LOGS: files by a path or pattern, or bigquery:PROJECT.DATASET.TABLE",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "partitions", None, "Parts to join in, also training shards; by size when absent", 1, flag_values=values
    )
    flags.DEFINE_string(
        "transform", None, "Earlier data, or its transform directory, whose transform to apply", flag_values=values
    )
    flags.DEFINE_string(
        "grow_from", None, "Earlier data whose transform to apply, new values appended", flag_values=values
    )
    flags.DEFINE_string(
        "since", None, "ISO 8601 date or time (UTC): impressions before it make no rows", flag_values=values
    )
    flags.DEFINE_multi_string(
        "drift_limit",
        [],
        "KIND=NUMBER: fail where new_tokens, label_rate, numeric_shift or coverage moved further from earlier data",
        flag_values=values,
    )


def _preprocess(values: flags.FlagValues, beam_options: Sequence[str]) -> None:
    from pipelines.preprocess import preprocess
    from pipelines.stats import describe

    stats = preprocess(
        values.logs,
        values.out,
        values.schema,
        beam_options,
        values.partitions,
        progress=True,
        tables=values.table,
        transform=values.transform,
        grow_from=values.grow_from,
        since=values.since,
        drift_limits=values.drift_limit,
    )
    print(describe(stats))


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
        raise InputError(f"{_PROGRAM} train: --out", "nothing", "this required flag")

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


def _serve_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("model", None, "Directory of the model's versions", flag_values=values)
    flags.DEFINE_string("name", "usr", "Name that clients ask for", flag_values=values)
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen on", flag_values=values)
    flags.DEFINE_integer("port", 8500, "Port to listen on", 0, 65535, flag_values=values)


def _serve(values: flags.FlagValues, _: Sequence[str]) -> None:
    from serving.server import serve

    serve(values.model, values.name, values.port, values.host)


def _score_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "address", "127.0.0.1:8500", "HOST:PORT of TF Serving's or usr-tf serve's gRPC", flag_values=values
    )
    flags.DEFINE_string("model", "usr", "Name that the model is served under", flag_values=values)
    flags.DEFINE_string("scenario", None, "Scenario to rank for", flag_values=values)
    flags.DEFINE_string("request", None, "Request, a JSON file", flag_values=values)


def _score(values: flags.FlagValues, _: Sequence[str]) -> None:
    from rich.console import Console

    from serving.client import Client, format_ranking, load_request

    request = load_request(values.request)
    with Client(values.address, values.model) as client:
        ranking = client.score(values.scenario, request, place=values.request)
    Console().print(format_ranking(ranking, f"{values.scenario} {request.get('request_id', '')}".strip()))


def _short(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else "–"


VERBS = {
    "demo": Verb("Everything once, on a simulated shop: logs to served scores", _demo_flags, _demo, ("out",)),
    "simulate": Verb("Make the logs of a simulated shop", _simulate_flags, _simulate, ("out",), tensorflow=False),
    "import": Verb(
        "Turn someone else's logs into ours",
        _import_flags,
        _import,
        ("source", "input", "out"),
        "input",
        tensorflow=False,
    ),
    "preprocess": Verb("Join, label, split and transform logs", _preprocess_flags, _preprocess, ("out",), beam=True),
    "train": Verb("Train a model", _train_flags, _train, ("data",), "set"),
    "evaluate": Verb("Figures and a report of a run", _evaluate_flags, _evaluate, ("run", "out")),
    "export": Verb("Write a SavedModel for TF Serving", _export_flags, _export, ("run", "out")),
    "serve": Verb("Serve a SavedModel over TF Serving's gRPC API", _serve_flags, _serve, ("model",)),
    "score": Verb("Rank the items of a request by a served model", _score_flags, _score, ("scenario", "request")),
}

if __name__ == "__main__":
    sys.exit(main())
