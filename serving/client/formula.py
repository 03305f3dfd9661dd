"""Ranking formulas, such as `ctr + 5 * ctcvr`: arithmetic over named arrays."""

import ast
import functools
from collections.abc import Iterable, Mapping

import numpy as np

from usr_tf.errors import InputError

MAX_LENGTH = 1000
"""Characters of a formula."""
MAX_DEPTH = 100
"""Operations inside one another."""

_BINARY = {ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide, ast.Pow: np.power}
_UNARY = {ast.UAdd: np.positive, ast.USub: np.negative}
_OF_ONE = {"log": np.log, "exp": np.exp, "sqrt": np.sqrt}
_OF_MANY = {"min": np.minimum, "max": np.maximum}
_GRAMMAR = f"numbers, names, + - * / **, parentheses, {', '.join(_OF_ONE | _OF_MANY)}"


class Formula:
    """Parsed and checked formula; call it with the values of its names.

    Numbers, names, `+ - * / **` with Python's precedence, parentheses, `log`, `exp`, `sqrt`, and `min` and `max` of
    two or more. All is computed in float64, and nothing fails: `1 / 0` is infinite, `log(-1)` is NaN.

    Args:
      text: the formula.
      place: what an error names as its source.

    Raises:
      InputError: names the column, and what does not belong there.
    """

    def __init__(self, text: str, place: str = "by"):
        self.text = " ".join(text.split())
        self._place = f"{place} {_shorten(self.text)!r}"
        self._tree = self._parse()
        self._names: dict[str, ast.Name] = {}
        self._check()

    @property
    def name(self) -> str | None:
        """The formula itself, if it is a single name."""
        return self._tree.id if isinstance(self._tree, ast.Name) else None

    def check_names(self, known: Iterable[str]) -> None:
        """Checks that the formula uses no names except these.

        Raises:
          InputError: the first such name.
        """
        known = list(known)
        for name, node in self._names.items():
            if name not in known:
                raise self._refuse(node, f"the name {_shorten(name)!r}", f"one of {', '.join(known)}")

    def __call__(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Evaluates the formula: float64 `[N]` from one array `[N]` per name.

        Raises:
          InputError: as `check_names`.
        """
        self.check_names(values)
        with np.errstate(all="ignore"):
            columns = {name: np.asarray(values[name], np.float64) for name in self._names}
            return np.asarray(_evaluate(self._tree, columns))

    def _parse(self) -> ast.expr:
        if len(self.text) > MAX_LENGTH:
            raise InputError(self._place, f"{len(self.text)} characters", f"at most {MAX_LENGTH}")
        try:
            return ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            column = error.offset or len(self.text) + 1  # it ended too soon
            raise InputError(f"{self._place}, column {column}", f"no formula ({error.msg})", _GRAMMAR) from error
        except (ValueError, RecursionError, MemoryError) as error:  # half a surrogate pair; nested without end
            raise InputError(self._place, f"no formula ({error})", _GRAMMAR) from error

    def _check(self) -> None:
        """Checks every node and collects the names, iteratively, because the tree may be deep."""
        rest: list[tuple[ast.expr, int]] = [(self._tree, 1)]
        while rest:
            node, depth = rest.pop()
            inner: list[ast.expr]
            if depth > MAX_DEPTH:
                raise self._refuse(node, f"more than {MAX_DEPTH} levels", "a formula that nests less")
            match node:
                case ast.Name(id=name):
                    self._names.setdefault(name, node)
                    inner = []
                case ast.Constant(value=value) if type(value) in (int, float):
                    inner = []
                case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
                    inner = [operand]
                case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                    inner = [left, right]
                case ast.Call(func=ast.Name(id=name), args=[_] as inner, keywords=[]) if name in _OF_ONE:
                    pass
                case ast.Call(func=ast.Name(id=name), args=[_, _, *_] as inner, keywords=[]) if name in _OF_MANY:
                    pass
                case _:
                    found = ast.get_source_segment(self.text, node) or type(node).__name__
                    raise self._refuse(node, repr(_shorten(found)), _GRAMMAR)
            rest += [(child, depth + 1) for child in reversed(inner)]
        if not self._names:
            raise InputError(self._place, "no name", "a formula over what the model gives")

    def _refuse(self, node: ast.expr, found: str, expected: str) -> InputError:
        column = len(self.text.encode()[: node.col_offset].decode()) + 1  # the parser counts bytes
        return InputError(f"{self._place}, column {column}", found, expected)


def _evaluate(node: ast.expr, columns: Mapping[str, np.ndarray]) -> np.ndarray | np.float64:
    match node:
        case ast.Name(id=name):
            return columns[name]
        case ast.Constant(value=int() | float() as value):
            return _number(value)
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](_evaluate(operand, columns))
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_evaluate(left, columns), _evaluate(right, columns))
        case ast.Call(func=ast.Name(id=name), args=[argument]):
            return _OF_ONE[name](_evaluate(argument, columns))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return functools.reduce(_OF_MANY[name], [_evaluate(argument, columns) for argument in arguments])
    raise AssertionError(f"{ast.dump(node)} has not been checked")


def _number(value: int | float) -> np.float64:
    """Converts a literal to float first: with integers, `9 ** 9 ** 9` would exhaust the memory."""
    try:
        return np.float64(value)
    except OverflowError:  # an integer beyond 1.8e308
        return np.float64(np.inf)


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
