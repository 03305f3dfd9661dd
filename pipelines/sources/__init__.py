"""Log sources: import of other systems' logs to a log directory (`usr-tf import`)."""

import importlib
import inspect
import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from pipelines.logs.writer import LogWriter
from pipelines.sources.base import Row, Source
from pipelines.sources.diginetica import Diginetica
from pipelines.sources.ga4 import GA4
from pipelines.sources.ga360 import GA360
from pipelines.sources.inputs import Inputs, find_inputs
from pipelines.sources.kuaisar import KuaiSAR
from pipelines.sources.obd import OpenBandit
from pipelines.sources.request_log import RequestLogSource
from usr_tf.errors import InputError
from usr_tf.schema import parse_schema

__all__ = ["SOURCES", "Inputs", "Row", "Source", "import_logs"]

_ALL: tuple[type[Source], ...] = (GA360, GA4, KuaiSAR, Diginetica, OpenBandit, RequestLogSource)
SOURCES = {source.name: source for source in _ALL}

_KEPT_REJECTS = 10_000


def import_logs(
    source: str | Source,
    inputs: Sequence[str],
    out: str | Path,
    progress: bool = True,
    options: Mapping[str, Any] | None = None,
    warn: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Imports `inputs` to a local log directory `out`, whole or not at all.

    Beside the tables and `schema.yaml` there are `import.json`, which holds what this returns, and
    `rejected.jsonl`: file, line and reason of each input row that could not be read.

    Args:
      source: A name among `SOURCES`, `MODULE:CLASS`, or a source that has not read yet.
      inputs: Files, patterns or directories, local or of any Beam file system, and `bigquery:` tables.
      out: The directory to make; it may exist if it is empty.
      progress: Shows a progress bar on stderr.
      options: Keyword arguments of the source's constructor, where `source` is a name.
      warn: Receives a line for each task of the schema without one action to learn from.

    Returns:
      `{"source", "inputs", "rows": {table: n}, "rejected": {reason: n}, …}`, the rest being the source's own counts.

    Raises:
      InputError: an unknown source or option, no such file, an unreadable one, nothing to import, or `out` is taken.
        Where all is rejected, the message has the most frequent reason and the path of a list of the first 10,000
        rejected rows.
    """
    reader = source if isinstance(source, Source) else _make_source(source, options or {})
    schema = reader.schema()
    tasks = parse_schema(schema, f"schema.yaml of {reader.name}").tasks
    files = find_inputs(inputs)
    actions: Counter[str] = Counter()
    with LogWriter(out, schema) as logs, _progress_bar(progress) as bar:
        reading = bar.add_task(f"import {reader.name}", total=sum(file.size for file in files))
        with (logs.folder / "rejected.jsonl").open("wb") as rejects:

            def reject(path: str, number: int, reason: str) -> None:
                rejects.write(orjson.dumps({"file": path, "line": number, "reason": reason}) + b"\n")

            found = Inputs(files, lambda size: bar.advance(reading, size), reject)
            try:
                for table, row in reader.read(found):
                    actions[row.get("action", "") if table == "actions" else ""] += 1
                    logs.write(table, row)
            except InputError as error:
                if not found.rejected or logs.counts["impressions"]:
                    raise
                rejects.flush()
                raise _AllRejected(error, found, _keep_rejects(logs.folder / "rejected.jsonl")) from error
        bar.update(reading, completed=bar.tasks[reading].total)  # a file that no source asks for stays unread
        report = {
            "source": reader.name,
            "inputs": [file.path for file in files],
            "rows": logs.counts,
            **reader.report(),
            "rejected": dict(found.rejected),
        }
        (logs.folder / "import.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    for task in tasks:
        if not actions[task.action]:
            found_none = f"warning: {out}: found no action {task.action!r}, expected some for the task {task.name!r}"
            warn(f"{found_none}; preprocess refuses a task without a positive. {reader.advice()}".rstrip())
    return report


class _AllRejected(InputError):
    """Nothing to import, with the most frequent reason of the rejected rows."""

    def __init__(self, error: InputError, inputs: Inputs, kept: str):
        reason = inputs.most_frequent_reason
        path, number = inputs.first_rejected[reason]
        rows = f"{inputs.rejected[reason]:,} of {inputs.rejected.total():,} rejected rows"
        ValueError.__init__(self, f"{error}; {rows}: {reason}, such as {path}:{number}; listed in {kept}")


def _keep_rejects(path: Path) -> str:
    """Copy of the first rejected rows that outlives an import without logs, in the directory for temporary files."""
    with (
        path.open("rb") as rejects,
        tempfile.NamedTemporaryFile(prefix="usr-tf-rejected-", suffix=".jsonl", delete=False) as kept,
    ):
        kept.writelines(itertools.islice(rejects, _KEPT_REJECTS))
    return kept.name


def _make_source(name: str, options: Mapping[str, Any]) -> Source:
    kind = _load_source(name) if ":" in name else SOURCES.get(name)
    if kind is None:
        raise InputError("--source", repr(name), f"one of {', '.join(sorted(SOURCES))}, or MODULE:CLASS")
    known = inspect.signature(kind).parameters
    for option in options:
        if option not in known:
            raise InputError("--source", f"{name!r}, which takes no {option}", "a source that does")
    return kind(**options)


def _load_source(name: str) -> type[Source]:
    module, _, attribute = name.partition(":")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError("--source", f"{name!r} ({error})", "MODULE:CLASS that Python can import") from error
    if not (inspect.isclass(kind) and issubclass(kind, Source) and not inspect.isabstract(kind)):
        raise InputError(
            "--source", repr(name), "a class that extends pipelines.sources.Source with all it leaves open"
        )
    return kind


def _progress_bar(shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not shown)
