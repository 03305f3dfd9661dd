"""Latency of `Ranker.rank` end to end, and the share of each of its parts.

A call takes a user id, a query and item ids, and returns them ranked: look-ups in the feature store, the request built
from them, tensors and gRPC to a served model, rows sorted. The store is filled from the logs first.

    usr-tf serve --model SERVING --port 8500 &
    python -m benchmarks.rank --logs LOGS --address 127.0.0.1:8500 --stores /tmp/features.sqlite redis://127.0.0.1/0

Parts: *look-up* is the time in the backend, *build* the rest of `RequestBuilder.build`, *gRPC* the time in the
transport, the server's work included, *rest* tensors before it and the ranking after it.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import usr_tf  # noqa: F401  (before TensorFlow)

# isort: split
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.replay_parity import events_in_order
from serving.client import Ranker
from serving.features import RequestBuilder, open_store
from serving.features.event import Event
from serving.features.store import FeatureStore
from usr_tf.feature_states import item_key
from usr_tf.schema import ITEM, TIMESTAMP, USER, load_schema

_BATCH = 2_000
_WARM_UP = 20
_PARTS = ("look-up", "build", "gRPC", "rest")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", required=True, help="log directory of the model's schema")
    parser.add_argument("--address", default="127.0.0.1:8500", help="HOST:PORT of the served model")
    parser.add_argument(
        "--stores", nargs="+", required=True, help="paths or redis:// URLs of stores; new ones are filled"
    )
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--no_counters", action="store_true", help="for a model that holds a snapshot of its counters")
    parser.add_argument("--json", help="file to write the figures to")
    arguments = parser.parse_args()
    schema = load_schema(Path(arguments.logs, "schema.yaml"))
    events = events_in_order(arguments.logs, schema)
    figures = {}
    for url in arguments.stores:
        with open_store(url, schema) as store, Ranker(arguments.address) as ranker:
            fill(store, events)
            builder = RequestBuilder(store, not arguments.no_counters)
            figures[url] = measure(builder, ranker, events, arguments.calls, arguments.candidates)
    table = Table(title=f"rank of {arguments.candidates} candidates, ms: p50 / p99 over {arguments.calls:,} calls")
    for column in ("store", "whole", *_PARTS, "share of each"):
        table.add_column(column, justify="left" if column == "store" else "right")
    for url, row in figures.items():
        cells = [f"{row[part]['p50_ms']:.1f} / {row[part]['p99_ms']:.1f}" for part in ("whole", *_PARTS)]
        shares = ", ".join(f"{row[part]['share']:.0%}" for part in _PARTS)
        table.add_row(url.partition(":")[0] if "://" in url else "sqlite", *cells, shares)
    Console(width=150).print(table)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def fill(store: FeatureStore, events: Sequence[Event]) -> None:
    """Applies all events, unless the store has them."""
    batches = range(0, len(events), _BATCH)
    some = next(event for event in events if event.table == "items")
    if store.read([item_key(some.row[ITEM])]) == [None]:
        for start in track(batches, f"fill {store.place}", console=Console(stderr=True)):
            store.apply(events[start : start + _BATCH])


def measure(
    builder: RequestBuilder, ranker: Ranker, events: Sequence[Event], calls: int, candidates: int
) -> dict[str, dict[str, float]]:
    """Latencies (ms) of the whole call and of its parts, and the share of each part in the sum."""
    draw = random.Random(0)
    shown = [event for event in events if event.table == "impressions"]
    items = sorted({event.row[ITEM] for event in events if event.table == "items"})
    moment = max(event.row[TIMESTAMP] for event in shown) + 1
    clock = _Clock(builder, ranker)
    found: dict[str, list[float]] = {part: [] for part in ("whole", *_PARTS)}
    for number in track(range(-_WARM_UP, calls), "rank", console=Console(stderr=True)):
        event = draw.choice(shown)
        slate = draw.choices(items, k=candidates) if len(items) < candidates else draw.sample(items, candidates)
        given: Mapping[str, Any] = {name: event.row.get(name) for name in builder.schema.columns_of("query", "context")}
        context = {name: value for name, value in given.items() if name != "query"}
        columns = {name: [event.row.get(name)] * candidates for name in builder.schema.columns_of("candidate")}
        clock.reset()
        start = time.perf_counter()
        ranked = ranker.rank(
            builder,
            event.row["scenario"],
            event.row[USER],
            given.get("query"),
            slate,
            context,
            candidates=columns,
            moment=moment,
        )
        whole = time.perf_counter() - start
        assert len(ranked) == candidates
        if number >= 0:
            parts = {
                "look-up": clock.read,
                "build": clock.build - clock.read,
                "gRPC": clock.predict,
                "rest": whole - clock.build - clock.predict,
            }
            for part, seconds in {"whole": whole, **parts}.items():
                found[part].append(1e3 * seconds)
    total = sum(found["whole"])
    return {
        part: {
            "p50_ms": float(np.percentile(latencies, 50)),
            "p99_ms": float(np.percentile(latencies, 99)),
            "share": sum(latencies) / total,
        }
        for part, latencies in found.items()
    }


class _Clock:
    """Seconds in the backend, in the builder and in the transport."""

    def __init__(self, builder: RequestBuilder, ranker: Ranker):
        self.reset()
        read, build, predict = builder.store.backend.read, builder.build, ranker._transport.predict

        def timed_read(keys):
            start = time.perf_counter()
            values = read(keys)
            self.read += time.perf_counter() - start
            return values

        def timed_build(*arguments, **options):
            start = time.perf_counter()
            document = build(*arguments, **options)
            self.build += time.perf_counter() - start
            return document

        async def timed_predict(*arguments):
            start = time.perf_counter()
            response = await predict(*arguments)
            self.predict += time.perf_counter() - start
            return response

        builder.store.backend.read, builder.build = timed_read, timed_build
        ranker._transport.predict = timed_predict

    def reset(self) -> None:
        self.read = self.build = self.predict = 0.0


if __name__ == "__main__":
    sys.exit(main())
