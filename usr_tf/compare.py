"""Comparison of two runs on the same rows."""

from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from usr_tf.data import Split
from usr_tf.errors import InputError
from usr_tf.evaluate import predict
from usr_tf.files import make_folder, replace_text, strict_json
from usr_tf.metrics import METRICS, compare
from usr_tf.metrics.cells import OVERALL
from usr_tf.run import AnyRun, open_run_data


def compare_runs(
    run_a: AnyRun,
    run_b: AnyRun,
    data: str | None = None,
    split: Split = "test",
    replicates: int = 200,
    progress: bool = False,
) -> dict[str, Any]:
    """Compares two runs on a split, as `metrics.compare`.

    Args:
      data: data directory. Default: each run's own.
      progress: whether to show a progress bar on standard error.

    Raises:
      InputError: different rows, no data, or a model that gives values that are no probabilities.
    """
    opened = [open_run_data(run, data) for run in (run_a, run_b)]
    one, other = (each.schema for each in opened)
    if (one.scenarios, one.task_names) != (other.scenarios, other.task_names):
        raise InputError(run_b.directory, "other scenarios or tasks", f"those of {run_a.directory}")
    a, b = (
        predict(run.load_model(), each, split, progress=progress, place=run.directory)
        for run, each in zip((run_a, run_b), opened, strict=True)
    )
    try:
        return compare(a, b, one, replicates=replicates)
    except ValueError as error:
        raise InputError(opened[1].directory, f"other rows ({error})", f"those of {opened[0].directory}") from error


def write_comparison(document: dict[str, Any], path: str | Path) -> None:
    """Writes the comparison as JSON.

    Raises:
      InputError: the file cannot be written.
    """
    path = Path(path)
    make_folder(path.parent)
    replace_text(path, strict_json(document, indent=2) + "\n")


def format_comparison(document: dict[str, Any]) -> Table:
    """Comparison as a table for the terminal; intervals that exclude 0 are bold."""
    caption = (
        f"{document['level']:.0%} intervals from {document['replicates']} resamples of users, the same for A and B. "
        "DeLong's test takes rows as independent, which those of a user are not."
    )
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, caption=caption, caption_justify="left")
    table.add_column(no_wrap=True)
    for column in ("A", "B", "A − B", "interval", "DeLong p"):
        table.add_column(column, justify="right", no_wrap=True)
    for scenario, tasks in {**document["scenarios"], OVERALL: document[OVERALL]}.items():
        for task, figures in tasks.items():
            table.add_row(f"[bold]{scenario} {task}[/bold]")
            shown = [metric for metric in METRICS.values() if metric.name in figures]
            for metric in shown:
                table.add_row(metric.label, *_cells(figures[metric.name]), end_section=metric is shown[-1])
    return table


def _cells(figure: dict[str, Any]) -> list[str]:
    numbers = [("{:.4f}", figure["a"]), ("{:.4f}", figure["b"]), ("{:+.4f}", figure["difference"])]
    interval, test = figure["interval"], figure.get("delong")
    text = "–" if interval is None else f"{interval[0]:+.4f}…{interval[1]:+.4f}"
    if interval and not interval[0] <= 0 <= interval[1]:
        text = f"[bold]{text}[/bold]"
    return [
        *("–" if value is None else style.format(value) for style, value in numbers),
        text,
        f"{test['p_value']:.2g}" if test else "",
    ]
