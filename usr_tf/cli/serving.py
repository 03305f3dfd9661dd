"""Verbs for serving: servers, clients, publishing."""

import logging
from collections.abc import Sequence

from absl import flags

from usr_tf.cli.verb import PROGRAM, Verb
from usr_tf.errors import InputError


def _serve_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("model", None, "Directory of the model's versions, the latest to be served", flag_values=values)
    flags.DEFINE_string("name", "usr", "Name that clients ask for, of --model", flag_values=values)
    flags.DEFINE_string(
        "model_config_file",
        None,
        "In place of --model: TF Serving's ModelServerConfig in text form; read again when it changes",
        flag_values=values,
    )
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen on, IPv4, IPv6 or a name", flag_values=values)
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
    flags.DEFINE_string("request_log", None, "Directory for requests with their scores", flag_values=values)
    flags.DEFINE_float("request_log_sample", 1.0, "Share of the requests that --request_log keeps", flag_values=values)
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
    place = f"{PROGRAM} serve"
    if bool(values.model) == bool(values.model_config_file):
        found = "both" if values.model else "nothing"
        raise InputError(f"{place}: --model, --model_config_file", found, "one of these flags")
    if bool(values.tls_cert) != bool(values.tls_key) or (values.tls_client_ca and not values.tls_cert):
        raise InputError(f"{place}: --tls_cert, --tls_key", "one without the other", "both, or no TLS at all")
    logging.getLogger("serving").setLevel(logging.INFO)  # which versions come and go

    from serving.local_server import serve
    from serving.network.tls import ServerTls

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
        request_log=values.request_log,
        request_log_sample=values.request_log_sample,
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
    flags.DEFINE_float(
        "timeout", 10.0, "Seconds to wait for the answer, and for a server that is starting", 1e-3, flag_values=values
    )
    flags.DEFINE_string("tls_ca", None, "Authorities whose servers to trust, PEM; turns TLS on", flag_values=values)
    flags.DEFINE_string("tls_cert", None, "Certificate to show to the server, PEM", flag_values=values)
    flags.DEFINE_string("tls_key", None, "Private key of --tls_cert, PEM", flag_values=values)
    flags.DEFINE_bool("json", False, "Print a line of JSON an item, in place of a table", flag_values=values)


def _score(values: flags.FlagValues, _: Sequence[str]) -> None:
    import sys

    import orjson

    from serving.client import Ranker, RestRanker
    from serving.client.ranking import format_ranking
    from serving.formats.request import load_request
    from serving.network.tls import Tls

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
        if sys.stderr.isatty():
            print(f"waiting for {ranker.address}", file=sys.stderr)
        left = ranker.wait_until_ready()
        ranking = ranker.score(values.scenario, request, values.by, values.request, timeout=left)
    if values["json"].value:
        for row in ranking:
            print(orjson.dumps(row).decode())  # NaN as null
    else:
        print(format_ranking(ranking, f"{values.scenario} {request.get('request_id', '')}".strip()))


def _request_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("model", None, "Directory of the model's versions, or one version", flag_values=values)
    flags.DEFINE_string("scenario", None, "Scenario to ask for", flag_values=values)
    flags.DEFINE_bool("describe", False, "In place of a template: what each input is, in Markdown", flag_values=values)


def _request(values: flags.FlagValues, _: Sequence[str]) -> None:
    from serving.formats.contract import describe_contract, open_contract, request_template, template_json

    contract = open_contract(values.model)
    document = request_template(contract, values.scenario, f"{PROGRAM} request: --scenario")
    print(describe_contract(contract, values.scenario).rstrip() if values.describe else template_json(document))


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
    flags.DEFINE_string(
        "golden",
        None,
        "File for the golden requests of real rows, with labels: personal data, so none when absent",
        flag_values=values,
    )
    flags.DEFINE_bool("promote", False, "In place of --run: make the canary stable", flag_values=values)
    flags.DEFINE_bool(
        "rollback", False, "In place of --run: drop the canary, or go back to the version before", flag_values=values
    )


def _publish(values: flags.FlagValues, _: Sequence[str]) -> None:
    place, config = f"{PROGRAM} publish", values.model_config_file
    chosen = [f"--{name}" for name in ("run", "promote", "rollback") if values[name].value]
    if len(chosen) != 1:
        raise InputError(f"{place}: --run, --promote, --rollback", " and ".join(chosen) or "nothing", "one of these")
    if values.promote and not config:
        raise InputError(f"{place}: --model_config_file", "nothing", "the file with the labels to move")

    from serving.publishing.publish import promote, publish, roll_back, roll_back_labels
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
        limits = (values.margin, values.keep)
        print(publish(run, data, values.out, *limits, config, values.name, progress=True, golden_file=values.golden))


def _canary_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("address", "127.0.0.1:8500", "HOST:PORT of the server's gRPC", flag_values=values)
    flags.DEFINE_multi_string(
        "requests", None, "Files of a request a line, such as the one of publish --golden", flag_values=values
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
    from pathlib import Path

    from rich.console import Console

    from serving.client import Ranker
    from serving.formats.logged_requests import read_requests
    from serving.network.tls import Tls
    from serving.publishing.canary import Limits, compare_versions, format_comparison, refuse_beyond
    from usr_tf.files import replace_text, strict_json

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
        replace_text(Path(values.out), strict_json(comparison, indent=2) + "\n")
    refuse_beyond(comparison, Limits(*(values[f"max_{name}"].value for name in Limits._fields)))


VERBS = {
    "serve": Verb(
        "Serve SavedModels over TF Serving's gRPC and REST APIs",
        _serve_flags,
        _serve,
        example="--model SERVING --rest_port 8501",
        extras=("serve",),
    ),
    "request": Verb(
        "Print a template of a request, or what each input of it is",
        _request_flags,
        _request,
        ("model", "scenario"),
        tensorflow=False,
        example="--model SERVING --scenario search",
        extras=("client",),
    ),
    "score": Verb(
        "Rank the items of a request by a served model",
        _score_flags,
        _score,
        ("scenario", "request"),
        tensorflow=False,
        example="--scenario search --request request.json --by 'ctr + 5 * ctcvr'",
        extras=("client",),
    ),
    "publish": Verb(
        "Export a run if it passes every check; go back; move labels",
        _publish_flags,
        _publish,
        ("out",),
        example="--run RUN --out SERVING",
        extras=("train",),
    ),
    "canary": Verb(
        "Compare two live versions on the same requests",
        _canary_flags,
        _canary,
        ("requests",),
        "requests",
        example="--requests GOLDEN.jsonl --max_rank_change 0.1",
        extras=("serve",),
    ),
}
