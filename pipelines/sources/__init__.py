"""Import of foreign logs into the raw-log contract (DESIGN §2): `usr-tf import`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from pipelines.log_writer import LogWriter
from pipelines.sources.base import REJECTED, Source, find_inputs
from pipelines.sources.ga360 import GA360
from usr_tf.errors import InputError

SOURCES: dict[str, type[Source]] = {source.name: source for source in (GA360,)}


def import_logs(source: str | Source, inputs: Sequence[str], out: str | Path, progress: bool = True) -> dict[str, Any]:
    """Writes the logs of `inputs` as a directory `out`, whole or not at all.

    Beside the tables and `schema.yaml` there are `import.json`, which holds what this returns, and
    `rejected.jsonl`: file, line and reason of each input row that could not be read.

    Args:
      source: A name among `SOURCES`, or a source that has not read yet.
      inputs: Files, patterns or directories.
      out: The directory to make; it may exist if it is empty.
      progress: Shows a progress bar on stderr.

    Returns:
      `{"source", "inputs", "rejected": {reason: rows}, …}`, the rest being the source's own counts.

    Raises:
      InputError: an unknown source, no such file, an unreadable one, nothing to import, or `out` is taken.
    """
    reader = _open_source(source)
    paths = find_inputs(inputs)
    rejected: dict[str, int] = {}
    with LogWriter(out, reader.schema()) as logs, _progress_bar(progress) as bar:
        task = bar.add_task(f"import {reader.name}", total=sum(path.stat().st_size for path in paths))
        with (logs.folder / "rejected.jsonl").open("wb") as rejects:
            for table, row in reader.read(paths, lambda size: bar.advance(task, size)):
                if table == REJECTED:
                    rejected[row["reason"]] = rejected.get(row["reason"], 0) + 1
                    rejects.write(orjson.dumps(row) + b"\n")
                else:
                    logs.write(table, row)
        report = {"source": reader.name, "inputs": [str(path) for path in paths], **reader.report()}
        report["rejected"] = rejected
        (logs.folder / "import.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    return report


def _open_source(source: str | Source) -> Source:
    if isinstance(source, Source):
        return source
    if source not in SOURCES:
        raise InputError("--source", repr(source), f"one of {', '.join(sorted(SOURCES))}")
    return SOURCES[source]()


def _progress_bar(shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not shown)
