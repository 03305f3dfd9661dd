"""Event sources of the ingest: a file, standard input, and Kafka."""

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson

from usr_tf.errors import InputError

_READ_BYTES = 1 << 20
_POLL_SECONDS = 0.2


class Line(NamedTuple):
    """One event as it came."""

    text: bytes
    place: str
    """Where it stands, for messages: `events.jsonl:1207` is its first byte in the file."""
    source: str | None
    """What its offset is stored under; None where the source cannot be read again."""
    first: int
    """Offset of the event."""
    following: int
    """Offset of the next one."""


class Source(Protocol):
    """Events in their order."""

    sources: tuple[str, ...]
    """Names that offsets are stored under."""

    def lines(self, offsets: dict[str, int]) -> Iterator[Line | None]:
        """Events from these offsets on. None now and then while none comes, so that what is there is written."""


class FileSource:
    """A file of JSON Lines.

    Args:
      path: the file.
      follow: whether to wait for more at its end, as `tail -f` does.

    Raises:
      InputError: no readable file.
    """

    def __init__(self, path: str | Path, follow: bool = False):
        self._path, self._follow = Path(path), follow
        try:
            self._path.open("rb").close()
        except OSError as error:
            raise InputError(path, f"no readable file ({error.strerror})", "a file of events") from error
        self._name = f"file:{self._path.resolve()}"
        self.sources: tuple[str, ...] = (self._name,)

    def lines(self, offsets: dict[str, int]) -> Iterator[Line | None]:
        at = offsets[self._name]
        with self._path.open("rb", buffering=0) as stream:
            size = os.fstat(stream.fileno()).st_size
            if at > size:
                expected = f"at least the {at:,} that were read before: give a new file a new name"
                raise InputError(self._path, f"{size:,} bytes", expected)
            stream.seek(at)
            rest = b""
            while True:
                block = stream.read(_READ_BYTES)
                if not block:
                    yield None
                    if not self._follow:
                        break
                    time.sleep(_POLL_SECONDS)
                    continue
                *lines, rest = (rest + block).split(b"\n")
                for text in lines:
                    yield self._line(text, at, at + len(text) + 1)
                    at += len(text) + 1
            if rest and _is_whole(rest):  # a last line without an end, unless its writer is still at it
                yield self._line(rest, at, at + len(rest))

    def _line(self, text: bytes, first: int, following: int) -> Line:
        return Line(text, f"{self._path}:{first}", self._name, first, following)


class StreamSource:
    """JSON Lines of a pipe. It cannot be read again: what it brings twice is known by the events themselves."""

    sources: tuple[str, ...] = ()

    def __init__(self, descriptor: int | None = None):
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor

    def lines(self, offsets: dict[str, int]) -> Iterator[Line | None]:
        rest, number = b"", 0
        while True:
            ready, _, _ = select.select([self._descriptor], [], [], _POLL_SECONDS)
            if not ready:
                yield None
                continue
            block = os.read(self._descriptor, _READ_BYTES)
            *lines, rest = (rest + block).split(b"\n")
            if not block:
                lines, rest = ([rest] if rest else []), b""
            for text in lines:
                number += 1
                yield Line(text, f"stdin:{number}", None, 0, 0)
            if not block:
                return


class KafkaSource:
    """A Kafka topic. Its offsets are stored with the features, not in Kafka, so that each event takes effect once.

    All partitions are read by one ingest; the events of a user should be in one partition, keyed by `user_id`.

    Args:
      servers: `HOST:PORT,…` of brokers.
      topic: the topic.
      connect: makes a consumer that has the interface of `kafka.KafkaConsumer`, and the partitions of its topic.

    Raises:
      InputError: no such topic, no broker, or the package is missing.
    """

    def __init__(self, servers: str, topic: str, connect: Callable[[str, str], tuple[Any, list[Any]]] | None = None):
        self._consumer, partitions = (connect or _connect)(servers, topic)
        self._partitions = {_kafka_name(partition): partition for partition in partitions}
        self.sources: tuple[str, ...] = tuple(self._partitions)

    def lines(self, offsets: dict[str, int]) -> Iterator[Line | None]:
        self._consumer.assign([*self._partitions.values()])
        for name, partition in self._partitions.items():
            if offsets[name]:
                self._consumer.seek(partition, offsets[name])
            else:
                self._consumer.seek_to_beginning(partition)
        at = dict(offsets)
        while True:
            polled = self._consumer.poll(timeout_ms=int(_POLL_SECONDS * 1000))
            for partition, records in polled.items():
                name = _kafka_name(partition)
                for record in records:
                    # A compacted topic or a transaction leaves gaps between offsets.
                    yield Line(
                        record.value or b"", f"{name}:{record.offset}", name, at[name], following=record.offset + 1
                    )
                    at[name] = record.offset + 1
            if not polled:
                yield None


def _is_whole(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True


def _kafka_name(partition: Any) -> str:
    return f"kafka:{partition.topic}:{partition.partition}"


def _connect(servers: str, topic: str) -> tuple[Any, list[Any]]:
    try:
        import kafka
    except ImportError as error:
        raise InputError("--kafka", "no module kafka", "what this installs: pip install 'usr-tf[features]'") from error
    try:
        consumer = kafka.KafkaConsumer(
            bootstrap_servers=servers.split(","), enable_auto_commit=False, auto_offset_reset="earliest"
        )
        numbers = consumer.partitions_for_topic(topic)
    except kafka.errors.KafkaError as error:
        raise InputError(f"--kafka={servers}", f"no broker ({error})", "HOST:PORT of Kafka") from error
    if not numbers:
        raise InputError(f"--topic={topic}", "no such topic", "a topic of events")
    return consumer, [kafka.TopicPartition(topic, number) for number in sorted(numbers)]
