"""Verbs for logs and Beam jobs."""

import functools
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from usr_tf.cli.verb import PROGRAM, Verb
from usr_tf.errors import InputError
from usr_tf.files import strict_json


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
    flags.DEFINE_list(
        "signals",
        [],
        "NAME or NAME=STRENGTH (0 to 1, 0.5 when absent) of price, stock, retrieval, zero_results, vectors, drift: "
        "what the shop logs beside the rest, and what people heed",
        flag_values=values,
    )
    flags.DEFINE_integer("workers", None, "Processes; one a core if that pays when absent", flag_values=values)


def _simulate(values: flags.FlagValues, _: Sequence[str]) -> None:
    from pipelines.simulator.signals import parse_signals
    from pipelines.simulator.simulate import simulate

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
        signals=parse_signals(values.signals),
        workers=values.workers,
    )
    print(f"{values.out}: " + ", ".join(f"{rows:,} {table}" for table, rows in made["counts"].items()))
    for scenario, rates in made["rates"].items():
        print(f"{scenario}: " + ", ".join(f"{name} {_short(value)}" for name, value in rates.items()))


def _import_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "source",
        None,
        "Whose logs: ga360 or another of docs/sources.md, or MODULE:CLASS of your own",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "input", None, "Files, patterns, directories, gs://… too, or bigquery:PROJECT.DATASET.TABLE", flag_values=values
    )
    flags.DEFINE_multi_string(
        "list",
        None,
        "PATTERN=scenario: what a list of items stands for, by its name, or page:PATTERN=scenario, by its page; the "
        "first that matches",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "shown", None, "ga4: EVENT that shows a list, in place of the usual ones", flag_values=values
    )
    flags.DEFINE_multi_string(
        "action",
        None,
        "ga4: EVENT=ACTION, such as view_item=click, in place of that action's event",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "task", None, "ga4: NAME=ACTION of the schema's tasks, such as ctr=click ctcvr=cart", flag_values=values
    )
    flags.DEFINE_list(
        "several",
        None,
        "ga4: which of several items an action means, rules to try in order: extra, first, all, none",
        flag_values=values,
    )
    flags.DEFINE_string("timezone", None, "ga4: IANA name of the zone of the hour; UTC when absent", flag_values=values)
    flags.DEFINE_bool(
        "print_sql",
        False,
        "ga4: print BigQuery SQL that does the same, of bigquery: tables, to OUT, a data set",
        flag_values=values,
    )
    flags.DEFINE_string("schema", None, "request_log: schema of the served model", flag_values=values)
    flags.DEFINE_multi_string("action_files", None, "request_log: files of later actions", flag_values=values)
    flags.DEFINE_string("out", None, "Log directory to make", flag_values=values)


def _import(values: flags.FlagValues, _: Sequence[str]) -> None:
    from pipelines.sources import import_logs
    from pipelines.sources.lists import parse_lists, parse_pairs

    logging.basicConfig(level=logging.ERROR)  # Beam's file systems tell of every attempt
    sys.path.append(os.getcwd())  # where a MODULE of the user's own lies
    given = {
        "lists": parse_lists(values["list"].value or ()),
        "shown": values.shown,
        "actions": parse_pairs("--action", values.action or (), "EVENT=ACTION, such as view_item=click"),
        "tasks": parse_pairs("--task", values.task or (), "NAME=ACTION, such as ctcvr=cart"),
        "several": values.several,
        "timezone": values.timezone,
        "schema": values.schema,
        "action_files": values.action_files,
    }
    options = {name: value for name, value in given.items() if value}
    if values.print_sql:
        from pipelines.sources.ga4.sql import print_sql

        print(print_sql(values.source, values.input, values.out, options))
        return
    warn = functools.partial(print, file=sys.stderr)
    print(strict_json(import_logs(values.source, values.input, values.out, options=options, warn=warn), indent=2))


def _schema_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("infer", None, "Log directory, of which a sample is read", flag_values=values)
    flags.DEFINE_string("out", None, "File to write; standard output when absent", flag_values=values)
    _table_flag(values)


def _schema(values: flags.FlagValues, _: Sequence[str]) -> None:
    from pipelines.schema_draft import draft_schema
    from usr_tf.files import write_new_text

    text = draft_schema(values.infer, values.table)
    if values.out is None:
        print(text, end="")
    else:
        write_new_text(values.out, text)
        print(f"{values.out}: a draft to read and complete")


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
    flags.DEFINE_bool(
        "allow_no_positives", False, "Accept a task without a positive in the training rows", flag_values=values
    )
    _quote_flag(values)


def _preprocess(values: flags.FlagValues, beam_options: Sequence[str]) -> None:
    from pipelines.preprocess import preprocess
    from pipelines.quality.row_counts import describe

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
        allow_no_positives=values.allow_no_positives,
        quote_rejected=values.quote_rejected,
    )
    print(describe(stats))


def _forget_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("logs", None, "Log directory", flag_values=values)
    flags.DEFINE_string("out", None, "Log directory to make, without the users", flag_values=values)
    flags.DEFINE_multi_string("user_id", [], "User to remove", flag_values=values)
    flags.DEFINE_string("users", None, "File of users to remove, an id a line", flag_values=values)
    flags.DEFINE_string("key", None, "Key of pseudonymize, where LOGS hold pseudonyms of these ids", flag_values=values)


def _forget(values: flags.FlagValues, beam_options: Sequence[str]) -> None:
    from pipelines.personal_data import forget
    from usr_tf.pseudonyms import pseudonym, read_key

    users = {*values.user_id, *(_read_lines(values.users) if values.users else ())}
    if not users:
        raise InputError(f"{PROGRAM} forget: --user_id, --users", "nothing", "at least one user")
    if values.key:
        key = read_key(values.key)
        users = {pseudonym(user, key) for user in users}
    _print_edits(values.out, forget(values.logs, values.out, users, beam_options))


def _pseudonymize_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("logs", None, "Log directory", flag_values=values)
    flags.DEFINE_string("out", None, "Log directory to make, with pseudonyms for user ids", flag_values=values)
    flags.DEFINE_string("key", None, "File of a random key, such as of `openssl rand -hex 32`", flag_values=values)


def _pseudonymize(values: flags.FlagValues, beam_options: Sequence[str]) -> None:
    from pipelines.personal_data import pseudonymize
    from usr_tf.pseudonyms import read_key

    _print_edits(values.out, pseudonymize(values.logs, values.out, read_key(values.key), beam_options))


def _read_lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"no readable text ({error})", "a user id a line") from error


def _print_edits(out: str, rows: dict[str, dict[str, int]]) -> None:
    for table, counts in rows.items():
        print(f"{out} {table}: " + ", ".join(f"{count:,} {what}" for what, count in counts.items()))


def _score_logs_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("model", None, "Exported version, SERVING/<version>, or run of baseline", flag_values=values)
    flags.DEFINE_string("logs", None, "Log directory", flag_values=values)
    flags.DEFINE_string("out", None, "Directory to make", flag_values=values)
    flags.DEFINE_string("schema", None, "Schema to use in place of the model's own", flag_values=values)
    _table_flag(values)
    flags.DEFINE_integer("partitions", None, "Parts to join in; by size when absent", 1, flag_values=values)
    flags.DEFINE_string(
        "since", None, "ISO 8601 date or time (UTC): impressions before it are not scored", flag_values=values
    )
    _quote_flag(values)


def _score_logs(values: flags.FlagValues, beam_options: Sequence[str]) -> None:
    from pipelines.score import score_logs
    from usr_tf.baseline.run import is_tree_run, open_tree_run

    load_trees = None
    if is_tree_run(values.model):
        from usr_tf.baseline.scoring import load_tree_scorer

        open_tree_run(values.model).load_model()  # what is wrong with it is told before the job
        load_trees = load_tree_scorer
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
        load_trees=load_trees,
        quote_rejected=values.quote_rejected,
    )
    print(strict_json(stats, indent=2))


def _evaluate_scores_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("scores", None, "What score_logs wrote, or a directory of Parquet files", flag_values=values)
    flags.DEFINE_string("out", None, "Report directory to make", flag_values=values)
    flags.DEFINE_string("schema", None, "Schema in place of the one that the files hold", flag_values=values)
    flags.DEFINE_string(
        "trained_until",
        None,
        "ISO 8601 date or time (UTC): rows before it are what training saw, for slices and popularity",
        flag_values=values,
    )
    flags.DEFINE_string(
        "since", None, "ISO 8601 date or time (UTC): rows before it are not evaluated", flag_values=values
    )
    flags.DEFINE_integer("replicates", 200, "Resamples of users behind every interval", 1, flag_values=values)


def _evaluate_scores(values: flags.FlagValues, beam_options: Sequence[str]) -> None:
    from rich.console import Console

    from pipelines.evaluate import evaluate_scores
    from usr_tf.evaluation.report import format_table

    document, details = evaluate_scores(
        values.scores,
        values.out,
        values.schema,
        beam_options,
        progress=True,
        trained_until=values.trained_until,
        since=values.since,
        replicates=values.replicates,
    )
    Console().print(format_table(document, details))
    print(f"{values.out}: metrics.json, details.json, report.html")


def _monitor_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_multi_string("requests", None, "Files, patterns or directories of request logs", flag_values=values)
    flags.DEFINE_string("data", None, "Data that the served model was trained on", flag_values=values)
    flags.DEFINE_multi_string("action_files", [], "Files of later actions, for calibration", flag_values=values)
    flags.DEFINE_string("out", None, "Directory to make", flag_values=values)
    flags.DEFINE_multi_string(
        "limit",
        [],
        "KIND=NUMBER: fail where new_tokens, label_rate, numeric_shift, coverage, mean_score or calibration is further "
        "from training",
        flag_values=values,
    )


def _monitor(values: flags.FlagValues, beam_options: Sequence[str]) -> None:
    from pipelines.monitor import describe, monitor, refuse

    document = monitor(
        values.requests, values.data, values.out, values.action_files, values.limit, beam_options, progress=True
    )
    print(describe(document))
    refuse(document, values.out)


def _table_flag(values: flags.FlagValues) -> None:
    flags.DEFINE_multi_string(
        "table",
        [],
        "TABLE=WHERE of a table that is not in LOGS: files by a path or pattern, or bigquery:PROJECT.DATASET.TABLE",
        flag_values=values,
    )


def _quote_flag(values: flags.FlagValues) -> None:
    flags.DEFINE_bool(
        "quote_rejected",
        True,
        "Whether OUT holds rejected rows, which may be personal data, or their places and reasons alone",
        flag_values=values,
    )


def _short(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else "–"


VERBS = {
    "simulate": Verb(
        "Make the logs of a simulated shop",
        _simulate_flags,
        _simulate,
        ("out",),
        tensorflow=False,
        example="--out LOGS --impressions 200000",
        extras=("pipelines",),
    ),
    "import": Verb(
        "Turn someone else's logs into ours",
        _import_flags,
        _import,
        ("source", "input", "out"),
        "input",
        tensorflow=False,
        example="--source ga360 --input sessions.ndjson.gz --out LOGS",
        extras=("pipelines",),
    ),
    "schema": Verb(
        "Draft schema.yaml from a sample of logs",
        _schema_flags,
        _schema,
        ("infer",),
        tensorflow=False,
        example="--infer LOGS --out LOGS/schema.yaml",
        extras=("pipelines",),
    ),
    "preprocess": Verb(
        "Join, label, split and transform logs",
        _preprocess_flags,
        _preprocess,
        ("out",),
        beam=True,
        example="--logs LOGS --out DATA",
        extras=("pipelines",),
    ),
    "monitor": Verb(
        "Compare served requests with training: drift, scores, calibration",
        _monitor_flags,
        _monitor,
        ("requests", "data", "out"),
        beam=True,
        example="--requests REQUEST_LOG --action_files ACTIONS --data DATA --out MONITOR",
        extras=("pipelines",),
    ),
    "forget": Verb(
        "Copy logs without the rows of some users",
        _forget_flags,
        _forget,
        ("logs", "out"),
        "user_id",
        beam=True,
        example="--logs LOGS --out KEPT --user_id u0000293",
        extras=("pipelines",),
    ),
    "pseudonymize": Verb(
        "Copy logs with a keyed hash in place of each user id",
        _pseudonymize_flags,
        _pseudonymize,
        ("logs", "out", "key"),
        beam=True,
        example="--logs LOGS --out PSEUDONYMOUS --key pseudonyms.key",
        extras=("pipelines",),
    ),
    "score_logs": Verb(
        "Score logged impressions offline by an exported model",
        _score_logs_flags,
        _score_logs,
        ("model", "out"),
        beam=True,
        example="--model SERVING/VERSION --logs LOGS --out SCORES",
        extras=("pipelines",),
    ),
    "evaluate_scores": Verb(
        "Figures and a report of scored logs, however many",
        _evaluate_scores_flags,
        _evaluate_scores,
        ("scores", "out"),
        beam=True,
        example="--scores SCORES --out REPORT",
        extras=("pipelines",),
    ),
}
