"""Documents of the user: YAML, models that are strict, and a line for each mistake.

Needs no TensorFlow.
"""

import difflib
import typing
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from usr_tf.errors import InputError, raise_all

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[Any, ...]
"""Keys, and indices of lists, that lead to a value."""

ANY = "*"
"""Any key, in `Mistake.needs`."""
_CLOSE = 0.7
"""Similarity, by difflib, from which a known key may be what an unknown key was meant to be."""
_LONGEST = 120
"""Characters of a value that an error quotes."""


class Mistake(NamedTuple):
    """Values that are valid one by one, and do not agree."""

    key: Location
    """Where, from the model on."""
    found: str
    expected: str
    needs: tuple[Location, ...] = ()
    """Other parts of the model, with `ANY` for any key. A mistake in one of them is reported in place of this one."""


class StrictModel(BaseModel):
    """Base class of documents: no unknown keys, no infinite numbers, and a check of values that have to agree."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def mistakes(self) -> Iterator[Mistake]:
        """Values that do not agree."""
        return iter(())

    @model_validator(mode="after")
    def _values_agree(self) -> Self:
        details = [
            InitErrorDetails(
                type=PydanticCustomError("mistake", "{line}", mistake._asdict() | {"line": _line(mistake)}),
                loc=mistake.key,
                input=None,
            )
            for mistake in self.mistakes()
        ]
        if details:
            raise pydantic.ValidationError.from_exception_data(type(self).__name__, details)
        return self


def repeats(key: Location, names: Sequence[str]) -> Iterator[Mistake]:
    """A mistake for each name that a list has more than once."""
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield Mistake(key, f"{name!r} twice", "each name once")


def read_yaml(source: Path | Traversable, place: str | Path, expected: str) -> Any:
    """Document of a YAML file without duplicate keys.

    Raises:
      InputError: an unreadable file, or one that is not YAML; `place` and `expected` are what it names.
    """
    try:
        text = source.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(place, f"no readable file ({error.strerror})", expected) from error
    except UnicodeDecodeError as error:
        raise InputError(place, f"no UTF-8 ({error})", expected) from error
    return parse_yaml(text, place)


def parse_yaml(text: str, place: str | Path, expected: str = "a YAML document") -> Any:
    """Document of a YAML text without duplicate keys.

    Raises:
      InputError: no YAML, or all keys that stand twice.
    """
    try:
        loader = _UniqueKeys(text)
        document = loader.get_single_data()
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise _no_yaml(place, error, expected) from error
    raise_all([_no_yaml(place, error, expected) for error in loader.duplicates])
    return document


def parse_model(model: type[Model], document: Any, place: str | Path) -> Model:
    """Instance of `model` from a document.

    Raises:
      InputError: all mistakes of the document, each with `place` and key, in the order of the document.
    """
    if not isinstance(document, dict):
        raise InputError(place, f"{type(document).__name__} at the top", "keys and values")
    try:
        return model.model_validate(document)
    except pydantic.ValidationError as error:
        mistakes = _Review(model, document).mistakes(error)
        keys = [".".join(map(str, mistake.key)) for mistake in mistakes]
        places = [f"{place}: {key}" if key else place for key in keys]
        raise_all(
            [InputError(where, each.found, each.expected) for where, each in zip(places, mistakes, strict=True)], error
        )
        raise


class _Review:
    """Collection of a document's mistakes.

    pydantic compares the values of a model only when each is valid. So each mistake is taken out of the document, and
    what remains is validated again, until nothing more is found. What stands on something that was taken out is not
    reported: it may follow from the first mistake.
    """

    def __init__(self, model: type[BaseModel], document: dict[Any, Any]):
        self._model, self._document = model, document
        self._removed: set[Location] = set()
        self._doubtful: set[Location] = set()
        """What was taken out, except unknown keys; and what unknown keys seem to mean."""

    def mistakes(self, error: pydantic.ValidationError) -> list[Mistake]:
        """Mistakes in the order of the document, each with its whole key."""
        errors = error.errors(include_url=False)
        reported = dict.fromkeys([*self._invalid(errors), *self._disagreeing(errors)])
        while (model := self._without_requirements()) is not None:
            removed = len(self._removed)
            try:
                model.model_validate(_without(self._document, self._removed))
                break
            except pydantic.ValidationError as again:
                errors = again.errors(include_url=False)
                self._invalid(errors)  # a consequence of what was taken out, as all these stand in the first errors
                reported |= dict.fromkeys(self._disagreeing(errors))
            if len(self._removed) == removed:
                break
        return sorted(reported, key=lambda mistake: self._position(mistake.key))

    def _invalid(self, errors: Sequence[Any]) -> list[Mistake]:
        """Takes out each invalid value, unknown key, and model without a required key."""
        located = [(self._locate(error), error) for error in errors if error["type"] != "mistake"]
        mistakes = [self._unknown(key, error) for key, error in located if error["type"] == "extra_forbidden"]
        by_key: dict[tuple[Location, bool], list[Any]] = {}
        for key, error in located:
            if error["type"] != "extra_forbidden" and not self._is_doubtful(key):
                by_key.setdefault((key, error["loc"][-1] == _OF_KEY), []).append(error)
        for (key, of_key), alternatives in by_key.items():  # the types of a union fail each by itself
            inside = any(other != key and other[: len(key)] == key for other, _ in located)
            if of_key or not inside:  # what is wrong inside says why the whole is, for one type of a union too
                mistakes.append(_described(key, alternatives))
        self._take_out({key for key, error in located if error["type"] != "extra_forbidden"})
        return mistakes

    def _unknown(self, key: Location, error: Any) -> Mistake:
        known = sorted(_model_at(self._model, error["loc"][:-1]).model_fields)
        close = difflib.get_close_matches(str(key[-1]), known, 1, _CLOSE)
        self._removed.add(key)
        self._doubtful |= {(*key[:-1], name) for name in close if name not in _at(self._document, key[:-1])}
        suggestion = f"; did you mean {close[0]}?" if close else ""
        return Mistake(key, "an unknown key", f"one of {', '.join(known)}{suggestion}")

    def _disagreeing(self, errors: Sequence[Any]) -> list[Mistake]:
        """Takes out each value that does not agree with others."""
        mistakes = []
        for error in errors:
            if error["type"] != "mistake":
                continue
            key, context = self._locate(error), error["ctx"]
            model = key[: len(key) - len(context["key"])]
            needs = [(*model, *need) for need in context["needs"]]
            follows = any(_overlap(need, each) for need in needs for each in self._doubtful)
            if not follows and not self._is_doubtful(key):
                mistakes.append(Mistake(key, context["found"], context["expected"]))
        self._take_out({self._locate(error) for error in errors if error["type"] == "mistake"})
        return mistakes

    def _is_doubtful(self, key: Location) -> bool:
        return any(key[: len(each)] == each for each in self._doubtful)

    def _take_out(self, keys: set[Location]) -> None:
        """Removes values; where one is missing or was removed before, what lacks it."""
        earlier = frozenset(self._removed)
        self._doubtful |= keys
        for key in keys:
            while key and (key in earlier or _at(self._document, key) is _ABSENT):
                key = key[:-1]
            if key:
                self._removed.add(key)
                self._doubtful.add(key)

    def _locate(self, error: Any) -> Location:
        """Key in the document that an error is about: without the names of types that pydantic tells apart in it."""
        location = error["loc"]
        if error["type"] == "invalid_key":  # of which the location has a text
            location = (*location[:-1], error["input"])
        named = len(error["ctx"]["key"]) if error["type"] == "mistake" else int(error["type"] == "missing")
        key: Location = ()
        for number, part in enumerate(location):
            node = _at(self._document, key)
            if isinstance(node, list) and isinstance(part, int):
                kept = [index for index in range(len(node)) if (*key, index) not in self._removed]
                key = (*key, kept[part] if part < len(kept) else len(node))
            elif isinstance(node, dict) and (same := [each for each in node if str(each) == str(part)]):
                key = (*key, same[0])
            elif number >= len(location) - named:
                key = (*key, part)
        return key

    def _without_requirements(self) -> type[BaseModel] | None:
        """The model with an empty value for each required key that is wrong; None where no value is empty."""
        empty: dict[str, Any] = {}
        for name, field in self._model.model_fields.items():
            if field.is_required() and (name,) in self._doubtful:
                kind = typing.get_origin(field.annotation) or field.annotation
                if kind not in (str, tuple, dict):
                    return None
                empty[name] = (field.annotation, kind())
        return pydantic.create_model(self._model.__name__, __base__=self._model, **empty)

    def _position(self, key: Location) -> tuple[float, ...]:
        """Sort key of a place in the document; a missing key comes after those that are there."""
        position = []
        for depth, part in enumerate(key):
            node = _at(self._document, key[:depth])
            keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
            position.append(keys.index(part) if part in keys else float("inf"))
        return tuple(position)


_ABSENT = object()
_OF_KEY = "[key]"
"""What pydantic adds to the location of an error that is about the key itself."""


def _at(document: Any, key: Location) -> Any:
    """Value at a key; `_ABSENT` where there is none."""
    for part in key:
        if isinstance(document, dict):
            document = document.get(part, _ABSENT)
        elif isinstance(document, list) and isinstance(part, int) and part < len(document):
            document = document[part]
        else:
            return _ABSENT
    return document


def _without(document: Any, removed: Iterable[Location]) -> Any:
    """Copy of a document without some of its values."""
    inside: dict[Any, list[Location]] = {}
    for part, *key in removed:
        inside.setdefault(part, []).append(tuple(key))
    if not inside:
        return document
    items = document.items() if isinstance(document, dict) else enumerate(document)
    kept = {part: _without(value, inside.get(part, ())) for part, value in items if () not in inside.get(part, ())}
    return kept if isinstance(document, dict) else list(kept.values())


def _overlap(need: Location, key: Location) -> bool:
    """Whether one of two keys leads into the other."""
    return all(part in (ANY, other) for part, other in zip(need, key, strict=False))


def _model_at(model: Any, location: tuple[Any, ...]) -> type[BaseModel]:
    """The model that stands at `location` inside `model`, for the list of its known keys."""
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = model.model_fields[part].annotation
        else:  # the parts below a list or a mapping are an index or a name
            model = next(a for a in model.__args__ if isinstance(a, type) and issubclass(a, BaseModel))
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        model = next(a for a in model.__args__ if isinstance(a, type) and issubclass(a, BaseModel))
    return model


# Words for pydantic's errors


def _described(key: Location, errors: Sequence[Any]) -> Mistake:
    """Mistake of a value that none of its types takes."""
    found, expected = zip(*map(_words, errors), strict=True)
    alternatives = dict.fromkeys(expected)
    if _NUMBER in alternatives:
        alternatives.pop(_WHOLE, None)
    return Mistake(key, found[0], " or ".join(alternatives))


def _words(error: Any) -> tuple[str, str]:
    """What a pydantic error found and expected."""
    if error["type"] == "missing":
        return "nothing", "this required key" if isinstance(error["loc"][-1], str) else "a value"
    if error["type"] == "value_error":  # of a validator of ours: `expected …`, or `found …, expected …`
        found, _, expected = str(error["ctx"]["error"]).rpartition("expected ")
        return found.removeprefix("found ").removesuffix(", ") or _quote(error["input"]), expected
    return _quote(error["input"]), _EXPECTED.get(error["type"], _other)(error.get("ctx", {}))


def _quote(value: Any) -> str:
    """A value of a document as errors quote it."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


_WHOLE, _NUMBER = "a whole number", "a number"


def _constant(expected: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda _: expected


def _bound(relation: str, key: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda context: f"{relation} {context[key]}".removesuffix(".0")


def _length(bound: str, key: str) -> Callable[[Mapping[str, Any]], str]:
    def expected(context: Mapping[str, Any]) -> str:
        unit = {"Dictionary": "key", None: "character"}.get(context.get("field_type"), "value")
        return f"{bound} {context[key]} {unit}{'' if context[key] == 1 else 's'}"

    return expected


def _other(_: Mapping[str, Any]) -> str:
    return "a value of another type"


_EXPECTED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    **dict.fromkeys(("bool_type", "bool_parsing"), _constant("true or false")),
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), _constant(_WHOLE)),
    **dict.fromkeys(("float_type", "float_parsing"), _constant(_NUMBER)),
    **dict.fromkeys(("string_type", "string_sub_type"), _constant("text")),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), _constant("a list")),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), _constant("keys and values")),
    "finite_number": _constant("a finite number"),
    "string_unicode": _constant("text that UTF-8 can hold"),
    "invalid_key": _constant("a key that is text"),
    "none_required": _constant("null"),
    "string_pattern_mismatch": lambda context: f"text of the form {context['pattern']}",
    "literal_error": lambda context: context["expected"],
    "enum": lambda context: context["expected"],
    "greater_than": _bound("greater than", "gt"),
    "greater_than_equal": _bound("greater than or equal to", "ge"),
    "less_than": _bound("less than", "lt"),
    "less_than_equal": _bound("less than or equal to", "le"),
    "multiple_of": _bound("a multiple of", "multiple_of"),
    "string_too_short": _length("at least", "min_length"),
    "string_too_long": _length("at most", "max_length"),
    "too_short": _length("at least", "min_length"),
    "too_long": _length("at most", "max_length"),
}
"""Error type of pydantic → what was expected, from the error's context."""


def _line(mistake: Mistake) -> str:
    return f"found {mistake.found}, expected {mistake.expected}"


def _no_yaml(place: str | Path, error: Exception, expected: str) -> InputError:
    reason = str(error)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        line, column = error.problem_mark.line + 1, error.problem_mark.column + 1
        reason = ", ".join(filter(None, (error.context, error.problem, f"line {line}, column {column}")))
    return InputError(place, f"no YAML ({' '.join(reason.split())})", expected)


class _UniqueKeys(yaml.SafeLoader):
    """YAML loader that collects duplicate keys, which PyYAML accepts."""

    def __init__(self, text: str):
        super().__init__(text)
        self.duplicates: list[yaml.constructor.ConstructorError] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`, whose keys give way to the mapping's own
                continue
            key = self.construct_object(key_node, deep=deep)
            if not isinstance(key, Hashable):
                break  # which the method of PyYAML refuses
            if key in seen:
                problem = f"key {key!r} stands twice"
                self.duplicates.append(yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark))
            seen.add(key)
        return super().construct_mapping(node, deep)
