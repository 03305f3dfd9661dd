"""Verb of the online features: bulk load and ingest of a feature store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from usr_tf.cli.extras import require
from usr_tf.cli.quiet import quiet
from usr_tf.cli.verb import PROGRAM, Verb
from usr_tf.errors import InputError
from usr_tf.files import strict_json

if TYPE_CHECKING:
    from usr_tf.feature_states import Limits
    from usr_tf.schema import Schema

_PLACE = f"{PROGRAM} features"
_OF_LOAD = ("logs", "data", "table", "partitions", "until")
_OF_INGEST = ("input", "kafka", "topic", "follow", "batch")


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_multi_enum(
        "action", None, ["load", "ingest"], "load: fill a new store; ingest: follow events", flag_values=values
    )
    flags.DEFINE_string(
        "store", None, "The store: a path of a SQLite file, or redis://HOST:PORT/DATABASE", flag_values=values
    )
    flags.DEFINE_string(
        "schema", None, "Schema of a new store; of load, in place of LOGS/schema.yaml", flag_values=values
    )
    flags.DEFINE_string("lateness", None, "How late events of a new store may be; 1d when absent", flag_values=values)
    flags.DEFINE_string(
        "idle", None, "Drop users without an event for so long, such as 90d; never when absent", flag_values=values
    )
    flags.DEFINE_string("logs", None, "load: log directory", flag_values=values)
    flags.DEFINE_string(
        "data", None, "load: data directory, for its schema and, without --until, its moment", flag_values=values
    )
    flags.DEFINE_multi_string("table", [], "load: TABLE=WHERE of a table that is not in LOGS", flag_values=values)
    flags.DEFINE_integer("partitions", None, "load: parts to join in; by size when absent", 1, flag_values=values)
    flags.DEFINE_string(
        "until", None, "load: ISO 8601 date or time (UTC); events before it are loaded", flag_values=values
    )
    flags.DEFINE_string(
        "input", None, "ingest: file of events, one JSON object a line; - is standard input", flag_values=values
    )
    flags.DEFINE_bool("follow", False, "ingest: wait for more at the end of the file", flag_values=values)
    flags.DEFINE_string("kafka", None, "ingest: HOST:PORT,… of Kafka brokers, in place of --input", flag_values=values)
    flags.DEFINE_string("topic", None, "ingest: topic of the events in Kafka", flag_values=values)
    flags.DEFINE_integer("batch", 1_000, "ingest: events of a transaction, at the most", 1, flag_values=values)


def _run(values: flags.FlagValues, beam_options: Sequence[str]) -> None:
    if len(values.action or ()) != 1:
        raise InputError(_PLACE, " and ".join(values.action or ("nothing",)), "load or ingest")
    [action] = values.action
    for name in _OF_INGEST if action == "load" else _OF_LOAD:
        if values[name].present:
            raise InputError(f"{_PLACE} {action}: --{name}", "a flag of the other action", "none")
    if action == "load":
        _load(values, beam_options)
    elif beam_options:
        raise InputError(f"{_PLACE} ingest", f"options after -- ({beam_options[0]})", "none")
    else:
        _ingest(values)


def _load(values: flags.FlagValues, beam_options: Sequence[str]) -> None:
    require(("pipelines",), f"{_PLACE} load")
    if not (values.logs or values.table):
        raise InputError(f"{_PLACE} load: --logs", "nothing", "a log directory")
    quiet()
    from pipelines.beam.job import milliseconds
    from pipelines.beam.output import read_schema
    from pipelines.join.counter_state import snapshot_moment
    from pipelines.load_features import load_features
    from serving.features.store import bulk_load, reaches_other_machines

    where = values.schema or f"{values.data or values.logs}/schema.yaml"
    schema, limits = read_schema(where), _limits(values)
    if values.schema or not values.data:
        schema = schema.with_normal_forms(None)  # as `preprocess` takes the schema of logs
    until = milliseconds(values.until, "--until") if values.until else None
    if until is None and values.data:
        until = snapshot_moment(values.data)
    written = load_features(
        values.logs,
        schema,
        limits,
        lambda: bulk_load(values.store, schema, limits),
        until,
        beam_options,
        values.partitions,
        progress=True,
        tables=values.table,
        shared=reaches_other_machines(values.store),
    )
    print(f"{values.store}: " + ", ".join(f"{number:,} {kind}" for kind, number in sorted(written.items())))


def _ingest(values: flags.FlagValues) -> None:
    place = f"{_PLACE} ingest"
    if bool(values.input) == bool(values.kafka):
        found = "both" if values.input else "nothing"
        raise InputError(f"{place}: --input, --kafka", found, "one of these flags")
    if bool(values.kafka) != bool(values.topic):
        raise InputError(f"{place}: --kafka, --topic", "one without the other", "both")
    from serving.features import open_store
    from serving.features.ingest import ingest
    from serving.features.sources import FileSource, KafkaSource, Source, StreamSource
    from usr_tf.schema import load_schema

    schema: Schema | None = load_schema(values.schema).with_normal_forms(None) if values.schema else None
    limits = _limits(values) if values.lateness or values.idle else None
    source: Source
    if values.kafka:
        source = KafkaSource(values.kafka, values.topic)
    elif values.input == "-":
        source = StreamSource()
    else:
        source = FileSource(values.input, values.follow)
    with open_store(values.store, schema, limits) as store:
        ingested = ingest(store, source, values.batch)
    for reason, first in ingested.examples.items():
        print(f"{first}: {reason}, and {ingested.outcomes[reason] - 1:,} more", file=sys.stderr)
    print(strict_json(dict(sorted(ingested.outcomes.items()))))


def _limits(values: flags.FlagValues) -> Limits:
    from usr_tf.feature_states import Limits
    from usr_tf.schema import parse_model

    given = {name: values[name].value for name in ("lateness", "idle") if values[name].value}
    return parse_model(Limits, given, _PLACE)


VERBS = {
    "features": Verb(
        "Fill a feature store from logs (load), or keep it current from events (ingest)",
        _define,
        _run,
        ("store",),
        "action",
        beam=True,
        tensorflow=False,
        example="ingest --store features.sqlite --input events.jsonl --follow",
        extras=("features",),
    ),
}
