"""Draft of `schema.yaml`: scenarios, tasks, features and signals as a sample of logs suggests them, with comments."""

import datetime
import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import yaml

from pipelines.logs.checks import check_table
from pipelines.logs.inputs import TableInputs, find_tables
from pipelines.schema_draft import column_names as names
from pipelines.schema_draft.features import Guess, guess_feature
from pipelines.schema_draft.profiles import Sample, profile, sample_table
from usr_tf.errors import InputError
from usr_tf.log_timestamps import PER_SECOND, UNITS, unit_of
from usr_tf.schema import (
    ACTION,
    ITEM,
    NAME,
    POSITION,
    REQUEST,
    RESERVED,
    RESERVED_PREFIXES,
    SCENARIO,
    TABLES,
    TIMESTAMP,
    USER,
    parse_schema,
)

QUERY = "query"
_KEYS: dict[str, tuple[str, ...]] = {
    "impressions": (TIMESTAMP, USER, ITEM, REQUEST, SCENARIO, POSITION, QUERY),
    "actions": (TIMESTAMP, USER, ITEM, ACTION, REQUEST, SCENARIO),
    "items": (ITEM,),
    "users": (USER,),
}
_OPTIONAL = (POSITION, QUERY)
_GROUPS = {"impressions": "context", "items": "item", "users": "user"}
_TASKS = ("ctr", "ctcvr")
_MOST_SCENARIOS = 20
_MOST_MATCHES = 3


def draft_schema(logs: str | None, tables: Sequence[str] = ()) -> str:
    """Text of a `schema.yaml` for these logs, to be read and completed by a person.

    Args:
      logs: a log directory; it needs no schema.
      tables: `TABLE=WHERE` for tables that lie elsewhere.

    Raises:
      InputError: a required table is missing or empty, or it lacks a key under every name that we know.
    """
    inputs = find_tables(logs, tables)
    samples, columns = {}, {}
    for table in TABLES:
        sample = sample_table(inputs[table])
        if inputs[table] and not sample.rows:
            raise InputError(inputs[table][0], "no rows", f"at least one row of {table}")
        renamed = names.renamed_keys({*sample.columns}, _KEYS[table]) if sample.rows else {}
        columns |= renamed
        samples[table] = sample.renamed(columns)
        _require_keys(table, samples[table])
    draft = _Draft(samples, columns, inputs)
    text = draft.text()
    schema = parse_schema(text, "the draft")
    for table, paths in inputs.items():
        check_table(schema, table, paths)
    return text


def _require_keys(table: str, sample: Sample) -> None:
    present = {*sample.columns}
    for key in _KEYS[table]:
        optional = key in _OPTIONAL or (table == "actions" and key in (REQUEST, SCENARIO))
        if sample.rows and key not in present and not optional:
            others = ", ".join(names.KEYS[key])
            raise InputError(
                f"{sample.example}: column {key!r}", f"only {', '.join(sorted(present))}", f"it, or one named {others}"
            )


class _Draft:
    """Sections of the draft."""

    def __init__(self, samples: dict[str, Sample], columns: dict[str, str], inputs: TableInputs):
        self._samples, self._columns, self._inputs = samples, columns, inputs
        self._profile = functools.cache(lambda table, name: profile(samples[table], name))
        self._features: dict[str, Guess] = {}
        for table, group in _GROUPS.items():
            for name in samples[table].columns:
                if name not in self._features and name not in RESERVED:
                    self._features[name] = self._guess(table, group, name)

    def text(self) -> str:
        lines = ["# Drafted from a sample of the logs. Read every line: a guess is not knowledge.", *self._sizes(), ""]
        lines += [*self._scenarios(), *self._tasks(), "labels: {attribution: 1h, global_window: 1d}"]
        lines += [*self._history(), "split: {valid: 0.1, test: 0.1}  # by time"]
        lines += self._moments()
        if self._columns:
            lines += ["columns:  # LOG COLUMN: ours"]
            lines += [f"  {_scalar(name)}: {key}" for name, key in self._columns.items()]
        lines += self._feature_lines()
        lines += self._signals()
        return "\n".join(lines) + "\n"

    def _guess(self, table: str, group: str, name: str) -> Guess:
        column = self._profile(table, name)
        if name == USER:
            return Guess({"group": "user", "type": "categorical", "min_count": 2}, f"{column.distinct:,} values")
        if name == ITEM:
            keys = {"group": "item", "type": "categorical", "in_history": True}
            return Guess(keys, f"{column.distinct:,} values in {table}")
        if name == QUERY:
            words = max(column.lengths, default=4)
            keys = {"group": "query", "type": "text", "max_length": max(1, min(words, 8))}
            return Guess(keys, f"{column.distinct:,} queries, {column.missing / column.rows:.0%} without one")
        if name.startswith(RESERVED_PREFIXES) or name in _TASKS:
            return Guess(None, "a reserved name: rename it under columns")
        if not name.isidentifier() or not name.isascii() or name.startswith("_"):
            return Guess(None, "a name other than letters, digits and underscores: rename it under columns")
        return guess_feature(group, column, table == "impressions" and self._differs_in_request(name))

    def _differs_in_request(self, name: str) -> bool:
        """Whether the column has several values in one request."""
        first: dict[Any, Any] = {}
        for row in self._samples["impressions"].rows:
            value = row.get(name)
            if str(first.setdefault(row[REQUEST], value)) != str(value):
                return True
        return False

    def _sizes(self) -> list[str]:
        counts = []
        for table, sample in self._samples.items():
            if self._inputs[table]:
                files = len(self._inputs[table])
                whole = "all" if sample.complete else "the first"
                counts.append(
                    f"{table} {whole} {len(sample.rows):,} rows" + (f" of {files:,} files" if files > 1 else "")
                )
        return [f"# Sample: {', '.join(counts)}."]

    def _scenarios(self) -> list[str]:
        found = self._profile("impressions", SCENARIO).values
        where = f"{self._samples['impressions'].example}: column {SCENARIO!r}"
        if len(found) > _MOST_SCENARIOS:
            few = ", ".join(str(value) for value, _ in found.most_common(3))
            raise InputError(where, f"{len(found):,} values ({few}, …)", f"at most {_MOST_SCENARIOS} scenarios")
        _check_names(where, found)
        counts = ", ".join(f"{value} {count:,}" for value, count in found.most_common())
        return [f"scenarios: {_flow([str(value) for value, _ in found.most_common()])}  # {counts} impressions"]

    def _actions(self) -> Counter[str]:
        found = self._profile("actions", ACTION).values
        _check_names(f"{self._samples['actions'].example}: column {ACTION!r}", found)
        return Counter({str(name): n for name, n in found.items()})

    def _task_actions(self) -> list[str]:
        """The action of each task: a click, then a purchase, or a cart where there is none."""
        found = self._actions()
        click = names.first_of(names.CLICKS, {*found}) or found.most_common(1)[0][0]
        rest = {*found} - {click}
        last = names.first_of(names.PURCHASES, rest) or names.first_of(names.CARTS, rest)
        return [click, *([last] if last else [])]

    def _tasks(self) -> list[str]:
        counts = ", ".join(f"{value} {count:,}" for value, count in self._actions().most_common())
        tasks = zip(_TASKS, self._task_actions(), strict=False)
        return [
            f"tasks:  # a chain, each task after the one before it; actions: {counts}",
            *(f"  - {_flow({'name': name, 'action': action})}" for name, action in tasks),
        ]

    def _history(self) -> list[str]:
        keys: dict[str, Any] = {"actions": [name for name, _ in self._actions().most_common()], "max_length": 50}
        if self._has_query():
            keys["queries"] = {"max_length": 10}
        return [f"history: {_flow(keys)}"]

    def _moments(self) -> list[str]:
        values = self._profile("impressions", TIMESTAMP).numbers
        unit = unit_of(values)
        if values and unit is None:
            return ["# timestamp_unit: no unit puts the timestamps between 2000 and 2100, so they are taken for ms"]
        if unit in (None, "ms"):
            return []
        moment = datetime.datetime.fromtimestamp(values[0] / PER_SECOND[unit], datetime.UTC)
        return [f"timestamp_unit: {unit}  # {UNITS[unit]}: {values[0]:.0f} is {moment:%Y-%m-%d %H:%M} UTC"]

    def _has_query(self) -> bool:
        return QUERY in self._features

    def _feature_lines(self) -> list[str]:
        width = max(map(len, self._features)) + 1
        lines = ["features:"]
        for name, guess in self._features.items():
            keys = dict(guess.keys) if guess.keys else None
            if keys and keys["type"] == "text" and name == self._title() and self._has_query():
                keys["shares"] = QUERY
            if keys:
                lines.append(f"  {_scalar(name) + ':':<{width}} {_flow(keys)}  # {_comment(guess.comment)}")
            else:
                lines.append(f"  # {_comment(f'{name}: {guess.comment}')}")
        return lines

    def _keys(self) -> dict[str, dict[str, Any]]:
        return {name: guess.keys for name, guess in self._features.items() if guess.keys}

    def _of_items(self, kind: str) -> list[str]:
        return [name for name, keys in self._keys().items() if keys["group"] == "item" and keys["type"] == kind]

    def _distinct(self, name: str) -> int:
        return self._profile("items", name).distinct

    def _title(self) -> str | None:
        texts = self._of_items("text")
        return next((name for name in texts if names.is_title(name)), texts[0] if texts else None)

    def _signals(self) -> list[str]:
        lines = []
        categories = [name for name, keys in self._keys().items() if keys.get("in_history")]
        finest = sorted((name for name in categories if name != ITEM), key=self._distinct, reverse=True)
        if self._has_query():
            texts = [*([self._title()] if self._title() else []), *self._of_items("categorical_list")]
            texts += finest
            if texts:
                lines.append("match:")
                lines += [f"  query_{name}: {{features: {_flow([QUERY, name])}}}" for name in texts[:_MOST_MATCHES]]
        if categories:
            lines.append(f"history_match: {_flow(categories)}")
        counted = f"actions: {_flow(self._task_actions())}"
        lines.append("counters:  # rates as of each impression; delay: how late an event is known at serving")
        lines.append(f"  item: {{key: [item_id], {counted}, windows: [7d, all], by_scenario: true, delay: 1h}}")
        for name in finest[:1]:
            lines.append(f"  user_{name}: {{key: {_flow([USER, name])}, {counted}, delay: 1h, prior: 10}}")
        if self._has_query():
            lines.append(f"  query_item: {{key: [query, item_id], {counted}, delay: 1h, prior: 10}}")
        return lines


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000).strip()


def _scalar(name: str) -> str:
    """A key as YAML, quoted where it would be another value: `"on"`."""
    return _flow([name])[1:-1]


def _comment(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode().split())


def _check_names(where: str, found: Counter[Any]) -> None:
    """Checks values of which the schema makes names of columns.

    Raises:
      InputError: there is none, or one cannot be such a name.
    """
    if not found:
        raise InputError(where, "no value", "a text in every row")
    for value, _ in found.most_common():
        if not NAME.fullmatch(str(value)):
            expected = "letters, digits and underscores, a letter first, as names of columns are made of it"
            raise InputError(where, repr(value)[:100], expected)
