"""Timestamps of logs: units of numbers, ISO 8601 texts, and milliseconds UTC of both."""

import datetime
import re
from collections.abc import Sequence

from usr_tf.errors import InputError
from usr_tf.schema import TIMESTAMP

LAST_MOMENT = 253_402_300_799_999
"""The end of the year 9999, in ms."""

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_EARLIEST, _LATEST = 946_684_800, 4_102_444_800  # the years 2000 and 2100: no two units share a number between them
ISO_8601 = (
    r"(?P<day>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?P<time>\d{2}:\d{2}(?::\d{2})?(?P<fraction>\.\d{1,9})?) ?(?P<zone>Z|UTC|[+-]\d{2}:?\d{2})?)?"
)
_ISO_8601 = re.compile(ISO_8601, re.ASCII)


def unit_of(numbers: Sequence[int | float]) -> str | None:
    """The only unit in which all `numbers` lie between the years 2000 and 2100; None if there is none."""
    if not numbers:
        return None
    first, last = min(numbers), max(numbers)
    return next((unit for unit, n in PER_SECOND.items() if _EARLIEST * n <= first and last < _LATEST * n), None)


def check_unit(place: str, numbers: Sequence[int | float], unit: str) -> None:
    """Refuses timestamps that are plainly of another unit than the schema's.

    Raises:
      InputError: all of them lie between 2000 and 2100 in another unit. Numbers of no such unit pass.
    """
    found = unit_of(numbers)
    if found is None or found == unit:
        return
    first = min(numbers)
    moment = datetime.datetime.fromtimestamp(first / PER_SECOND[found], datetime.UTC)
    ratio = PER_SECOND[unit] / PER_SECOND[found]
    factor = f"times {ratio:,.0f}" if ratio > 1 else f"divided by {1 / ratio:,.0f}"
    raise InputError(
        f"{place}: column {TIMESTAMP!r}",
        f"{UNITS[found]} since 1970 ({first} is {moment:%Y-%m-%d %H:%M} UTC)",
        f"{UNITS[unit]}: the number {factor}, or timestamp_unit: {found} in the schema",
    )


def to_milliseconds(number: int | float, unit: str) -> int:
    """Whole milliseconds of a number of `unit`s, the rest cut off."""
    if unit == "s":
        return number * 1_000 if isinstance(number, int) else round(number * 1_000)
    return int(number) * 1_000 // PER_SECOND[unit]


def parse_moment(text: str, dates: bool) -> int | None:
    """Milliseconds of an ISO 8601 text, UTC where it names no zone; None if it is none.

    Args:
      dates: whether a date without a time of day is a moment, its midnight.
    """
    match = _ISO_8601.fullmatch(text)
    if match is None or not (match["time"] or dates):
        return None
    zone = (match["zone"] or "Z").replace("UTC", "Z")
    try:
        moment = datetime.datetime.fromisoformat(f"{match['day']}T{match['time'] or '00:00'}{zone}")
    except ValueError:
        return None
    return moment_of(moment)


def moment_of(value: datetime.datetime | datetime.date) -> int:
    """Milliseconds of a moment or of a date's midnight, UTC where it has no zone."""
    if not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    if value.tzinfo is None:
        value = value.replace(tzinfo=datetime.UTC)
    return (value - _EPOCH) // datetime.timedelta(milliseconds=1)


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
