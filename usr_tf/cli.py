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
    except Exception as error:
        from serving.client.errors import ServingError  # only now: gRPC takes its time to start

        if not isinstance(error, ServingError):
            raise
        print(error, file=sys.stderr)  # the server's doing: no traceback of ours helps
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
    _table_flag(values)
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
    flags.DEFINE_string("model", None, "Directory of the model's versions, the latest to be served", flag_values=values)
    flags.DEFINE_string("name", "usr", "Name that clients ask for, of --model", flag_values=values)
    flags.DEFINE_string(
        "model_config_file",
        None,
        "In place of --model: TF Serving's ModelServerConfig in text form; read again when it changes",
        flag_values=values,
    )
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen on", flag_values=values)
    flags.DEFINE_integer("port", 8500, "Port of gRPC; 0 takes any", 0, 65535, flag_values=values)
    flags.DEFINE_integer("rest_port", 0, "Port of the REST API; 0 leaves it out", 0, 65535, flag_values=values)
    flags.DEFINE_float(
        "poll_seconds", 1.0, "Seconds until it looks for new versions and configuration again", 1e-3, flag_values=values
    )
    flags.DEFINE_integer("workers", None, "Requests that run at a time; one a core when absent", 1, flag_values=values)
    flags.DEFINE_integer(
        "max_queue", 100, "Requests that may wait; the rest get RESOURCE_EXHAUSTED", 0, flag_values=values
    )
    flags.DEFINE_integer(
        "max_request_bytes", 64 * 2**20, "Bytes of the largest request", 1, 2**31 - 1, flag_values=values
    )
    flags.DEFINE_string("tls_cert", None, "Certificate, PEM; clear text when absent", flag_values=values)
    flags.DEFINE_string("tls_key", None, "Private key of --tls_cert, PEM", flag_values=values)
    flags.DEFINE_string(
        "tls_client_ca", None, "Authorities, PEM: only clients with a certificate of theirs get in", flag_values=values
    )
    flags.DEFINE_string("access_log", None, "File for a line of JSON a request; - is stdout", flag_values=values)
    flags.DEFINE_integer(
        "intra_op_threads", 1, "TensorFlow's threads within an operation; 0 is one a core", 0, flag_values=values
    )
    flags.DEFINE_integer(
        "inter_op_threads",
        0,
        "TensorFlow's threads for operations side by side; 0 is one a core, -1 the worker's own alone",
        -1,
        flag_values=values,
    )
    flags.DEFINE_float(
        "drain_seconds", 10.0, "Seconds that accepted requests have to finish after SIGTERM", 0, flag_values=values
    )


def _serve(values: flags.FlagValues, _: Sequence[str]) -> None:
    place = f"{_PROGRAM} serve"
    if bool(values.model) == bool(values.model_config_file):
        found = "both" if values.model else "nothing"
        raise InputError(f"{place}: --model, --model_config_file", found, "one of these flags")
    if bool(values.tls_cert) != bool(values.tls_key) or (values.tls_client_ca and not values.tls_cert):
        raise InputError(f"{place}: --tls_cert, --tls_key", "one without the other", "both, or no TLS at all")
    logging.getLogger("serving").setLevel(logging.INFO)  # which versions come and go

    from serving.server import serve
    from serving.tls import ServerTls

    serve(
        values.model,
        values.name,
        values.port,
        values.host,
        poll_seconds=values.poll_seconds,
        model_config_file=values.model_config_file,
        rest_port=values.rest_port or None,
        workers=values.workers,
        max_queue=values.max_queue,
        max_request_bytes=values.max_request_bytes,
        tls=ServerTls(values.tls_cert, values.tls_key, values.tls_client_ca) if values.tls_cert else None,
        access_log=values.access_log,
        intra_op_threads=values.intra_op_threads,
        inter_op_threads=values.inter_op_threads,
        drain_seconds=values.drain_seconds,
    )


def _score_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "address", None, "HOST:PORT of the server; 127.0.0.1:8500, with --rest 127.0.0.1:8501", flag_values=values
    )
    flags.DEFINE_bool("rest", False, "Ask by REST, in place of gRPC", flag_values=values)
    flags.DEFINE_string("model", "usr", "Name that the model is served under", flag_values=values)
    flags.DEFINE_integer("version", None, "Version to ask; the latest when absent", 0, flag_values=values)
    flags.DEFINE_string("label", None, "Label of the version to ask, such as stable or canary", flag_values=values)
    flags.DEFINE_string("scenario", None, "Scenario to rank for", flag_values=values)
    flags.DEFINE_string("request", None, "Request, a JSON file", flag_values=values)
    flags.DEFINE_string(
        "by",
        None,
        "What to rank by: an output, or a formula such as 'ctr + 5 * ctcvr' or 'ctcvr * price'; ctr when absent",
        flag_values=values,
    )
    flags.DEFINE_float("timeout", 10.0, "Seconds to wait for the answer", 1e-3, flag_values=values)
    flags.DEFINE_string("tls_ca", None, "Authorities whose servers to trust, PEM; turns TLS on", flag_values=values)
    flags.DEFINE_string("tls_cert", None, "Certificate to show to the server, PEM", flag_values=values)
    flags.DEFINE_string("tls_key", None, "Private key of --tls_cert, PEM", flag_values=values)
    flags.DEFINE_bool("json", False, "Print a line of JSON an item, in place of a table", flag_values=values)


def _score(values: flags.FlagValues, _: Sequence[str]) -> None:
    import orjson
    from rich.console import Console

    from serving.client import Ranker, RestRanker
    from serving.client.ranking import format_ranking
    from serving.formats.request import load_request
    from serving.tls import Tls

    request = load_request(values.request)
    tls = Tls(values.tls_ca, values.tls_cert, values.tls_key)
    with (RestRanker if values.rest else Ranker)(
        values.address or f"127.0.0.1:{8501 if values.rest else 8500}",
        values.model,
        version=values.version,
        label=values.label,
        timeout=values.timeout,
        tls=tls if any(tls) else None,
    ) as ranker:
        ranking = ranker.score(values.scenario, request, values.by, values.request)
    if values["json"].value:
        for row in ranking:
            print(orjson.dumps(row).decode())  # NaN as null
    else:
        Console().print(format_ranking(ranking, f"{values.scenario} {request.get('request_id', '')}".strip()))


def _score_logs_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("model", None, "Exported version, SERVING/<version>", flag_values=values)
    flags.DEFINE_string("logs", None, "Log directory", flag_values=values)
    flags.DEFINE_string("out", None, "Directory to make", flag_values=values)
    flags.DEFINE_string("schema", None, "Schema to use in place of the model's own", flag_values=values)
    _table_flag(values)
    flags.DEFINE_integer("partitions", None, "Parts to join in; by size when absent", 1, flag_values=values)
    flags.DEFINE_string(
        "since", None, "ISO 8601 date or time (UTC): impressions before it are not scored", flag_values=values
    )


def _score_logs(values: flags.FlagValues, beam_options: Sequence[str]) -> None:
    import json

    from pipelines.score import score_logs

    stats = score_logs(
        values.model,
        values.logs,
        values.out,
        values.schema,
        beam_options,
        values.partitions,
        progress=True,
        tables=values.table,
        since=values.since,
    )
    print(json.dumps(stats, indent=2))


def _publish_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("run", None, "Run directory of train, to publish", flag_values=values)
    flags.DEFINE_string("out", None, "Directory of the model's versions", flag_values=values)
    flags.DEFINE_string("data", None, "Data directory; the one trained on when absent", flag_values=values)
    flags.DEFINE_float(
        "margin", 0.002, "How far an AUC may lie below that of the version served now", 0, flag_values=values
    )
    flags.DEFINE_integer("keep", 3, "Versions to keep, besides those with a label", 2, flag_values=values)
    flags.DEFINE_string(
        "model_config_file", None, "ModelServerConfig in text form, whose labels say what is served", flag_values=values
    )
    flags.DEFINE_string("name", "usr", "Name of the model in --model_config_file", flag_values=values)
    flags.DEFINE_bool("promote", False, "In place of --run: make the canary stable", flag_values=values)
    flags.DEFINE_bool(
        "rollback", False, "In place of --run: drop the canary, or go back to the version before", flag_values=values
    )


def _publish(values: flags.FlagValues, _: Sequence[str]) -> None:
    place, config = f"{_PROGRAM} publish", values.model_config_file
    chosen = [f"--{name}" for name in ("run", "promote", "rollback") if values[name].value]
    if len(chosen) != 1:
        raise InputError(f"{place}: --run, --promote, --rollback", " and ".join(chosen) or "nothing", "one of these")
    if values.promote and not config:
        raise InputError(f"{place}: --model_config_file", "nothing", "the file with the labels to move")

    from serving.publish import promote, publish, roll_back, roll_back_labels
    from usr_tf.run import open_run, open_run_data

    if values.promote:
        print(f"{config}: {promote(values.out, config, values.name)}")
    elif values.rollback and config:
        print(f"{config}: {roll_back_labels(values.out, config, values.name)}")
    elif values.rollback:
        withdrawn, version = roll_back(values.out)
        print(f"{values.out}: version {version} serves; {withdrawn.name} is out of service")
    else:
        run = open_run(values.run)
        data = open_run_data(run, values.data)
        print(publish(run, data, values.out, values.margin, values.keep, config, values.name, progress=True))


def _canary_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("address", "127.0.0.1:8500", "HOST:PORT of the server's gRPC", flag_values=values)
    flags.DEFINE_multi_string(
        "requests", None, "Files of a request a line, such as a version's assets.extra/golden.jsonl", flag_values=values
    )
    flags.DEFINE_string("model", "usr", "Name that the model is served under", flag_values=values)
    flags.DEFINE_string("stable", "stable", "Label or number of the version to compare with", flag_values=values)
    flags.DEFINE_string("canary", "canary", "Label or number of the version to compare", flag_values=values)
    flags.DEFINE_string("by", "ctr", "Task to rank by", flag_values=values)
    flags.DEFINE_string("out", None, "JSON file to write", flag_values=values)
    limits = {
        "difference": "99th percentile of the difference of a score",
        "rank_change": "share of a request's pairs of items, on the mean, that are ordered otherwise",
        "auc_drop": "AUC lost on the labels of the requests",
        "latency_ratio": "latency of the canary over that of the stable version, p50",
    }
    for name, what in limits.items():
        flags.DEFINE_float(f"max_{name}", None, f"Fail above this {what}", flag_values=values)
    flags.DEFINE_float("timeout", 10.0, "Seconds to wait for an answer", 1e-3, flag_values=values)
    flags.DEFINE_string("tls_ca", None, "Authorities whose servers to trust, PEM; turns TLS on", flag_values=values)
    flags.DEFINE_string("tls_cert", None, "Certificate to show to the server, PEM", flag_values=values)
    flags.DEFINE_string("tls_key", None, "Private key of --tls_cert, PEM", flag_values=values)


def _canary(values: flags.FlagValues, _: Sequence[str]) -> None:
    import json
    from pathlib import Path

    from rich.console import Console

    from serving.canary import Limits, compare_versions, format_comparison, refuse_beyond
    from serving.client import Ranker
    from serving.formats.logged_requests import read_requests
    from serving.tls import Tls
    from usr_tf.files import replace_text

    requests = [request for path in values.requests for request in read_requests(path)]
    tls = Tls(values.tls_ca, values.tls_cert, values.tls_key)

    def ask(which: str) -> Ranker:
        version = {"version": int(which)} if which.isdecimal() else {"label": which}
        tls_or_not = tls if any(tls) else None
        return Ranker(values.address, values.model, **version, timeout=values.timeout, tls=tls_or_not, retries=0)

    with ask(values.stable) as stable, ask(values.canary) as canary:
        comparison = compare_versions(stable, canary, requests, values.by)
    Console().print(format_comparison(comparison))
    if values.out:
        try:
            replace_text(Path(values.out), json.dumps(comparison, indent=2) + "\n")
        except OSError as error:
            raise InputError(values.out, f"no writable file ({error.strerror})", "one that can be written") from error
    refuse_beyond(comparison, Limits(*(values[f"max_{name}"].value for name in Limits._fields)))


def _table_flag(values: flags.FlagValues) -> None:
    flags.DEFINE_multi_string(
        "table",
        [],
        "TABLE=WHERE of a table that is not in LOGS: files by a path or pattern, or bigquery:PROJECT.DATASET.TABLE",
        flag_values=values,
    )


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
    "serve": Verb("Serve SavedModels over TF Serving's gRPC and REST APIs", _serve_flags, _serve),
    "score": Verb("Rank the items of a request by a served model", _score_flags, _score, ("scenario", "request")),
    "score_logs": Verb(
        "Score logged impressions offline by an exported model",
        _score_logs_flags,
        _score_logs,
        ("model", "out"),
        beam=True,
    ),
    "publish": Verb("Export a run if it passes every check; go back; move labels", _publish_flags, _publish, ("out",)),
    "canary": Verb("Compare two live versions on the same requests", _canary_flags, _canary, ("requests",), "requests"),
}

if __name__ == "__main__":
    sys.exit(main())
