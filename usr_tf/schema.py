"""Schema: typed `schema.yaml` with scenarios, tasks, labels, history, split and features.

Logs, pipeline, model and serving all take their names from here. Needs no TensorFlow.
"""

import re
from collections.abc import Hashable
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from usr_tf.errors import InputError

Group = Literal["user", "item", "query", "context"]
Kind = Literal["categorical", "categorical_list", "numeric", "text"]

USER, ITEM, REQUEST, TIMESTAMP, SCENARIO = "user_id", "item_id", "request_id", "timestamp", "scenario"
ACTION, POSITION = "action", "position"
RAW_USER, RAW_ITEM = "raw_user_id", "raw_item_id"
"""Columns of a training row that keep the ids as the logs have them; features hold numbers in their place."""
IDS, NUMBERS, HISTORY = "packed_ids", "packed_numbers", "packed_history"
"""Columns of a training row that hold many features, for what a row costs to read is columns rather than values:
`id_features` in their order, `number_features` in theirs, and the history action after action, each one's values in the
order of `history_columns`. Lists, texts, labels and keys have a column of their own."""
ROW_FORMAT = 2
"""Tells rows that have these columns, in `stats.json`, from those that had one for each feature."""
EXAMPLES_SUFFIX = "_examples"
"""`<scenario>_examples` is the signature of serialized rows beside the one of the scenario's name."""
RESERVED_SCENARIOS = ("serving_default", "overall")
AGE_BUCKETS = 32
"""Ages of history are told apart by their power of two, in seconds: the last bucket starts at 68 years."""
SUCCESS = "_SUCCESS"
"""The file that a finished directory has, and that is written last."""
TABLES = ("impressions", "actions", "items", "users")
"""Tables of a log directory."""
OPTIONAL_TABLES = ("users",)
RESERVED = (REQUEST, TIMESTAMP, SCENARIO, POSITION, ACTION)
RESERVED_PREFIXES = ("history_", "global_", "oracle_", "raw_", "packed_")

Model = TypeVar("Model", bound=BaseModel)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_DURATION = re.compile(r"(\d+)\s*(ms|s|m|h|d)")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def _parse_duration(value: Any) -> int:
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or int(match[1]) == 0:
        raise ValueError("expected a duration above zero, such as 30s, 15m, 1h or 1d")
    return int(match[1]) * _UNIT_MS[match[2]]


def _format_duration(milliseconds: int) -> str:
    for unit in ("d", "h", "m", "s", "ms"):
        if milliseconds % _UNIT_MS[unit] == 0:
            return f"{milliseconds // _UNIT_MS[unit]}{unit}"
    raise AssertionError("every whole number of milliseconds has a unit")


def _check_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("expected letters, digits and underscores, a letter first")
    return value


Duration = Annotated[int, BeforeValidator(_parse_duration), PlainSerializer(_format_duration)]
Name = Annotated[str, pydantic.AfterValidator(_check_name)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Task(_Strict):
    """Task: one step of the chain, with its name and action."""

    name: Name
    action: str = Field(min_length=1)


class Labels(_Strict):
    """Label windows. In milliseconds here, as `1h` in the file."""

    attribution: Duration = _UNIT_MS["h"]
    global_window: Duration = _UNIT_MS["d"]


class History(_Strict):
    """History: actions that a row carries, and their maximum number."""

    actions: tuple[str, ...] = ()
    max_length: int = Field(50, ge=1, le=10_000)


class Split(_Strict):
    """Time split: shares of train, valid and test, latest last."""

    valid: float = Field(0.1, ge=0, lt=1)
    test: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> "Split":
        if self.valid + self.test >= 1:
            raise ValueError("expected valid + test below 1")
        return self


_KEYS_OF_IDS = frozenset({"min_count", "vocabulary_size", "hash_buckets", "oov_buckets", "embedding_size"})
"""Keys that say what a feature's ids are, and how wide their vectors."""


class Feature(_Strict):
    """Feature. Keys other than `group` and `type` have defaults that suit most shops."""

    group: Group
    type: Kind
    in_history: bool = False
    """Item features only: each action in the history carries this feature of its item."""
    min_count: int = Field(1, ge=1)
    """A value seen fewer times than this in the training split is out of vocabulary."""
    vocabulary_size: int | None = Field(None, ge=1)
    """Keep only this many values, the most frequent first."""
    hash_buckets: int | None = Field(None, ge=2)
    """Hash values into this many buckets instead of keeping a vocabulary."""
    oov_buckets: int = Field(1, ge=1)
    embedding_size: int | None = Field(None, ge=1)
    """Size of the embedding; the model's default when absent."""
    tokenizer: Literal["whitespace", "character"] | None = None
    max_length: int | None = Field(None, ge=1)
    """Values of a list, or tokens of a text, that are kept."""
    shares: Name | None = None
    """Another feature, whose ids and embedding table this one has too: a title's words are then a query's. Values that
    the other one has not in training are out of vocabulary."""
    transform: Literal["standard", "log", "none"] | None = None
    """Numeric only. `standard` centres and scales; `log` does so after sign(x)·log(1 + |x|). Each, `none` too, clamps
    outliers first (`docs/data_quality.md`)."""

    @model_validator(mode="after")
    def _keys_suit_the_type(self) -> "Feature":
        allowed = {
            "categorical": {"shares", *_KEYS_OF_IDS},
            "numeric": {"transform"},
        }
        allowed["categorical_list"] = allowed["categorical"] | {"max_length"}
        allowed["text"] = allowed["categorical_list"] | {"tokenizer"}
        for key in sorted(self.model_fields_set - {"group", "type", "in_history"} - allowed[self.type]):
            raise ValueError(f"{key}: found on a {self.type} feature, expected one of {sorted(allowed[self.type])}")
        if self.in_history and (self.group != "item" or self.type not in ("categorical", "categorical_list")):
            raise ValueError(
                f"in_history: found on a {self.group} feature of type {self.type}, "
                "expected an item feature of type categorical or categorical_list"
            )
        if self.shares and (found := self.model_fields_set & _KEYS_OF_IDS):
            raise ValueError(f"shares: found beside {min(found)}, expected that key on {self.shares} alone")
        if self.hash_buckets and self.model_fields_set & {"min_count", "vocabulary_size", "oov_buckets"}:
            raise ValueError("hash_buckets: found beside a vocabulary key, expected one or the other")
        return self

    @property
    def is_list(self) -> bool:
        """Whether a row holds several values of the feature."""
        return self.type in ("categorical_list", "text")

    @property
    def unit(self) -> str:
        """What an id stands for."""
        if self.type != "text":
            return "value"
        return "character" if self.tokenizer == "character" else "word"

    @property
    def has_vocabulary(self) -> bool:
        """Whether the feature has its own vocabulary: neither hashed nor shared."""
        return self.type != "numeric" and not self.hash_buckets and not self.shares

    @property
    def length(self) -> int:
        """Maximum number of values of a list or tokens of a text; 1 for other types."""
        default = {"categorical_list": 8, "text": 16}.get(self.type, 1)
        return self.max_length or default


class Schema(_Strict):
    """Schema, the whole of `schema.yaml`."""

    scenarios: tuple[Name, ...] = Field(min_length=1)
    tasks: tuple[Task, ...] = Field(min_length=1)
    labels: Labels = Labels()
    history: History = History()
    split: Split = Split()
    features: dict[Name, Feature]

    @model_validator(mode="after")
    def _names_agree(self) -> "Schema":
        _refuse_repeats("scenarios", self.scenarios)
        _refuse_repeats("tasks", self.task_names)
        _refuse_repeats("history.actions", self.history.actions)
        for scenario in self.scenarios:
            if scenario in RESERVED_SCENARIOS or scenario.endswith(EXAMPLES_SUFFIX):
                raise ValueError(
                    f"scenarios: found the reserved name {scenario!r}, expected a name other than "
                    f"{', '.join(RESERVED_SCENARIOS)} and not ending in {EXAMPLES_SUFFIX}"
                )
        for name in self.task_names:
            if name in RESERVED or name.startswith(RESERVED_PREFIXES):
                raise ValueError(f"tasks: found the reserved column {name!r}, expected another name for the task")
        for name, feature in self.features.items():
            if name in RESERVED or name.startswith(RESERVED_PREFIXES) or name in self.task_names:
                raise ValueError(
                    f"features.{name}: found a reserved column, expected a name other than "
                    f"{', '.join((*RESERVED, *self.task_names))} and not starting with "
                    f"{', '.join(RESERVED_PREFIXES)}"
                )
            if name == "age" and feature.in_history:  # whose column would be that of the actions' ages
                raise ValueError("features.age: found in_history, expected another name for a feature of the history")
            owner = {USER: "user", ITEM: "item"}.get(name)
            if owner and (feature.group != owner or feature.type != "categorical"):
                raise ValueError(f"features.{name}: found {feature.group} {feature.type}, expected {owner} categorical")
            if feature.shares:
                other = self.features.get(feature.shares)
                if other is None or other.type == "numeric" or other.shares:
                    raise ValueError(
                        f"features.{name}.shares: found {feature.shares!r}, expected a feature with ids of its own"
                    )
                if feature.unit != other.unit:
                    raise ValueError(
                        f"features.{name}.shares: found {feature.shares!r}, whose values are each a {other.unit}, "
                        f"expected a feature whose values are each a {feature.unit}"
                    )
        if not any(feature.group == "item" for feature in self.features.values()):
            raise ValueError("features: found no item feature, expected at least one to rank by")
        if self.history.actions and not self.history_features:
            raise ValueError("history.actions: found actions but no feature with in_history, expected at least one")
        return self

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)

    def owner(self, name: str) -> str:
        """Feature whose ids and embedding table the feature `name` uses; usually itself."""
        return self.features[name].shares or name

    @property
    def label_names(self) -> tuple[str, ...]:
        """Label columns of a row: each task's scenario label, then each task's global label."""
        return (*self.task_names, *(global_label(task) for task in self.task_names))

    @property
    def id_features(self) -> tuple[str, ...]:
        """Features with one id a row."""
        return tuple(name for name, feature in self.features.items() if feature.type == "categorical")

    @property
    def number_features(self) -> tuple[str, ...]:
        """Features with one number a row."""
        return tuple(name for name, feature in self.features.items() if feature.type == "numeric")

    @property
    def list_features(self) -> tuple[str, ...]:
        """Features with any number of ids a row."""
        return tuple(name for name, feature in self.features.items() if feature.is_list)

    @property
    def history_features(self) -> tuple[str, ...]:
        """Features of each action in the history; empty without a history."""
        return tuple(name for name, feature in self.features.items() if feature.in_history and self.history.actions)

    @property
    def history_columns(self) -> tuple[str, ...]:
        """Columns of a row that describe the history, each one value an action, newest last."""
        if not self.history.actions:
            return ()
        described = (*self.history_features, "action", "scenario", "age")
        return tuple(history_column(name) for name in described)

    def history_width(self, column: str) -> int | None:
        """Values of each action in a history column: `length` of a list feature; None for one value."""
        feature = self.features.get(column.removeprefix(history_column("")))
        return feature.length if feature is not None and feature.is_list else None

    @property
    def history_places(self) -> tuple[int, ...]:
        """Places that each of `history_columns` takes of an action in the column `history`."""
        return tuple(self.history_width(name) or 1 for name in self.history_columns)

    def features_of(self, *groups: Group) -> dict[str, Feature]:
        """The features of these groups, in the order of the file."""
        return {name: feature for name, feature in self.features.items() if feature.group in groups}

    def to_yaml(self) -> str:
        """Schema as YAML that `load_schema` reads back unchanged."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True)


def global_label(task: str) -> str:
    """Name of a task's global label: `ctr` → `global_ctr`."""
    return f"global_{task}"


def bounds_column(name: str) -> str:
    """Transform output `[B, 2]` of a numeric feature's clamping: the bound that a number was clamped to, else NaN.

    Lower bound, then upper bound. `stats.json` counts them; no stored row has them.
    """
    return f"packed_bounds_{name}"


def oracle_column(task: str) -> str:
    """Name of a task's true probability, which only a simulator knows: `ctr` → `oracle_ctr`."""
    return f"oracle_{task}"


def history_column(name: str) -> str:
    """Name of the history's column for a feature, or for `action`, `scenario` or `age` (ms)."""
    return f"history_{name}"


def load_schema(path: str | Path) -> Schema:
    """Reads `schema.yaml`.

    Raises:
      InputError: the file is missing, is not YAML, or anything in it is not as the contract has it.
    """
    return parse_model(Schema, read_yaml(Path(path), path, "a schema.yaml"), path)


def parse_schema(text: str, place: str | Path = "schema.yaml") -> Schema:
    """Schema from a text; `place` is the file name in errors."""
    return parse_model(Schema, parse_yaml(text, place), place)


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
    """Document of a YAML text without duplicate keys."""
    try:
        return yaml.load(text, Loader=_UniqueKeys)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise InputError(place, f"no YAML ({' '.join(str(error).split())})", expected) from error


def parse_model(model: type[Model], document: Any, place: str | Path) -> Model:
    """Instance of `model` from a document; its first error as an `InputError` with file and key."""
    if not isinstance(document, dict):
        raise InputError(place, f"{type(document).__name__} at the top", "keys and values")
    try:
        return model.model_validate(document)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        where = f"{place}: {key}" if key else str(place)
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            known = sorted(_model_at(model, first["loc"][:-1]).model_fields)
            raise InputError(where, "an unknown key", f"one of {', '.join(known)}") from error
        if first["type"] == "missing":
            raise InputError(where, "nothing", "this required key") from error
        if first["type"] == "value_error" and ": found " in message:  # names a deeper key and says it all
            inner, _, rest = message.partition(": found ")
            found, _, expected = rest.rpartition(", expected ")
            raise InputError(f"{where}{'.' if key else ': '}{inner}", found, expected) from error
        found, separator, expected = message.rpartition(", expected ")
        if separator:
            raise InputError(where, found.removeprefix("found "), expected) from error
        expectation = message.removeprefix("Input should be ").removeprefix("expected ")
        raise InputError(where, repr(first["input"]), expectation) from error


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


def _refuse_repeats(key: str, names: tuple[str, ...]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{key}: found {name!r} twice, expected each name once")


class _UniqueKeys(yaml.SafeLoader):
    """YAML loader that refuses duplicate keys, which PyYAML accepts."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`, whose keys give way to the mapping's own
                continue
            key = self.construct_object(key_node, deep=deep)
            if not isinstance(key, Hashable):
                break  # which the method of PyYAML refuses
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
