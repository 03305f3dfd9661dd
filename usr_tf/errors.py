"""`InputError`: wrong input of the user."""

import re
from collections.abc import Sequence
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

    @property
    def each(self) -> tuple["InputError", ...]:
        """The error; all of them where it stands for several."""
        return (self,)

    def __reduce__(self) -> tuple[Any, ...]:  # else another process cannot read it: its arguments are not those of init
        return _restore, (type(self), self.args, self.__dict__)

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


class InputErrors(InputError):
    """Several wrong inputs, a line each."""

    def __init__(self, errors: Sequence[InputError]):
        ValueError.__init__(self, "\n".join(map(str, errors)))
        self._each = tuple(errors)

    @property
    def each(self) -> tuple[InputError, ...]:
        return self._each


def _restore(kind: type[InputError], arguments: tuple[Any, ...], state: dict[str, Any]) -> InputError:
    error = kind.__new__(kind)
    ValueError.__init__(error, *arguments)
    error.__dict__.update(state)
    return error


def raise_all(errors: Sequence[InputError], cause: Exception | None = None) -> None:
    """Raises the errors as one; returns where there are none."""
    each = tuple(dict.fromkeys(single for error in errors for single in error.each))
    if each:
        raise (InputErrors(each) if len(each) > 1 else each[0]) from cause
