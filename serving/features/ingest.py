"""Ingest: follows a source of events and applies them to a feature store, each one once."""

import time
from collections import Counter as Tally
from typing import NamedTuple

from serving.features.event import Event, EventReader
from serving.features.sources import Line, Source
from serving.features.store import FeatureStore
from usr_tf.log_rows import RejectedRow

_LONGEST_WAIT = 1.0  # seconds until an event is written though the batch is not full


class Ingested(NamedTuple):
    """What became of the events of one ingest."""

    outcomes: Tally[str]
    """By outcome of `FeatureStore.apply`, or reason of rejection."""
    examples: dict[str, str]
    """The first place of each reason of rejection."""


def ingest(store: FeatureStore, source: Source, batch: int = 1_000) -> Ingested:
    """Applies the events of a source from where the last ingest of it stopped, until it ends.

    A batch and the offsets after it are one transaction: after a crash the next ingest goes on behind the last batch
    that took effect. Events that arrive again are known by their keys, so a source without offsets may repeat them
    within the store's lateness. Rows that are no events are counted and left out.

    Args:
      batch: events of a transaction, at the most.
    """
    reader, total = EventReader(store.schema), Ingested(Tally(), {})
    offsets = dict(zip(source.sources, store.offsets(source.sources), strict=True))
    waiting: list[Line] = []
    since = time.monotonic()
    for line in source.lines(offsets):
        if line is not None:
            waiting.append(line)
        if len(waiting) >= batch or (waiting and (line is None or time.monotonic() - since > _LONGEST_WAIT)):
            _apply(store, reader, waiting, total)
            waiting = []
        if not waiting:
            since = time.monotonic()
    if waiting:
        _apply(store, reader, waiting, total)
    return total


def _apply(store: FeatureStore, reader: EventReader, lines: list[Line], total: Ingested) -> None:
    events: list[Event] = []
    offsets: dict[str, tuple[int, int]] = {}
    for line in lines:
        if line.source is not None:
            first, _ = offsets.get(line.source, (line.first, 0))
            offsets[line.source] = (first, line.following)
        if not line.text.strip():
            continue
        try:
            events.append(reader.parse(line.text))
        except RejectedRow as reason:
            total.outcomes[str(reason)] += 1
            total.examples.setdefault(str(reason), line.place)
    total.outcomes.update(store.apply(events, offsets))
