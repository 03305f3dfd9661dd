"""Experiment runner: tuning, training of missing models, comparison, output."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from usr_tf.errors import InputError
from usr_tf.experiments.grid.comparisons import compare, views_apart
from usr_tf.experiments.grid.grid_page import results_page
from usr_tf.experiments.grid.markdown import results_document
from usr_tf.experiments.grid.plan import all_jobs, check_data, chosen_values, plan, tuning_jobs
from usr_tf.experiments.grid.results import Results, rows
from usr_tf.experiments.grid.spec import Spec
from usr_tf.experiments.grid.worker_processes import Failure, Job, pending, run_jobs
from usr_tf.files import make_folder, replace_text


def run_experiments(
    specs: Mapping[str, Spec],
    out: str | Path,
    workers: int = 2,
    *,
    work: str | Path | None = None,
    command: str = "",
    document: str | Path | None = None,
) -> list[Results]:
    """Runs all specs as one, sharing common jobs and continuing after a killed attempt.

    Leaves in `out`: `results.md`, `report.html`, and of each spec `NAME.json` and `NAME.csv`.

    Args:
      workers: processes of one thread each.
      work: where data and results of jobs lie, for other experiments to find; `OUT/work` when absent.
      command: what the reader can do it all again with.
      document: a file that gets the Markdown too.

    Raises:
      InputError: the training configuration refuses a key or a value, given data are not there, or a directory to write
        into cannot be made.
    """
    out, work = Path(out), Path(work or Path(out) / "work")
    if workers < 1:
        raise InputError("--workers", str(workers), "a whole number from 1")
    written = [out / "results.md", *([Path(document)] if document else [])]
    for folder in (*(path.parent for path in written), work):
        make_folder(folder)
    for spec in specs.values():
        check_data(spec)
    tuning = {name: tuning_jobs(spec) for name, spec in specs.items()}
    failures = _do([job for jobs in tuning.values() for job in jobs], work, workers, "tune")
    lost = {failure.key for failure in failures}
    plans = {name: plan(spec, work) for name, spec in specs.items() if not lost & {job.key for job in tuning[name]}}
    failures += _do([job for cells in plans.values() for job in all_jobs(cells)], work, workers, "train")
    results = []
    for name, spec in specs.items():
        cells = plans.get(name, [])
        keys = _keys((*tuning[name], *all_jobs(cells)))
        own = [failure for failure in failures if failure.key in keys]
        chosen = chosen_values(spec, work) if name in plans else {}
        apart = views_apart(cells, work) if spec.views else []
        results.append(Results(name, spec, compare(spec, cells, work), own, chosen, apart))
    markdown = results_document(command, results)
    for each in results:
        replace_text(out / f"{each.name}.json", each.to_json())
        replace_text(out / f"{each.name}.csv", each.to_csv())
    replace_text(out / "report.html", results_page(command, results))
    for path in written:
        replace_text(path, markdown)
    return results


def _keys(jobs: Sequence[Job]) -> set[str]:
    """Keys of the jobs and of all their dependencies."""
    return {key for job in jobs for key in (job.key, *_keys(job.needs))}


def _do(jobs: Sequence[Job], work: Path, workers: int, what: str) -> list[Failure]:
    count = len(pending(jobs, work))
    if not count:
        return []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=count)

        def ended(job: Job, reason: str | None) -> None:
            bar.advance(task)
            if reason:
                bar.console.print(f"failed: {job.name}: {reason}", markup=False, highlight=False, soft_wrap=True)

        return run_jobs(jobs, work, workers, ended)


def format_table(results: Results) -> Table:
    """Results table for the terminal."""
    columns, body = rows(results)
    table = Table(title=Text(f"{results.spec.title}: against {results.spec.baseline}, {results.size}"))
    names = len(results.axes) + 2
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if number < names or column == "verdict" else "right")
    for row in body:
        table.add_row(*map(Text, row))
    return table
