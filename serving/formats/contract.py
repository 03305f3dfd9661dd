"""Request contract of an exported version: its inputs, a template document, and its description as a page.

All three come from the version's schema (`assets.extra/schema.yaml`), without TensorFlow.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from serving.formats.request import TensorSpec
from serving.formats.signatures import read_signatures, signature_specs
from serving.formats.tensors import STRING
from usr_tf.columns import COUNTER_PREFIX
from usr_tf.errors import InputError, one_of
from usr_tf.request_contract import RequestInput, Side, request_contract
from usr_tf.schema import ACTION, SCENARIO, Schema, history_column, load_schema

SCHEMA_FILE = "assets.extra/schema.yaml"
_ENTRIES = 2
"""Candidates of a template, and entries of its histories."""
_HOUR_MS = 3_600_000
_SIDES: dict[Side, tuple[str, str]] = {
    "user": ("User", "Once a request."),
    "query": ("Query", "Once a request. A scenario without queries sends them as missing."),
    "context": ("Context", "Once a request."),
    "item": ("Items", "A value for each candidate, in one order: entry *i* of every list is candidate *i*."),
    "candidate": (
        "Candidates",
        "What holds of a candidate in this request alone. A value for each candidate, in the order of the items.",
    ),
    "counters": (
        "Counts",
        "A value for each candidate, in the order of the items, as of the request. The model turns counts into rates.",
    ),
    "past queries": (
        "Past queries",
        "Queries of this user before the request, oldest first and newest last; both lists have the same length *Q*. "
        "A user without any sends empty lists, or neither input.",
    ),
    "history": (
        "History",
        "Actions of this user before the request, in all scenarios, oldest first and newest last. Entry *i* of every "
        "list is action *i*, so all have the same length *L*. A user without any sends empty lists, or none of these "
        "inputs.",
    ),
}
"""Side → its heading, and what holds for all its inputs."""
_INTRODUCTION = """\
# Request contract

<!-- Written by `usr-tf request --describe`; a test compares. -->

What a request document holds, for a model of this schema. The scenarios {scenarios} take the same inputs.

| command | prints |
| --- | --- |
| `usr-tf request --model SERVING --scenario {scenario}` | a template of a document, which `usr-tf score` takes |
| `usr-tf request --model SERVING --scenario {scenario} --describe` | this page, for the model in SERVING |

```json
{template}
```

- `inputs` has every input below, and no other. `scenario` and `request_id` are optional.
- Types are JSON's. `[N]` is a list with a value for each of the *N* candidates, at least one; `[L]` for each action and
  `[Q]` for each query of the user; `[]` is a list of any length. Anything else is a single value.
- Categories are spelt as in the logs. A value that training has not seen counts as unknown.
- Numbers are the logs' own, before any scaling: the model holds the transform.
- Times are ages in milliseconds before this request, so a document needs no clock.
"""
_HEADER = "| input | type | meaning | missing |\n| --- | --- | --- | --- |\n"
_ERRORS = """\
## Errors

`usr-tf score` and `serving.client` check a document before they send it. The error is one line: the file, the input,
what was found, what was expected.

| mistake | error |
| --- | --- |
| an unknown name | `r.json: inputs.prize: found an unknown input, expected one of …; did you mean price?` |
| an input left out | `r.json: inputs.price: found nothing, expected a list of numbers, one for each item` |
| a wrong type | `r.json: inputs.price[1]: found "2", expected a number` |
| lists of unlike length | `r.json: inputs.history_age: found length 1, expected 2, one for each action of history_…` |
| an unknown scenario | `scenario: found 'serch', expected one of …; did you mean search?` |

In Python it is a `usr_tf.errors.InputError`. `Ranker.predict` checks names, shapes and lengths of arrays likewise. A
server that is called without these clients names what is missing, unknown or of another type, but not which list is too
short.
"""


class Contract(NamedTuple):
    """Schema of a version, and whether its requests bring the counts of counters."""

    schema: Schema
    counters: bool

    @property
    def inputs(self) -> dict[str, RequestInput]:
        """Inputs of each scenario's signature."""
        return request_contract(self.schema, self.counters)


def open_contract(model: str | Path) -> Contract:
    """Contract of a version, or of the newest one in a folder of versions.

    Raises:
      InputError: no version there, or one that `usr-tf export` did not write.
    """
    folder = Path(model)
    if not (folder / "saved_model.pb").exists():
        versions = [path for path in folder.glob("*") if path.name.isascii() and path.name.isdigit()]
        if not versions:
            raise InputError(folder, "no version", "a directory of versions, as `usr-tf export` writes it, or one")
        folder = max(versions, key=lambda path: int(path.name))
    schema = load_schema(folder / SCHEMA_FILE)
    try:
        specs = signature_specs(read_signatures(folder))
    except OSError as error:
        raise InputError(folder, f"no readable saved_model.pb ({error.strerror})", "an exported version") from error
    inputs = specs.get(schema.scenarios[0], {})
    return Contract(schema, any(name.startswith(COUNTER_PREFIX) for name in inputs))


def schema_specs(schema: Schema, counters: bool = False) -> dict[str, TensorSpec]:
    """Inputs of a scenario's signature, derived from the schema before export.

    Args:
      counters: whether requests bring the raw counts of counters.
    """
    return {
        name: TensorSpec(
            STRING if each.dtype == "string" else np.dtype(each.dtype),
            tuple(-1 if size is None else size for size in each.shape),
        )
        for name, each in sorted(request_contract(schema, counters).items())
    }


def request_template(contract: Contract, scenario: str, place: Any = "scenario") -> dict[str, Any]:
    """Request document with a placeholder for every input: two candidates, and histories of two entries.

    Raises:
      InputError: the schema has no such scenario.
    """
    schema = contract.schema
    if scenario not in schema.scenarios:
        raise InputError(place, repr(scenario), one_of(scenario, schema.scenarios))
    inputs = {name: _placeholder(each, schema, scenario) for name, each in contract.inputs.items()}
    return {"request_id": "r1", "scenario": scenario, "inputs": inputs}


def template_json(document: Mapping[str, Any]) -> str:
    """Template as JSON text, an input a line."""
    inputs = document["inputs"]
    lines = [f"    {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in inputs.items()]
    head = "".join(f"  {json.dumps(key)}: {json.dumps(document[key])},\n" for key in ("request_id", "scenario"))
    return "{\n" + head + '  "inputs": {\n' + ",\n".join(lines) + "\n  }\n}"


def describe_contract(contract: Contract, scenario: str) -> str:
    """Page of the request contract in Markdown: document, rules, and a table of inputs for each side.

    Raises:
      InputError: as `request_template`.
    """
    template = template_json(request_template(contract, scenario))
    sides: dict[Side, list[RequestInput]] = {}
    for each in contract.inputs.values():
        sides.setdefault(each.side, []).append(each)
    history, queries = contract.schema.history, contract.schema.history.queries
    notes = {
        "history": f"The {history.max_length} newest actions are read.",
        "past queries": f"The {queries.max_length} newest queries are read." if queries else "",
    }
    parts = [_INTRODUCTION.format(template=template, scenario=scenario, scenarios=_code(contract.schema.scenarios))]
    for side, inputs in sides.items():
        title, text = _SIDES[side]
        rows = (f"| `{each.name}` | `{_type(each)}` | {each.meaning} | {each.missing} |\n" for each in inputs)
        note = f" {notes[side]}" if notes.get(side) else ""
        parts.append(f"## {title}\n\n{text}{note}\n\n{_HEADER}{''.join(rows)}")
    return "\n".join([*parts, _ERRORS])


def _placeholder(each: RequestInput, schema: Schema, scenario: str) -> Any:
    """Value of a template: text that names its input, the number 1, and ages of hours, newest last."""
    values: list[Any]
    if each.name == history_column(ACTION):
        values = [schema.history.actions[0], schema.history.actions[-1]]
    elif each.name == history_column(SCENARIO):
        values = [scenario] * _ENTRIES
    elif each.dtype == "int64":
        values = [_HOUR_MS * (_ENTRIES - i) for i in range(_ENTRIES)]
    elif each.dtype == "string":
        values = [f"{each.name} {i + 1}" for i in range(_ENTRIES)]
    else:
        values = [1.0] * _ENTRIES
    match each.shape:
        case (1,):
            return values[0]
        case (None,) | (1, None):
            return values
        case (1, int() as width):
            return [1.0] * width
        case (None, int() as width):
            return [[1.0] * width] * _ENTRIES
    return [[value] for value in values]


def _type(each: RequestInput) -> str:
    """JSON type with its sizes, such as `string [N][]`."""
    size = {"history": "L", "past queries": "Q"}.get(each.side, "")
    sizes = ["N"] if each.shape[0] is None else []
    sizes += [size if inner is None else str(inner) for inner in each.shape[1:2]]
    sizes += [""] * len(each.shape[2:])
    noun = {"string": "string", "float32": "number", "int64": "integer"}[each.dtype]
    return f"{noun} {''.join(f'[{size}]' for size in sizes)}".strip()


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
