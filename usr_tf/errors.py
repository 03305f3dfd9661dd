"""`InputError`: wrong input of the user."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

_IN_TRACEBACK = re.compile(
    r"usr_tf\.errors\.InputError: (?P<message>.*?)(?: \[while running '[^']*'\])?$", re.MULTILINE
)


class InputError(ValueError):
    """Wrong input in one line: the place, what was found and what was expected.

    The console program prints it without a traceback and exits with status 2.
    """

    def __init__(self, place: Any, found: str, expected: str):
        super().__init__(f"{place}: found {found}, expected {expected}".replace("\n", " "))

    @classmethod
    def inside(cls, error: BaseException) -> "InputError | None":
        """The `InputError` that `error` is, or that a Beam worker reported inside it; else None.

        Beam hands a worker's exception over as the text of its traceback.
        """
        if isinstance(error, cls):
            return error
        match = _IN_TRACEBACK.search(str(error))
        if match is None:
            return None
        found = cls.__new__(cls)
        ValueError.__init__(found, match["message"])
        return found


def one_of(name: str, known: Iterable[str]) -> str:
    """What was expected in place of an unknown name: the known names, before them one that is spelt much like it."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"{near[0]}, or another of {', '.join(known)}" if near else f"one of {', '.join(known)}"
