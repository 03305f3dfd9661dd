"""Replay parity: requests rebuilt from events by a feature store, beside what `usr-tf preprocess` makes of the logs.

The events of a log directory go into a store in the order of their times. At the moment of each sampled request of the
test split the store has what came before it, and no more; the request is built from user id, query and item ids, and
has to equal the logged request to the last value. With a served model, the scores of both are compared too.

    python -m benchmarks.replay_parity --logs demo_out/logs
    python -m benchmarks.replay_parity --logs demo_out/logs --store redis://127.0.0.1:6379/0 --address 127.0.0.1:8500

Exits with 1 where a value differs, or a score by more than 1e-5.
"""

import argparse
import itertools
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import usr_tf  # noqa: F401  (before TensorFlow)

# isort: split
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pipelines.beam.job import read_and_join, run, scratch
from pipelines.beam.options import make_pipeline
from pipelines.beam.output import TEMP
from pipelines.join.logged_requests import SampleRequests
from pipelines.join.split import EVER
from pipelines.logs.inputs import find_tables, partitions_for
from pipelines.logs.locations import find_files
from pipelines.logs.tables import read_file
from serving.client import Ranker
from serving.features import FeatureStore, RequestBuilder, open_store
from serving.features.event import Event, EventReader
from serving.formats.logged_requests import read_requests
from serving.publishing.golden import TOLERANCE
from usr_tf.schema import ITEM, POSITION, REQUEST, TABLES, TIMESTAMP, USER, Schema, Split, load_schema

_AHEAD = 2_000
"""Events that are applied together at the most; fewer where a sampled request comes first."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", required=True, help="log directory")
    parser.add_argument("--store", help="path or redis:// URL of an empty store; a temporary SQLite file when absent")
    parser.add_argument("--requests", type=int, default=1000, help="of each scenario")
    parser.add_argument("--test", type=float, default=0.5, help="share of the impressions that requests are taken of")
    parser.add_argument("--address", help="HOST:PORT of a served model of the same schema, to compare scores")
    parser.add_argument("--json", help="file to write the figures to")
    arguments = parser.parse_args()
    schema = load_schema(Path(arguments.logs, "schema.yaml"))
    with tempfile.TemporaryDirectory() as folder:
        logged = logged_requests(arguments.logs, schema, folder, arguments.requests, arguments.test)
        with open_store(arguments.store or Path(folder, "store.sqlite"), schema) as store:
            rebuilt = [*replay(store, arguments.logs, logged)]
    figures = {name: compare(name, rebuilt, logged) for name in schema.scenarios}
    if arguments.address:
        with Ranker(arguments.address) as ranker:
            for name in schema.scenarios:
                figures[name]["score_difference"] = score_difference(ranker, name, rebuilt, logged)
    table = Table(title="requests rebuilt from events, beside logged requests")
    columns = [*next(iter(figures.values()))]
    for column in ("scenario", *columns):
        table.add_column(column.replace("_", " "), justify="left" if column == "scenario" else "right")
    for name, row in figures.items():
        table.add_row(name, *(f"{value:,}" if isinstance(value, int) else f"{value:.1e}" for value in row.values()))
    Console().print(table)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    differs = any(row["different"] or row.get("score_difference", 0) > TOLERANCE for row in figures.values())
    return 1 if differs else 0


def logged_requests(logs: str, schema: Schema, folder: str, count: int, test: float) -> dict[str, dict[str, Any]]:
    """Documents of `count` requests of each scenario of the last `test` of the logs, by request id.

    They are those that `usr-tf preprocess` writes to `DATA/requests`, by its join, without its transform.
    """
    schema = schema.model_copy(update={"split": Split(valid=0, test=test)})
    inputs = find_tables(logs, ())
    pipeline = make_pipeline(())
    Path(folder, TEMP).mkdir()
    with scratch(pipeline, folder) as store:
        joined, _, _ = read_and_join(pipeline, schema, inputs, partitions_for(inputs), store, EVER)
        _ = joined["test"] | SampleRequests(schema, folder, count)
        run(pipeline)
    paths = [path for name in schema.scenarios if (path := Path(folder, f"{name}.jsonl")).exists()]
    return {request.request_id: request.document for path in paths for request in read_requests(path)}


def replay(
    store: FeatureStore, logs: str, logged: Mapping[str, Mapping[str, Any]], ahead: int = _AHEAD
) -> Iterator[dict[str, Any]]:
    """Applies the events of the logs in the order of time, and builds each logged request at its moment."""
    events = events_in_order(logs, store.schema)
    slates: dict[str, list[Event]] = {}
    for event in events:
        if event.table == "impressions" and event.row[REQUEST] in logged:
            slates.setdefault(event.row[REQUEST], []).append(event)
    requests = sorted(slates.values(), key=lambda slate: slate[0].row[TIMESTAMP])
    builder, waiting = RequestBuilder(store), iter(events)
    following = next(waiting, None)
    for slate in track(requests, "replay", console=Console(stderr=True)):
        moment = slate[0].row[TIMESTAMP]
        while following is not None and (following.row[TIMESTAMP] or 0) < moment:
            batch = [following]
            for following in waiting:
                if len(batch) == ahead or (following.row[TIMESTAMP] or 0) >= moment:
                    break
                batch.append(following)
            else:
                following = None
            outcomes = store.apply(batch)
            assert outcomes.keys() <= {"written", "duplicate", "unknown_item"}, outcomes
        yield build(builder, slate)


def build(builder: RequestBuilder, slate: Sequence[Event]) -> dict[str, Any]:
    """The request of logged impressions, from what a shop's backend has of it."""
    first, schema = slate[0].row, builder.schema
    slate = sorted(slate, key=lambda event: (event.row[POSITION] or 0, event.row[ITEM]))
    context = {name: first.get(name) for name in schema.columns_of("query", "context") if name != "query"}
    return builder.build(
        first["scenario"],
        first[USER],
        first.get("query"),
        [event.row[ITEM] for event in slate],
        context,
        candidates={name: [event.row.get(name) for event in slate] for name in schema.columns_of("candidate")},
        moment=first[TIMESTAMP],
        request_id=first[REQUEST],
    )


def compare(scenario: str, rebuilt: Sequence[Mapping], logged: Mapping[str, Mapping]) -> dict[str, Any]:
    """Values of the inputs of a scenario's requests, and how many differ."""
    tally: Counter[str] = Counter(requests=0, inputs=0, values=0, different=0)
    for document in rebuilt:
        if document["scenario"] != scenario:
            continue
        expected = logged[document["request_id"]]["inputs"]
        tally["requests"] += 1
        tally["inputs"] += len(expected)
        for name in expected.keys() | document["inputs"].keys():
            ours, theirs = (_values(inputs.get(name)) for inputs in (document["inputs"], expected))
            tally["values"] += len(theirs)
            different = sum(a != b for a, b in itertools.zip_longest(ours, theirs))
            tally["different"] += different
            if different:
                print(f"{document['request_id']}: {name}: rebuilt {ours}, logged {theirs}"[:2000], file=sys.stderr)
    return dict(tally)


def _values(value: Any) -> list[Any]:
    """A value of an input as a flat list, with the lengths of inner lists."""
    if not isinstance(value, list):
        return [value]
    return [len(value), *itertools.chain.from_iterable(map(_values, value))]


def score_difference(ranker: Ranker, scenario: str, rebuilt: Sequence[Mapping], logged: Mapping[str, Any]) -> float:
    """Largest difference between the scores of rebuilt and logged requests of a scenario."""
    largest = 0.0
    for document in rebuilt:
        if document["scenario"] == scenario:
            ours, theirs = (
                sorted(ranker.score(scenario, each), key=lambda row: str(row[ITEM]))
                for each in (document, logged[document["request_id"]])
            )
            names = [name for name, value in ours[0].items() if isinstance(value, float)]
            for one, other in zip(ours, theirs, strict=True):
                largest = max(largest, *(abs(one[name] - other[name]) for name in names))
    return largest


def events_in_order(logs: str, schema: Schema) -> list[Event]:
    """Events of a log directory by time; rows without a time first."""
    return sorted(_events(logs, schema), key=lambda event: event.row[TIMESTAMP] or 0)


def _events(logs: str, schema: Schema) -> Iterator[Event]:
    """Events of all tables of a log directory; rows that no job takes are left out.

    So are rows of items and users that repeat one: the first holds in a table, and the last of a stream in a store.
    """
    reader, known = EventReader(schema), set()
    for table in TABLES:
        for number, path in enumerate(find_files(logs, table)):
            for batch, _ in read_file(path, number, schema, table):
                for row in batch.to_pylist():
                    if table in ("items", "users"):
                        identity = (table, row[ITEM if table == "items" else USER], row[TIMESTAMP])
                        if identity in known:
                            continue
                        known.add(identity)
                    yield reader.check(table, row)


if __name__ == "__main__":
    sys.exit(main())
