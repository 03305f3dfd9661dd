"""Schema: typed `schema.yaml` with scenarios, tasks, labels, history, split and features.

Logs, pipeline, model and serving all take their names from here. Needs no TensorFlow.
"""

import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import BeforeValidator, Field, PlainSerializer

from usr_tf.documents import ANY, Location, Mistake, StrictModel, parse_model, parse_yaml, read_yaml, repeats
from usr_tf.feature_types import FEATURE_TYPES, KEYS_OF_IDS, FeatureType, NormalForm

Group = Literal["user", "item", "query", "context", "candidate"]
SignalFamily = Literal["match", "history_match", "counters"]
CANDIDATE_GROUPS: tuple[Group, ...] = ("item", "candidate")
"""Groups whose features each candidate of a request has its own value of."""
MatchKind = Literal["overlap", "coverage", "ngram", "bm25", "cosine", "latest", "best", "recency"]

USER, ITEM, REQUEST, TIMESTAMP, SCENARIO = "user_id", "item_id", "request_id", "timestamp", "scenario"
ACTION, POSITION = "action", "position"
RAW_USER, RAW_ITEM = "raw_user_id", "raw_item_id"
"""Columns of a training row that keep the ids as the logs have them; features hold numbers in their place."""
IDS, NUMBERS, HISTORY, QUERIES = "packed_ids", "packed_numbers", "packed_history", "packed_queries"
"""Columns of a training row that hold many features, since what a row costs to read is columns rather than values:
`id_columns` in their order, `number_columns` in theirs, the history action after action, each one's values in the
order of `history_columns`, and past queries in the order of `query_columns`. Lists, texts, labels and keys have a
column of their own."""
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
KEYS_OF_LOGS = frozenset({"columns", "timestamp_unit"})
"""Keys of the schema that say how the logs are written, and nothing of the rows."""
IMPRESSION = "impression"
"""What counters call the event of an impression, beside the actions."""
PAST_QUERIES, PAST_QUERIES_AGE = "history_queries", "history_queries_age"
"""Columns of the user's earlier queries, newest last, and of their ages (ms)."""

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


def _parse_window(value: Any) -> int | None:
    return None if value == "all" or value is None else _parse_duration(value)


def _parse_delay(value: Any) -> int:
    return 0 if isinstance(value, str) and re.fullmatch(r"0\s*(ms|s|m|h|d)?", value.strip()) else _parse_duration(value)


def _window_name(window: int | None) -> str:
    return "all" if window is None else _format_duration(window)


def _format_delay(milliseconds: int) -> str:
    return _format_duration(milliseconds) if milliseconds else "0s"


Duration = Annotated[int, BeforeValidator(_parse_duration), PlainSerializer(_format_duration)]
Delay = Annotated[int, BeforeValidator(_parse_delay), PlainSerializer(_format_delay)]
Window = Annotated[int | None, BeforeValidator(_parse_window), PlainSerializer(_window_name)]
Name = Annotated[str, pydantic.AfterValidator(_check_name)]


class Task(StrictModel):
    """Task: one step of the chain, with its name and action."""

    name: Name
    action: str = Field(min_length=1)


class Labels(StrictModel):
    """Label windows. In milliseconds here, as `1h` in the file."""

    attribution: Duration = _UNIT_MS["h"]
    global_window: Duration = _UNIT_MS["d"]


class PastQueries(StrictModel):
    """The user's own earlier queries, as a second sequence."""

    max_length: int = Field(20, ge=1, le=1_000)
    """Queries that are kept, the newest."""
    tokens: int = Field(4, ge=1, le=64)
    """Tokens of each query that are kept."""


class History(StrictModel):
    """History: actions that a row carries, and their maximum number."""

    actions: tuple[str, ...] = ()
    max_length: int = Field(50, ge=1, le=10_000)
    queries: PastQueries | None = None


class Match(StrictModel):
    """Similarity of a request's feature and a candidate's, as numbers of each row."""

    features: tuple[Name, Name]
    """A user, query or context feature, and an item or candidate feature: texts, lists and categories, or vectors. The
    first may be `history_queries`, the user's earlier queries."""
    by: tuple[MatchKind, ...] = ()
    """Which similarities; all that suit the features when absent."""


class Counter(StrictModel):
    """Counts of impressions and actions by a key, strictly before each impression, less a delay."""

    key: tuple[Name, ...] = Field(min_length=1, max_length=2)
    """One or two categorical features, or the query: what the counted events share with the row."""
    actions: tuple[Name, ...] = Field(min_length=1)
    """The actions that are counted beside impressions; each one's rate is per impression."""
    windows: tuple[Window, ...] = Field((None,), min_length=1)
    """How far back events count, such as `7d`; `all` has no limit."""
    by_scenario: bool = False
    """Whether events of the row's own scenario alone count."""
    delay: Delay = _UNIT_MS["h"]
    """How long it takes until an event is known: later events do not count."""
    prior: float = Field(20.0, gt=0)
    """Impressions at the average rate that each key starts with."""

    @property
    def events(self) -> tuple[str, ...]:
        """What is counted: impressions, then the actions."""
        return (IMPRESSION, *self.actions)

    @property
    def key_columns(self) -> tuple[str, ...]:
        """Columns whose values together are the key."""
        return (*self.key, SCENARIO) if self.by_scenario else self.key

    def columns(self, name: str) -> tuple[str, ...]:
        """Raw columns of the counts of the counter called `name`: window by window, each event's."""
        return tuple(counter_column(name, window, event) for window in self.windows for event in self.events)


class Split(StrictModel):
    """Time split: shares of train, valid and test, latest last."""

    valid: float = Field(0.1, ge=0, lt=1)
    test: float = Field(0.1, ge=0, lt=1)

    def mistakes(self) -> Iterator[Mistake]:
        if self.valid + self.test >= 1:
            yield Mistake((), str({"valid": self.valid, "test": self.test}), "valid + test below 1")


def _check_type(value: Any) -> Any:
    if not isinstance(value, str) or value not in FEATURE_TYPES:
        *names, last = map(repr, FEATURE_TYPES)
        raise ValueError(f"expected {', '.join(names)} or {last}")
    return value


class Feature(StrictModel):
    """Feature. Keys other than `group` and `type` have defaults that suit most shops."""

    group: Group
    type: Annotated[str, BeforeValidator(_check_type)]
    """A name of `usr_tf.feature_types.FEATURE_TYPES`."""
    in_history: bool = False
    """Item features only: each action in the history carries this feature of its item."""
    normalize: NormalForm | None = None
    """Unicode normal form in which values are looked up, compared and counted (`docs/logs.md`, Text). For logs that do
    not say, `nfc` for texts and `none` for ids. `preprocess` writes what it took for texts to `DATA/schema.yaml`; data
    that do not say are of a version that took `none`."""
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
    buckets: int | None = Field(None, ge=2, le=1_000)
    """Numeric only. An id beside the number: its bucket among so many quantiles of the training split, or an id of
    its own for a missing number."""
    width: int | None = Field(None, ge=1, le=4_096)
    """Vector only: its numbers. A missing vector is all zeros."""
    weights: Name | None = None
    """List only: the column, beside the list's own, that holds a weight of each value."""

    def mistakes(self) -> Iterator[Mistake]:
        allowed = self.kind.keys
        keys = self.model_fields_set & allowed
        for key in self.model_fields_set - {"group", "type", "in_history"} - allowed:
            yield Mistake((key,), f"on a {self.type} feature", f"one of {sorted(allowed)}")
        if self.in_history and (self.group != "item" or not self.kind.in_history):
            suitable = " or ".join(name for name, kind in FEATURE_TYPES.items() if kind.in_history)
            found = f"on a {self.group} feature of type {self.type}"
            yield Mistake(("in_history",), found, f"an item feature of type {suitable}")
        for key, meaning in self.kind.required.items():
            if getattr(self, key) is None:
                yield Mistake((key,), "nothing", meaning)
        if self.kind.input == "number" and self.embedding_size and not self.buckets:
            found = "on a number without buckets"
            yield Mistake(("embedding_size",), found, "buckets beside it", needs=(("buckets",),))
        if "shares" in keys and keys & KEYS_OF_IDS:
            yield Mistake(("shares",), f"beside {min(keys & KEYS_OF_IDS)}", f"that key on {self.shares} alone")
        if "hash_buckets" in keys and keys & {"min_count", "vocabulary_size", "oov_buckets"}:
            yield Mistake(("hash_buckets",), "beside a vocabulary key", "one or the other")

    @property
    def kind(self) -> FeatureType:
        """What its type means."""
        return FEATURE_TYPES[self.type]

    @property
    def has_ids(self) -> bool:
        """Whether its values become ids."""
        return self.kind.has_ids

    @property
    def is_list(self) -> bool:
        """Whether a row holds several ids of the feature."""
        return self.kind.input == "ids"

    @property
    def unit(self) -> str:
        """What an id stands for."""
        return "character" if self.tokenizer == "character" else self.kind.unit

    @property
    def has_vocabulary(self) -> bool:
        """Whether the feature has its own vocabulary: neither hashed nor shared."""
        return self.has_ids and not self.hash_buckets and not self.shares

    @property
    def length(self) -> int:
        """Maximum number of values of a list or tokens of a text; 1 for other types."""
        return self.max_length or self.kind.length


class Schema(StrictModel):
    """Schema, the whole of `schema.yaml`."""

    scenarios: tuple[Name, ...] = Field(min_length=1)
    tasks: tuple[Task, ...] = Field(min_length=1)
    labels: Labels = Labels()
    history: History = History()
    split: Split = Split()
    features: dict[Name, Feature]
    columns: dict[str, Name] = {}
    """Columns of the logs that have another name there: `event_ts: timestamp` reads `event_ts` as `timestamp`."""
    timestamp_unit: Literal["s", "ms", "us", "ns"] = "ms"
    """Unit of timestamps that the logs hold as numbers. Everything after the reader has milliseconds."""
    match: dict[Name, Match] = {}
    """Similarities of a request's feature and a candidate's."""
    history_match: tuple[Name, ...] = ()
    """Features with `in_history` by which the candidate is compared with each action of the history."""
    counters: dict[Name, Counter] = {}
    """Counts and rates as of each impression."""

    def mistakes(self) -> Iterator[Mistake]:
        earlier = [*self._bad_names(), *self._bad_references()]
        yield from earlier or self._clashing_signals()

    def _bad_names(self) -> Iterator[Mistake]:
        """Names that stand twice, are reserved, or belong to another kind of feature."""
        yield from repeats(("scenarios",), self.scenarios)
        yield from repeats(("tasks",), self.task_names)
        yield from repeats(("history", "actions"), self.history.actions)
        for scenario in self.scenarios:
            if scenario in RESERVED_SCENARIOS or scenario.endswith(EXAMPLES_SUFFIX):
                expected = f"a name other than {', '.join(RESERVED_SCENARIOS)} and not ending in {EXAMPLES_SUFFIX}"
                yield Mistake(("scenarios",), f"the reserved name {scenario!r}", expected)
        for name in self.task_names:
            if name in RESERVED or name.startswith(RESERVED_PREFIXES):
                yield Mistake(("tasks",), f"the reserved column {name!r}", "another name for the task")
        for name, feature in self.features.items():
            if name in RESERVED or name.startswith(RESERVED_PREFIXES) or name in self.task_names:
                taken, prefixes = ", ".join((*RESERVED, *self.task_names)), ", ".join(RESERVED_PREFIXES)
                expected = f"a name other than {taken} and not starting with {prefixes}"
                yield Mistake(("features", name), "a reserved column", expected)
            if name == "age" and feature.in_history:  # whose column would be that of the actions' ages
                yield Mistake(("features", name), "in_history", "another name for a feature of the history")
            owner = {USER: "user", ITEM: "item"}.get(name)
            if owner and (feature.group != owner or feature.type != "categorical"):
                yield Mistake(("features", name), f"{feature.group} {feature.type}", f"{owner} categorical")
            if owner and feature.normalize not in (None, "none"):
                expected = f"'none', as the tables of the logs are joined by {name} as it stands"
                yield Mistake(("features", name, "normalize"), repr(feature.normalize), expected)

    def _bad_references(self) -> Iterator[Mistake]:
        """Features, actions and columns that do not suit what names them."""
        if not any(feature.group == "item" for feature in self.features.values()):
            needs: tuple[Location, ...] = (("features", ANY, "group"),)
            yield Mistake(("features",), "no item feature", "at least one to rank by", needs)
        if not self.features:  # no reference could be right
            return
        if self.history.actions and not self.history_features:
            found, needs = "actions but no feature with in_history", (("features", ANY, "in_history"),)
            yield Mistake(("history", "actions"), found, "at least one", needs)
        columns = [feature.weights for feature in self.features.values()]
        for name, feature in self.features.items():
            if feature.shares:
                yield from self._check_shares(name, feature, feature.shares)
            column = feature.weights
            if column and (column in self.features or columns.count(column) > 1 or column in RESERVED):
                yield Mistake(("features", name, "weights"), repr(column), "a column of its own")
        yield from self._bad_columns()
        query = self.features.get("query")
        if self.history.queries and not (query and query.group == "query" and query.kind.tokenize):
            found, needs = "no query feature of type text", (("features", "query", "type"),)
            yield Mistake(("history", "queries"), found, "one called query", needs)
        for name, match in self.match.items():
            yield from self._check_match(("match", name), match)
        yield from repeats(("history_match",), self.history_match)
        for name in self.history_match:
            if name not in self.history_features:
                suitable = ", ".join(self.history_features) or "none, as no feature has in_history"
                needs = (("history", "actions"), ("features", name, "in_history"))
                yield Mistake(("history_match",), repr(name), f"features with in_history ({suitable})", needs)
        for name, counter in self.counters.items():
            yield from self._check_counter(("counters", name), counter)
        if self.history_match:
            for action in self.history.actions:
                if not _NAME.fullmatch(action):
                    expected = "letters, digits and underscores, a letter first, as history_match names signals by it"
                    yield Mistake(("history", "actions"), repr(action), expected)

    def _bad_columns(self) -> Iterator[Mistake]:
        """Renamings to no column of ours, or of one that is read by its own name."""
        keys = (USER, ITEM, REQUEST, TIMESTAMP, SCENARIO, ACTION, POSITION, *map(oracle_column, self.task_names))
        known = {*keys, *self.features, *self.weight_columns}
        for source, target in self.columns.items():
            needs: tuple[Location, ...] = (("features", target),)
            if target not in known:
                yield Mistake(("columns", source), repr(target), f"one of {', '.join(sorted(known))}", needs)
            elif source in known:
                yield Mistake(("columns", source), "a column that is read by its own name", "another one")

    def _check_shares(self, name: str, feature: Feature, owner: str) -> Iterator[Mistake]:
        key, other = ("features", name, "shares"), self.features.get(owner)
        if other is None or not other.has_ids or other.shares:
            needs: tuple[Location, ...] = (("features", owner, "type"),)
            yield Mistake(key, repr(owner), "a feature with ids of its own", needs)
        elif feature.unit != other.unit:
            found = f"{owner!r}, whose values are each a {other.unit}"
            needs = (("features", name, "tokenizer"), ("features", owner, "tokenizer"))
            yield Mistake(key, found, f"a feature whose values are each a {feature.unit}", needs)

    def _check_match(self, key: Location, match: Match) -> Iterator[Mistake]:
        """Features that cannot be compared, or similarities that do not suit them."""
        past = match.features[0] == PAST_QUERIES
        if past and not self.history.queries:
            needs: tuple[Location, ...] = (("history", "queries"),)
            yield Mistake((*key, "features"), repr(PAST_QUERIES), "history.queries beside it", needs)
            return
        names = ("query", match.features[1]) if past else match.features  # past queries are as the query
        compared = []
        for name, groups in zip(names, (("user", "query", "context"), CANDIDATE_GROUPS), strict=True):
            feature = self.features.get(name)
            if feature is None or feature.group not in groups or feature.kind.input == "number":
                if past and name == "query":  # a mistake of history.queries
                    return
                *others, last = groups
                expected = f"a feature of group {', '.join(others)} or {last}, and no number"
                yield Mistake((*key, "features"), repr(name), expected, needs=(("features", name, "type"),))
            else:
                compared.append(feature)
        if len(compared) < len(names):
            return
        if "vector" in {feature.kind.input for feature in compared} and compared[0].width != compared[1].width:
            found = " and ".join(feature.type for feature in compared)
            needs = tuple(("features", name, "width") for name in names)
            yield Mistake((*key, "features"), found, "two vectors of one width", needs)
            return
        allowed = _match_kinds(match, self.features)
        for similarity in match.by:
            if similarity not in allowed:
                yield Mistake((*key, "by"), repr(similarity), f"some of {', '.join(allowed)}")
        yield from repeats((*key, "by"), match.by)

    def _check_counter(self, key: Location, counter: Counter) -> Iterator[Mistake]:
        yield from repeats((*key, "key"), counter.key)
        yield from repeats((*key, "actions"), counter.actions)
        for name in counter.key:
            feature = self.features.get(name)
            text = feature is not None and feature.kind.tokenize and feature.group == "query"
            if feature is None or not (feature.kind.input == "id" or text):
                needs = (("features", name, "type"),)
                yield Mistake((*key, "key"), repr(name), "a categorical feature or a text of group query", needs)
        if IMPRESSION in counter.actions:
            yield Mistake((*key, "actions"), repr(IMPRESSION), "actions of the logs")

    def _clashing_signals(self) -> Iterator[Mistake]:
        """Names that signals share with each other or with features; defined for valid references only."""
        needs: tuple[Location, ...] = (("match",), ("history_match",), ("counters",), ("history",), ("scenarios",))
        signals = repeats(("signals of match, history_match and counters",), self.signals)
        columns = repeats(("columns of counters",), self.counter_columns)
        for mistake in itertools.islice(itertools.chain(signals, columns), 1):  # what repeats one repeats others
            yield mistake._replace(needs=needs)
        for name in (*self.derived, *self.counter_columns):
            if name in self.features:
                yield Mistake(("features", name), "the name of a signal", "another name", needs)
        for name in {history_column(name) for name in self.history_features} & {*self.query_columns}:
            key = ("features", name.removeprefix(history_column("")))
            yield Mistake(key, "in_history beside history.queries", "another name")

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)

    def owner(self, name: str) -> str:
        """Feature whose ids and embedding table the feature `name` uses; usually itself."""
        return self.inputs[name].shares or name

    def normal_form(self, name: str) -> NormalForm:
        """Unicode normal form of the values of the feature `name`: that of the feature whose ids it has."""
        return self.features[self.owner(name)].normalize or "none"

    def with_normal_forms(self, earlier: "Schema | None") -> "Schema":
        """The schema of logs with the normal form of each text that does not name one.

        Args:
          earlier: the schema of an earlier transform, whose texts keep their forms.
        """
        features = dict(self.features)
        for name, feature in features.items():
            if feature.kind.text and not feature.shares and feature.normalize is None:
                known = earlier.features.get(name) if earlier else None
                form = known.normalize if known else "nfc"
                if form:  # data of a version that had none do not name one
                    features[name] = feature.model_copy(update={"normalize": form})
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return Schema(**given | {"features": features})

    @property
    def label_names(self) -> tuple[str, ...]:
        """Label columns of a row: each task's scenario label, then each task's global label."""
        return (*self.task_names, *(global_label(task) for task in self.task_names))

    @functools.cached_property
    def signals(self) -> tuple[str, ...]:
        """Numbers of each row that the transform derives: of `match`, `history_match` and `counters`, in this order."""
        names = [f"match_{name}_{kind}" for name, match in self.match.items() for kind in self.match_kinds(match)]
        for name in self.history_match:
            names += [f"history_match_{name}_{figure}" for figure in self.history_match_figures]
        for name, counter in self.counters.items():
            for window in counter.windows:
                names.append(f"{counter_column(name, window, IMPRESSION)}s")
                names += [f"{counter_column(name, window, action)}_rate" for action in counter.actions]
        return tuple(names)

    def signal_family(self, name: str) -> SignalFamily | None:
        """The family of a signal; None for every other input."""
        if name not in self.signals:
            return None
        return "history_match" if name.startswith("history_") else "match" if name.startswith("match_") else "counters"

    @functools.cached_property
    def derived(self) -> dict[str, Feature]:
        """Features that the transform derives from others: signals, and the buckets of numbers."""
        signals = {name: Feature(group="candidate", type="numeric") for name in self.signals}
        buckets = {
            bucket_column(name): Feature(
                group=feature.group,
                type="categorical",
                hash_buckets=feature.buckets + 1,
                embedding_size=feature.embedding_size,
            )
            for name, feature in self.features.items()
            if feature.buckets
        }
        return signals | buckets

    @functools.cached_property
    def inputs(self) -> dict[str, Feature]:
        """What a model reads of a row beside histories: the features, then the derived ones."""
        return self.features | self.derived

    def inputs_of(self, *groups: Group) -> dict[str, Feature]:
        """The inputs of these groups."""
        return {name: feature for name, feature in self.inputs.items() if feature.group in groups}

    def match_kinds(self, match: Match) -> tuple[str, ...]:
        """The similarities of a match, in the order of the file."""
        return match.by or _match_kinds(match, self.features)

    @property
    def history_match_figures(self) -> tuple[str, ...]:
        """What each feature of `history_match` is compared by: counts, recency, share and the newest action."""
        by_action = [f"{action}_{figure}" for action in self.history.actions for figure in ("count", "recency")]
        by_scenario = [f"{scenario}_count" for scenario in self.scenarios]
        return (*by_action, *by_scenario, "share", "last")

    @property
    def counter_columns(self) -> tuple[str, ...]:
        """Raw columns of a row that hold the counts of `counters`, float32, by `counter_column`."""
        return tuple(column for name, counter in self.counters.items() for column in counter.columns(name))

    @property
    def query_columns(self) -> tuple[str, ...]:
        """Columns of a row that describe the user's earlier queries, newest last."""
        return (PAST_QUERIES, PAST_QUERIES_AGE) if self.history.queries else ()

    @property
    def query_places(self) -> tuple[int, ...]:
        """Places that each of `query_columns` takes of a query in the column `QUERIES`."""
        return (self.history.queries.tokens, 1) if self.history.queries else ()

    @property
    def weight_columns(self) -> dict[str, str]:
        """Columns of weights, each with its list's name."""
        return {feature.weights: name for name, feature in self.features.items() if feature.weights}

    @property
    def vector_features(self) -> tuple[str, ...]:
        """Features with a fixed number of numbers a row."""
        return tuple(name for name, feature in self.features.items() if feature.kind.input == "vector")

    @functools.cached_property
    def id_columns(self) -> tuple[str, ...]:
        """Inputs with one id a row: the categorical features, then the buckets of numbers."""
        return tuple(name for name, feature in self.inputs.items() if feature.kind.input == "id")

    @functools.cached_property
    def number_columns(self) -> dict[str, int]:
        """Inputs with numbers, each with how many a row has: numeric features, signals, then vectors."""
        numbers = {name: 1 for name, feature in self.inputs.items() if feature.kind.input == "number"}
        return numbers | {name: self.features[name].width or 1 for name in self.vector_features}

    @property
    def id_features(self) -> tuple[str, ...]:
        """Features with one id a row."""
        return tuple(name for name, feature in self.features.items() if feature.kind.input == "id")

    @property
    def number_features(self) -> tuple[str, ...]:
        """Features with one number a row."""
        return tuple(name for name, feature in self.features.items() if feature.kind.input == "number")

    @property
    def clamped_features(self) -> tuple[str, ...]:
        """Features whose outliers the transform clamps: those with numbers."""
        return (*self.number_features, *self.vector_features)

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

    def columns_of(self, *groups: Group) -> tuple[str, ...]:
        """Columns of the logs that these groups' features need: their own, and those of weights."""
        features = self.features_of(*groups)
        return (*features, *(feature.weights for feature in features.values() if feature.weights))

    def to_yaml(self) -> str:
        """Schema as YAML that `load_schema` reads back unchanged."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True)


def global_label(task: str) -> str:
    """Name of a task's global label: `ctr` → `global_ctr`."""
    return f"global_{task}"


def bounds_column(name: str) -> str:
    """Transform output `[B, 2]` of a feature's clamping: the bound that a number was clamped to, else NaN.

    Lower bound, then upper bound. `stats.json` counts them; no stored row has them.
    """
    return f"packed_bounds_{name}"


def oracle_column(task: str) -> str:
    """Name of a task's true probability, which only a simulator knows: `ctr` → `oracle_ctr`."""
    return f"oracle_{task}"


def bucket_column(name: str) -> str:
    """Name of the bucket of a numeric feature: `price` → `bucket_price`."""
    return f"bucket_{name}"


def counter_column(name: str, window: int | None, event: str) -> str:
    """Name of a raw count: `("item", 604_800_000, "click")` → `counter_item_7d_click`."""
    return f"counter_{name}_{_window_name(window)}_{event}"


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


def _match_kinds(match: Match, features: dict[str, Feature]) -> tuple[MatchKind, ...]:
    """All similarities that suit a match's features."""
    first = match.features[0]
    if first == PAST_QUERIES:
        return ("latest", "best", "recency")
    return ("cosine",) if features[first].kind.input == "vector" else ("overlap", "coverage", "ngram", "bm25")
