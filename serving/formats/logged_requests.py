"""Logged requests: JSON Lines of request documents, in `RUN/requests/<scenario>.jsonl` and golden files."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.formats.request import check_request
from usr_tf.errors import InputError
from usr_tf.files import strict_json
from usr_tf.schema import ITEM

_KNOWN = ("expected", "labels")


@dataclasses.dataclass(frozen=True, eq=False)
class LoggedRequest:
    """Request document with optional values per task and item (expected scores, labels)."""

    request_id: str
    scenario: str
    inputs: Mapping[str, Any]
    expected: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        """Request document alone, as a client sends it."""
        return {"request_id": self.request_id, "scenario": self.scenario, "inputs": self.inputs}

    def item(self, row: int) -> str:
        """Id of an item, or its index in the request if the model has no item ids."""
        return self.inputs[ITEM][row] if ITEM in self.inputs else f"[{row}]"

    def to_json(self) -> str:
        return strict_json(dataclasses.asdict(self), ensure_ascii=False)


def read_requests(path: str | Path) -> list[LoggedRequest]:
    """Reads JSON Lines of request documents, with or without values of their items.

    Raises:
      InputError: an unreadable file, or a line that is no request document of a scenario.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")  # `splitlines` also cuts at a U+2028 in a text
    except OSError as error:
        raise InputError(path, f"no readable file ({error.strerror})", "a request document a line") from error
    except UnicodeDecodeError as error:
        raise InputError(path, f"no UTF-8 ({error})", "a request document a line") from error
    return [_parse(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line]


def format_requests(requests: Iterable[LoggedRequest]) -> str:
    """JSON Lines that `read_requests` reads."""
    return "".join(f"{request.to_json()}\n" for request in requests)


def _parse(line: str, place: str) -> LoggedRequest:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(place, f"no JSON ({error})", "a request document") from error
    known = {name: document.pop(name, {}) for name in _KNOWN} if isinstance(document, dict) else {}
    check_request(document, place)
    if "scenario" not in document:
        raise InputError(f"{place}: scenario", "nothing", "this key of a logged request")
    for name, tasks in known.items():
        if not isinstance(tasks, dict):
            raise InputError(f"{place}: {name}", "something else", "an object of tasks and values")
    return LoggedRequest(**{"request_id": place} | document, **known)
